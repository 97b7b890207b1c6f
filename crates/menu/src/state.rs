//! What is true, in one word, and the one table that says which word when several are.

use toktra_protocol::local::{IdentityPhase, Status};
use toktra_protocol::{BlockReason, UnixSeconds};

use crate::words;
use crate::{Situation, personal};

/// A directive that is older, in seconds, means that the backend is out of reach: it makes a
/// new one at every poll, and a poll takes less than a minute.
const BACKEND_AWAY_S: u64 = 2 * 60;

/// What is true, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum State {
    /// Use is counted, and no budget has reached a threshold.
    Normal,
    /// A budget has reached a threshold.
    Warning,
    /// Providers are blocked, because a hard cap was passed or an administrator said so.
    Blocked,
    /// Nothing is recorded for now.
    PrivacyHours,
    /// Use goes to the person's own ledger.
    Personal,
    /// An administrator has locked this device.
    Locked,
    /// Something does not work as it should; figures may be wrong.
    Degraded,
    /// The agent does not run, or the backend is out of reach.
    Offline,
}

/// A row of [`PRECEDENCE`]: whether its state holds.
type Row = (fn(&Situation<'_>) -> bool, State);

/// Which state is shown when several are true: the first row that holds.
const PRECEDENCE: &[Row] = &[
    (agent_is_away, State::Offline),
    (is_locked, State::Locked),
    (is_private, State::PrivacyHours),
    (is_personal, State::Personal),
    (is_blocked, State::Blocked),
    (is_near_a_limit, State::Warning),
    (is_not_counting, State::Degraded),
    (backend_is_away, State::Offline),
    (is_imperfect, State::Degraded),
];

impl State {
    /// Every state.
    pub const ALL: [State; 8] = [
        State::Normal,
        State::Warning,
        State::Blocked,
        State::PrivacyHours,
        State::Personal,
        State::Locked,
        State::Degraded,
        State::Offline,
    ];

    /// The state in a situation.
    pub fn of(situation: &Situation<'_>) -> Self {
        PRECEDENCE.iter().find(|(holds, _)| holds(situation)).map_or(State::Normal, |(_, state)| *state)
    }

    /// The word that stands before everything that is said of it.
    pub fn word(self) -> &'static str {
        match self {
            State::Normal => "Normal",
            State::Warning => "Warning",
            State::Blocked => "Blocked",
            State::PrivacyHours => "Privacy hours",
            State::Personal => "Personal mode",
            State::Locked => "Locked",
            State::Degraded => "Degraded",
            State::Offline => "Offline",
        }
    }

    /// Whether a desktop should put it forward.
    pub fn needs_attention(self) -> bool {
        matches!(self, State::Warning | State::Blocked | State::Locked)
    }
}

fn agent_is_away(situation: &Situation<'_>) -> bool {
    situation.status.is_none()
}

fn is_locked(situation: &Situation<'_>) -> bool {
    situation.status.is_some_and(|status| status.lock.is_some())
}

fn is_private(situation: &Situation<'_>) -> bool {
    situation.privacy().is_some_and(|hours| words::is_private(hours, situation.now))
}

fn is_personal(situation: &Situation<'_>) -> bool {
    situation.ledger().is_some_and(|ledger| ledger.mode.is_personal())
}

fn is_blocked(situation: &Situation<'_>) -> bool {
    situation.status.is_some_and(|status| block_in_force(status, situation.now).is_some())
}

fn is_near_a_limit(situation: &Situation<'_>) -> bool {
    situation.budgets().iter().any(|budget| budget.threshold_reached().is_some())
}

fn is_not_counting(situation: &Situation<'_>) -> bool {
    let refused = |status: &Status| {
        matches!(status.identity.phase, IdentityPhase::Revoked | IdentityPhase::Lost | IdentityPhase::Pending)
            || status.identity.refused.is_some()
    };
    situation.status.is_some_and(|status| {
        status.device.is_none() || !status.extension_connected || status.cap_opened || refused(status)
    })
}

fn backend_is_away(situation: &Situation<'_>) -> bool {
    let age_s = situation.status.and_then(|status| directive_age_s(status, situation.now));
    age_s.is_some_and(|age_s| age_s > BACKEND_AWAY_S)
}

fn is_imperfect(situation: &Situation<'_>) -> bool {
    situation.status.is_some_and(|status| !status.degraded.is_empty())
}

/// The block that has not ended by the device's clock.
pub fn block_in_force(status: &Status, now: UnixSeconds) -> Option<&toktra_protocol::Block> {
    status.block.as_ref().filter(|_| status.block_until.is_none_or(|until| now < until))
}

/// How old the directive is, in seconds: the device's clock corrected by what is known of it.
pub fn directive_age_s(status: &Status, now: UnixSeconds) -> Option<u64> {
    let issued = status.directive_issued_at?;
    let corrected = now.0.saturating_add_signed(status.identity.clock_ahead_s.saturating_neg());
    Some(corrected.saturating_sub(issued.0))
}

/// The state in a few words.
pub fn headline(state: State, situation: &Situation<'_>) -> String {
    let word = state.word();
    match said_of(state, situation) {
        Some(more) => format!("{word}: {more}"),
        None => word.to_owned(),
    }
}

fn said_of(state: State, situation: &Situation<'_>) -> Option<String> {
    let status = situation.status;
    let glance = || situation.budgets().first().map(words::glance);
    match state {
        State::Normal => Some(glance().unwrap_or_else(|| "no budget applies".to_owned())),
        State::Warning => glance(),
        State::Blocked => block_in_force(status?, situation.now).map(words::why_blocked),
        State::PrivacyHours => Some(match situation.privacy()?.changes_at {
            Some(until) => format!("nothing is recorded until {}", words::date(until, situation.zone)),
            None => "nothing is recorded".to_owned(),
        }),
        State::Personal => situation.ledger().map(|ledger| personal::headline(ledger, situation)),
        State::Locked => Some("an administrator blocks every provider".to_owned()),
        State::Degraded => status.map(wrong),
        State::Offline if status.is_none() => Some("the agent is not running".to_owned()),
        State::Offline => Some("the backend is out of reach".to_owned()),
    }
}

/// What matters most of what is wrong.
fn wrong(status: &Status) -> String {
    let words = match status.identity.phase {
        _ if status.device.is_none() => "this device is not enrolled",
        IdentityPhase::Revoked => "this device was revoked",
        IdentityPhase::Lost => "the backend does not know this device",
        IdentityPhase::Pending => "this device awaits approval",
        _ if status.has_other_extension() && status.extension_connected => {
            "agent and extension are of different releases"
        }
        _ if status.has_other_extension() => "nothing is counted, the extension is of another release",
        _ if !status.extension_connected => "nothing is counted, the extension is not running",
        _ if status.cap_opened => "a cap is open, the backend has been away too long",
        _ if status.identity.refused.is_some() => "the backend refuses this device",
        _ => "see Status",
    };
    words.to_owned()
}

/// Why, for a headline.
pub fn reason(reason: BlockReason) -> &'static str {
    match reason {
        BlockReason::Budget => "the budget is spent",
        BlockReason::Lock => "an administrator's lock",
        BlockReason::Provider => "an administrator's choice",
    }
}

