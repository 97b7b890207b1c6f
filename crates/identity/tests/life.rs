//! A device's life in virtual time, against a backend that keeps the rules: whatever the machine
//! goes through, it ends enrolled if the backend is there long enough.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::time::Duration;

use proptest::prelude::*;
use toktra_identity::life::{Facts, Life, Outcome, Step, Term};
use toktra_protocol::local::IdentityPhase;
use toktra_protocol::{Code, UnixSeconds};

const HOUR: u64 = 60 * 60;
const DAY: u64 = 24 * HOUR;
const START: u64 = 20_000 * DAY;
/// An expired certificate recovers for so long.
const RECOVERY: u64 = 180 * DAY;

/// What happens to a machine.
#[derive(Clone, Debug)]
enum Event {
    Awake { seconds: u64, reachable: bool },
    Sleep { seconds: u64 },
    SetClock { by: i64 },
    Restart,
    LoseAnswers { count: u8 },
    AskRenewal,
}

fn event() -> impl Strategy<Value = Event> {
    let hours_to_months = prop_oneof![HOUR..DAY, DAY..30 * DAY, 30 * DAY..170 * DAY];
    prop_oneof![
        3 => (60..5 * DAY, any::<bool>()).prop_map(|(seconds, reachable)| Event::Awake { seconds, reachable }),
        3 => hours_to_months.prop_map(|seconds| Event::Sleep { seconds }),
        1 => (-800 * DAY as i64..800 * DAY as i64).prop_map(|by| Event::SetClock { by }),
        1 => Just(Event::Restart),
        1 => (1..6u8).prop_map(|count| Event::LoseAnswers { count }),
        1 => Just(Event::AskRenewal),
    ]
}

/// A device and its backend. Times are true ones but for `device_clock`.
struct World {
    now: u64,
    booted: u64,
    clock_off: i64,
    confirmed: bool,
    life: Life,
    term: Option<Term>,
    renew_before: Option<UnixSeconds>,
    answers_to_lose: u8,
    attempts: u64,
    issued: u64,
    random: u64,
}

impl World {
    fn new() -> Self {
        Self {
            now: START,
            booted: START,
            clock_off: 0,
            confirmed: false,
            life: Life::default(),
            term: None,
            renew_before: None,
            answers_to_lose: 0,
            attempts: 0,
            issued: 0,
            random: 1,
        }
    }

    fn random(&mut self) -> u64 {
        self.random =
            self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.random
    }

    fn facts(&self) -> Facts {
        let clock = self.now.saturating_add_signed(self.clock_off);
        Facts {
            // Once confirmed, the time runs on the clock that no one sets.
            now: UnixSeconds(if self.confirmed { self.now } else { clock }),
            confirmed: self.confirmed,
            elapsed: Duration::from_secs(self.now - self.booted),
            term: self.term,
            applied: self.term.is_none(),
            renew_before: self.renew_before,
        }
    }

    fn awake(&mut self, seconds: u64, reachable: bool) {
        let end = self.now + seconds;
        while self.now < end {
            match self.life.next(&self.facts()) {
                Step::Wait(wait) => self.now += wait.as_secs().clamp(1, end - self.now),
                Step::Stopped => panic!("it stopped"),
                step => {
                    self.attempts += 1;
                    let outcome = self.answer(step, reachable);
                    let (elapsed, random) = (Duration::from_secs(self.now - self.booted), self.random());
                    self.life.note(step, outcome, elapsed, random);
                    self.now = (self.now + 1).min(end);
                }
            }
        }
    }

    fn answer(&mut self, step: Step, reachable: bool) -> Outcome {
        if !reachable {
            return Outcome::Failed;
        }
        self.confirmed = true;
        if step == Step::AskTime {
            return Outcome::Done;
        }
        if let Some(term) = self.term {
            let due = term.renews_at(self.renew_before).0;
            assert!(self.now >= due, "renewed {} s early", due - self.now);
            if self.now > term.until.0 + RECOVERY {
                return Outcome::Refused { code: Code::RecoveryClosed, retry_after: None };
            }
        }
        if self.answers_to_lose > 0 {
            self.answers_to_lose -= 1;
            return Outcome::Failed;
        }
        let spread = self.random();
        let from = UnixSeconds(self.now - 300);
        self.term = Some(Term { from, until: UnixSeconds(self.now + 90 * DAY), spread });
        self.issued += 1;
        Outcome::Done
    }

    fn happens(&mut self, event: &Event) {
        match *event {
            Event::Awake { seconds, reachable } => self.awake(seconds, reachable),
            Event::Sleep { seconds } => {
                self.now += seconds;
                self.life.wake();
            }
            Event::SetClock { by } => self.clock_off += by,
            Event::Restart => {
                (self.life, self.booted, self.confirmed) = (Life::default(), self.now, false);
            }
            Event::LoseAnswers { count } => self.answers_to_lose = count,
            // As the backend does: less what it dates certificates back by.
            Event::AskRenewal => self.renew_before = Some(UnixSeconds(self.now - 300)),
        }
    }

    fn is_open(&self) -> bool {
        self.term.is_none_or(|term| self.now <= term.until.0 + RECOVERY)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn it_ends_enrolled_never_early_and_never_gives_up(events in prop::collection::vec(event(), 1..40)) {
        let mut world = World::new();
        for event in &events {
            let (before, began) = (world.attempts, world.now);
            world.happens(event);
            // Bounded: at worst one attempt in seven seconds at first, then one in seven minutes.
            prop_assert!(world.attempts - before <= 24 + (world.now - began) / 400);
        }
        let open = world.is_open();
        world.awake(2 * DAY, true);
        if open {
            prop_assert_eq!(world.life.phase(&world.facts()), IdentityPhase::Enrolled);
            prop_assert!(world.term.unwrap().until.0 > world.now);
        } else {
            prop_assert_eq!(world.life.phase(&world.facts()), IdentityPhase::Lost);
        }
    }

    #[test]
    fn a_sleeper_renews_in_the_minute_it_wakes_though_it_failed_before_and_the_network_is_late(
        offline in HOUR..5 * DAY,
        late in 0..20u64,
        seed in any::<u64>(),
    ) {
        let mut world = World { random: seed, ..World::new() };
        world.awake(HOUR, true);
        world.happens(&Event::Sleep { seconds: 65 * DAY });
        world.awake(offline, false);
        world.happens(&Event::Sleep { seconds: 10 * DAY });
        world.awake(late, false);
        world.awake(60 - late, true);
        prop_assert_eq!((world.life.phase(&world.facts()), world.issued), (IdentityPhase::Enrolled, 2));
    }

    #[test]
    fn a_sleeper_renews_in_the_minute_it_wakes(asleep in 65 * DAY..170 * DAY, clock_off in -900 * DAY as i64..900 * DAY as i64) {
        let mut world = World::new();
        world.awake(HOUR, true);
        world.happens(&Event::SetClock { by: clock_off });
        world.happens(&Event::Sleep { seconds: asleep });
        prop_assert!(world.life.phase(&world.facts()) != IdentityPhase::Enrolled);
        world.awake(60, true);
        prop_assert_eq!((world.life.phase(&world.facts()), world.issued), (IdentityPhase::Enrolled, 2));
    }

    #[test]
    fn a_year_in_peace_takes_six_certificates_or_seven(seed in any::<u64>()) {
        let mut world = World { random: seed, ..World::new() };
        world.awake(365 * DAY, true);
        prop_assert!((6..=7).contains(&world.issued), "{}", world.issued);
    }
}
