//! Caps and locks on a device whose backend is gone, or answers nonsense: what is in force, what the
//! extension is told, and what the status says. As documented in `docs/budgets.md`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use support::{Backend, Books, DAY, Device, Extension, Inside};
use toktra_protocol::budget::{Period, Scope, Unit};
use toktra_protocol::{Block, BlockReason, Budget, Estimate, Lock, UnixSeconds};

fn now() -> UnixSeconds {
    toktra_agent::clock::Clock::System.now()
}

fn budget(limit: u64, spent: u64) -> Budget {
    Budget {
        id: "b1".into(),
        name: "Research".into(),
        scope: Scope::Department,
        unit: Unit::Tokens,
        period: Period::Daily,
        period_start: UnixSeconds(now().0 - 3_600),
        period_end: now().plus(3_600),
        limit,
        spent: Estimate { low: spent, point: spent, high: spent },
        tokens_unpriced: 0,
        thresholds: vec![75, 90, 100],
        hard: true,
        exempt_until: None,
    }
}

fn cap(until: Option<UnixSeconds>) -> Option<Block> {
    Some(Block {
        reason: BlockReason::Budget,
        message: "The budget is spent. Ask Ms Lee.".into(),
        providers: Vec::new(),
        until,
        budget: Some("b1".into()),
    })
}

/// A device that runs under the backend's directive.
fn under(change: impl FnOnce(&mut Books)) -> (Arc<Backend>, Device, Extension) {
    let backend = Backend::start();
    backend.change(|books| {
        (books.directive, books.hard_caps) = (1, true);
        change(books);
    });
    let mut device = Device::enrolled(&backend);
    device.start();
    let mut extension = Extension::new();
    extension.connect(&device.socket());
    device.until("the directive is in force", |status| status.directive_version == Some(1));
    (backend, device, extension)
}

/// From here on the backend gives no directive, but it takes batches.
fn silence(backend: &Backend) {
    backend.change(|books| {
        books.directive += 1;
        books.nonsense = Some("<html>a portal</html>");
    });
}

fn opened(words: &[String]) -> bool {
    words.iter().any(|one| one.contains("cap is open"))
}

#[test]
fn what_the_device_spends_counts_at_once_and_is_never_counted_twice() {
    let (backend, device, mut extension) = under(|books| books.budgets = vec![budget(1_000, 900)]);
    silence(&backend);
    extension.spend(60);
    assert!(extension.send() && extension.settle());
    let status = device.until("60 tokens more", |status| status.budgets[0].spent.low == 960);
    assert_eq!(status.block, None);
    // Sent and acknowledged, but not yet in what the backend told.
    assert!(device.command(&["flush"]).status.success());
    assert_eq!(device.status().budgets[0].spent.low, 960);
    // Now it is.
    backend.change(|books| {
        books.nonsense = None;
        (books.directive, books.budgets) = (9, vec![budget(1_000, 960)]);
    });
    let status = device.until("the backend's count", |status| status.directive_version == Some(9));
    assert_eq!((status.budgets[0].spent.low, status.block), (960, None));
}

#[test]
fn a_cap_that_the_device_passes_while_the_backend_is_away_blocks_and_survives_a_restart() {
    let (backend, mut device, mut extension) = under(|books| books.budgets = vec![budget(1_000, 900)]);
    silence(&backend);
    backend.change(|books| books.revoked = true);
    extension.spend(100);
    assert!(extension.send());
    let seed = extension.hear_seed(|seed| seed.block.is_some());
    assert_eq!(seed.block.unwrap().budget.as_deref(), Some("b1"));
    assert!(seed.block_until.unwrap() <= now().plus(900));
    device.kill();
    device.start();
    let seed = extension.connect(&device.socket());
    assert_eq!(seed.block.unwrap().budget.as_deref(), Some("b1"), "what waits in the spool counts");
    // A grant reaches the device as soon as the backend does.
    backend.change(|books| {
        (books.revoked, books.nonsense, books.directive) = (false, None, 9);
        books.budgets = vec![Budget { exempt_until: Some(now().plus(600)), ..budget(1_000, 1_000) }];
    });
    device.kill();
    device.start();
    extension.connect(&device.socket());
    device.until("it is open again", |status| status.block.is_none());
}

