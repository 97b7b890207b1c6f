//! What is in force, and where the budgets stand: the backend's word, and what the device's own
//! events add that the backend does not count yet. Pure: times and counts come in as arguments.
//!
//! | | ends by itself |
//! | --- | --- |
//! | a lock | never |
//! | a block of the directive | at [`Block::until`], or when the directive is stale |
//! | a cap that the device itself sees passed | at the end of the period, or when the directive is stale |
//!
//! A directive is stale when it was received longer ago than it is valid for: by the wall clock, or by a
//! clock that nobody sets, whichever comes first. What staleness opens is said ([`InForce::cap_opened`]).
//!
//! Invariants: the device's own count never exceeds what its events spent, so that nobody within
//! budget is blocked; the device blocks for a hard cap in tokens only, since it knows no prices
//! ([`Standing`]); times of the backend are compared after correction by the clocks' difference.

use std::time::Duration;

use toktra_protocol::budget::Unit;
use toktra_protocol::directive::FF_BUDGET_HARD_CAPS;
use toktra_protocol::{Block, BlockReason, Budget, Directive, Estimate, Lock, UnixSeconds};
use toktra_spool::Spent;

/// Now, by both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// The device's wall clock, which may be set.
    pub wall: UnixSeconds,
    /// Time since the machine started, sleep included. Nobody sets it.
    pub elapsed: Duration,
}

/// The newest directive that was accepted, and how it stands to the device's clocks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// The directive.
    pub directive: Option<Directive>,
    /// By how much the device's clock is ahead of the backend's, in seconds.
    ahead_s: i64,
    /// When it goes stale, by the wall clock.
    fresh_until: Option<UnixSeconds>,
    /// The same by the clock that nobody sets.
    fresh_until_elapsed: Option<Duration>,
}

impl Policy {
    /// A directive received now: the backend made it a moment ago, which tells how the clocks differ.
    pub fn received(directive: Directive, now: Moment) -> Self {
        let ahead_s = now.wall.0.cast_signed().saturating_sub(directive.issued_at.0.cast_signed());
        let fresh_until = Some(now.wall.plus(validity_s(&directive)));
        Self { directive: Some(directive), ahead_s, fresh_until, fresh_until_elapsed: None }.held_since(now)
    }

    /// A directive from the store: its own times hold.
    pub fn stored(directive: Directive) -> Self {
        let fresh_until = Some(directive.valid_until);
        Self { directive: Some(directive), ahead_s: 0, fresh_until, fresh_until_elapsed: None }
    }

    /// The same, valid for no longer than it was made for from now on, whatever happens to the wall clock.
    pub fn held_since(self, now: Moment) -> Self {
        let validity_s = self.directive.as_ref().map_or(0, validity_s);
        let until = now.elapsed.checked_add(Duration::from_secs(validity_s));
        Self { fresh_until_elapsed: until, ..self }
    }

    /// Version of the directive.
    pub fn version(&self) -> Option<u64> {
        self.directive.as_ref().map(|directive| directive.version)
    }

    /// What is in force now, with what the device's own events have spent.
    pub fn in_force(&self, own: &[Spent], now: Moment) -> InForce {
        let Some(directive) = &self.directive else { return InForce::default() };
        let mut budgets: Vec<Standing<'_>> =
            directive.budgets.iter().map(|budget| self.standing(budget, own, now)).collect();
        // Stable: what the backend put first stays first among equals.
        budgets.sort_by_key(Standing::share_left);
        let told = directive.block.as_ref().filter(|block| !self.is_over(block.until, now));
        let told = told.cloned();
        let seen = budgets.iter().find(|standing| self.is_passed(directive, standing, now)).map(cap);
        // Of two blocks, the one of every provider.
        let block = match (told, seen) {
            (Some(told), Some(seen)) if !told.providers.is_empty() => Some(seen),
            (told, seen) => told.or(seen),
        };
        let (block, opened) = if self.is_fresh(now) { (block, None) } else { (None, block) };
        InForce {
            lock: directive.lock.clone(),
            block_until: block.as_ref().and_then(|block| self.end(block)),
            block,
            budgets: budgets.into_iter().map(Standing::into_budget).collect(),
            cap_opened: opened.is_some(),
            changes_at: self.changes_at(directive, now),
        }
    }

