//! The items from top to bottom, and the lines of the tooltip.

use toktra_protocol::local::{START_AGENT, Status};
use toktra_protocol::personal::control::WhenExhausted;
use toktra_protocol::privacy::Source;
use toktra_protocol::{Budget, UnixSeconds};

use crate::state::{block_in_force, directive_age_s};
use crate::words::{self, MESSAGE_LIMIT, NAME_LIMIT};
use crate::{Situation, personal};

/// Budgets beyond the first that are shown.
const OTHERS_LIMIT: usize = 8;
/// Lines of what is not as it should be that are shown.
const WRONG_LIMIT: usize = 8;

/// What a click asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Ask the user for a reason, then an administrator for more of a budget.
    RequestMore {
        /// The budget's identifier.
        budget: String,
    },
    /// Ask the user for other privacy hours.
    ConfigureSchedule {
        /// Those that are in force, as they are written, between semicolons.
        windows: String,
    },
    /// Turn personal mode on.
    PersonalOn {
        /// For so long, in seconds; for good if it is left out.
        for_s: Option<u64>,
    },
    /// Turn personal mode off.
    PersonalOff,
    /// Choose what is to happen when the personal allowance is used up.
    WhenExhausted {
        /// The choice.
        choice: WhenExhausted,
    },
}

/// One item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// Words that cannot be clicked.
    Line(String),
    /// What a click does.
    Command {
        /// Its words.
        label: String,
        /// What a click asks for.
        action: Action,
    },
    /// Items of its own.
    Submenu {
        /// Its words.
        label: String,
        /// What is in it.
        items: Vec<Item>,
    },
    /// A line between groups.
    Separator,
}

impl Item {
    /// Its words; of a separator, none.
    pub fn label(&self) -> &str {
        match self {
            Item::Line(label) | Item::Command { label, .. } | Item::Submenu { label, .. } => label,
            Item::Separator => "",
        }
    }
}

/// The items from top to bottom.
pub fn items(headline: &str, situation: &Situation<'_>) -> Vec<Item> {
    let mut items = vec![Item::Line(headline.to_owned())];
    items.extend(why(situation).into_iter().map(Item::Line));
    items.push(Item::Separator);
    items.extend(budgets(situation));
    items.push(Item::Separator);
    items.extend(privacy_hours(situation));
    items.push(personal::item(situation));
    items.push(Item::Separator);
    items.push(Item::Submenu { label: "What is recorded".to_owned(), items: recorded(situation) });
    items.push(Item::Submenu { label: "Status".to_owned(), items: status(situation) });
    items.push(Item::Submenu { label: "About".to_owned(), items: about(situation.status) });
    items
}

/// What the headline has no room for.
fn why(situation: &Situation<'_>) -> Vec<String> {
    let Some(status) = situation.status else {
        return vec![format!("Start it: {START_AGENT}")];
    };
    let mut why = Vec::new();
    if let Some(lock) = &status.lock {
        why.push(words::clean(&lock.message, MESSAGE_LIMIT));
    }
    if let Some(block) = block_in_force(status, situation.now) {
        why.push(words::clean(&block.message, MESSAGE_LIMIT));
        if let Some(until) = block.until {
            why.push(format!("Blocked until {}", words::moment(until, situation.now, situation.zone)));
        }
    }
    if status.cap_opened {
        why.push("A hard cap is open: the backend has been out of reach too long".to_owned());
    }
    why.extend(age(status, situation.now));
    why.retain(|words| !words.is_empty());
    why
}

/// How old the figures are, when they are.
fn age(status: &Status, now: UnixSeconds) -> Option<String> {
    let age_s = directive_age_s(status, now).filter(|&age_s| age_s >= 120)?;
    Some(format!("As the backend knew {} ago", words::lasting(age_s)))
}

