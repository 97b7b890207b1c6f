//! The page of perks: what its forms change, what they refuse, and that it tells only sums.

use axum::http::StatusCode;
use toktra_protocol::directive::FF_TOKEN_PERKS;
use toktra_store::directory::create_user;
use toktra_store::perks::{self, Sum};
use toktra_store::{audit, flags};

use super::client::{Client, House, NOW, form};
use super::fleet;

async fn token(client: &mut Client) -> String {
    client.get("/perks").await.form_token().to_owned()
}

fn tier(token: &str, name: &str, monthly: &str, rollover: &str) -> String {
    form(&[("token", token), ("name", name), ("monthly", monthly), ("rollover", rollover)])
}

#[tokio::test]
async fn tiers_and_enrolments_are_made_changed_and_ended_by_forms_and_audited() {
    let house = House::new().await;
    create_user(&house.store, &house.organisation, None, "grace@acme.example", "test", NOW).await.unwrap();
    let mut client = house.signed_in().await;
    let page = client.get("/perks").await.text;
    assert!(page.contains("Nobody is enrolled") && page.contains("flag set FF_TOKEN_PERKS on"));
    flags::set(&house.store, &house.organisation, FF_TOKEN_PERKS, true, "test", NOW).await.unwrap();
    let token = token(&mut client).await;
    for amount in ["2 000 000", "3,000,000"] {
        let reply = client.post("/perks/tiers", &tier(&token, "Everyone", amount, "500_000")).await;
        assert_eq!((reply.status, reply.location()), (StatusCode::SEE_OTHER, "/perks"));
    }
    let enrol = form(&[("token", &token), ("email", "grace@acme.example"), ("tier", "Everyone")]);
    assert_eq!(client.post("/perks/enrol", &enrol).await.status, StatusCode::SEE_OTHER);
    let page = client.get("/perks").await.text;
    assert!(page.contains("grace@acme.example") && page.contains("3,000,000") && !page.contains("2,000,000"));
    assert!(!page.contains("flag set"));
    let name = |name: &str| form(&[("token", &token), ("name", name)]);
    let in_use = client.post("/perks/tiers/remove", &name("Everyone")).await;
    assert_eq!(in_use.status, StatusCode::BAD_REQUEST);
    assert_eq!(client.post("/perks/remove", &name("grace@acme.example")).await.status, StatusCode::SEE_OTHER);
    assert_eq!(client.post("/perks/tiers/remove", &name("Everyone")).await.status, StatusCode::SEE_OTHER);
    assert!(client.get("/perks").await.text.contains("Nobody is enrolled"));
    let done = audit::newest(&house.store, 5).await.unwrap();
    let done: Vec<_> = done.iter().map(|row| (&*row.actor, &*row.action)).collect();
    let deeds = ["perk_tier_remove", "perk_remove", "perk_enrol", "perk_tier_set", "perk_tier_add"];
    assert_eq!(done, deeds.map(|deed| (fleet::NAME, deed)));
}

#[tokio::test]
async fn what_is_no_tier_no_amount_and_no_user_is_refused() {
    let house = House::new().await;
    let mut client = house.signed_in().await;
    let token = token(&mut client).await;
    for (name, monthly, rollover) in [
        ("", "1", "0"),
        ("T", "0", "0"),
        ("T", "", "0"),
        ("T", "-1", "0"),
        ("T", "1.5", "0"),
        ("T", "1", "x"),
        ("T", "99999999999999999999", "0"),
        ("T\n", "1", "1000000000001"),
    ] {
        let reply = client.post("/perks/tiers", &tier(&token, name, monthly, rollover)).await;
        assert_eq!(reply.status, StatusCode::BAD_REQUEST, "{name:?} {monthly} {rollover}");
    }
    let enrol = form(&[("token", &token), ("email", "nobody@acme.example"), ("tier", "T")]);
    assert_eq!(client.post("/perks/enrol", &enrol).await.status, StatusCode::NOT_FOUND);
    client.post("/perks/tiers", &tier(&token, "T", "1", "0")).await;
    assert_eq!(client.post("/perks/enrol", &enrol).await.status, StatusCode::NOT_FOUND);
    let nobody = form(&[("token", &token), ("name", "nobody@acme.example")]);
    assert_eq!(client.post("/perks/remove", &nobody).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn every_form_needs_a_session_its_token_and_people_of_its_organisation() {
    let house = House::new().await;
    let elsewhere = fleet::organisation(&house.store, "Elsewhere", "eve", NOW).await;
    create_user(&house.store, &elsewhere, None, "mole@elsewhere.example", "test", NOW).await.unwrap();
    let mut eve = house.client();
    eve.sign_in("eve", fleet::PASSWORD).await;
    let hers = token(&mut eve).await;
    eve.post("/perks/tiers", &tier(&hers, "Theirs", "1", "0")).await;
    let enrol = [("email", "mole@elsewhere.example"), ("tier", "Theirs")];
    let enrolling = |token| form(&[&[("token", token)], &enrol[..]].concat());
    assert_eq!(eve.post("/perks/enrol", &enrolling(&*hers)).await.status, StatusCode::SEE_OTHER);

    let mut client = house.signed_in().await;
    let page = client.get("/perks").await;
    assert!(!page.text.contains("Theirs") && !page.text.contains("mole"));
    let own = page.form_token().to_owned();
    for (path, name) in
        [("tiers", "T"), ("tiers/remove", "Theirs"), ("enrol", ""), ("remove", "mole@elsewhere.example")]
    {
        let path = format!("/perks/{path}");
        let sent = |token| {
            let fields = [("token", token), ("name", name), ("monthly", "1"), ("rollover", "0")];
            form(&[&fields[..], &enrol].concat())
        };
        assert_eq!(client.post(&path, &sent(&*hers)).await.status, StatusCode::FORBIDDEN, "{path}");
        assert_eq!(house.client().post(&path, &sent("x")).await.location(), "/login", "{path}");
        if !path.ends_with("/tiers") {
            assert_eq!(client.post(&path, &sent(&*own)).await.status, StatusCode::NOT_FOUND, "{path}");
        }
    }
    assert_eq!(perks::enrolled(&house.store, &elsewhere, NOW).await.unwrap().len(), 1);
    assert_eq!(perks::tiers(&house.store, &house.organisation, NOW).await.unwrap(), []);
}

#[tokio::test]
async fn finished_months_are_shown_the_newest_first_by_the_names_of_their_tiers() {
    let house = House::new().await;
    let mut client = house.signed_in().await;
    let token = token(&mut client).await;
    client.post("/perks/tiers", &tier(&token, "<b>Everyone", "1", "0")).await;
    let id = perks::tiers(&house.store, &house.organisation, NOW).await.unwrap().remove(0).id;
    let sum =
        |month: &str, tier_id, others, tokens| Sum { month: month.parse().unwrap(), tier_id, others, tokens };
    let sums = [
        sum("2026-09", Some(id.clone()), true, 1_234_567),
        sum("2026-10", Some(id), false, 7),
        sum("2026-10", None, true, 8),
    ];
    for _ in 0..2 {
        perks::keep_sums(&house.store, &house.organisation.id, &sums).await.unwrap();
    }
    let page = client.get("/perks").await.text;
    let at = |text: &str| page.find(text).unwrap_or_else(|| panic!("{text} is missing in {page}"));
    assert!(at("All other tiers") < at("Everyone and all other tiers"));
    assert!(at("2026-10") < at("2026-09") && page.contains(">1,234,567<") && !page.contains("<b>Everyone"));
}
