//! Budgets through the whole backend: devices that wait over real TLS, commands beside it.
#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod support;

use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};

use support::{Backend, Client, Device, usage};
use toktra_catalog::{Catalog, Tokens};
use toktra_protocol::budget::{EXEMPTION_PATH, Period, Scope, Unit};
use toktra_protocol::directive::FF_BUDGET_HARD_CAPS;
use toktra_protocol::{
    Batch, BlockReason, Code, Directive, Estimate, EventBody, SignedDirective, UnixSeconds,
};
use toktra_server::Clock;
use toktra_store::budgets::{self, BudgetRow, Settings};
use toktra_store::exemptions::{self, Decision};
use toktra_store::ledger::{Cost, Tariff};
use toktra_store::price_mix::Share;
use toktra_store::spend::ScopeKey;
use toktra_store::{Ledger, devices, directory, flags, locks};

fn hard(amount: u64, unit: Unit) -> Settings {
    Settings {
        unit,
        amount,
        period: Period::Monthly,
        hard: true,
        thresholds: vec![75, 90, 100],
        rollover_limit: 0,
        message: "Ask Grace.".into(),
    }
}

async fn flag(backend: &Backend, on: bool) {
    let (store, now) = (&backend.app.store, backend.app.clock.now());
    flags::set(store, &backend.organisation, FF_BUDGET_HARD_CAPS, on, "test", now).await.unwrap();
}

async fn research_budget(backend: &Backend, settings: &Settings) -> BudgetRow {
    let scope = ScopeKey {
        organisation: backend.organisation.id.as_str().into(),
        scope: Scope::Department,
        id: backend.department.id.as_str().into(),
    };
    let (store, now) = (&backend.app.store, backend.app.clock.now());
    budgets::create(store, "Research", &scope, settings, "test", now).await.unwrap()
}

async fn poll(client: &mut Client, after: u64) -> Directive {
    let reply = client.get(&format!("/v1/directive?after={after}&applied={after}")).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    serde_json::from_slice::<SignedDirective>(&reply.body).unwrap().document().unwrap()
}

/// Polls until a directive is as it should be.
async fn poll_until(client: &mut Client, mut last: u64, is: impl Fn(&Directive) -> bool) -> Directive {
    loop {
        let directive = poll(client, last).await;
        if is(&directive) {
            return directive;
        }
        last = directive.version;
    }
}

/// Spends tokens this minute, whatever was acknowledged before.
async fn spend(backend: &Backend, device: &Device, tokens: u64) {
    let row = devices::find(&backend.app.store, device.id).await.unwrap().unwrap();
    let mut event = usage(u64::try_from(row.acknowledged_sequence).unwrap() + 1);
    event.minute = backend.app.clock.now().minute();
    if let EventBody::Usage(usage) = &mut event.body {
        usage.tokens_in = Estimate { low: tokens, point: tokens, high: tokens };
        usage.tokens_out = Estimate::default();
    }
    let batch = Batch { events: vec![event] }.encode().unwrap();
    let reply = backend.ingest(device).await.post_zstd(batch).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
}

