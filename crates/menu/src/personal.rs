//! Personal mode in words, items and notices.

use serde::{Deserialize, Serialize};
use toktra_protocol::budget::Unit;
use toktra_protocol::personal::control::{Mode, PersonalLedger, WhenExhausted};

use crate::Situation;
use crate::items::{Action, Item};
use crate::notices::{Notice, Urgency};
use crate::words::{self, NAME_LIMIT};

/// What is turned on from the menu for a while, in seconds.
const WHILE_S: u64 = 2 * 60 * 60;

/// The mode in a few words, behind the state's word.
pub fn headline(ledger: &PersonalLedger, situation: &Situation<'_>) -> String {
    match ledger.mode {
        Mode::Stopped => "your allowance is used up, providers are blocked for you".to_owned(),
        Mode::Closing { until } => format!(
            "your allowance is used up, from {} on your use counts for your organisation",
            words::moment(until, situation.now, situation.zone)
        ),
        _ if !ledger.taken_up => "it begins when the extension has taken it up".to_owned(),
        _ => "your employer cannot see what you use".to_owned(),
    }
}

/// Whether the mode is on, as the menu's item has it.
pub fn glance(ledger: &PersonalLedger, situation: &Situation<'_>) -> String {
    let until =
        ledger.until.map(|until| format!(" until {}", words::moment(until, situation.now, situation.zone)));
    match ledger.mode {
        Mode::Off => "off".to_owned(),
        Mode::On => format!("on{}", until.unwrap_or_default()),
        Mode::Stopped => "on, your allowance is used up".to_owned(),
        Mode::Closing { .. } => "ends, your allowance is used up".to_owned(),
        Mode::Exhausted => "off until next month, your allowance is used up".to_owned(),
        Mode::Ended => "ended by your organisation".to_owned(),
    }
}

/// The facts of a ledger, each with its label.
pub fn facts(ledger: &PersonalLedger) -> Vec<(&'static str, String)> {
    let tokens = |count| words::amount(Unit::Tokens, count);
    let mut facts =
        vec![("Left", format!("{} of {} this month", tokens(ledger.left()), tokens(ledger.allowance)))];
    facts.push(("Used here", format!("about {}", tokens(ledger.used.point))));
    if ledger.others > 0 {
        facts.push(("Elsewhere", format!("{} on your other devices", tokens(ledger.others))));
    }
    let then = match ledger.when_exhausted {
        WhenExhausted::Block => "providers are blocked for you",
        WhenExhausted::Corporate => "your use counts for your organisation",
    };
    facts.push(("Used up", then.to_owned()));
    facts.push(("Waiting", format!("{} sealed records", ledger.waiting)));
    if let Some(organisation) = &ledger.elsewhere {
        let organisation = words::clean(organisation, words::NAME_LIMIT);
        facts.push(("Sealed for", format!("{organisation}, with which this device is no longer enrolled")));
    }
    if ledger.dropped > 0 {
        facts.push(("Dropped", format!("{} records", ledger.dropped)));
    }
    facts
}

/// The menu's item.
pub fn item(situation: &Situation<'_>) -> Item {
    let Some(personal) = situation.personal() else {
        return Item::Line("Personal Mode: the agent does not say".to_owned());
    };
    let offered = personal.perks.as_ref();
    match (&personal.ledger, offered) {
        (None, None) => Item::Line("Personal Mode: not offered by your organisation".to_owned()),
        (None, Some(perks)) => Item::Submenu {
            label: "Personal Mode: offered".to_owned(),
            items: [
                format!(
                    "{}: {} a month, for yourself",
                    words::clean(&perks.tier, NAME_LIMIT),
                    words::amount(Unit::Tokens, perks.monthly_tokens)
                ),
                "To opt in: toktra-agent personal opt-in".to_owned(),
            ]
            .map(Item::Line)
            .into(),
        },
        (Some(ledger), offered) => Item::Submenu {
            label: format!("Personal Mode: {}", glance(ledger, situation)),
            items: items(ledger, offered.is_some()),
        },
    }
}

