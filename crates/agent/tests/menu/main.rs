//! The menu over a real bus: what a desktop reads from icon, tooltip and menu, against what
//! the agent says.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

mod desktop;

use std::time::{SystemTime, UNIX_EPOCH};

use toktra_menu::{Icon, State};
use toktra_protocol::budget::{Period, Scope, Unit};
use toktra_protocol::local::{Ask, Identity, IdentityPhase, Status};
use toktra_protocol::{Block, BlockReason, Budget, DeviceId, Estimate, Lock, UnixSeconds};

use desktop::{Agent, Desktop, Sight, received};

fn now() -> UnixSeconds {
    UnixSeconds(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs())
}

fn well() -> Status {
    Status {
        agent_version: "0.1.0".into(),
        device: Some(DeviceId::from_u128(7)),
        organisation: Some("Acme".into()),
        extension_connected: true,
        directive_version: Some(3),
        directive_issued_at: Some(now()),
        identity: Identity { phase: IdentityPhase::Enrolled, ..Identity::default() },
        budgets: vec![budget(200_000)],
        ..Status::default()
    }
}

fn budget(spent: u64) -> Budget {
    Budget {
        id: "b1".into(),
        name: "R&D_<1>".into(),
        scope: Scope::Department,
        unit: Unit::Tokens,
        period: Period::Monthly,
        period_start: UnixSeconds(now().0 - 1_000_000),
        period_end: now().plus(1_000_000),
        limit: 1_000_000,
        spent: Estimate { low: spent * 9 / 10, point: spent, high: spent * 11 / 10 },
        tokens_unpriced: 0,
        thresholds: vec![75, 90, 100],
        hard: true,
        exempt_until: None,
    }
}

fn block() -> Option<Block> {
    Some(Block {
        reason: BlockReason::Budget,
        message: "Ask <Ms Lee>.".into(),
        providers: vec![],
        until: Some(now().plus(1_000_000)),
        budget: Some("b1".into()),
    })
}

/// Each situation of an agent, and the state that it is.
fn situations() -> Vec<(State, Status)> {
    let spent = |point| vec![budget(point)];
    let lock = Some(Lock { message: "Call 4711".into() });
    vec![
        (State::Normal, well()),
        (State::Warning, Status { budgets: spent(800_000), ..well() }),
        (State::Blocked, Status { budgets: spent(1_200_000), block: block(), ..well() }),
        (State::Locked, Status { budgets: spent(1_200_000), block: block(), lock, ..well() }),
        (State::Degraded, Status { extension_connected: false, ..well() }),
        (State::Degraded, Status { cap_opened: true, ..well() }),
        (State::Offline, Status { directive_issued_at: Some(UnixSeconds(now().0 - 3_600)), ..well() }),
        (State::Normal, well()),
    ]
}

fn left_percent(status: &Status) -> Option<u8> {
    status.budgets.first().map(toktra_menu::words::left_percent)
}

/// The states whose icon this is, by its pixels alone, whatever it says of what is left.
fn states_of_icon(sight: &Sight) -> Vec<State> {
    let shares = || (0..=100).step_by(5).map(Some).chain([None]);
    let draws = |state: State| {
        shares().any(|left| {
            sight
                .icons
                .iter()
                .all(|(size, argb)| Icon::new(state, left).draw(u16::try_from(*size).unwrap()).argb == *argb)
        })
    };
    State::ALL.into_iter().filter(|&state| draws(state)).collect()
}

fn state_of_words(words: &str) -> Option<State> {
    let begins = |state: &State| words == state.word() || words.starts_with(&format!("{}: ", state.word()));
    State::ALL.into_iter().find(begins)
}

