//! The console in a real browser over real TLS: what is shown equals what the ledger holds,
//! the browser has nothing to complain of, asks nobody else, and the page fits a telephone.
//! `TOKTRA_PICTURES=directory` keeps a picture of every page.

use std::sync::Arc;

use serde_json::Value;
use toktra_protocol::ToktraDomain;
use toktra_server::serve::Server;
use toktra_server::{App, Clock, Config};
use toktra_store::period::{Day, Days, Zone};
use toktra_store::perks::{self, Sum};
use toktra_store::usage::{self, DEAREST, Dimension, Question};

use super::authority::create_authority;
use super::browser::Browser;
use super::fleet;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_browser_shows_the_ledgers_numbers_without_a_complaint() {
    if std::env::var_os("TOKTRA_NO_BROWSER").is_some() {
        eprintln!("SKIPPED: TOKTRA_NO_BROWSER is set");
        return;
    }
    let browser = Browser::start().expect("Chromium (Debian's package `chromium`), or TOKTRA_NO_BROWSER=1");
    let data = tempfile::tempdir().unwrap();
    let domain: ToktraDomain = "toktra.localhost".parse().unwrap();
    let now = Clock::System.now();
    let passphrase = create_authority(data.path(), &domain, now);
    Config { domain }.write(data.path()).unwrap();
    let app = App::open(data.path(), &passphrase, Clock::System).await.unwrap();
    let organisation = fleet::organisation(&app.store, "Acme Industries", fleet::NAME, now).await;
    fleet::month(&app.store, &organisation, now).await;
    let told = Sum { month: "2026-10".parse().unwrap(), tier_id: None, others: true, tokens: 7_654_321 };
    perks::keep_sums(&app.store, &organisation.id, &[told]).await.unwrap();
    let server = Server::bind(Arc::clone(&app), "127.0.0.1:0".parse().unwrap()).await.unwrap();
    let origin = format!("https://api.toktra.localhost:{}", server.address().unwrap().port());
    let running = tokio::spawn(server.run());

    let today = Zone::UTC.day(now).0;
    let days = Days { start: Day(today - 29), end: Day(today + 1) };
    let question = Question { organisation: organisation.id.clone(), days, only: vec![] };
    let total = usage::total(&app.store, &question).await.unwrap();
    let by = async |dimension| {
        shares(usage::by(&app.store, &question, dimension, DEAREST, (0, 100)).await.unwrap())
    };
    let expected = Expected {
        cost: total.cost_micros.point,
        tokens: total.tokens().point,
        exchanges: total.exchanges,
        devices: toktra_store::fleet::devices(&app.store, &organisation.id, 0, now).await.unwrap().len(),
        providers: by(Dimension::Provider).await,
        departments: by(Dimension::Department).await,
        services: by(Dimension::Service).await,
    };
    let (store, runtime) = (app.store.clone(), tokio::runtime::Handle::current());
    let visit = tokio::task::spawn_blocking(move || {
        let browser = visit(browser, &origin, &expected);
        check_live(browser, &origin, |hostname| {
            runtime.block_on(fleet::device(&store, &organisation, None, (hostname, "linux", None), now));
        });
    });
    let outcome = visit.await;
    app.stop.send_replace(true);
    running.await.unwrap();
    outcome.unwrap();
}

struct Expected {
    cost: i64,
    tokens: i64,
    exchanges: i64,
    devices: usize,
    providers: Vec<(String, i64)>,
    departments: Vec<(String, i64)>,
    services: Vec<(String, i64)>,
}

/// Identifier and tokens of each row.
fn shares(shares: Vec<usage::Share>) -> Vec<(String, i64)> {
    shares.into_iter().map(|share| (share.id, share.sums.tokens().point)).collect()
}

