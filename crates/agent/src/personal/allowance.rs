//! Where a user's use goes, and how much is left: a pure function of what the user wants, what the
//! organisation gives, what was used, and the time.
//!
//! | | mode |
//! | --- | --- |
//! | the organisation gives nothing | ended if the user wants it, else off |
//! | the user does not want it, or no longer | off |
//! | the allowance is not used up | on |
//! | used up, and the user would rather stop | stopped |
//! | used up, and the user goes on for the organisation | closing for [`NOTICE_S`], then exhausted until the month ends |
//!
//! Invariants: what counts is what the user is shown, the best guess; nothing is recorded for the organisation
//! because an allowance ended before the user could read that it will be.

use toktra_protocol::personal::control::{Mode, WhenExhausted};
use toktra_protocol::personal::local::{PersonalEstimate, PersonalMode};
use toktra_protocol::personal::{Month, Perks};
use toktra_protocol::{Minute, UnixSeconds};

use super::membership::Membership;

/// How long the user is told before use counts for the organisation, in seconds.
pub const NOTICE_S: u64 = 60;

/// What the organisation gives, and the time: all that personal mode depends on beside the user.
#[derive(Clone, Debug)]
pub struct Offer {
    /// With whom the device is enrolled; none while it is not.
    pub tenant: Option<String>,
    /// Whether a directive is known, so that no perks means that there are none.
    pub known: bool,
    /// What the directive gives.
    pub perks: Option<Perks>,
    /// The device's clock.
    pub now: UnixSeconds,
    /// The backend's.
    pub backend_now: UnixSeconds,
}

impl Offer {
    /// The month, if the organisation gives anything.
    pub fn month(&self) -> Option<Month> {
        self.month_of(self.backend_now.minute())
    }

    /// The month of a minute by the backend's clock.
    pub fn month_of(&self, minute: Minute) -> Option<Month> {
        self.perks.as_ref().map(|perks| month(perks, minute.start()))
    }
}

/// What decides.
#[derive(Clone, Copy, Debug)]
pub struct Situation<'a> {
    /// What the user wants.
    pub membership: &'a Membership,
    /// What the organisation gives.
    pub perks: Option<&'a Perks>,
    /// The month, if the organisation gives anything.
    pub month: Option<Month>,
    /// Tokens of this device in the month.
    pub used: PersonalEstimate,
    /// The device's clock.
    pub now: UnixSeconds,
}

/// The month at a moment, by the backend's clock: that of the directive, or the one after it.
pub fn month(perks: &Perks, at: UnixSeconds) -> Month {
    let next = if at < perks.month_end { None } else { perks.month.plus(1) };
    next.unwrap_or(perks.month)
}

