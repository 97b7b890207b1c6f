//! Personal mode: the agent as a real process, its user's commands, and a vault that fails as told.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod support;

use std::process::Output;

use support::{Backend, Books, Device, Extension, Inside, Next, TOKEN};
use toktra_protocol::personal::Perks;
use toktra_protocol::personal::control::{Mode, PersonalLedger};
use toktra_protocol::{Code, UnixSeconds};

fn perks(monthly_tokens: u64) -> Perks {
    let month_end = toktra_agent::clock::Clock::System.now().plus(5 * 24 * 60 * 60);
    let month = "2026-11".parse().unwrap();
    Perks { tier: "Standard".into(), month, month_end, monthly_tokens, bonus_tokens: 0, rollover_tokens: 0 }
}

fn offer(backend: &Backend, perks: Option<Perks>) {
    backend.change(|books| {
        books.perks = perks;
        books.directive += 1;
    });
}

/// A device at which the test's user sits, with an extension.
fn running(backend: &Backend) -> (Device, Extension) {
    backend.change(|books| books.token_used = false);
    let mut device = Device::enrolled(backend);
    device.seat(rustix::process::geteuid().as_raw());
    device.start();
    let mut extension = Extension::new();
    extension.connect(&device.socket());
    offered(&device);
    (device, extension)
}

fn offered(device: &Device) {
    device.until("the organisation offers it", |status| {
        status.personal.as_ref().is_some_and(|personal| personal.perks.is_some())
    });
}

fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{}{}", text(&output.stdout), text(&output.stderr))
}