    fn is_fresh(&self, now: Moment) -> bool {
        self.fresh_until.is_some_and(|until| now.wall < until)
            && self.fresh_until_elapsed.is_none_or(|until| now.elapsed < until)
    }

    /// A time of the backend's by the device's clock.
    fn here(&self, there: UnixSeconds) -> UnixSeconds {
        UnixSeconds(there.0.saturating_add_signed(self.ahead_s))
    }

    fn is_over(&self, until: Option<UnixSeconds>, now: Moment) -> bool {
        until.is_some_and(|until| self.here(until) <= now.wall)
    }

    /// When a block ends at the latest unless the backend says something, by the device's clock.
    fn end(&self, block: &Block) -> Option<UnixSeconds> {
        block.until.map(|until| self.here(until)).into_iter().chain(self.fresh_until).min()
    }

    fn standing<'a>(&self, budget: &'a Budget, own: &[Spent], now: Moment) -> Standing<'a> {
        if budget.unit != Unit::Tokens || !self.is_current(budget, now) {
            return Standing::Backend(budget);
        }
        let counted = self.directive.as_ref().map_or(0, |directive| directive.counted);
        // Events are booked under the minute that the device gave them, right or wrong.
        let period = budget.period_start..budget.period_end;
        let own = own.iter().filter(|one| one.sequence > counted && period.contains(&one.minute.start()));
        let own = own.fold(Estimate::default(), |sum, one| sum.plus(one.tokens));
        Standing::WithOwn(budget, budget.spent.plus(own))
    }

    fn is_current(&self, budget: &Budget, now: Moment) -> bool {
        (self.here(budget.period_start)..self.here(budget.period_end)).contains(&now.wall)
    }

    /// Whether the device itself sees that a hard cap is passed.
    fn is_passed(&self, directive: &Directive, standing: &Standing<'_>, now: Moment) -> bool {
        let Standing::WithOwn(budget, spent) = standing else { return false };
        let flag = directive.flags.get(FF_BUDGET_HARD_CAPS).copied().unwrap_or_default();
        let exempt = budget.exempt_until.is_some() && !self.is_over(budget.exempt_until, now);
        flag && budget.hard && !exempt && spent.low >= budget.limit
    }

    /// When something ends or begins next without a word of the backend, by the device's clock.
    fn changes_at(&self, directive: &Directive, now: Moment) -> Option<UnixSeconds> {
        let block = directive.block.iter().filter_map(|block| block.until);
        let of_budget = |budget: &Budget| [Some(budget.period_end), budget.exempt_until];
        let budgets = directive.budgets.iter().flat_map(of_budget).flatten();
        let times = block.chain(budgets).map(|there| self.here(there)).chain(self.fresh_until);
        times.filter(|&at| at > now.wall).min()
    }
}

/// What is in force at a moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InForce {
    /// A lock.
    pub lock: Option<Lock>,
    /// A block.
    pub block: Option<Block>,
    /// When the block ends by itself, by the device's clock.
    pub block_until: Option<UnixSeconds>,
    /// The budgets that apply, least left first.
    pub budgets: Vec<Budget>,
    /// There would be a block, were the directive not stale.
    pub cap_opened: bool,
    /// When this may be otherwise by itself, by the device's clock.
    pub changes_at: Option<UnixSeconds>,
}

/// Where a budget stands, as far as the device can know.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Standing<'a> {
    /// In tokens: the backend's count and the device's own beyond it.
    WithOwn(&'a Budget, Estimate),
    /// In money, for which the device has no prices, or of a period that is not now: as the backend has it.
    Backend(&'a Budget),
}

impl Standing<'_> {
    fn into_budget(self) -> Budget {
        match self {
            Self::WithOwn(budget, spent) => Budget { spent, ..budget.clone() },
            Self::Backend(budget) => budget.clone(),
        }
    }

    /// Of the limit, in millionths.
    fn share_left(&self) -> u128 {
        let (budget, spent) = match self {
            Self::WithOwn(budget, spent) => (budget, spent.point),
            Self::Backend(budget) => (budget, budget.spent.point),
        };
        let left = u128::from(budget.limit.saturating_sub(spent));
        left * 1_000_000 / u128::from(budget.limit.max(1))
    }
}