impl Situation<'_> {
    /// Where use goes.
    pub fn mode(&self) -> Mode {
        let Membership { on, until, when_exhausted, ended, .. } = *self.membership;
        if self.perks.is_none() {
            return if on || ended { Mode::Ended } else { Mode::Off };
        }
        if !on || until.is_some_and(|until| until <= self.now) {
            return if ended { Mode::Ended } else { Mode::Off };
        }
        if !self.is_exhausted() {
            return Mode::On;
        }
        match (when_exhausted, self.closes_at()) {
            (WhenExhausted::Block, _) => Mode::Stopped,
            (WhenExhausted::Corporate, Some(at)) if at <= self.now => Mode::Exhausted,
            (WhenExhausted::Corporate, Some(until)) => Mode::Closing { until },
            // Until it is decided from when, and that is on disk.
            (WhenExhausted::Corporate, None) => Mode::Closing { until: self.now.plus(NOTICE_S) },
        }
    }

    /// What the extension is told.
    pub fn told(&self) -> Option<PersonalMode> {
        let mode = self.mode();
        mode.is_personal().then(|| PersonalMode {
            account: self.membership.account.clone(),
            until: self.membership.until,
            stopped: mode != Mode::On,
        })
    }

    /// Tokens that the month has. A bonus and what was carried over are of their month alone.
    pub fn allowance(&self) -> u64 {
        let (Some(perks), Some(month)) = (self.perks, self.month) else { return 0 };
        let bonus = if perks.month == month { perks.bonus_tokens } else { 0 };
        let carried = self.standing().map_or(0, |standing| standing.1);
        perks.monthly_tokens.saturating_add(bonus).saturating_add(carried)
    }

    /// Tokens of the user's other devices.
    pub fn others(&self) -> u64 {
        self.standing().map_or(0, |standing| standing.0)
    }

    /// Whether it is used up. By the best guess, unlike a cap of the organisation's: over a month errors even out,
    /// while the lower bounds of short replies add up to nothing.
    pub fn is_exhausted(&self) -> bool {
        self.used.point.saturating_add(self.others()) >= self.allowance()
    }

    /// From when use counts for the organisation, if that is decided for this month.
    pub fn closes_at(&self) -> Option<UnixSeconds> {
        self.membership.closing.filter(|closing| Some(closing.month) == self.month).map(|closing| closing.at)
    }

    fn standing(&self) -> Option<(u64, u64)> {
        let standing = self.membership.standing.filter(|one| Some(one.month) == self.month)?;
        Some((standing.others, standing.carried))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use toktra_protocol::personal::Member;
    use toktra_protocol::personal::control::Recipient;

    use super::*;
    use crate::personal::membership::{Closing, Standing};

    const NOW: UnixSeconds = UnixSeconds(1_795_460_000);

    fn november() -> Month {
        "2026-11".parse().unwrap()
    }

    fn perks() -> Perks {
        Perks {
            tier: "Standard".into(),
            month: november(),
            month_end: NOW.plus(600_000),
            monthly_tokens: 1000,
            bonus_tokens: 100,
            rollover_tokens: 50,
        }
    }

    fn membership(when_exhausted: WhenExhausted) -> Membership {
        Membership {
            tenant: "acme.example/Acme".into(),
            uid: 1000,
            account: "ada".into(),
            recipient: Recipient::new([1; 32]),
            member: Member::new([2; 32]),
            since: Minute(1),
            on: true,
            until: None,
            when_exhausted,
            ended: false,
            standing: Some(Standing { month: november(), others: 0, carried: 50 }),
            closing: None,
        }
    }

    fn at<'a>(
        membership: &'a Membership,
        perks: Option<&'a Perks>,
        point: u64,
        now: UnixSeconds,
    ) -> Situation<'a> {
        // Of a service whose replies' sizes say little.
        let used = PersonalEstimate { low: 0, point, high: point * 9 };
        Situation { membership, perks, month: perks.map(|perks| month(perks, now)), used, now }
    }

    #[test]
    fn each_row_of_the_table() {
        let (perks, wants) = (perks(), membership(WhenExhausted::Block));
        let mode = |membership: &Membership, perks, point, now| at(membership, perks, point, now).mode();
        assert_eq!(mode(&wants, None, 0, NOW), Mode::Ended);
        let off = Membership { on: false, ..wants.clone() };
        assert_eq!(mode(&off, None, 0, NOW), Mode::Off);
        assert_eq!(mode(&off, Some(&perks), 0, NOW), Mode::Off);
        let until = Membership { until: Some(NOW), ..wants.clone() };
        assert_eq!(mode(&until, Some(&perks), 0, NOW), Mode::Off);
        assert_eq!(mode(&until, Some(&perks), 0, UnixSeconds(NOW.0 - 1)), Mode::On);
        assert_eq!(
            mode(&wants, Some(&perks), 1149, NOW),
            Mode::On,
            "1000, a bonus of 100 and 50 from October"
        );
        assert_eq!(mode(&wants, Some(&perks), 1150, NOW), Mode::Stopped);
        let others = Standing { month: november(), others: 1, carried: 50 };
        let others = Membership { standing: Some(others), ..wants.clone() };
        assert_eq!(mode(&others, Some(&perks), 1149, NOW), Mode::Stopped);
    }

    #[test]
    fn who_goes_on_for_the_organisation_is_told_a_minute_before() {
        let perks = perks();
        let mut wants = membership(WhenExhausted::Corporate);
        let closing = at(&wants, Some(&perks), 1150, NOW);
        assert_eq!(closing.mode(), Mode::Closing { until: NOW.plus(NOTICE_S) });
        assert!(closing.told().is_some_and(|mode| mode.stopped), "nothing is recorded meanwhile");
        wants.closing = Some(Closing { month: november(), at: NOW.plus(60) });
        let mode = |now| at(&wants, Some(&perks), 1150, now).mode();
        assert_eq!(mode(NOW.plus(59)), Mode::Closing { until: NOW.plus(60) });
        assert_eq!(mode(NOW.plus(60)), Mode::Exhausted);
        assert_eq!(at(&wants, Some(&perks), 1150, NOW.plus(60)).told(), None);
        let december = NOW.plus(600_000);
        let next = Situation { used: PersonalEstimate::default(), ..at(&wants, Some(&perks), 0, december) };
        assert_eq!((next.mode(), next.allowance()), (Mode::On, 1000), "neither bonus nor rest of November's");
    }

    proptest! {
        #[test]
        fn nobody_within_the_allowance_is_stopped_and_nobody_who_wants_out_is_recorded_unwarned(
            point in 0..3000_u64, others in 0..3000_u64, carried in 0..100_u64, passed in 0..200_u64,
            corporate: bool, decided: bool,
        ) {
            let choice = if corporate { WhenExhausted::Corporate } else { WhenExhausted::Block };
            let mut wants = membership(choice);
            wants.standing = Some(Standing { month: november(), others, carried });
            wants.closing = decided.then(|| Closing { month: november(), at: NOW.plus(60) });
            let perks = perks();
            let situation = at(&wants, Some(&perks), point, NOW.plus(passed));
            let told = situation.told();
            if point + others < 1100 + carried {
                prop_assert_eq!(told.map(|mode| mode.stopped), Some(false));
            } else if !corporate || !decided || passed < 60 {
                prop_assert_eq!(told.map(|mode| mode.stopped), Some(true));
            } else {
                prop_assert_eq!(told, None);
            }
        }
    }
}
