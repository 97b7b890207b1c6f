//! Usage told apart and narrowed, on the page and in files; and the overview's own parts.

use toktra_protocol::Minute;
use toktra_protocol::budget::{Period, Scope, Unit};
use toktra_store::audit;
use toktra_store::budgets::{self, Settings};
use toktra_store::directory::{self, create_department_within, set_time_zone};
use toktra_store::period::Zone;
use toktra_store::roles::Role;
use toktra_store::spend::ScopeKey;

use super::client::{House, NOW};
use super::fleet;
use super::roles::signed_in_as;

/// Research, in it Vision; a device of a person in each, and one of nobody.
async fn filled() -> House {
    let house = House::new().await;
    let (store, acme) = (&house.store, &house.organisation);
    let research = create_department_within(store, acme, None, "Research", "test", NOW).await.unwrap();
    let vision = create_department_within(store, acme, Some(&research), "Vision", "test", NOW).await.unwrap();
    let ledger = fleet::ledger(store, NOW);
    for (department, host, user, service, tokens) in [
        (Some(&research), "=cmd", Some("ada@acme.example"), 0, 1_000),
        (Some(&vision), "host-vision", Some("bob@acme.example"), 1, 200),
        (None, "host-alone", None, 5, 30),
    ] {
        let id = fleet::device(store, acme, department, (host, "linux", user), NOW).await;
        let today = fleet::usage(service, tokens, tokens, 2);
        let then = fleet::usage(service, tokens * 10, 0, 1);
        let back = |days: u64| Minute(NOW.minute().0 - days * 1_440);
        fleet::book(&ledger, id, vec![(back(8), then), (back(0), today)]).await;
    }
    house
}

/// The names of a page's rows, in their order.
fn names(page: &str) -> Vec<&str> {
    let body = page.split_once("<tbody>").unwrap().1.split_once("</tbody>").unwrap().0;
    let named = body.split("<bdi").skip(1).map(|rest| rest.split_once('>').unwrap().1);
    named.map(|rest| rest.split_once('<').unwrap().0).collect()
}

#[tokio::test]
async fn rows_are_told_apart_narrowed_and_ordered_as_the_address_asks() {
    let house = filled().await;
    let mut client = house.signed_in().await;
    let departments = client.get("/").await.text;
    let id = |name: &str| {
        let row = departments.split("<tr data-id=\"").find(|row| row.contains(&format!(">{name}<"))).unwrap();
        row.split_once('"').unwrap().0.to_owned()
    };
    let research = id("Research");
    for (query, expected) in [
        ("by=department", vec!["Research", "Vision", "No department"]),
        ("by=department&order=name", vec!["No department", "Research", "Vision"]),
        ("by=department&order=-name", vec!["Vision", "Research", "No department"]),
        ("by=user", vec!["ada@acme.example", "bob@acme.example", "No person"]),
        ("by=device&order=-tokens", vec!["host-alone", "host-vision", "=cmd"]),
        ("by=device&user=bob%40acme.example", vec!["host-vision"]),
        ("by=service&device=host-vision", vec!["Claude API"]),
        ("by=provider&service=openai-api", vec!["OpenAI"]),
        ("by=application", vec!["python3"]),
        ("by=device&application=python3&provider=perplexity", vec!["host-alone"]),
        (&format!("by=device&department={research}"), vec!["=cmd", "host-vision"]),
        ("by=nonsense&order=nonsense&page=-3", vec!["OpenAI API", "Claude API", "perplexity-chat"]),
    ] {
        let page = client.get(&format!("/usage?{query}")).await.text;
        assert_eq!(names(&page), expected, "{query}");
    }
}