fn assert_agrees(sight: &Sight, state: State, left: Option<u8>) {
    assert_eq!(states_of_icon(sight), [state], "the icon");
    let drawn = Icon::new(state, left).pixmaps();
    let seen = drawn.iter().zip(&sight.icons).all(|(pixmap, (_, argb))| pixmap.argb == *argb);
    assert!(seen && drawn.len() == sight.icons.len(), "the icon does not show what is left");
    assert_eq!(state_of_words(&sight.tooltip.0), Some(state), "the tooltip: {:?}", sight.tooltip);
    assert_eq!(state_of_words(&sight.items[0].label), Some(state), "the menu: {:?}", sight.items[0]);
    assert!(sight.title.ends_with(&sight.items[0].label.replace("__", "_")), "the title: {}", sight.title);
    let attention = matches!(state, State::Warning | State::Blocked | State::Locked);
    assert_eq!(sight.status, if attention { "NeedsAttention" } else { "Active" });
    assert!(!sight.tooltip.1.contains(['<', '&']) && !sight.tooltip.0.contains(['<', '&']), "markup");
}

fn shows(state: State) -> impl Fn(&Sight) -> bool {
    move |sight| {
        state_of_words(&sight.tooltip.0) == Some(state)
            && state_of_words(&sight.items[0].label) == Some(state)
    }
}

#[tokio::test]
async fn icon_tooltip_and_menu_say_the_same_as_the_agent_in_every_state() {
    let desktop = Desktop::start().await;
    let (mut watcher, _server) = (desktop.watcher().await, desktop.notifications().await);
    let agent = Agent::start(&desktop.run_directory(), well());
    let _menu = desktop.menu();
    let item = received(&mut watcher.received, "an icon", |items| !items.is_empty()).await;
    for (state, status) in situations() {
        let left = left_percent(&status);
        let more = if status.cap_opened { "a cap is open" } else { "" };
        agent.says.send_replace(status);
        let what = format!("{state:?}");
        let there = |sight: &Sight| shows(state)(sight) && sight.tooltip.0.contains(more);
        assert_agrees(&desktop.until(&item, &what, there).await, state, left);
    }
    agent.stop().await;
    let away = desktop.until(&item, "the agent away", shows(State::Offline)).await;
    assert_agrees(&away, State::Offline, None);
    assert!(away.items.iter().any(|entry| entry.label == "Start it: systemctl start toktra-agent"));
    let _agent = Agent::start(&desktop.run_directory(), well());
    let back = desktop.until(&item, "the agent back", shows(State::Normal)).await;
    assert_agrees(&back, State::Normal, Some(80));
}

#[tokio::test]
async fn the_menu_lists_what_is_left_spent_and_allowed_and_what_else_there_is() {
    let desktop = Desktop::start().await;
    let mut watcher = desktop.watcher().await;
    let _agent = Agent::start(&desktop.run_directory(), well());
    let _menu = desktop.menu();
    let item = received(&mut watcher.received, "an icon", |items| !items.is_empty()).await;
    let sight = desktop.until(&item, "the agent's status", shows(State::Normal)).await;
    let entry = |label: &str| sight.items.iter().find(|entry| entry.label.starts_with(label));
    for (label, enabled) in [
        ("80 % of R&D__<1> left", false),
        ("Spent: 200 k tokens (between 180 k and 220 k)", false),
        ("Left: 800 k tokens of 1.00 M tokens", false),
        ("Limit: hard: warns at 75, 90 and 100 %", false),
        ("Period: monthly, ends ", false),
        ("Request more…", true),
        ("Privacy Hours: ", false),
        ("Personal Mode: the agent does not say", false),
        ("What is recorded", true),
        ("Never: what you write", false),
        ("Status", true),
        ("About", true),
    ] {
        let entry = entry(label).unwrap_or_else(|| panic!("{label} is not in {:#?}", sight.items));
        assert_eq!(entry.enabled, enabled, "{label}");
    }
}