#[test]
fn within_budget_nothing_is_blocked_while_the_backend_is_away_and_after_the_directive_is_stale() {
    let (backend, device, mut extension) = under(|books| {
        (books.budgets, books.valid_s) = (vec![budget(1_000, 900)], Some(1));
    });
    silence(&backend);
    extension.spend(99);
    assert!(extension.send() && extension.settle());
    let status = device.until("its own count", |status| status.budgets[0].spent.low == 999);
    assert_eq!((status.block, status.cap_opened), (None, false));
}

#[test]
fn a_stale_cap_opens_and_the_status_says_so_while_a_lock_stays() {
    let lock = Lock { message: "Stop".into() };
    let (backend, device, mut extension) = under(|books| {
        (books.block, books.lock, books.valid_s) = (cap(None), Some(lock.clone()), Some(2));
    });
    silence(&backend);
    let status = device.until("the cap is open", |status| status.cap_opened);
    assert_eq!((status.block, status.lock.as_ref()), (None, Some(&lock)));
    assert!(opened(&status.degraded), "{:?}", status.degraded);
    let seed = extension.hear_seed(|seed| seed.block.is_none());
    assert_eq!(seed.lock, Some(lock));
    backend.change(|books| (books.nonsense, books.valid_s) = (None, None));
    // The backend is heard, and still says so.
    let status = device.until("the cap is closed", |status| status.block.is_some());
    assert!(!status.cap_opened && !opened(&status.degraded));
}

#[test]
fn a_block_ends_with_its_period_though_the_backend_says_nothing() {
    let (_backend, device, mut extension) = under(|books| books.block = cap(Some(now().plus(3))));
    let status =
        device.until("it is blocked", |status| status.block.is_some() || status.block_until.is_none());
    if let Some(until) = status.block_until {
        assert!(until <= now().plus(4));
    }
    assert_eq!(extension.hear_seed(|seed| seed.block.is_none()).block_until, None);
    let status = device.until("it is open", |status| status.block.is_none());
    assert!(!status.cap_opened && !opened(&status.degraded));
}

#[test]
fn an_older_directive_and_nonsense_change_nothing() {
    let (backend, device, _extension) = under(|books| books.block = cap(None));
    assert!(device.status().block.is_some());
    // A poll that asks for what is newer than 1 gets nonsense, then a forged one.
    silence(&backend);
    let said = |status: &toktra_protocol::local::Status| {
        status.degraded.iter().any(|words| words.starts_with("directives do not arrive"))
    };
    assert!(device.until("it says so", said).block.is_some());
    backend.change(|books| (books.nonsense, books.forged, books.block) = (None, true, None));
    let status = device.until("it is refused", |status| {
        status.degraded.iter().any(|words| words.contains("not signed by the key"))
    });
    assert!(status.block.is_some());
}

#[test]
fn a_lock_survives_a_restart_and_goes_only_when_it_is_lifted() {
    let lock = Lock { message: "Stop".into() };
    let (backend, mut device, mut extension) = under(|books| {
        (books.lock, books.valid_s) = (Some(lock.clone()), Some(1));
    });
    for _ in 0..3 {
        device.kill();
        silence(&backend);
        device.start();
        assert_eq!(extension.connect(&device.socket()).lock.as_ref(), Some(&lock));
        assert_eq!(device.status().lock.as_ref(), Some(&lock));
    }
    backend.change(|books| (books.nonsense, books.lock, books.directive) = (None, None, 99));
    device.kill();
    device.start();
    extension.connect(&device.socket());
    device.until("it is lifted", |status| status.lock.is_none() && status.directive_version == Some(99));
}

