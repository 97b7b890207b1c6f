//! What the pages say.

use toktra_protocol::Minute;
use toktra_store::directory::create_department;

use super::client::{House, NOW};
use super::fleet;

#[tokio::test]
async fn without_a_device_both_pages_say_what_to_do_first() {
    let house = House::new().await;
    let mut client = house.signed_in().await;
    for path in ["/", "/devices"] {
        let page = client.get(path).await.text;
        assert!(page.contains("toktra-server token create"), "{path}");
        assert!(page.contains("toktra-agent enroll"), "{path}");
    }
}

#[tokio::test]
async fn with_devices_and_no_usage_the_overview_says_where_to_look() {
    let house = House::new().await;
    fleet::device(&house.store, &house.organisation, None, ("host", "linux", None), NOW).await;
    let page = house.signed_in().await.get("/?days=7").await.text;
    assert!(page.contains("No usage in this range"));
    assert!(page.contains("$0.00"));
}

#[tokio::test]
async fn what_has_no_price_is_unpriced_and_never_nothing() {
    let house = House::new().await;
    let id = fleet::device(&house.store, &house.organisation, None, ("host", "linux", None), NOW).await;
    let ledger = fleet::ledger(&house.store, NOW);
    fleet::book(&ledger, id, vec![(NOW.minute(), fleet::usage(5, 100, 50, 1))]).await;
    let page = house.signed_in().await.get("/").await.text;
    assert!(page.contains(">unpriced<"));
    assert!(!page.contains("$0"), "an unpriced service must not look free");
    assert!(page.contains("Perplexity"));
    assert!(!page.contains("Cost by day"), "a chart of nothing");
}

#[tokio::test]
async fn the_range_is_what_the_address_asks_for_and_else_thirty_days() {
    let house = House::new().await;
    let id = fleet::device(&house.store, &house.organisation, None, ("host", "linux", None), NOW).await;
    let ledger = fleet::ledger(&house.store, NOW);
    let day = |back: u64| Minute(NOW.minute().0 - back * 1_440);
    let bodies = [(60, 64), (20, 16), (3, 4), (0, 1)];
    let bodies = bodies.map(|(back, exchanges)| (day(back), fleet::usage(0, 10, 10, exchanges)));
    fleet::book(&ledger, id, bodies.into()).await;
    let mut client = house.signed_in().await;
    for (query, exchanges) in [
        ("/?days=1", 1),
        ("/?days=7", 5),
        ("/?days=30", 21),
        ("/?days=90", 85),
        ("/", 21),
        ("/?days=31", 21),
        ("/?days=%3Cscript%3E", 21),
        ("/?days=-1&days=2", 21),
    ] {
        let page = client.get(query).await.text;
        let shown = format!(r#"<data value="{exchanges}" title="{exchanges}">{exchanges}</data>"#);
        assert!(page.contains(&shown), "{query}");
    }
}

#[tokio::test]
async fn names_from_outside_are_text_and_never_markup() {
    let house = House::new().await;
    let department =
        create_department(&house.store, &house.organisation, "<script>alert(1)</script>", "test", NOW)
            .await
            .unwrap();
    let host = (r#""><img src=x onerror=alert(2)>"#, "<b>os</b>", Some("'\"&<i>@example"));
    let id = fleet::device(&house.store, &house.organisation, Some(&department), host, NOW).await;
    let ledger = fleet::ledger(&house.store, NOW);
    fleet::book(&ledger, id, vec![(NOW.minute(), fleet::usage(0, 100, 50, 1))]).await;
    let mut client = house.signed_in().await;
    for path in ["/", "/devices", "/usage?by=device", "/usage?by=department"] {
        let page = client.get(path).await.text;
        for markup in ["<script>", "<img", "<b>", "<i>", "onerror=alert(2)>\""] {
            assert!(!page.contains(markup), "{path} {markup}");
        }
        let department = page.contains("&#60;script&#62;alert(1)") || page.contains("&lt;script&gt;alert(1)");
        assert!(department, "{path}");
    }
    let reply = client.post("/login", "name=%22%3E%3Cscript%3E&password=x").await;
    assert!(!reply.text.contains("<script"));
}

#[tokio::test]
async fn an_administrator_sees_nothing_of_another_organisation() {
    let house = House::new().await;
    fleet::month(&house.store, &house.organisation, NOW).await;
    let rival = fleet::organisation(&house.store, "Rival", "rita", NOW).await;
    let department = create_department(&house.store, &rival, "Secret Projects", "test", NOW).await.unwrap();
    let host = ("secret-host", "linux", Some("spy@rival.example"));
    let id = fleet::device(&house.store, &rival, Some(&department), host, NOW).await;
    let ledger = fleet::ledger(&house.store, NOW);
    fleet::book(&ledger, id, vec![(NOW.minute(), fleet::usage(0, 7_777_777, 50, 999))]).await;
    let mut ours = house.signed_in().await;
    let mut theirs = house.client();
    theirs.sign_in("rita", fleet::PASSWORD).await;
    for path in ["/", "/?days=1", "/?days=90", "/devices", "/usage?by=device", "/usage.csv?by=device"] {
        let page = ours.get(path).await.text;
        for word in ["Rival", "Secret", "secret-host", "rival.example", &id.to_string()] {
            assert!(!page.contains(word), "{path} {word}");
        }
        let page = theirs.get(path).await.text;
        for word in ["Acme", "Research", "grace-macbook", "acme.example"] {
            assert!(!page.contains(word), "{path} {word}");
        }
        assert!(page.contains("secret-host"), "{path}");
    }
}

#[tokio::test]
async fn a_long_list_of_devices_has_pages() {
    let house = House::new().await;
    for number in 0..101 {
        let name = format!("host-{number:03}");
        fleet::device(&house.store, &house.organisation, None, (&name, "linux", None), NOW).await;
    }
    let mut client = house.signed_in().await;
    let first = client.get("/devices").await.text;
    assert!(first.contains("host-099") && !first.contains("host-100") && first.contains("Page 1 of 2"));
    for path in ["/devices?page=2", "/devices?page=999"] {
        let last = client.get(path).await.text;
        assert!(last.contains("host-100") && !last.contains("host-099"), "{path}");
    }
    for path in ["/devices?page=0", "/devices?page=-3", "/devices?page=x"] {
        assert!(client.get(path).await.text.contains("host-000"), "{path}");
    }
}