#[tokio::test]
async fn a_passed_cap_reaches_every_waiting_device_of_the_department_and_none_else() {
    let backend = Backend::start().await;
    let sales = directory::create_department(
        &backend.app.store,
        &backend.organisation,
        "Sales",
        "test",
        backend.app.clock.now(),
    );
    let sales = sales.await.unwrap();
    let devices = [backend.device().await, backend.device().await, backend.device().await];
    let outsider = backend.device().await;
    let mut transaction = backend.app.store.begin().await.unwrap();
    sqlx::query("UPDATE devices SET department_id = $2 WHERE id = $1")
        .bind(outsider.id.to_string())
        .bind(&sales.id)
        .execute(&mut *transaction)
        .await
        .unwrap();
    transaction.commit().await.unwrap();
    let budget = research_budget(&backend, &hard(1000, Unit::Tokens)).await;
    flag(&backend, true).await;

    let mut waiting = Vec::new();
    for device in &devices {
        let mut client = backend.ingest(device).await;
        let before = poll_until(&mut client, 0, |directive| {
            directive.flags.get(FF_BUDGET_HARD_CAPS) == Some(&true) && directive.budgets.len() == 1
        });
        let before = before.await;
        assert_eq!((before.block, before.budgets[0].limit, before.budgets[0].hard), (None, 1000, true));
        waiting.push(tokio::spawn(async move {
            let blocked =
                poll_until(&mut client, before.version, |directive| directive.block.is_some()).await;
            (blocked, client)
        }));
    }
    let mut elsewhere = backend.ingest(&outsider).await;
    let before = poll(&mut elsewhere, 0).await;
    spend(&backend, &devices[0], 1000).await;
    let mut clients = Vec::new();
    for poll in waiting {
        let (directive, client) = poll.await.unwrap();
        let block = directive.block.clone().expect("blocked");
        assert_eq!((block.reason, block.message.as_str()), (BlockReason::Budget, "Ask Grace."));
        assert_eq!(
            (block.budget, block.until),
            (Some(budget.id.clone()), Some(directive.budgets[0].period_end))
        );
        assert!(block.providers.is_empty() && directive.budgets[0].is_passed());
        clients.push((client, directive.version));
    }
    let first = poll(&mut clients[0].0, 0).await;
    assert_eq!((first.counted, first.budgets[0].spent.point), (1, 1000), "of one snapshot");
    let after = poll(&mut elsewhere, 0).await;
    assert_eq!((after.version, after.block, after.budgets.len()), (before.version, None, 0));

    flag(&backend, false).await;
    for (client, version) in &mut clients {
        let directive = poll_until(client, *version, |directive| directive.block.is_none()).await;
        assert!(!directive.budgets[0].hard, "without the flag it only warns");
    }
    backend.stop().await;
}

#[tokio::test]
async fn an_exemption_opens_for_a_time_and_the_turn_of_the_period_opens_for_good() {
    static TIME: AtomicU64 = AtomicU64::new(0);
    TIME.store(Clock::System.now().0, Ordering::Relaxed);
    let backend = Backend::start_with(|app| {
        app.clock = Clock::Set(&TIME);
        app.ledger = Ledger::start(app.store.clone(), Box::new(Nothing), || Clock::Set(&TIME).now()).0;
    })
    .await;
    let device = backend.device().await;
    let settings = Settings { period: Period::Daily, ..hard(1000, Unit::Tokens) };
    let budget = research_budget(&backend, &settings).await;
    flag(&backend, true).await;
    spend(&backend, &device, 1000).await;
    let mut client = backend.ingest(&device).await;
    let blocked = poll_until(&mut client, 0, |directive| directive.block.is_some()).await;

    let ask = serde_json::json!({ "budget": budget.id, "reason": "the demo" }).to_string();
    let asked = backend.ingest(&device).await.post_json(EXEMPTION_PATH, ask).await;
    assert_eq!((asked.status.as_u16(), asked.body.len()), (204, 0));
    let now = backend.app.clock.now();
    let (store, acme) = (&backend.app.store, &backend.organisation);
    let open = exemptions::of_organisation(store, acme, false, now).await.unwrap();
    let until = now.plus(60);
    exemptions::decide(store, acme, &open[0].id, Decision::GrantUntil(until), "grace", now).await.unwrap();
    let exempt = poll_until(&mut client, blocked.version, |directive| directive.block.is_none()).await;
    assert_eq!(exempt.budgets[0].exempt_until, Some(until));

    TIME.store(until.0, Ordering::Relaxed);
    let again = poll_until(&mut client, exempt.version, |directive| directive.block.is_some()).await;
    assert!(again.version > exempt.version && again.block.is_some(), "over at its end");
    TIME.store(again.budgets[0].period_end.0, Ordering::Relaxed);
    let turned = poll_until(&mut client, again.version, |directive| directive.block.is_none()).await;
    assert!(turned.version > again.version && turned.block.is_none(), "a new period");
    assert_eq!(turned.budgets[0].spent, Estimate::default());
    assert_eq!(turned.budgets[0].period_start, again.budgets[0].period_end);
    backend.stop().await;
}