#[cfg(test)]
pub mod tests {
    use jiff::tz::TimeZone;
    use toktra_protocol::budget::{Period, Scope, Unit};
    use toktra_protocol::local::Identity;
    use toktra_protocol::{Block, Budget, Code, DeviceId, Estimate, Lock};

    use super::*;
    use crate::MenuModel;
    use toktra_protocol::personal::control::{Mode, PersonalLedger, PersonalStatus, WhenExhausted};
    use toktra_protocol::personal::local::PersonalEstimate;
    use toktra_protocol::privacy::PrivacyHours;

    pub const NOW: UnixSeconds = UnixSeconds(1_795_460_000);

    pub fn well() -> Status {
        Status {
            agent_version: "0.1.0".into(),
            device: Some(DeviceId::from_u128(7)),
            organisation: Some("Acme".into()),
            department: Some("Research".into()),
            extension_connected: true,
            directive_version: Some(3),
            directive_issued_at: Some(NOW),
            identity: Identity { phase: IdentityPhase::Enrolled, ..Identity::default() },
            ..Status::default()
        }
    }

    pub fn budget(limit: u64, point: u64) -> Budget {
        Budget {
            id: "b1".into(),
            name: "Research".into(),
            scope: Scope::Department,
            unit: Unit::Tokens,
            period: Period::Monthly,
            period_start: UnixSeconds(NOW.0 - 1_000_000),
            period_end: NOW.plus(600_000),
            limit,
            spent: Estimate { low: point * 9 / 10, point, high: point * 11 / 10 },
            tokens_unpriced: 0,
            thresholds: vec![75, 90, 100],
            hard: true,
            exempt_until: None,
        }
    }

    pub fn block() -> Block {
        Block {
            reason: BlockReason::Budget,
            message: "Ask Ms Lee.".into(),
            providers: vec![],
            until: Some(NOW.plus(600_000)),
            budget: Some("b1".into()),
        }
    }