fn visit(mut browser: Browser, origin: &str, expected: &Expected) -> Browser {
    for (width, dark) in [(1280, false), (1280, true), (390, false), (390, true)] {
        let suffix = format!("{width}-{}", if dark { "dark" } else { "light" });
        browser.dress(width, dark);
        browser.open(&format!("{origin}/"));
        assert_eq!(browser.evaluate("location.pathname"), "/login");
        check_page(&mut browser, &format!("login-{suffix}"));
        sign_in(&mut browser);
        assert_eq!(browser.evaluate("location.pathname"), "/");
        check_overview(&mut browser, expected);
        check_page(&mut browser, &format!("overview-{suffix}"));
        for days in [1, 7, 90] {
            browser.open(&format!("{origin}/?days={days}"));
            check_page(&mut browser, &format!("overview-{days}-days-{suffix}"));
        }
        check_usage(&mut browser, origin, expected);
        check_page(&mut browser, &format!("usage-{suffix}"));
        browser.and_wait_for_load(|browser| {
            browser.evaluate("document.querySelector('a[href=\"/devices\"]').click()");
        });
        let rows = browser.evaluate("document.querySelectorAll('#devices-table tbody tr').length");
        assert_eq!(rows, expected.devices);
        check_page(&mut browser, &format!("devices-{suffix}"));
        browser.open(&format!("{origin}/budgets"));
        assert_eq!(browser.evaluate("document.querySelectorAll('#budgets-table tbody tr').length"), 4);
        browser.evaluate("document.querySelector('#budgets-table details').open = true");
        check_page(&mut browser, &format!("budgets-{suffix}"));
        check_perks(&mut browser, origin);
        check_page(&mut browser, &format!("perks-{suffix}"));
        browser.and_wait_for_load(|browser| {
            browser.evaluate("document.querySelector('form[action=\"/logout\"] button').click()");
        });
        assert_eq!(browser.evaluate("location.pathname"), "/login");
    }
    check_events(&browser.events, origin);
    check_that_violations_are_heard(&mut browser);
    browser
}

/// A device that enrols appears without a reload, and what somebody is doing stays as it is.
fn check_live(mut browser: Browser, origin: &str, enrol: impl Fn(&str)) {
    browser.open(&format!("{origin}/login"));
    sign_in(&mut browser);
    browser.open(&format!("{origin}/devices"));
    let before = browser.events.len();
    enrol("first-arrival");
    // As when its tab is looked at again.
    let look = "document.dispatchEvent(new Event('visibilitychange'))";
    let listed = "[...document.querySelectorAll('#devices-table .hostname')].map(host => host.textContent)";
    let is_listed = |browser: &mut Browser, host: &str| {
        browser.evaluate(listed).as_array().unwrap().iter().any(|name| name == host)
    };
    browser.evaluate(look);
    until(|| is_listed(&mut browser, "first-arrival"));
    browser.evaluate(
        "document.querySelector('#devices-table details').open = true;
         document.querySelector('#devices-table details input[type=text]').value = 'half a sen';",
    );
    let counted = "document.querySelector('#device-count').value";
    let count = browser.evaluate(counted);
    enrol("second-arrival");
    browser.evaluate(look);
    until(|| browser.evaluate(counted) != count);
    let typed = browser.evaluate("document.querySelector('#devices-table details input[type=text]').value");
    assert_eq!(typed, "half a sen");
    assert!(!is_listed(&mut browser, "second-arrival"), "the table waits for the form");
    let loads = |event: &Value| event["method"] == "Page.loadEventFired";
    assert!(!browser.events[before..].iter().any(loads), "the page was loaded anew");
}

/// Waits for a condition.
fn until(mut holds: impl FnMut() -> bool) {
    let begun = std::time::Instant::now();
    let (_open, never) = std::sync::mpsc::channel::<()>();
    while !holds() {
        assert!(begun.elapsed() < std::time::Duration::from_secs(60), "it did not come");
        let _ = never.recv_timeout(std::time::Duration::from_millis(50));
    }
}

/// Adds or changes a tier and enrols somebody, by the page's own forms.
fn check_perks(browser: &mut Browser, origin: &str) {
    browser.open(&format!("{origin}/perks"));
    browser.and_wait_for_load(|browser| {
        browser.evaluate(
            "for (const [name, value] of [['name', 'Everyone'], ['monthly', '2 000 000']])
               document.querySelector(`#tier-form [name=${name}]`).value = value;
             document.querySelector('#tier-form button').click()",
        );
    });
    browser.and_wait_for_load(|browser| {
        browser.evaluate(
            "document.querySelector('#enrol-form [name=email]').value = 'grace3@acme.example';
             document.querySelector('#enrol-form button').click()",
        );
    });
    assert_eq!(browser.evaluate("document.querySelector('#tiers-table td data').value"), "2000000");
    assert_eq!(browser.evaluate("document.querySelector('#enrolled-count').value"), "1");
    let sums = browser.evaluate("[...document.querySelectorAll('#sums-table data')].map(sum => sum.value)");
    assert_eq!(sums, serde_json::json!(["7654321"]));
}

fn sign_in(browser: &mut Browser) {
    let (name, password) = (fleet::NAME, fleet::PASSWORD);
    browser.and_wait_for_load(|browser| {
        browser.evaluate(&format!(
            "document.querySelector('#name').value = '{name}';
             document.querySelector('#password').value = '{password}';
             document.querySelector('form button').click()"
        ));
    });
}