fn budgets(situation: &Situation<'_>) -> Vec<Item> {
    let Some((first, others)) = situation.budgets().split_first() else {
        return vec![Item::Line("No budget applies to this device".to_owned())];
    };
    let mut items = vec![Item::Line(capital(&words::glance(first)))];
    items.extend(facts(first, situation));
    items.push(request_more(first));
    let more = others.len().saturating_sub(OTHERS_LIMIT);
    items.extend(others.iter().take(OTHERS_LIMIT).map(|budget| {
        let mut items: Vec<Item> = facts(budget, situation).collect();
        items.push(request_more(budget));
        Item::Submenu { label: capital(&words::glance(budget)), items }
    }));
    if more > 0 {
        items.push(Item::Line(format!("{more} more: toktra-agent budget")));
    }
    items
}

fn facts(budget: &Budget, situation: &Situation<'_>) -> impl Iterator<Item = Item> {
    let facts = words::facts(budget, situation.now, situation.zone);
    facts.into_iter().map(|(label, value)| Item::Line(format!("{label}: {value}")))
}

fn request_more(budget: &Budget) -> Item {
    Item::Command {
        label: "Request more…".to_owned(),
        action: Action::RequestMore { budget: budget.id.clone() },
    }
}

fn privacy_hours(situation: &Situation<'_>) -> Vec<Item> {
    let Some(hours) = situation.privacy() else {
        return vec![Item::Line("Privacy Hours: the agent does not say".to_owned())];
    };
    let label = format!("Privacy Hours: {}", words::privacy_hours(hours, situation.now, situation.zone));
    let windows: Vec<Item> =
        hours.windows.iter().map(|window| Item::Line(capital(&words::window(window)))).collect();
    let own = hours.windows.iter().filter(|one| one.source == Source::Own);
    let own: Vec<String> = own.map(|one| one.window.to_string()).collect();
    vec![
        if windows.is_empty() { Item::Line(label) } else { Item::Submenu { label, items: windows } },
        Item::Command {
            label: "Configure Schedule…".to_owned(),
            action: Action::ConfigureSchedule { windows: own.join("; ") },
        },
    ]
}

fn recorded(situation: &Situation<'_>) -> Vec<Item> {
    let mut items: Vec<Item> = [
        "Of connections to language models: the provider's host name,",
        "bytes sent and received, how long, which minute, the program,",
        "your account on this machine, and an estimate of tokens",
        "Never: what you write, what is answered, any other site",
        "Every record, field by field: toktra-agent records --explain",
    ]
    .map(|words| Item::Line(words.to_owned()))
    .into();
    if let Some(ledger) = situation.ledger() {
        items.push(Item::Separator);
        items.push(Item::Line("In personal mode: the same, but sealed for you alone".to_owned()));
        items.push(Item::Line(format!("Sealed, waiting to be sent: {}", events(ledger.waiting))));
    }
    if let Some(status) = situation.status {
        items.push(Item::Separator);
        items.push(Item::Line(format!("Waiting to be sent: {}", events(status.events_waiting))));
    }
    items
}

fn events(count: u64) -> String {
    format!("{count} {}", if count == 1 { "record" } else { "records" })
}

fn status(situation: &Situation<'_>) -> Vec<Item> {
    let Some(status) = situation.status else {
        return vec![Item::Line("The agent does not answer".to_owned())];
    };
    let line = |words: String| Item::Line(words);
    let mut items = Vec::new();
    let named = |name: &Option<String>| name.as_deref().map(|name| words::clean(name, NAME_LIMIT));
    if let Some(organisation) = named(&status.organisation) {
        let department = named(&status.department).map(|name| format!(", {name}")).unwrap_or_default();
        items.push(line(format!("Organisation: {organisation}{department}")));
    }
    let sent = status.last_flush.map(|at| words::distance(at, situation.now));
    items.push(line(format!("Last sent: {}", sent.unwrap_or_else(|| "not since the agent started".into()))));
    if let Some(health) = &status.health {
        items.push(line(format!("Connections blocked: {}", health.flows_blocked)));
    }
    let mut wrong: Vec<Item> =
        status.degraded.iter().map(|words| line(words::clean(words, MESSAGE_LIMIT))).collect();
    if wrong.is_empty() {
        items.push(line("All is well".to_owned()));
    } else {
        wrong.truncate(WRONG_LIMIT);
        items.push(Item::Separator);
        items.append(&mut wrong);
    }
    items.push(line("More: toktra-agent status".to_owned()));
    items
}

