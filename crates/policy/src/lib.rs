//! Lock, privacy hours, mode and budget in; a decision out.
//!
//! The order of precedence is `PRECEDENCE`, one table, and nothing else decides. The first row that
//! has something to say decides:
//!
//! | row | when | decision | ends |
//! | --- | --- | --- | --- |
//! | own host | the backend's own names | pass, leave no trace | never |
//! | lock | an administrator locked the user or the device | block | when it is lifted |
//! | privacy hours | a window lasts, or nobody knows (`hours`) | let through, record nothing | with the window |
//! | personal mode | the user turned it on, for the account whose flow it is | meter into the personal ledger, or stop by its own allowance | when it is turned off, or at `until` |
//! | block | a hard cap was passed, or a provider was blocked | block | by itself, at the latest at `block_until` |
//! | meter | always | meter | |
//!
//! So privacy hours lift a cap (nothing is counted, so nothing is spent) but no lock, and personal mode
//! does the same for its account (what is counted is the user's own). Whose a flow's counts are is a
//! question of its own ([`Policy::is_personal`]): a lock that decides first makes them nobody else's.
//!
//! Invariants: no clock is read; a block lapses by itself when its time is over (fail open),
//! a lock holds until it is lifted (fail closed); the backend's own hosts are never blocked
//! and never metered.

pub mod hours;

use hours::Hours;
use toktra_protocol::personal::local::PersonalMode;
use toktra_protocol::{Block, BlockReason, Lock, UnixSeconds};

/// What is in force.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// An administrator's lock.
    pub lock: Option<Lock>,
    /// A block.
    pub block: Option<Block>,
    /// When the block lapses; `None` is never.
    pub block_until: Option<UnixSeconds>,
    /// Hosts that are never blocked and never metered.
    pub own_hosts: Vec<String>,
    /// When nothing is recorded.
    pub hours: Hours,
    /// The account whose flows are its user's own, and until when.
    pub personal: Option<PersonalMode>,
}

/// What is to be decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Situation<'a> {
    /// The wall clock.
    pub now: UnixSeconds,
    /// Whether privacy hours last now, by [`Policy::hours`].
    pub private: bool,
    /// The local account whose flow it is, if it is known.
    pub account: Option<&'a str>,
    /// The server name.
    pub host: &'a str,
    /// The provider's identifier in the catalogue.
    pub provider: &'a str,
}

/// What to do with a connection to a provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Let it through and count it.
    Meter,
    /// Let it through and count it for its user alone.
    MeterPersonal,
    /// Refuse it, or cut it, and record nothing: its user's own allowance is exhausted.
    StopPersonal,
    /// Let it through and leave no trace.
    Pass,
    /// Let it through and record nothing, but know whose it is: it is counted from the moment at which
    /// privacy hours end.
    Unrecorded,
    /// Refuse it, or cut it.
    Block(BlockReason),
}