fn items(ledger: &PersonalLedger, is_offered: bool) -> Vec<Item> {
    let command = |label: &str, action| Item::Command { label: label.to_owned(), action };
    let mut items = Vec::new();
    if ledger.mode.is_personal() || ledger.mode == Mode::Exhausted {
        items.push(command("Turn Off", Action::PersonalOff));
    } else if is_offered {
        items.push(command("Turn On", Action::PersonalOn { for_s: None }));
        items.push(command("Turn On for Two Hours", Action::PersonalOn { for_s: Some(WHILE_S) }));
    }
    items.extend(facts(ledger).into_iter().map(|(label, value)| Item::Line(format!("{label}: {value}"))));
    items.push(match ledger.when_exhausted {
        WhenExhausted::Block => command(
            "When Used Up, Count for the Organisation",
            Action::WhenExhausted { choice: WhenExhausted::Corporate },
        ),
        WhenExhausted::Corporate => {
            command("When Used Up, Block", Action::WhenExhausted { choice: WhenExhausted::Block })
        }
    });
    items.push(Item::Line("Your records: toktra-agent personal show".to_owned()));
    items
}

/// What was said of the mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Said {
    /// Off, or never on.
    Off,
    /// On.
    On,
    /// Used up, and blocked.
    Stopped,
    /// Used up, and about to count for the organisation.
    Closing,
    /// Used up, and counting for the organisation.
    Exhausted,
    /// The organisation has ended it.
    Ended,
}

impl Said {
    /// What there is to say of a ledger.
    pub fn of(ledger: &PersonalLedger) -> Self {
        match ledger.mode {
            Mode::Off => Self::Off,
            Mode::On => Self::On,
            Mode::Stopped => Self::Stopped,
            Mode::Closing { .. } => Self::Closing,
            Mode::Exhausted => Self::Exhausted,
            Mode::Ended => Self::Ended,
        }
    }
}