#[tokio::test]
async fn days_are_the_organisations_and_what_is_no_day_is_complained_of() {
    let house = filled().await;
    let mut client = house.signed_in().await;
    let tokens = async |client: &mut super::client::Client, query: &str| {
        let page = client.get(&format!("/usage?by=department&{query}")).await.text;
        let foot = page.split_once("<tfoot>").map(|(_, foot)| foot.to_owned())?;
        let cell =
            foot.split_once("class=\"tokens\"").unwrap().1.split_once("value=\"").unwrap().1.to_owned();
        Some(cell.split_once('"').unwrap().0.to_owned())
    };
    // Today 2 × 1,230, eight days ago 10 × 1,230.
    assert_eq!(tokens(&mut client, "from=2026-11-23&to=2026-11-23").await.as_deref(), Some("2460"));
    assert_eq!(tokens(&mut client, "from=2026-11-15&to=2026-11-15").await.as_deref(), Some("12300"));
    assert_eq!(tokens(&mut client, "from=2026-11-15").await.as_deref(), Some("14760"));
    assert_eq!(tokens(&mut client, "from=2026-11-16&to=2026-11-22").await, None);
    for (query, what) in [
        ("from=2026-11-31", "“2026-11-31” is not a date"),
        ("from=2026-11-20&to=2026-11-01", "comes after"),
        ("from=2027-01-01", "is yet to come"),
        ("from=1970-01-01", "ten years at most"),
        ("user=eve", "Nobody has the address “eve”"),
        ("device=%3Cb%3E", "No device is called"),
    ] {
        let page = client.get(&format!("/usage?{query}")).await.text;
        assert!(page.contains(what) && !page.contains("<b>"), "{query}");
    }
    // In Auckland it is the 24th already.
    let zone = Zone::named("Pacific/Auckland").unwrap();
    set_time_zone(&house.store, &house.organisation, &zone, "test", NOW).await.unwrap();
    let page = client.get("/usage").await.text;
    assert!(page.contains("24 Nov 2026, Pacific/Auckland"), "the present day");
}

#[tokio::test]
async fn a_file_has_the_rows_of_the_page_without_formulas_and_is_audited_if_it_is_of_persons() {
    let house = filled().await;
    let mut client = house.signed_in().await;
    let reply = client.get("/usage.csv?by=device&order=tokens").await;
    assert_eq!(reply.header("content-type"), "text/csv; charset=utf-8");
    let named = "attachment; filename=\"toktra-usage-by-device-2026-10-25-2026-11-23.csv\"";
    assert_eq!(reply.header("content-disposition"), named);
    let lines: Vec<Vec<&str>> = reply.text.lines().map(|line| line.split(',').collect()).collect();
    assert_eq!(lines[0][0], "device");
    let first: Vec<_> = lines[1..].iter().map(|cells| cells[0]).collect();
    assert_eq!(first, ["'=cmd", "host-vision", "host-alone"]);
    let column = |name: &str| lines[0].iter().position(|cell| *cell == name).unwrap();
    assert_eq!(lines[1][column("tokens")], "12000");
    // 11,000 in at $2.5 and 1,000 out at $10 a million.
    assert_eq!(lines[1][column("cost_usd")], "0.037500");
    assert_eq!(lines[3][column("cost_usd")], "", "unpriced is not nothing");
    let whole: serde_json::Value =
        serde_json::from_str(&client.get("/usage.json?by=service&from=2026-11-23").await.text).unwrap();
    assert_eq!(whole["asked"]["from"], "2026-11-23");
    assert_eq!(whole["total"]["tokens"]["point"], 2460);
    assert_eq!(whole["rows"][2]["cost_usd"], serde_json::Value::Null);
    let rows = audit::newest(&house.store, 100).await.unwrap();
    let exports: Vec<_> = rows.iter().filter(|row| row.action == "usage_export").collect();
    assert_eq!(exports.len(), 1, "the one by device");
    assert_eq!((exports[0].actor.as_str(), exports[0].detail.as_str()), (fleet::NAME, "CSV"));
    assert!(exports[0].subject.starts_with("/usage?by=device&from=2026-10-25"), "{}", exports[0].subject);
    client.get("/usage.json?by=service&user=ada%40acme.example").await;
    let rows = audit::newest(&house.store, 100).await.unwrap();
    assert_eq!(rows.iter().filter(|row| row.action == "usage_export").count(), 2);
}