fn about(status: Option<&Status>) -> Vec<Item> {
    let version = status.map(|status| format!(" {}", words::clean(&status.agent_version, NAME_LIMIT)));
    let extension = status.filter(|status| status.has_other_extension());
    let extension = extension.and_then(|status| status.extension_version.as_deref());
    let extension = extension.map(|version| format!(", extension {}", words::clean(version, NAME_LIMIT)));
    [
        format!("Toktra agent{}{}", version.unwrap_or_default(), extension.unwrap_or_default()),
        "Counts what is spent on language models; reads no prompt and no reply".to_owned(),
        "Apache License 2.0".to_owned(),
    ]
    .map(Item::Line)
    .into()
}

/// The lines of the tooltip.
pub fn tooltip(situation: &Situation<'_>) -> Vec<String> {
    let mut lines = why(situation);
    if let Some(first) = situation.budgets().first() {
        lines.insert(0, capital(&words::glance(first)));
        let period = words::facts(first, situation.now, situation.zone).pop();
        lines.extend(period.map(|(label, value)| format!("{label}: {value}")));
    }
    lines
}

fn capital(words: &str) -> String {
    let mut characters = words.chars();
    characters.next().map(|first| first.to_uppercase().chain(characters).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;
    use toktra_protocol::Lock;
    use toktra_protocol::privacy::{PrivacyHours, SourcedWindow};

    use super::*;
    use crate::MenuModel;
    use crate::state::tests::{NOW, block, budget, situation, well};

    fn lines(items: &[Item]) -> Vec<String> {
        items
            .iter()
            .flat_map(|item| match item {
                Item::Submenu { label, items } => {
                    let inner = lines(items).into_iter().map(|line| format!("    {line}"));
                    std::iter::once(format!("{label} >")).chain(inner).collect()
                }
                Item::Command { label, .. } => vec![format!("[{label}]")],
                Item::Line(label) => vec![label.clone()],
                Item::Separator => vec!["--".to_owned()],
            })
            .collect()
    }

    fn privacy() -> PrivacyHours {
        let window = |text: &str, source| SourcedWindow { window: text.parse().unwrap(), source };
        PrivacyHours {
            changes_at: Some(NOW.plus(7_200)),
            windows: vec![
                window("mon-fri 18:00-09:00", Source::Administrator),
                window("sat,sun 00:00-24:00", Source::Own),
            ],
            ..PrivacyHours::default()
        }
    }

    #[test]
    fn while_privacy_hours_last_it_says_until_when_and_offers_the_users_own_to_be_changed() {
        let hours = PrivacyHours { active: true, ..privacy() };
        let status = Status { privacy: Some(hours), ..well() };
        let model = MenuModel::new(&situation(Some(&status), &TimeZone::UTC));
        assert_eq!(model.headline, "Privacy hours: nothing is recorded until Mon 23 Nov 2026, 20:53");
        let action = Action::ConfigureSchedule { windows: "sat,sun 00:00-24:00".into() };
        assert!(
            model
                .items
                .iter()
                .any(|item| matches!(item, Item::Command { action: one, .. } if *one == action))
        );
        let never = PrivacyHours { active: true, ..PrivacyHours::default() };
        let status = Status { privacy: Some(never), ..well() };
        assert!(menu(Some(&status)).contains("Privacy Hours: now, and at all hours\n[Configure"));
    }

    fn menu(status: Option<&Status>) -> String {
        lines(&MenuModel::new(&situation(status, &TimeZone::UTC)).items).join("\n")
    }

    #[test]
    fn the_whole_menu_of_an_ordinary_day() {
        let mut other = budget(9_000_000, 900_000);
        other.name = "Acme".into();
        let status = Status {
            budgets: vec![budget(12_300_000, 4_700_000), other],
            privacy: Some(privacy()),
            ..well()
        };
        assert_eq!(
            menu(Some(&status)),
            "Normal: 61 % of Research left
--
61 % of Research left
Spent: 4.70 M tokens (between 4.23 M and 5.17 M)
Left: 7.60 M tokens of 12.3 M tokens
Limit: hard: warns at 75, 90 and 100 %, blocks when it is passed
Period: monthly, ends Mon 30 Nov 2026, 17:33 (in 6 days)
[Request more…]
90 % of Acme left >
    Spent: 900 k tokens (between 810 k and 990 k)
    Left: 8.10 M tokens of 9.00 M tokens
    Limit: hard: warns at 75, 90 and 100 %, blocks when it is passed
    Period: monthly, ends Mon 30 Nov 2026, 17:33 (in 6 days)
    [Request more…]
--
Privacy Hours: not now, from Mon 23 Nov 2026, 20:53 (in 2 h) >
    Mon-fri 18:00-09:00 (set by your administrator)
    Sat,sun 00:00-24:00
[Configure Schedule…]
Personal Mode: the agent does not say
--
What is recorded >
    Of connections to language models: the provider's host name,
    bytes sent and received, how long, which minute, the program,
    your account on this machine, and an estimate of tokens
    Never: what you write, what is answered, any other site
    Every record, field by field: toktra-agent records --explain
    --
    Waiting to be sent: 0 records
Status >
    Organisation: Acme, Research
    Last sent: not since the agent started
    All is well
    More: toktra-agent status
About >
    Toktra agent 0.1.0
    Counts what is spent on language models; reads no prompt and no reply
    Apache License 2.0"
        );
    }

    #[test]
    fn a_lock_and_a_block_say_why_and_until_when() {
        let status = Status {
            lock: Some(Lock { message: "Call\nus.".into() }),
            block: Some(block()),
            directive_issued_at: Some(UnixSeconds(NOW.0 - 7_300)),
            ..well()
        };
        let menu = menu(Some(&status));
        for words in [
            "Locked: ",
            "\nCall us.\n",
            "\nAsk Ms Lee.\n",
            "Blocked until Mon 30 Nov",
            "As the backend knew 2 h ago",
        ] {
            assert!(menu.contains(words), "{words} is not in:\n{menu}");
        }
    }

    #[test]
    fn without_an_agent_it_says_how_to_start_it() {
        assert!(menu(None).starts_with("Offline: the agent is not running\nStart it: systemctl"));
    }

    #[test]
    fn what_is_not_as_it_should_be_is_listed_in_the_agents_own_words() {
        let wrong = [
            "the configuration cannot be used: the preference `ToktraDomain` is not a string",
            "the extension is of version 0.0.9, this agent of 0.1.0",
        ];
        let menu = menu(Some(&Status { degraded: wrong.map(str::to_owned).into(), ..well() }));
        assert!(menu.contains(&format!("\n    --\n    {}\n    {}\n", wrong[0], wrong[1])), "{menu}");
        assert!(!menu.contains("All is well") && menu.starts_with("Degraded"), "{menu}");
    }

    #[test]
    fn hostile_texts_and_many_budgets_stay_within_bounds() {
        let mut hostile = budget(u64::MAX, u64::MAX / 11);
        hostile.name = "\u{202e}\n".repeat(100_000);
        let status = Status {
            organisation: Some("x".repeat(100_000)),
            degraded: vec!["y".repeat(100_000); 1000],
            budgets: vec![hostile; 32],
            ..well()
        };
        let menu = menu(Some(&status));
        assert!(menu.len() < 20_000, "{}", menu.len());
        assert!(menu.contains("23 more: toktra-agent budget"));
    }
}