/// The block for a cap that the device sees passed.
fn cap(standing: &Standing<'_>) -> Block {
    let (Standing::WithOwn(budget, _) | Standing::Backend(budget)) = standing;
    Block {
        reason: BlockReason::Budget,
        message: format!("The budget \u{201c}{}\u{201d} is spent.", budget.name),
        providers: Vec::new(),
        until: Some(budget.period_end),
        budget: Some(budget.id.clone()),
    }
}

fn validity_s(directive: &Directive) -> u64 {
    directive.valid_until.0.saturating_sub(directive.issued_at.0)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use toktra_protocol::budget::{Period, Scope};
    use toktra_protocol::{DeviceId, Minute};

    use super::*;

    const START: u64 = 1_700_000_040;
    const END: u64 = START + 86_400;
    const ISSUED: u64 = START + 3_600;
    const VALID_S: u64 = 900;

    fn exactly(tokens: u64) -> Estimate {
        Estimate { low: tokens, point: tokens, high: tokens }
    }

    fn budget(limit: u64, spent: u64) -> Budget {
        Budget {
            id: "b1".into(),
            name: "Research, daily".into(),
            scope: Scope::Department,
            unit: Unit::Tokens,
            period: Period::Daily,
            period_start: UnixSeconds(START),
            period_end: UnixSeconds(END),
            limit,
            spent: exactly(spent),
            tokens_unpriced: 0,
            thresholds: vec![75, 90, 100],
            hard: true,
            exempt_until: None,
        }
    }

    fn directive(budgets: Vec<Budget>) -> Directive {
        Directive {
            version: 7,
            device: DeviceId::from_u128(7),
            issued_at: UnixSeconds(ISSUED),
            valid_until: UnixSeconds(ISSUED + VALID_S),
            lock: None,
            block: None,
            flags: BTreeMap::from([(FF_BUDGET_HARD_CAPS.to_owned(), true)]),
            budgets,
            counted: 10,
            renew_before: None,
            perks: None,
        }
    }

    fn told(until: Option<u64>) -> Block {
        Block {
            reason: BlockReason::Budget,
            message: "The budget is spent.".into(),
            providers: Vec::new(),
            until: until.map(UnixSeconds),
            budget: Some("b1".into()),
        }
    }

    fn spent(sequence: u64, tokens: u64) -> Spent {
        Spent { sequence, minute: UnixSeconds(ISSUED).minute(), tokens: exactly(tokens) }
    }

    /// A device whose clock is right, or ahead; `after` seconds after it received the directive.
    struct World {
        policy: Policy,
        received: Moment,
    }

    impl World {
        fn new(directive: Directive, ahead_s: i64) -> Self {
            let wall = UnixSeconds(ISSUED.saturating_add_signed(ahead_s));
            let received = Moment { wall, elapsed: Duration::from_secs(99) };
            Self { policy: Policy::received(directive, received), received }
        }

        fn after(&self, seconds: u64) -> Moment {
            Moment {
                wall: self.received.wall.plus(seconds),
                elapsed: self.received.elapsed + Duration::from_secs(seconds),
            }
        }

        fn at(&self, seconds: u64, own: &[Spent]) -> InForce {
            self.policy.in_force(own, self.after(seconds))
        }
    }

    #[test]
    fn a_cap_is_passed_by_what_the_backend_counts_and_the_devices_own_beyond_it() {
        let world = World::new(directive(vec![budget(1000, 900)]), 0);
        assert_eq!(world.at(5, &[]).block, None);
        assert_eq!(world.at(5, &[spent(11, 99)]).block, None);
        let seen = world.at(5, &[spent(11, 60), spent(12, 40)]);
        assert_eq!(seen.block.as_ref().unwrap().budget.as_deref(), Some("b1"));
        assert_eq!(seen.block_until, Some(UnixSeconds(ISSUED + VALID_S)));
        assert_eq!(seen.budgets[0].spent, exactly(1000));
        // What the backend counts already is not counted again.
        assert_eq!(world.at(5, &[spent(9, 60), spent(10, 40)]).block, None);
    }

    #[test]
    fn usage_of_another_period_is_not_added() {
        let world = World::new(directive(vec![budget(1000, 900)]), 0);
        let yesterday = Spent { minute: Minute(START / 60 - 1), ..spent(11, 500) };
        let tomorrow = Spent { minute: UnixSeconds(END).minute(), ..spent(12, 500) };
        assert_eq!(world.at(5, &[yesterday, tomorrow]).budgets[0].spent, exactly(900));
    }

    #[test]
    fn without_the_flag_and_in_money_and_while_exempt_the_device_blocks_nothing_itself() {
        let passed = [spent(11, 5000)];
        let soft = Budget { hard: false, ..budget(1000, 0) };
        let money = Budget { unit: Unit::Micros, ..budget(1000, 0) };
        let exempt = Budget { exempt_until: Some(UnixSeconds(ISSUED + 60)), ..budget(1000, 0) };
        for budget in [soft, money] {
            assert_eq!(World::new(directive(vec![budget]), 0).at(5, &passed).block, None);
        }
        let off = Directive { flags: BTreeMap::new(), ..directive(vec![budget(1000, 0)]) };
        assert_eq!(World::new(off, 0).at(5, &passed).block, None);
        let exempted = World::new(directive(vec![exempt]), 0);
        assert_eq!(exempted.at(59, &passed).block, None);
        assert_eq!(exempted.at(5, &passed).changes_at, Some(UnixSeconds(ISSUED + 60)));
        assert!(exempted.at(60, &passed).block.is_some());
    }

    #[test]
    fn a_block_ends_with_its_period_by_the_backends_clock() {
        for ahead_s in [0, 3_600, -3_600] {
            let block = Some(told(Some(ISSUED + 30)));
            let world = World::new(Directive { block, ..directive(Vec::new()) }, ahead_s);
            let until = UnixSeconds((ISSUED + 30).saturating_add_signed(ahead_s));
            assert_eq!(world.at(29, &[]).block_until, Some(until));
            let after = world.at(30, &[]);
            assert_eq!((after.block, after.cap_opened), (None, false), "{ahead_s}");
        }
    }

    #[test]
    fn staleness_opens_a_cap_and_says_so_and_never_a_lock() {
        let lock = Some(Lock { message: "Stop".into() });
        let stale = Directive { block: Some(told(None)), lock, ..directive(Vec::new()) };
        let world = World::new(stale, 0);
        assert!(world.at(VALID_S - 1, &[]).block.is_some());
        let opened = world.at(VALID_S, &[]);
        assert_eq!((opened.block, opened.block_until, opened.cap_opened), (None, None, true));
        assert!(opened.lock.is_some());
        // Its own cap too; and whoever is within budget hears nothing of it.
        let world = World::new(directive(vec![budget(1000, 900)]), 0);
        assert!(world.at(VALID_S, &[spent(11, 100)]).cap_opened);
        assert!(!world.at(VALID_S, &[spent(11, 99)]).cap_opened);
    }

    #[test]
    fn a_clock_that_is_set_back_does_not_keep_a_directive_fresh() {
        let world = World::new(Directive { block: Some(told(None)), ..directive(Vec::new()) }, 0);
        let set_back = Moment { wall: UnixSeconds(START), ..world.after(VALID_S) };
        assert!(world.policy.in_force(&[], set_back).cap_opened);
        let stored = Policy::stored(Directive { block: Some(told(None)), ..directive(Vec::new()) });
        let began = Moment { wall: UnixSeconds(0), elapsed: Duration::ZERO };
        let stored = stored.held_since(began);
        assert!(stored.in_force(&[], began).block.is_some());
        let later = Moment { elapsed: began.elapsed + Duration::from_secs(VALID_S), ..began };
        assert!(stored.in_force(&[], later).cap_opened);
    }

    #[test]
    fn of_two_blocks_the_wider_holds_and_the_least_left_comes_first() {
        let narrow = Block { providers: vec!["openai".into()], ..told(None) };
        let budgets = vec![budget(1000, 500), Budget { id: "b2".into(), ..budget(100, 90) }];
        let world = World::new(Directive { block: Some(narrow), ..directive(budgets) }, 0);
        let within = world.at(1, &[]);
        assert_eq!(within.block.unwrap().providers.len(), 1);
        assert_eq!(within.budgets.iter().map(|one| one.id.as_str()).collect::<Vec<_>>(), ["b2", "b1"]);
        assert_eq!(world.at(1, &[spent(11, 10)]).block.unwrap().budget.as_deref(), Some("b2"));
    }

    fn usage() -> impl Strategy<Value = (u64, Estimate)> {
        let minute = START / 60 - 600..END / 60 + 600;
        (minute, 0u64..1000, 0u64..1000).prop_map(|(minute, low, more)| {
            (minute, Estimate { low, point: low + more, high: low + 2 * more })
        })
    }

    proptest! {
        /// Any history of a device, of which the backend has counted a part and the spool still knows a part;
        /// any clock, any delay.
        #[test]
        fn who_is_within_budget_is_never_blocked(
            events in prop::collection::vec(usage(), 0..60),
            counted in 0usize..60,
            remembered in 0usize..60,
            others in 0u64..10_000,
            slack in 1u64..5_000,
            ahead_s in -100_000i64..100_000,
            after_s in 0u64..200_000,
            wall_moved in -1_000_000i64..1_000_000,
            from_store: bool,
        ) {
            let in_period = |minute: u64| (START..END).contains(&(minute * 60));
            let low = |events: &[(u64, Estimate)]| -> u64 {
                events.iter().filter(|(minute, _)| in_period(*minute)).map(|(_, tokens)| tokens.low).sum()
            };
            let counted = counted.min(events.len());
            let booked = others + low(&events[..counted]);
            let mut budget = budget(others + low(&events) + slack, 0);
            budget.spent = Estimate { low: booked, point: booked * 9, high: booked * 99 };
            let directive = Directive { counted: counted as u64, ..directive(vec![budget]) };
            let own: Vec<Spent> = events.iter().enumerate().skip(remembered).map(|(place, &(minute, tokens))| {
                Spent { sequence: place as u64 + 1, minute: Minute(minute), tokens }
            }).collect();
            let mut world = World::new(directive.clone(), ahead_s);
            if from_store {
                world.policy = Policy::stored(directive).held_since(world.received);
            }
            let mut moment = world.after(after_s);
            moment.wall = UnixSeconds(moment.wall.0.saturating_add_signed(wall_moved));
            let in_force = world.policy.in_force(&own, moment);
            prop_assert_eq!(in_force.block, None);
            prop_assert!(!in_force.cap_opened);
        }

        #[test]
        fn a_lock_holds_at_any_time(wall: u64, after_s in 0u64..1 << 40, ahead_s in -100_000i64..100_000) {
            let lock = Some(Lock { message: "Stop".into() });
            let world = World::new(Directive { lock: lock.clone(), ..directive(Vec::new()) }, ahead_s);
            let moment = Moment { wall: UnixSeconds(wall), ..world.after(after_s) };
            prop_assert_eq!(world.policy.in_force(&[], moment).lock, lock);
        }

        #[test]
        fn no_numbers_make_it_panic(limit: u64, low: u64, until: u64, issued: u64, valid: u64, wall: u64) {
            let mut budget = budget(limit, low);
            budget.period_end = UnixSeconds(until);
            let mut directive = Directive { block: Some(told(Some(until))), ..directive(vec![budget]) };
            (directive.issued_at, directive.valid_until) = (UnixSeconds(issued), UnixSeconds(valid));
            let now = Moment { wall: UnixSeconds(wall), elapsed: Duration::ZERO };
            Policy::received(directive.clone(), now).in_force(&[spent(11, u64::MAX), spent(12, 1)], now);
            Policy::stored(directive).held_since(now).in_force(&[], now);
        }
    }
}