#[tokio::test]
async fn a_long_table_has_pages_and_its_file_all_of_them() {
    let house = House::new().await;
    let ledger = fleet::ledger(&house.store, NOW);
    for number in 0..101 {
        let name = format!("host-{number:03}");
        let id = fleet::device(&house.store, &house.organisation, None, (&name, "linux", None), NOW).await;
        fleet::book(&ledger, id, vec![(NOW.minute(), fleet::usage(0, 1_000 - number, 0, 1))]).await;
    }
    let mut client = house.signed_in().await;
    let first = client.get("/usage?by=device").await.text;
    assert_eq!(names(&first).len(), 100);
    assert!(first.contains("page=2"), "a link to the next");
    let second = client.get("/usage?by=device&page=2").await.text;
    assert_eq!(names(&second), ["host-100"]);
    assert_eq!(client.get("/usage.csv?by=device&page=2").await.text.lines().count(), 102);
    assert!(client.get("/usage?by=device&page=3").await.text.contains("No more rows"));
}

#[tokio::test]
async fn the_overview_says_what_changed_and_how_a_day_stands_to_the_budget() {
    let house = filled().await;
    let mut client = house.signed_in().await;
    let page = client.get("/").await.text;
    let changes = page.split_once("id=\"changes-table\"").unwrap().1;
    let first = changes.split_once("<tbody>").unwrap().1.split_once("</tr>").unwrap().0;
    assert!(first.contains("OpenAI API") || first.contains("Research"), "{first}");
    assert!(first.contains("−80\u{202f}%"), "2,000 after 10,000: {first}");
    assert!(!page.contains("class=\"pace\""), "there is no budget");
    let whole = ScopeKey {
        organisation: house.organisation.id.as_str().into(),
        scope: Scope::Organisation,
        id: house.organisation.id.as_str().into(),
    };
    let settings = Settings {
        unit: Unit::Tokens,
        amount: 300_000,
        period: Period::Monthly,
        hard: false,
        thresholds: vec![],
        rollover_limit: 0,
        message: String::new(),
    };
    budgets::create(&house.store, "Everybody", &whole, &settings, "test", NOW).await.unwrap();
    let page = client.get("/?days=30").await.text;
    assert!(page.contains("“Everybody” if it is spent evenly"));
    assert_eq!(page.matches("class=\"pace\"").count(), 1, "of tokens, not of cost");
}

#[tokio::test]
async fn a_budget_owner_sees_the_usage_of_their_departments_on_every_page_and_in_every_file() {
    let house = filled().await;
    let departments = directory::departments(&house.store, &house.organisation.id).await.unwrap();
    let vision = departments.iter().find(|department| department.name == "Vision").unwrap();
    let mut owner = signed_in_as(&house, "bo", Role::BudgetOwner, std::slice::from_ref(vision)).await;
    for path in [
        "/",
        "/?days=1",
        "/usage?by=department",
        "/usage?by=user",
        "/usage?by=device",
        "/usage.csv?by=device",
        "/usage.json?by=user",
    ] {
        let page = owner.get(path).await.text;
        for word in ["Research", "=cmd", "ada@acme.example", "host-alone", "No department", "Devices seen"] {
            assert!(!page.contains(word), "{path} tells of {word}");
        }
    }
    assert_eq!(names(&owner.get("/usage?by=department").await.text), ["Vision"]);
    assert_eq!(names(&owner.get("/usage?by=device").await.text), ["host-vision"]);
    let other = departments.iter().find(|department| department.name == "Research").unwrap();
    for query in ["by=service&user=ada%40acme.example", "by=user&device=%3Dcmd"] {
        assert!(owner.get(&format!("/usage?{query}")).await.text.contains("No usage of that"), "{query}");
    }
    // Research has Vision below it, and of that alone they see something.
    let page = owner.get(&format!("/usage?by=device&department={}", other.id)).await.text;
    assert!(page.contains("No usage of that") || names(&page) == ["host-vision"]);
    let mut everything = signed_in_as(&house, "resi", Role::BudgetOwner, std::slice::from_ref(other)).await;
    assert_eq!(names(&everything.get("/usage?by=department").await.text), ["Research", "Vision"]);
    let mut nothing = signed_in_as(&house, "new", Role::BudgetOwner, &[]).await;
    assert!(nothing.get("/usage?by=user").await.text.contains("No usage of that"));
}