#[tokio::test]
async fn what_is_no_request_for_an_exemption_is_refused_and_stores_nothing() {
    let backend = Backend::start().await;
    let device = backend.device().await;
    let budget = research_budget(&backend, &hard(1000, Unit::Tokens)).await;
    let mut client = backend.ingest(&device).await;
    let body =
        |budget: &str, reason: &str| serde_json::json!({ "budget": budget, "reason": reason }).to_string();
    for (sent, code) in [
        ("{}".to_owned(), Code::BadRequest),
        (body(&budget.id, ""), Code::BadRequest),
        (body(&budget.id, "a\u{1b}[2J"), Code::BadRequest),
        (body(&budget.id, &"x".repeat(1001)), Code::BadRequest),
        (body(&budget.id, &"x".repeat(20_000)), Code::TooLarge),
        (body("somebody else's", "please"), Code::NotFound),
    ] {
        assert_eq!(client.post_json(EXEMPTION_PATH, sent.clone()).await.code(), code, "{sent:.80}");
    }
    let now = backend.app.clock.now();
    let open =
        exemptions::of_organisation(&backend.app.store, &backend.organisation, true, now).await.unwrap();
    assert!(open.is_empty());
    backend.stop().await;
}

#[tokio::test]
async fn a_lock_of_the_user_reaches_the_devices_beside_a_lock_of_their_own() {
    let backend = Backend::start().await;
    let now = backend.app.clock.now();
    let (store, acme) = (&backend.app.store, &backend.organisation);
    let user = directory::create_user(store, acme, None, "ada@acme", "test", now).await.unwrap();
    let device = backend.device().await;
    let mut transaction = store.begin().await.unwrap();
    sqlx::query("UPDATE devices SET user_id = $1").bind(&user.id).execute(&mut *transaction).await.unwrap();
    transaction.commit().await.unwrap();
    locks::set(store, &user, Some("Leave it."), "test", now).await.unwrap();
    let mut client = backend.ingest(&device).await;
    let locked = poll_until(&mut client, 0, |directive| directive.lock.is_some()).await;
    assert_eq!(locked.lock.unwrap().message, "Leave it.");
    locks::set(store, &user, None, "test", now).await.unwrap();
    poll_until(&mut client, locked.version, |directive| directive.lock.is_none()).await;
    backend.stop().await;
}

#[tokio::test]
async fn the_list_of_devices_says_who_is_over_budget_and_a_device_is_moved_out_of_it() {
    let backend = Backend::start().await;
    let (device, _other) = (backend.device().await, backend.device().await);
    research_budget(&backend, &hard(1000, Unit::Tokens)).await;
    flag(&backend, true).await;
    spend(&backend, &device, 1000).await;
    let mut client = backend.ingest(&device).await;
    let blocked = poll_until(&mut client, 0, |directive| directive.block.is_some()).await;
    let data = backend.data.path().to_owned();
    let run = |arguments: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_toktra-server"));
        let output = command.args(arguments.split(' ')).arg("--data").arg(&data).output().unwrap();
        assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let listed = run("device list");
    assert_eq!(listed.matches("over budget").count(), 2, "{listed}");
    run(&format!("device move {} --no-department", device.id));
    poll_until(&mut client, blocked.version, |directive| directive.block.is_none()).await;
    let listed = run("device list");
    assert_eq!(listed.matches("over budget").count(), 1, "{listed}");
    backend.stop().await;
}

/// The catalogue's prices are per million tokens: a million of them cost what one entry says, and
/// a budget of 500 dollars is far from passed.
#[tokio::test]
async fn a_price_per_million_tokens_is_not_taken_for_one_per_token() {
    let backend = Backend::start().await;
    let device = backend.device().await;
    let budget = research_budget(&backend, &hard(500_000_000, Unit::Micros)).await;
    spend(&backend, &device, 1_000_000).await;
    let now = backend.app.clock.now();
    let standing = budgets::standing_now(&backend.app.store, &budget, now).await.unwrap();
    let million = Tokens { low: 1_000_000, point: 1_000_000, high: 1_000_000 };
    let cost = Catalog::builtin().cost("openai-api", &[], now.0, million, Tokens::default()).unwrap();
    assert_eq!(standing.spent.point, cost.point_micros);
    let (cent, hundred_dollars) = (10_000, 100_000_000);
    assert!((cent..hundred_dollars).contains(&standing.spent.point), "{:?}", standing.spent);
    assert!(!standing.is_passed());
    backend.stop().await;
}