/// What to say when the mode went from what was said last to what it is.
pub fn notice(before: Option<Said>, ledger: &PersonalLedger, situation: &Situation<'_>) -> Option<Notice> {
    let now = Said::of(ledger);
    if before == Some(now) {
        return None;
    }
    let tell =
        |urgency, summary: &str, body: String| Some(Notice { urgency, summary: summary.to_owned(), body });
    let was_on = matches!(before, Some(Said::On | Said::Stopped | Said::Closing));
    match ledger.mode {
        Mode::Stopped => tell(
            Urgency::Critical,
            "Your personal allowance is used up",
            "Connections of your account to every provider are refused until the month ends or an administrator gives a bonus. To use them for your organisation, turn personal mode off."
                .to_owned(),
        ),
        Mode::Closing { until } => tell(
            Urgency::Critical,
            "Your personal allowance is used up",
            format!(
                "From {} on your use counts for your organisation, as you chose; until then connections of your account to providers are refused. To stay out of its ledger, choose When Used Up, Block in the menu, or run: toktra-agent personal when-exhausted block.",
                words::moment(until, situation.now, situation.zone)
            ),
        ),
        Mode::Exhausted => tell(
            Urgency::Normal,
            "Your use counts for your organisation",
            "Your personal allowance is used up until the month ends.".to_owned(),
        ),
        Mode::Ended => tell(
            Urgency::Critical,
            "Your organisation has ended personal mode",
            "Your use counts for your organisation from now on. Your records stay yours: toktra-agent personal show. To delete them: toktra-agent personal opt-out."
                .to_owned(),
        ),
        Mode::Off if was_on => tell(
            Urgency::Normal,
            "Personal mode is off",
            "Your use counts for your organisation.".to_owned(),
        ),
        Mode::On if before == Some(Said::Exhausted) => tell(
            Urgency::Normal,
            "Personal mode is on again",
            "There is an allowance again, and your employer cannot see what you use.".to_owned(),
        ),
        Mode::Off | Mode::On => None,
    }
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;
    use toktra_protocol::local::Status;
    use toktra_protocol::personal::Perks;
    use toktra_protocol::personal::control::PersonalStatus;

    use super::*;
    use crate::state::tests::{NOW, ledger, situation, well};
    use crate::{Announced, MenuModel, State};

    fn status(ledger: Option<PersonalLedger>, perks: Option<Perks>) -> Status {
        Status { personal: Some(PersonalStatus { ledger, perks, ..PersonalStatus::default() }), ..well() }
    }

    fn perks() -> Perks {
        Perks {
            tier: "Standard".into(),
            month: "2026-11".parse().unwrap(),
            month_end: NOW.plus(600_000),
            monthly_tokens: 2_000_000,
            bonus_tokens: 0,
            rollover_tokens: 0,
        }
    }

    fn lines(item: &Item) -> Vec<String> {
        let inner = match item {
            Item::Submenu { items, .. } => items.as_slice(),
            _ => &[],
        };
        let label = |item: &Item| match item {
            Item::Command { label, .. } => format!("[{label}]"),
            other => other.label().to_owned(),
        };
        std::iter::once(label(item)).chain(inner.iter().map(label)).collect()
    }

    fn shown(status: &Status) -> Vec<String> {
        lines(&item(&situation(Some(status), &TimeZone::UTC)))
    }

    #[test]
    fn the_menu_offers_what_can_be_done() {
        assert_eq!(shown(&status(None, None)), ["Personal Mode: not offered by your organisation"]);
        assert_eq!(
            shown(&status(None, Some(perks()))),
            [
                "Personal Mode: offered",
                "Standard: 2.00 M tokens a month, for yourself",
                "To opt in: toktra-agent personal opt-in"
            ]
        );
        let on = PersonalLedger { until: Some(NOW.plus(7200)), ..ledger(Mode::On) };
        assert_eq!(
            shown(&status(Some(on), Some(perks()))),
            [
                "Personal Mode: on until Mon 23 Nov 2026, 20:53 (in 2 h)",
                "[Turn Off]",
                "Left: 1.40 M tokens of 2.00 M tokens this month",
                "Used here: about 500 k tokens",
                "Elsewhere: 100 k tokens on your other devices",
                "Used up: providers are blocked for you",
                "Waiting: 3 sealed records",
                "[When Used Up, Count for the Organisation]",
                "Your records: toktra-agent personal show"
            ]
        );
        let off = shown(&status(Some(ledger(Mode::Off)), Some(perks())));
        assert_eq!(off[..3], ["Personal Mode: off", "[Turn On]", "[Turn On for Two Hours]"]);
        let ended = shown(&status(Some(ledger(Mode::Ended)), None));
        assert!(ended[0].ends_with("ended by your organisation") && !ended.contains(&"[Turn On]".to_owned()));
    }

    #[test]
    fn icon_and_headline_say_where_use_goes() {
        let model = |mode| {
            MenuModel::new(&situation(Some(&status(Some(ledger(mode)), Some(perks()))), &TimeZone::UTC))
        };
        assert_eq!(model(Mode::On).headline, "Personal mode: your employer cannot see what you use");
        for mode in [Mode::Stopped, Mode::Closing { until: NOW.plus(60) }] {
            assert_eq!(model(mode).state, State::Personal);
            assert!(model(mode).headline.contains("your allowance is used up"), "{}", model(mode).headline);
        }
        for mode in [Mode::Off, Mode::Exhausted, Mode::Ended] {
            assert_eq!(model(mode).state, State::Normal, "{mode:?} must not look personal");
        }
    }

    #[test]
    fn what_changes_without_the_user_is_told_once() {
        let mut announced = Announced::default();
        let mut told = |mode| -> Option<String> {
            let status = status(Some(ledger(mode)), Some(perks()));
            let news = announced.news(&situation(Some(&status), &TimeZone::UTC));
            news.into_iter().next().map(|notice| format!("{}: {}", notice.summary, notice.body))
        };
        assert_eq!(told(Mode::Off), None);
        assert_eq!(told(Mode::On), None, "who turned it on knows");
        let closing = told(Mode::Closing { until: NOW.plus(60) }).unwrap();
        assert!(closing.contains("used up: From Mon 23 Nov 2026, 18:54"), "{closing}");
        assert_eq!(told(Mode::Closing { until: NOW.plus(61) }), None);
        assert!(told(Mode::Exhausted).unwrap().starts_with("Your use counts for your organisation"));
        assert!(told(Mode::On).unwrap().starts_with("Personal mode is on again"));
        assert!(told(Mode::Stopped).unwrap().contains("refused until the month ends"));
        assert!(told(Mode::Ended).unwrap().contains("Your use counts for your organisation from now on"));
        assert_eq!(told(Mode::Ended), None);
        assert_eq!(told(Mode::On), None);
        assert!(told(Mode::Off).unwrap().starts_with("Personal mode is off"));
    }
}