#[tokio::test]
async fn a_click_on_request_more_asks_for_a_reason_and_passes_it_to_the_agent() {
    let desktop = Desktop::start().await;
    let (mut watcher, mut server) = (desktop.watcher().await, desktop.notifications().await);
    let mut agent = Agent::start(&desktop.run_directory(), well());
    let _menu = desktop.menu();
    let item = received(&mut watcher.received, "an icon", |items| !items.is_empty()).await;
    let sight = desktop.until(&item, "the agent's status", shows(State::Normal)).await;
    let more = sight.items.iter().find(|entry| entry.label == "Request more…").unwrap();
    desktop.click(&item, more.id).await;
    let ask = received(&mut agent.asked, "a request", |asks| asks.len() > 1).await;
    let reason = "A deadline on Friday".to_owned();
    assert_eq!(ask, Ask::RequestMore { budget: Some("b1".into()), reason });
    let (_, summary, body) = received(&mut server.received, "an answer", |shown| !shown.is_empty()).await;
    assert_eq!((summary.as_str(), body.as_str()), ("You asked for more", "Your administrators were asked."));
}

#[tokio::test]
async fn each_threshold_block_and_lock_is_told_once_even_if_the_menu_starts_anew() {
    let desktop = Desktop::start().await;
    let (mut watcher, mut server) = (desktop.watcher().await, desktop.notifications().await);
    let agent = Agent::start(&desktop.run_directory(), well());
    let menu = desktop.menu();
    let told = ["R&D_<1>: 75 % is spent", "Language models are blocked", "Language models are locked"];
    for (number, (_, status)) in situations().into_iter().take(4).enumerate() {
        agent.says.send_replace(status);
        if number > 0 {
            let enough = |shown: &[desktop::Shown]| shown.len() == number;
            let (urgency, summary, body) = received(&mut server.received, told[number - 1], enough).await;
            assert!(summary.starts_with(told[number - 1]), "{summary}");
            assert_eq!(urgency, if number == 1 { 1 } else { 2 });
            assert!(!body.contains('<'), "markup in {body}");
            if number == 2 {
                for words in
                    ["every provider", "the budget is spent (R&amp;D_&lt;1&gt;)", "Until ", "budget request"]
                {
                    assert!(body.contains(words), "{words} is not in {body}");
                }
            }
        }
    }
    // What is drawn after a notice is drawn after the notice was remembered.
    let item = watcher.received.borrow()[0].clone();
    agent.says.send_modify(|status| status.events_waiting = 17);
    let waits = |sight: &Sight| sight.items.iter().any(|entry| entry.label.ends_with(": 17 records"));
    desktop.until(&item, "what waits", waits).await;
    drop(menu);
    let _menu = desktop.menu();
    let item = received(&mut watcher.received, "another icon", |items| items.len() == 2).await;
    desktop.until(&item, "the lock", shows(State::Locked)).await;
    agent.says.send_replace(well());
    let lifted = received(&mut server.received, "the end", |shown| shown.len() >= 5).await;
    let summaries: Vec<String> = server.received.borrow().iter().map(|shown| shown.1.clone()).collect();
    assert_eq!(lifted.1, "Language models are open again", "{summaries:?}");
    assert_eq!(summaries[3..], ["The lock was lifted", "Language models are open again"]);
}

#[tokio::test]
async fn it_waits_for_a_desktop_that_draws_icons_and_comes_back_with_it() {
    let desktop = Desktop::start().await;
    let _agent = Agent::start(&desktop.run_directory(), well());
    let mut menu = desktop.menu();
    let mut server = desktop.notifications().await;
    for _ in 0..2 {
        let mut watcher = desktop.watcher().await;
        let item = received(&mut watcher.received, "an icon", |items| !items.is_empty()).await;
        desktop.until(&item, "the agent's status", shows(State::Normal)).await;
        watcher.stop().await;
    }
    assert!(menu.0.try_wait().unwrap().is_none(), "the menu has ended");
    assert!(server.received.borrow_and_update().is_empty());
}

#[tokio::test]
async fn a_session_has_one_menu() {
    let desktop = Desktop::start().await;
    let mut watcher = desktop.watcher().await;
    let _first = desktop.menu();
    received(&mut watcher.received, "an icon", |items| !items.is_empty()).await;
    let mut second = desktop.menu();
    let ended = tokio::task::spawn_blocking(move || second.0.wait().unwrap());
    assert!(ended.await.unwrap().success());
    assert_eq!(watcher.received.borrow().len(), 1);
}