fn check_overview(browser: &mut Browser, expected: &Expected) {
    for (tile, number) in
        [("cost", expected.cost), ("tokens", expected.tokens), ("exchanges", expected.exchanges)]
    {
        let shown = browser.evaluate(&format!("document.querySelector('#tile-{tile} .big data').value"));
        assert_eq!(shown, number.to_string(), "{tile}");
    }
    for (table, rows) in [
        ("provider", &expected.providers),
        ("department", &expected.departments),
        ("service", &expected.services),
    ] {
        let shown = browser.evaluate(&format!(
            "[...document.querySelectorAll('#{table}-table tbody tr')]
               .map(row => [row.dataset.id, Number(row.querySelector('.tokens data').value)])"
        ));
        assert_eq!(serde_json::from_value::<Vec<(String, i64)>>(shown).unwrap(), *rows, "{table}");
    }
    let images = browser.evaluate(
        "[...document.querySelectorAll('svg[role=img]')].map(image => image.getAttribute('aria-labelledby')
           .split(' ').map(id => document.getElementById(id).textContent.length > 0))",
    );
    assert_eq!(images, serde_json::json!([[true, true], [true, true]]));
}

/// The same numbers, told apart otherwise, and in another order.
fn check_usage(browser: &mut Browser, origin: &str, expected: &Expected) {
    let rows = "[...document.querySelectorAll('#usage-table tbody tr')]
        .map(row => [row.dataset.id, Number(row.querySelector('.tokens data').value)])";
    browser.open(&format!("{origin}/usage?by=department"));
    let shown = browser.evaluate(rows);
    assert_eq!(serde_json::from_value::<Vec<(String, i64)>>(shown).unwrap(), expected.departments);
    browser.and_wait_for_load(|browser| {
        browser.evaluate("document.querySelector('#usage-table th:nth-child(3) a').click()");
    });
    let sorted = browser.evaluate("document.querySelector('#usage-table [aria-sort]').textContent.trim()");
    assert_eq!(sorted, "Tokens ↓");
    browser.open(&format!("{origin}/usage?by=service"));
    let shown = browser.evaluate(rows);
    assert_eq!(serde_json::from_value::<Vec<(String, i64)>>(shown).unwrap(), expected.services);
    let total = browser.evaluate("document.querySelector('#usage-table tfoot .tokens data').value");
    assert_eq!(total, expected.tokens.to_string());
}

/// Nothing sticks out to the right, and every identifier is there once.
fn check_page(browser: &mut Browser, name: &str) {
    let overflow =
        browser.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth");
    assert_eq!(overflow, 0, "{name} is wider than the window");
    let twice = browser.evaluate(
        "[...document.querySelectorAll('[id]')].map(e => e.id).filter((id, at, all) => all.indexOf(id) !== at)",
    );
    assert_eq!(twice, serde_json::json!([]), "{name}");
    if let Some(directory) = std::env::var_os("TOKTRA_PICTURES") {
        let file = std::path::Path::new(&directory).join(format!("{name}.png"));
        std::fs::write(file, browser.picture()).unwrap();
    }
}

/// The control: what the policy forbids is blocked, and the browser says so where we listen.
fn check_that_violations_are_heard(browser: &mut Browser) {
    let before = browser.events.len();
    let colour = browser.evaluate(
        "document.body.setAttribute('style', 'color: rgb(1, 2, 3)'); getComputedStyle(document.body).color",
    );
    assert_ne!(colour, "rgb(1, 2, 3)");
    browser.wait_for(before, |event| event["method"] == "Log.entryAdded");
}

/// No violation of the policy, no error, no request to anybody else.
fn check_events(events: &[Value], origin: &str) {
    let mut requests = 0;
    for event in events {
        match event["method"].as_str().unwrap_or_default() {
            "Log.entryAdded" | "Runtime.consoleAPICalled" | "Runtime.exceptionThrown" => {
                panic!("the browser complained: {event}")
            }
            "Network.requestWillBeSent" => {
                let url = event["params"]["request"]["url"].as_str().unwrap();
                // The icon of a date's field is the browser's own, and no request of anybody.
                let is_own = url.starts_with("data:image/svg+xml;");
                assert!(is_own || url.starts_with(&format!("{origin}/")), "the page asked for {url}");
                requests += 1;
            }
            _ => {}
        }
    }
    assert!(requests > 30, "only {requests} requests were seen");
}