fn done(output: Output) -> String {
    assert!(output.status.success(), "{}", said(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// Not done, with this exit status; what was said.
fn refused(output: &Output, status: i32) -> String {
    assert_eq!(output.status.code(), Some(status), "{}", said(output));
    said(output)
}

fn opt_in(device: &Device) {
    done(device.command(&["personal", "opt-in", "--yes"]));
}

/// Gives a command while the extension listens; it takes up what it is told.
fn with(device: &Device, extension: &mut Extension, arguments: &[&str]) -> Output {
    std::thread::scope(|scope| {
        let command = scope.spawn(|| device.command(arguments));
        while !command.is_finished() {
            extension.listen();
        }
        command.join().unwrap()
    })
}

fn turn_on(device: &Device, extension: &mut Extension) {
    done(with(device, extension, &["personal", "on"]));
    assert!(extension.mode.as_ref().is_some_and(|mode| !mode.stopped && mode.until.is_none()));
}

fn ledger(device: &Device) -> PersonalLedger {
    device.status().personal.unwrap().ledger.unwrap()
}

/// The hosts of the user's own records.
fn shown(device: &Device) -> Vec<String> {
    let json = done(device.command(&["personal", "show", "--json"]));
    let host = |line: &str| {
        let entry: serde_json::Value = serde_json::from_str(line).unwrap();
        entry["usage"]["host"].as_str().unwrap().to_owned()
    };
    let mut hosts: Vec<String> = json.lines().map(host).collect();
    hosts.sort_by_key(|host| (host.len(), host.clone()));
    hosts
}

fn hosts(count: u64) -> Vec<String> {
    (1..=count).map(|number| format!("personal-{number}.openai.com")).collect()
}

#[test]
fn what_is_recorded_in_personal_mode_is_the_users_alone() {
    let backend = Backend::start();
    offer(&backend, Some(perks(1_000_000)));
    let (device, mut extension) = running(&backend);
    opt_in(&device);
    assert!(extension.mode.is_none(), "opting in turns nothing on");
    turn_on(&device, &mut extension);
    extension.make(3);
    extension.spend_personally(20, 100);
    assert!(extension.send() && extension.settle());
    backend.until("the vault has them", |books| books.vault.len() == 20 && books.stored.len() == 3);
    assert_eq!(shown(&device), hosts(20));
    let text = done(device.command(&["personal", "show"]));
    assert!(
        text.lines().count() == 20 && text.contains("personal-7.openai.com  about 50 tokens out"),
        "{text}"
    );
    device.until("the total is told", |_| backend.books().vault.totals.values().any(|&total| total == 2000));
    let found = ledger(&device);
    assert_eq!((found.mode, found.used.point, found.left()), (Mode::On, 2000, 998_000));
    // Neither on the device's disk nor at the backend is anything in clear.
    let tree =
        std::process::Command::new("grep").arg("-r").arg("personal-").arg(device.path("state")).output();
    assert_eq!(tree.unwrap().status.code(), Some(1), "something is there in clear");
    for record in backend.books().vault.records.values().flatten() {
        assert!(!record.bytes().windows(9).any(|bytes| bytes == b"personal-"));
    }
    done(with(&device, &mut extension, &["personal", "off"]));
    assert!(extension.mode.is_none());
    assert_eq!(ledger(&device).mode, Mode::Off);
}

#[test]
fn only_who_sits_at_the_machine_may_opt_in_and_only_where_it_is_offered() {
    let backend = Backend::start();
    offer(&backend, None);
    let mut device = Device::enrolled(&backend);
    device.seat(4711);
    device.start();
    device.until("it is enrolled", |status| status.directive_version.is_some());
    assert!(refused(&device.command(&["personal", "opt-in", "--yes"]), 8).contains("does not offer"));
    let json: serde_json::Value =
        serde_json::from_slice(&device.command(&["personal", "--json"]).stdout).unwrap();
    assert_eq!(json["available"], false);
    offer(&backend, Some(perks(1000)));
    offered(&device);
    let words = refused(&device.command(&["personal", "opt-in", "--yes"]), 1);
    assert!(words.contains("only who sits at this machine"), "{words}");
    assert!(!device.path("home/.config/toktra/personal.key").exists(), "no key is left of it");
    assert!(refused(&device.command(&["personal", "on"]), 1).contains("personal opt-in"));
    assert!(refused(&device.command(&["personal", "show"]), 1).contains("no key"));
    device.seat(rustix::process::geteuid().as_raw());
    assert!(refused(&device.command(&["personal", "opt-in"]), 1).contains("--yes"), "nobody to ask is no");
    opt_in(&device);
    opt_in(&device);
    let status = device.status();
    assert!(status.degraded.iter().all(|words| words.contains("extension")), "{:?}", status.degraded);
}

#[test]
fn two_devices_with_one_phrase_share_a_ledger_and_an_allowance() {
    let backend = Backend::start();
    offer(&backend, Some(perks(1_000_000)));
    let (first, mut extension) = running(&backend);
    opt_in(&first);
    let phrase = done(first.command(&["personal", "phrase"]));
    assert_eq!(phrase.split_whitespace().count(), 24);
    turn_on(&first, &mut extension);
    extension.spend_personally(16, 10);
    assert!(extension.send() && extension.settle());
    backend.until("the vault has them", |books| books.vault.len() == 16);

    let (second, mut other) = running(&backend);
    let wrong = phrase.replacen(' ', " abandom ", 1);
    let wrong = wrong.split_whitespace().take(24).collect::<Vec<_>>().join(" ");
    let words = refused(&second.command_with(&["personal", "import"], &wrong), 1);
    assert!(words.contains("word 2 ") && words.contains("did you mean `abandon`?"), "{words}");
    assert!(!second.path("home/.config/toktra/personal.key").exists());
    assert!(done(second.command_with(&["personal", "import"], &phrase)).contains("opens 16 records"));
    opt_in(&second);
    assert_eq!(shown(&second), hosts(16), "also what the other device recorded");
    turn_on(&second, &mut other);
    other.personal_made = 16;
    other.personal.clear();
    other.spend_personally(16, 10);
    assert!(other.send() && other.settle());
    backend.until("the vault has all", |books| books.vault.len() == 32 && books.vault.records.len() == 2);
    assert_eq!(shown(&second), hosts(32));
    second.until("it knows of the other", |_| ledger(&second).others == 160);
    // Without an agent, too: the key is the user's.
    let third = Device::new();
    let key = "abandon ".repeat(23) + "art";
    assert!(done(third.command_with(&["personal", "import"], &key)).contains("The key is in "));
}

#[test]
fn each_record_arrives_once_through_kills_and_lost_answers() {
    let backend = Backend::start();
    offer(&backend, Some(perks(1_000_000)));
    let (mut device, mut extension) = running(&backend);
    opt_in(&device);
    turn_on(&device, &mut extension);
    for round in 0..8_u64 {
        backend.change(|books| match round % 4 {
            0 => books.vault.next.push_back(Next::Forget),
            1 => books.vault.next.push_back(Next::Refuse(Code::Busy)),
            _ => {}
        });
        extension.spend_personally(20, 5);
        extension.send();
        if round % 2 == 0 {
            extension.settle();
        }
        if round % 3 == 0 {
            let asked = backend.books().vault.asked;
            backend.until("something was sent", |books| books.vault.asked > asked || books.vault.len() > 0);
        }
        device.kill();
        device.start();
        let seed = extension.connect(&device.socket());
        assert!(seed.personal.is_some(), "the mode outlives the agent");
        extension.send();
    }
    assert!(extension.settle());
    backend.until("all has arrived", |books| books.vault.len() == 160);
    assert_eq!(backend.books().vault.records.len(), 1, "in one slot");
    assert_eq!(shown(&device), hosts(160));
    device.until("the total is told", |_| backend.books().vault.totals.values().any(|&total| total == 800));
    assert_eq!(ledger(&device).used.point, 800, "and each counts once");
}

#[test]
fn a_vault_that_was_set_back_gets_what_waits_and_nothing_is_shown_twice() {
    let backend = Backend::start();
    offer(&backend, Some(perks(1_000_000)));
    let (device, mut extension) = running(&backend);
    opt_in(&device);
    turn_on(&device, &mut extension);
    extension.spend_personally(16, 5);
    assert!(extension.send() && extension.settle());
    backend.until("the vault has them", |books| books.vault.len() == 16);
    device.until("it knows", |_| ledger(&device).waiting == 0);
    backend.change(|books| {
        for records in books.vault.records.values_mut() {
            records.truncate(4);
        }
    });
    extension.spend_personally(16, 5);
    assert!(extension.send() && extension.settle());
    backend.until("the rest is in a new slot", |books| {
        books.vault.len() == 20 && books.vault.records.len() == 2
    });
    let expected: Vec<String> = hosts(32)
        .into_iter()
        .filter(|host| {
            let number: u64 = host["personal-".len()..].split('.').next().unwrap().parse().unwrap();
            number <= 4 || number > 16
        })
        .collect();
    assert_eq!(shown(&device), expected);
}

#[test]
fn when_the_organisation_ends_it_the_mode_ends_at_once_and_the_records_stay_the_users() {
    let backend = Backend::start();
    offer(&backend, Some(perks(1_000_000)));
    let (mut device, mut extension) = running(&backend);
    opt_in(&device);
    turn_on(&device, &mut extension);
    extension.spend_personally(18, 5);
    assert!(extension.send() && extension.settle());
    backend.until("the vault has them", |books| books.vault.len() >= 16);
    offer(&backend, None);
    extension.hear_seed(|seed| seed.personal.is_none());
    device.until("it is said", |_| ledger(&device).mode == Mode::Ended);
    assert!(refused(&device.command(&["personal", "on"]), 1).contains("does not offer"));
    assert_eq!(shown(&device), hosts(18), "those that wait, too");
    device.kill();
    device.start();
    assert!(extension.connect(&device.socket()).personal.is_none());
    offer(&backend, Some(perks(1_000_000)));
    offered(&device);
    assert_eq!(ledger(&device).mode, Mode::Ended, "nothing is turned on but by the user");
    done(with(&device, &mut extension, &["personal", "on"]));
    assert_eq!(ledger(&device).mode, Mode::On);
}

#[test]
fn opting_out_forgets_everything_and_nothing_where_the_backend_is_away() {
    let backend = Backend::start();
    offer(&backend, Some(perks(1_000_000)));
    let (device, mut extension) = running(&backend);
    opt_in(&device);
    turn_on(&device, &mut extension);
    extension.spend_personally(18, 5);
    assert!(extension.send() && extension.settle());
    backend.until("the vault has them", |books| books.vault.len() >= 16);
    assert!(refused(&device.command(&["personal", "opt-out"]), 1).contains("Nothing was changed"));
    assert_eq!(ledger(&device).mode, Mode::On);
    let key = device.path("home/.config/toktra/personal.key");
    assert!(key.exists());
    backend.change(|books| books.vault.away = true);
    let words = refused(&device.command(&["personal", "opt-out", "--yes"]), 1);
    assert!(words.contains("nothing was changed"), "{words}");
    assert!(key.exists() && ledger(&device).mode == Mode::On && backend.books().vault.len() >= 16);
    backend.change(|books| books.vault.away = false);
    done(with(&device, &mut extension, &["personal", "opt-out", "--yes"]));
    assert!(backend.books().vault.left && backend.books().vault.len() == 0);
    assert!(extension.mode.is_none());
    assert!(!key.exists() && !device.path("state/personal").exists());
    let queues = std::fs::read_dir(device.path("state/personal-queue")).unwrap();
    assert_eq!(queues.count(), 0);
    // What the extension had yet to say is nobody's.
    extension.spend_personally(1, 5);
    assert!(extension.send() && extension.settle());
    assert!(device.status().personal.unwrap().ledger.is_none());
}

#[test]
fn a_membership_that_cannot_be_read_is_told_and_left_and_opting_in_goes_on_where_it_was() {
    let backend = Backend::start();
    offer(&backend, Some(perks(1_000_000)));
    let (mut device, mut extension) = running(&backend);
    opt_in(&device);
    turn_on(&device, &mut extension);
    extension.spend_personally(3, 5);
    assert!(extension.send() && extension.settle());
    device.kill();
    std::fs::write(device.path("state/personal"), b"{\"tenant\":").unwrap();
    device.start();
    assert!(extension.connect(&device.socket()).personal.is_none(), "off");
    offered(&device);
    let personal = device.status().personal.unwrap();
    assert!(personal.unreadable.unwrap().contains("damaged") && personal.ledger.is_none());
    assert!(done(device.command(&["personal"])).contains("cannot be read"));
    extension.deliver(1);
    backend.until("the organisation's goes on", |books| books.stored.len() == 1);
    assert_eq!(std::fs::read(device.path("state/personal")).unwrap(), b"{\"tenant\":");
    opt_in(&device);
    assert!(device.path("state/personal.unreadable").exists());
    let found = ledger(&device);
    assert_eq!(found.used.point, 15, "the totals are the same");
    assert_eq!(shown(&device), hosts(3));
}

#[test]
fn what_waits_for_another_organisation_is_told_and_shown_and_goes_when_the_user_opts_in_with_the_next() {
    let (first, second) = (Backend::start(), Backend::start());
    offer(&first, Some(perks(1_000_000)));
    offer(&second, Some(perks(1_000_000)));
    let (device, mut extension) = running(&first);
    opt_in(&device);
    turn_on(&device, &mut extension);
    // From here on three do not go by themselves.
    first.until("the standing was asked", |books| books.vault.asked > 0);
    extension.spend_personally(3, 5);
    assert!(extension.send() && extension.settle());
    let organisation = device.status().personal.unwrap().organisation.unwrap();
    let ca = device.path("other.pem");
    std::fs::write(&ca, second.ca_pem()).unwrap();
    let ca = ca.display().to_string();
    done(device.command(&["enroll", "--again", "--domain", &second.domain(), "--token", TOKEN, "--ca", &ca]));
    device.until("the other organisation offers it", |status| {
        let personal = status.personal.as_ref();
        personal.is_some_and(|one| one.perks.is_some() && one.organisation.as_ref() != Some(&organisation))
    });
    let found = ledger(&device);
    assert_eq!((found.mode.is_personal(), found.waiting), (false, 3));
    assert_eq!(found.elsewhere.as_ref(), Some(&organisation));
    let words = done(device.command(&["personal"]));
    assert!(words.contains("no longer enrolled") && words.contains(&organisation), "{words}");
    assert_eq!(shown(&device), hosts(3));
    let words = done(device.command(&["personal", "opt-in", "--yes"]));
    assert!(words.contains("3 sealed records of yours wait for the vault of"), "{words}");
    let found = ledger(&device);
    assert_eq!((found.elsewhere, found.waiting), (None, 0));
    assert_eq!(shown(&device), hosts(0));
    assert_eq!(std::fs::read_dir(device.path("state/personal-queue")).unwrap().count(), 1);
    assert_eq!(second.books().vault.len(), 0, "they are nothing to this one");
}

#[test]
fn a_damaged_or_foreign_record_is_counted_and_the_others_are_shown() {
    let backend = Backend::start();
    offer(&backend, Some(perks(1_000_000)));
    let (device, mut extension) = running(&backend);
    opt_in(&device);
    turn_on(&device, &mut extension);
    extension.spend_personally(16, 5);
    assert!(extension.send() && extension.settle());
    backend.until("the vault has them", |books| books.vault.len() == 16);
    backend.change(|books| {
        let records = books.vault.records.values_mut().next().unwrap();
        let mut bytes = records[3].bytes().to_vec();
        bytes[200] ^= 1;
        records[3] = toktra_protocol::personal::Sealed::new(bytes.clone()).unwrap();
        bytes[20] ^= 1;
        records[4] = toktra_protocol::personal::Sealed::new(bytes).unwrap();
    });
    let output = device.command(&["personal", "show", "--json"]);
    let words = refused(&output, 1);
    assert!(
        words.contains("1 of your records are damaged")
            && words.contains("1 records were sealed to another key")
    );
    assert_eq!(String::from_utf8_lossy(&output.stdout).lines().count(), 14);
}

/// The agent in the test's process, and its user's device.
fn inside(backend: &Backend) -> (Device, Inside, Extension) {
    let device = Device::enrolled(backend);
    device.seat(rustix::process::geteuid().as_raw());
    let agent = device.start_inside(0);
    let mut extension = Extension::new();
    extension.connect(&device.socket());
    offered(&device);
    (device, agent, extension)
}

#[test]
fn who_used_the_allowance_up_is_stopped_until_there_is_more() {
    let backend = Backend::start();
    offer(&backend, Some(perks(100)));
    let (device, _agent, mut extension) = inside(&backend);
    opt_in(&device);
    turn_on(&device, &mut extension);
    extension.spend_personally(1, 99);
    assert!(extension.send() && extension.settle());
    assert_eq!(ledger(&device).mode, Mode::On);
    extension.spend_personally(1, 1);
    extension.send();
    extension.hear_seed(|seed| seed.personal.as_ref().is_some_and(|mode| mode.stopped));
    assert_eq!(ledger(&device).mode, Mode::Stopped);
    offer(&backend, Some(Perks { bonus_tokens: 10, ..perks(100) }));
    extension.hear_seed(|seed| seed.personal.as_ref().is_some_and(|mode| !mode.stopped));
    assert_eq!((ledger(&device).mode, ledger(&device).left()), (Mode::On, 10));
}

#[test]
fn who_goes_on_for_the_organisation_is_blocked_a_minute_and_then_counted() {
    let backend = Backend::start();
    offer(&backend, Some(perks(100)));
    let (device, agent, mut extension) = inside(&backend);
    done(device.command(&["personal", "opt-in", "--yes", "--when-exhausted", "corporate"]));
    turn_on(&device, &mut extension);
    extension.spend_personally(1, 100);
    extension.send();
    extension.hear_seed(|seed| seed.personal.as_ref().is_some_and(|mode| mode.stopped));
    device.until("from when is decided", |_| matches!(ledger(&device).mode, Mode::Closing { .. }));
    agent.set_clock(61);
    // Any news makes it look at the clock.
    done(device.command(&["personal", "when-exhausted", "block"]));
    assert_eq!(ledger(&device).mode, Mode::Stopped, "who chooses otherwise in time is not counted");
    done(device.command(&["personal", "when-exhausted", "corporate"]));
    device.until("it is decided anew", |_| matches!(ledger(&device).mode, Mode::Closing { .. }));
    agent.set_clock(200);
    offer(&backend, Some(perks(100)));
    extension.hear_seed(|seed| seed.personal.is_none());
    assert_eq!(ledger(&device).mode, Mode::Exhausted);
}

#[test]
fn a_mode_with_an_end_ends_by_itself() {
    let backend = Backend::start();
    offer(&backend, Some(perks(100)));
    let (device, agent, mut extension) = inside(&backend);
    opt_in(&device);
    done(with(&device, &mut extension, &["personal", "on", "--for", "2h"]));
    let until = extension.mode.as_ref().and_then(|mode| mode.until).unwrap();
    assert!(until > UnixSeconds(agent.clock().now().0 + 7100), "two hours from now");
    agent.set_clock(7300);
    offer(&backend, Some(perks(100)));
    extension.hear_seed(|seed| seed.personal.is_none());
    device.until("it is off", |_| ledger(&device).mode == Mode::Off && ledger(&device).until.is_none());
    assert!(refused(&device.command(&["personal", "on", "--until", "6pm"]), 1).contains("HH:MM"));
}

#[test]
fn in_privacy_hours_nothing_goes_to_the_vault() {
    let backend = Backend::start();
    offer(&backend, Some(perks(1_000_000)));
    let (device, _agent, mut extension) = inside(&backend);
    opt_in(&device);
    turn_on(&device, &mut extension);
    backend.until("the standing was asked", |books| books.vault.asked > 0);
    done(device.command(&["privacy", "set", "00:00-24:00"]));
    extension.spend_personally(20, 5);
    assert!(extension.send() && extension.settle());
    assert_eq!(ledger(&device).waiting, 20);
    let asked = |books: &Books| (books.vault.len(), books.vault.asked);
    let before = asked(&backend.books());
    // The directive's poll comes and goes meanwhile.
    offer(&backend, Some(Perks { bonus_tokens: 1, ..perks(1_000_000) }));
    device.until("the directive came", |_| ledger(&device).allowance == 1_000_001);
    assert_eq!(asked(&backend.books()), before);
    done(device.command(&["privacy", "clear"]));
    backend.until("then it goes", |books| books.vault.len() == 20);
}