/// The agent in this process, so that its clocks can be moved.
fn inside(change: impl FnOnce(&mut Books)) -> (Arc<Backend>, Device, Inside, Extension) {
    let backend = Backend::start();
    backend.change(|books| {
        (books.directive, books.hard_caps) = (1, true);
        change(books);
    });
    let device = Device::enrolled(&backend);
    let inside = device.start_inside(0);
    let mut extension = Extension::new();
    extension.connect(&device.socket());
    device.until("the directive is in force", |status| status.directive_version == Some(1));
    (backend, device, inside, extension)
}

/// Has the agent look at its clocks now.
fn stir(extension: &mut Extension) {
    extension.spend(1);
    assert!(extension.send() && extension.settle());
}

#[test]
fn a_clock_set_back_makes_a_cap_last_no_longer_than_the_directive() {
    let (backend, device, inside, mut extension) = inside(|books| {
        (books.block, books.valid_s) = (cap(Some(now().plus(3_600))), Some(900));
    });
    silence(&backend);
    inside.set_clock(-365 * DAY);
    stir(&mut extension);
    assert!(device.status().block.is_some(), "set back, nothing opens");
    inside.sleep(Duration::from_secs(901));
    stir(&mut extension);
    let status = device.until("it is open", |status| status.block.is_none());
    assert!(status.cap_opened && opened(&status.degraded), "{:?}", status.degraded);
    assert_eq!(extension.hear_seed(|seed| seed.block.is_none()).block_until, None);
}

#[test]
fn a_clock_set_ahead_opens_a_cap_until_the_backend_is_heard_and_no_longer() {
    let (backend, device, inside, mut extension) = inside(|books| books.block = cap(Some(now().plus(3_600))));
    inside.set_clock(365 * DAY);
    stir(&mut extension);
    device.until("it is open", |status| status.block.is_none());
    backend.change(|books| books.directive = 2);
    let status = device.until("it is closed again", |status| status.block.is_some());
    assert!(!status.cap_opened && !opened(&status.degraded));
    // By the device's clock, which is what the extension looks at.
    let seed = extension.hear_seed(|seed| seed.block.is_some());
    assert!(seed.block_until.unwrap() > inside.clock().now());
}

#[test]
fn no_clock_opens_a_lock_or_closes_what_is_within_budget() {
    let lock = Lock { message: "Stop".into() };
    for ahead_s in [365 * DAY, -365 * DAY] {
        let (backend, device, moved, mut extension) = inside(|books| books.lock = Some(lock.clone()));
        silence(&backend);
        moved.set_clock(ahead_s);
        moved.sleep(Duration::from_secs(365 * DAY.unsigned_abs()));
        stir(&mut extension);
        assert_eq!(device.status().lock.as_ref(), Some(&lock));

        let (_backend, device, moved, mut extension) =
            inside(|books| books.budgets = vec![budget(1_000, 900)]);
        moved.set_clock(ahead_s);
        stir(&mut extension);
        let status = device.status();
        assert_eq!((status.block, status.cap_opened), (None, false));
    }
}

/// Twenty seconds for an answer are more than a person's patience and less than an agent's.
#[test]
fn a_slow_backend_leaves_in_force_what_is_and_its_late_answer_counts() {
    let (backend, device, mut extension) = under(|books| {
        (books.block, books.budgets) = (cap(Some(now().plus(3_600))), vec![budget(1_000, 1_000)]);
    });
    backend.change(|books| books.slow = true);
    backend.change(|books| {
        (books.directive, books.block, books.budgets) = (2, None, vec![budget(5_000, 1_000)])
    });
    // The poll that waited for news waits on.
    backend.until("a poll to be kept waiting", |books| books.was_slow);
    let status = device.status();
    assert!(status.block.is_some() && !status.cap_opened && status.degraded.is_empty(), "{status:?}");
    backend.change(|books| books.slow = false);
    extension.hear_seed(|seed| seed.block.is_none());
    device.until("the late answer", |status| status.directive_version == Some(2) && status.block.is_none());
}