/// A row of [`PRECEDENCE`]: its decision, if it has one.
type Rule = fn(&Policy, &Situation<'_>) -> Option<Decision>;

/// Who decides first. The last row always does.
const PRECEDENCE: &[Rule] = &[own_host, lock, privacy_hours, personal, block, meter];

impl Policy {
    /// What to do with a connection to a provider.
    pub fn decide(&self, situation: &Situation<'_>) -> Decision {
        PRECEDENCE.iter().find_map(|rule| rule(self, situation)).unwrap_or(Decision::Meter)
    }

    /// Whether anything could be blocked now; `private` as in a [`Situation`].
    pub fn is_blocking(&self, now: UnixSeconds, private: bool) -> bool {
        let stops = || self.personal_in_force(now).is_some_and(|personal| personal.stopped);
        self.lock.is_some() || (!private && (self.block_in_force(now).is_some() || stops()))
    }

    /// Whether personal mode lasts, whosever it is.
    pub fn personal_lasts(&self, now: UnixSeconds) -> bool {
        self.personal_in_force(now).is_some()
    }

    /// Whether what an account's flows carry now is its user's own. The account must be known.
    pub fn is_personal(&self, now: UnixSeconds, account: Option<&str>) -> bool {
        self.personal_in_force(now).is_some_and(|personal| account == Some(&personal.account))
    }

    /// Whether a host is one of the backend's own.
    pub fn is_own(&self, host: &str) -> bool {
        let plain = |host: &str| host.len() - usize::from(host.ends_with('.'));
        let host = &host[..plain(host)];
        self.own_hosts.iter().any(|own| own[..plain(own)].eq_ignore_ascii_case(host))
    }

    fn block_in_force(&self, now: UnixSeconds) -> Option<&Block> {
        self.block.as_ref().filter(|_| self.block_until.is_none_or(|until| now < until))
    }

    fn personal_in_force(&self, now: UnixSeconds) -> Option<&PersonalMode> {
        self.personal.as_ref().filter(|personal| personal.lasts(now))
    }
}

fn own_host(policy: &Policy, situation: &Situation<'_>) -> Option<Decision> {
    policy.is_own(situation.host).then_some(Decision::Pass)
}

fn lock(policy: &Policy, _: &Situation<'_>) -> Option<Decision> {
    policy.lock.as_ref().map(|_| Decision::Block(BlockReason::Lock))
}

fn privacy_hours(_: &Policy, situation: &Situation<'_>) -> Option<Decision> {
    situation.private.then_some(Decision::Unrecorded)
}

fn personal(policy: &Policy, situation: &Situation<'_>) -> Option<Decision> {
    let personal = policy.personal_in_force(situation.now)?;
    let decision = if personal.stopped { Decision::StopPersonal } else { Decision::MeterPersonal };
    (situation.account == Some(&personal.account)).then_some(decision)
}

fn block(policy: &Policy, situation: &Situation<'_>) -> Option<Decision> {
    let block = policy.block_in_force(situation.now)?;
    let concerned = block.providers.is_empty() || block.providers.iter().any(|id| id == situation.provider);
    concerned.then_some(Decision::Block(block.reason))
}

fn meter(_: &Policy, _: &Situation<'_>) -> Option<Decision> {
    Some(Decision::Meter)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const UNTIL: UnixSeconds = UnixSeconds(1000);

    fn policy(lock: bool, providers: Option<&[&str]>) -> Policy {
        Policy {
            lock: lock.then(|| Lock { message: "locked".into() }),
            block: providers.map(|providers| Block {
                reason: BlockReason::Budget,
                message: "over budget".into(),
                providers: providers.iter().map(|id| (*id).to_owned()).collect(),
                until: None,
                budget: None,
            }),
            block_until: Some(UNTIL),
            own_hosts: vec!["ingest.acme.example".into()],
            hours: Hours::Never,
            personal: None,
        }
    }

    fn situation(host: &str) -> Situation<'_> {
        let now = UnixSeconds(0);
        Situation { now, private: false, account: Some("ada"), host, provider: "openai" }
    }

    fn decide(policy: &Policy, now: u64, host: &str) -> Decision {
        policy.decide(&Situation { now: UnixSeconds(now), ..situation(host) })
    }

    #[test]
    fn privacy_hours_lift_a_block_but_no_lock() {
        let decide = |locked, host| {
            let policy = policy(locked, Some(&[]));
            assert_eq!(policy.is_blocking(UnixSeconds(0), true), locked);
            policy.decide(&Situation { private: true, ..situation(host) })
        };
        assert_eq!(decide(false, "api.openai.com"), Decision::Unrecorded);
        assert_eq!(decide(true, "api.openai.com"), Decision::Block(BlockReason::Lock));
        assert_eq!(decide(true, "ingest.acme.example"), Decision::Pass);
    }

    #[test]
    fn personal_mode_lifts_a_block_for_its_account_until_its_end_and_a_lock_or_privacy_hours_for_nobody() {
        const BLOCKED: Decision = Decision::Block(BlockReason::Budget);
        let decide = |locked, stopped, private, account, now| {
            let until = Some(UnixSeconds(500));
            let personal = Some(PersonalMode { account: "ada".into(), until, stopped });
            let policy = Policy { personal, ..policy(locked, Some(&[])) };
            policy.decide(&Situation { now: UnixSeconds(now), private, account, ..situation("claude.ai") })
        };
        for (locked, stopped, private, account, now, decision) in [
            (false, false, false, Some("ada"), 499, Decision::MeterPersonal),
            (false, true, false, Some("ada"), 499, Decision::StopPersonal),
            (false, true, true, Some("ada"), 499, Decision::Unrecorded),
            (true, true, true, Some("ada"), 499, Decision::Block(BlockReason::Lock)),
            (false, false, false, Some("ada"), 500, BLOCKED),
            (false, true, false, Some("Ada"), 499, BLOCKED),
            (false, false, false, None, 499, BLOCKED),
        ] {
            assert_eq!(decide(locked, stopped, private, account, now), decision, "{account:?} {now}");
        }
    }

    #[test]
    fn whose_a_flow_is_does_not_depend_on_what_blocks_it() {
        let personal = Some(PersonalMode { account: "ada".into(), until: None, stopped: true });
        let policy = Policy { personal, ..policy(true, Some(&[])) };
        assert!(policy.is_personal(UnixSeconds(0), Some("ada")) && policy.personal_lasts(UnixSeconds(0)));
        assert!(!policy.is_personal(UnixSeconds(0), None));
        let alone = Policy { lock: None, block: None, ..policy };
        assert!(alone.is_blocking(UnixSeconds(0), false) && !alone.is_blocking(UnixSeconds(0), true));
    }

    #[test]
    fn the_table_holds() {
        let budget = Decision::Block(BlockReason::Budget);
        let lock = Decision::Block(BlockReason::Lock);
        for (locked, providers, now, host, decision) in [
            (false, None, 0, "api.openai.com", Decision::Meter),
            (false, Some(&[][..]), 999, "api.openai.com", budget),
            (false, Some(&["openai"]), 999, "api.openai.com", budget),
            (false, Some(&["anthropic"]), 999, "api.openai.com", Decision::Meter),
            (false, Some(&[]), 1000, "api.openai.com", Decision::Meter),
            (true, Some(&[]), 999, "api.openai.com", lock),
            (true, None, u64::MAX, "api.openai.com", lock),
            (true, Some(&[]), 999, "Ingest.acme.example.", Decision::Pass),
            (false, None, 0, "ingest.acme.example", Decision::Pass),
        ] {
            assert_eq!(
                decide(&policy(locked, providers), now, host),
                decision,
                "{locked} {providers:?} {now} {host}"
            );
        }
    }

    #[test]
    fn a_lapsed_block_is_no_longer_blocking_and_a_lock_always_is() {
        assert!(policy(false, Some(&[])).is_blocking(UnixSeconds(999), false));
        assert!(!policy(false, Some(&[])).is_blocking(UNTIL, false));
        assert!(policy(true, None).is_blocking(UnixSeconds(u64::MAX), false));
        assert!(!Policy::default().is_blocking(UnixSeconds(0), false));
    }

    proptest! {
        #[test]
        fn without_a_lock_or_a_block_nobody_is_blocked(now: u64, until: u64, host in any::<String>()) {
            let policy = Policy { block_until: Some(UnixSeconds(until)), ..policy(false, None) };
            prop_assert!(!matches!(decide(&policy, now, &host), Decision::Block(_)));
            prop_assert!(!policy.is_blocking(UnixSeconds(now), false));
        }

        #[test]
        fn own_hosts_are_never_blocked(locked: bool, blocked: bool, now: u64) {
            let providers: Option<&[&str]> = blocked.then_some(&[]);
            prop_assert_eq!(decide(&policy(locked, providers), now, "ingest.acme.example"), Decision::Pass);
        }

        #[test]
        fn no_host_makes_it_panic(host in any::<String>(), own in any::<String>()) {
            let mut policy = policy(false, None);
            policy.own_hosts = vec![own];
            decide(&policy, 0, &host);
        }
    }
}