#[test]
fn budgets_are_commanded_with_exact_amounts_and_doubts_are_said() {
    let data = tempfile::tempdir().unwrap();
    let run = |arguments: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_toktra-server"))
            .args(arguments.split(' ').map(|word| word.replace('~', " ")))
            .arg("--data")
            .arg(data.path().join("data"))
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.success(), text(output.stdout), text(output.stderr))
    };
    let ok = |arguments: &str| {
        let (success, out, error) = run(arguments);
        assert!(success, "{arguments}: {error}");
        (out, error)
    };
    ok("init --domain acme.example --organisation Acme");
    ok("org set --time-zone Europe/Berlin");
    ok("department add Research");
    ok("department add Vision --parent Research");
    ok("user add ada@acme --department Vision");
    let (_, doubt) =
        ok("budget add Tokens --department Research --tokens 20_000_000 --period monthly --hard");
    assert!(doubt.contains("flag set FF_BUDGET_HARD_CAPS on"), "{doubt}");
    ok("flag set FF_BUDGET_HARD_CAPS on");
    let (_, doubt) = ok("budget add Money --dollars 499.999999 --period weekly --rollover-dollars 10");
    assert_eq!(doubt, "");
    let (_, doubt) = ok("budget add Ada --user ada@acme --tokens 20 --period daily");
    assert!(doubt.contains("was it meant in thousands"), "{doubt}");
    let (listed, _) = ok("budget list");
    assert!(listed.contains("$499.999999") && listed.contains("20,000,000 tokens"), "{listed}");
    ok("budget set Money --dollars 600 --hard true --thresholds 50,100");
    let (shown, _) = ok("budget show Money");
    assert!(shown.contains("$600.00 weekly") && shown.contains("50 %, 100 %"), "{shown}");
    ok("lock ada@acme --message Leave~it.");
    ok("unlock ada@acme");
    ok("department move Vision");
    ok("budget remove Ada");
    ok("exemption list --all");
    ok("check");
    for (arguments, complaint) in [
        ("budget add X --dollars 1,000 --period monthly", "is not an amount in dollars"),
        ("budget add X --dollars 1e3 --period monthly", "is not an amount in dollars"),
        ("budget add X --period monthly", "--tokens"),
        ("budget add X --tokens 1 --dollars 1 --period monthly", "cannot be used with"),
        ("budget add X --tokens 1000000 --period hourly", "possible values"),
        ("budget add X --tokens 1000000 --period daily --rollover-dollars 5", "give --rollover-tokens"),
        ("budget add X --tokens 1000000 --period daily --thresholds 90,80", "ascending"),
        ("budget add Money --tokens 1000000 --period daily", "there is already the budget `Money`"),
        ("budget add X --department Nowhere --tokens 1000000 --period daily", "no department `Nowhere`"),
        ("budget set Money --tokens 1000000", "the unit changes"),
        ("budget show Nothing", "there is no budget `Nothing`"),
        ("flag set FF_NOTHING on", "there is FF_BUDGET_HARD_CAPS"),
        ("org set --time-zone Mars/Olympus", "no time zone `Mars/Olympus`"),
        ("department move Research --parent Research", "cannot be part of itself"),
        ("exemption grant 1 --for 2h", "there is no exemption `1`"),
        ("lock eve@acme --message No.", "there is no user `eve@acme`"),
        ("unlock 00000000-0000-4000-8000-000000000000", "there is no device"),
    ] {
        let (success, _, error) = run(arguments);
        assert!(!success && error.contains(complaint), "{arguments}: {error}");
    }
    let (trail, _) = ok("audit --limit 100");
    for action in
        ["time_zone", "budget_add", "budget_set", "budget_remove", "flag_on", "department_move", "lock"]
    {
        assert!(trail.contains(action), "{action}: {trail}");
    }
}

/// Everything is free of a price.
struct Nothing;

impl Tariff for Nothing {
    fn cost(&self, _: &[Share], _: &str, _: UnixSeconds, _: Estimate, _: Estimate) -> Option<Cost> {
        None
    }
}