    pub fn ledger(mode: Mode) -> PersonalLedger {
        PersonalLedger {
            mode,
            until: None,
            taken_up: true,
            when_exhausted: WhenExhausted::Block,
            month: "2026-11".parse().ok(),
            allowance: 2_000_000,
            used: PersonalEstimate { low: 400_000, point: 500_000, high: 900_000 },
            others: 100_000,
            waiting: 3,
            elsewhere: None,
            dropped: 0,
            last_sent: None,
            last_error: None,
        }
    }

    pub fn situation<'a>(status: Option<&'a Status>, zone: &'a TimeZone) -> Situation<'a> {
        Situation { status, now: NOW, zone }
    }

    fn state(status: Status) -> State {
        State::of(&situation(Some(&status), &TimeZone::UTC))
    }

    #[test]
    fn each_row_of_the_table_holds_over_every_row_below_it() {
        let all = Status {
            lock: Some(Lock { message: "Call us.".into() }),
            block: Some(block()),
            budgets: vec![budget(100, 95)],
            extension_connected: false,
            directive_issued_at: Some(UnixSeconds(NOW.0 - 1000)),
            degraded: vec!["something".into()],
            privacy: Some(PrivacyHours {
                active: true,
                changes_at: Some(NOW.plus(60)),
                ..PrivacyHours::default()
            }),
            personal: Some(PersonalStatus { ledger: Some(ledger(Mode::On)), ..PersonalStatus::default() }),
            ..well()
        };
        let zone = TimeZone::UTC;
        let away = situation(None, &zone);
        assert_eq!(State::of(&away), State::Offline);
        let mut situation = situation(Some(&all), &zone);
        assert_eq!(State::of(&situation), State::Locked);
        let unlocked = Status { lock: None, ..all.clone() };
        situation.status = Some(&unlocked);
        assert_eq!(State::of(&situation), State::PrivacyHours);
        let over = PrivacyHours { active: true, changes_at: Some(NOW), ..PrivacyHours::default() };
        let unlocked = Status { privacy: Some(over), ..unlocked.clone() };
        situation.status = Some(&unlocked);
        assert_eq!(State::of(&situation), State::Personal);
        let off = PersonalStatus { ledger: Some(ledger(Mode::Off)), ..PersonalStatus::default() };
        let counted = Status { personal: Some(off), ..unlocked.clone() };
        situation.status = Some(&counted);
        assert_eq!(State::of(&situation), State::Blocked);
        let open = Status { block: None, ..counted.clone() };
        situation.status = Some(&open);
        assert_eq!(State::of(&situation), State::Warning);
        let plenty = Status { budgets: vec![budget(100, 10)], ..open.clone() };
        situation.status = Some(&plenty);
        assert_eq!(State::of(&situation), State::Degraded);
        let counting = Status { extension_connected: true, ..plenty.clone() };
        situation.status = Some(&counting);
        assert_eq!(State::of(&situation), State::Offline);
        let fresh = Status { directive_issued_at: Some(NOW), ..counting.clone() };
        situation.status = Some(&fresh);
        assert_eq!(State::of(&situation), State::Degraded);
        let well = well();
        situation.status = Some(&well);
        assert_eq!(State::of(&situation), State::Normal);
    }

    #[test]
    fn a_block_whose_time_is_over_is_none() {
        let blocked = Status { block: Some(block()), block_until: Some(NOW.plus(1)), ..well() };
        assert_eq!(state(blocked.clone()), State::Blocked);
        assert_eq!(state(Status { block_until: Some(NOW), ..blocked }), State::Normal);
    }

    #[test]
    fn a_wrong_clock_does_not_make_the_backend_look_away() {
        let mut status = Status { directive_issued_at: Some(UnixSeconds(NOW.0 - 9000)), ..well() };
        assert_eq!(state(status.clone()), State::Offline);
        status.identity.clock_ahead_s = 9000;
        assert_eq!(state(status.clone()), State::Normal);
        status.identity.clock_ahead_s = i64::MIN;
        assert_eq!(state(status), State::Offline);
    }

    #[test]
    fn a_device_that_the_backend_refuses_or_an_opened_cap_is_degraded() {
        let mut revoked = well();
        revoked.identity.phase = IdentityPhase::Revoked;
        let mut refused = well();
        refused.identity.refused = Some(Code::UnknownDevice);
        let opened = Status { cap_opened: true, ..well() };
        for status in [revoked, refused, opened, Status { device: None, ..well() }] {
            let model = MenuModel::new(&situation(Some(&status), &TimeZone::UTC));
            assert_eq!(model.state, State::Degraded);
            assert!(!model.headline.contains("see Status"), "{}", model.headline);
        }
    }

    #[test]
    fn every_headline_begins_with_the_states_word() {
        for state in State::ALL {
            let status = well();
            let words = headline(state, &situation(Some(&status), &TimeZone::UTC));
            assert!(words.starts_with(state.word()), "{words}");
        }
    }
}
