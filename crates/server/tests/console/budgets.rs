//! The page of budgets: what it says, what its forms change, and what they refuse.

use axum::http::StatusCode;
use toktra_protocol::budget::{Scope, Unit};
use toktra_protocol::directive::FF_BUDGET_HARD_CAPS;
use toktra_store::directory::{create_department, create_department_within, create_user};
use toktra_store::{audit, budgets, exemptions, flags};

use super::client::{Client, House, NOW, form};
use super::fleet;

/// The form for a new budget, with these fields in place of what most budgets have.
fn new_budget(token: &str, other: &[(&'static str, &str)]) -> String {
    let mut fields = vec![
        ("token", token),
        ("name", "Research, monthly"),
        ("department", ""),
        ("user", ""),
        ("unit", "tokens"),
        ("amount", "20,000,000"),
        ("period", "monthly"),
        ("thresholds", "75, 90, 100"),
        ("rollover", ""),
        ("message", ""),
    ];
    fields.retain(|(name, _)| other.iter().all(|(replaced, _)| replaced != name));
    fields.extend(other.iter().copied());
    form(&fields)
}

async fn token(client: &mut Client) -> String {
    client.get("/budgets").await.form_token().to_owned()
}

async fn all(house: &House) -> Vec<budgets::BudgetRow> {
    budgets::of_organisation(&house.store, &house.organisation).await.unwrap()
}

#[tokio::test]
async fn a_budget_is_made_changed_and_removed_by_forms_and_audited() {
    let house = House::new().await;
    let department = create_department(&house.store, &house.organisation, "R&D", "test", NOW).await.unwrap();
    create_user(&house.store, &house.organisation, None, "grace@acme.example", "test", NOW).await.unwrap();
    let mut client = house.signed_in().await;
    assert!(client.get("/budgets").await.text.contains("No budget yet"));
    let token = token(&mut client).await;
    for other in [
        &[("name", "All"), ("unit", "dollars"), ("amount", "$1,250.50"), ("rollover", "100")][..],
        &[("name", "Lab"), ("department", &department.id), ("hard", "on"), ("message", "Ask Ada.")],
        &[("name", "Grace"), ("user", "grace@acme.example"), ("period", "weekly"), ("thresholds", "")],
    ] {
        let reply = client.post("/budgets/add", &new_budget(&token, other)).await;
        assert_eq!(reply.status, StatusCode::SEE_OTHER, "{}", reply.text);
        assert!(reply.location().starts_with("/budgets#budget-"));
    }
    let made = all(&house).await;
    let named = |name: &str| made.iter().find(|budget| budget.name == name).unwrap();
    let (whole, lab, grace) = (named("All"), named("Lab"), named("Grace"));
    assert_eq!((whole.scope.scope, whole.settings.unit), (Scope::Organisation, Unit::Micros));
    assert_eq!((whole.settings.amount, whole.settings.rollover_limit), (1_250_500_000, 100_000_000));
    assert_eq!((lab.scope.scope, &*lab.scope.id), (Scope::Department, department.id.as_str()));
    assert!(lab.settings.hard && lab.settings.message == "Ask Ada.");
    assert_eq!((grace.scope.scope, grace.settings.thresholds.len()), (Scope::User, 0));

    let changed = new_budget(&token, &[("budget", &lab.id), ("amount", "5 000 000"), ("period", "daily")]);
    let reply = client.post("/budgets/set", &changed).await;
    assert_eq!(reply.location(), format!("/budgets#budget-{}", lab.id));
    let lab_now = all(&house).await.into_iter().find(|budget| budget.id == lab.id).unwrap();
    assert_eq!((lab_now.settings.amount, lab_now.settings.hard), (5_000_000, false));
    assert_eq!(lab_now.name, "Lab", "a name stays");

    let removed = form(&[("token", &token), ("budget", &grace.id)]);
    assert_eq!(client.post("/budgets/remove", &removed).await.status, StatusCode::SEE_OTHER);
    assert_eq!(all(&house).await.len(), 2);
    let trail = audit::newest(&house.store, 5).await.unwrap();
    let done: Vec<_> = trail.iter().map(|row| (row.actor.as_str(), row.action.as_str())).collect();
    let (ada, add) = (fleet::NAME, "budget_add");
    assert_eq!(done, [(ada, "budget_remove"), (ada, "budget_set"), (ada, add), (ada, add), (ada, add)]);
}

#[tokio::test]
async fn a_form_that_is_refused_comes_back_as_it_was_sent_with_what_to_change() {
    let house = House::new().await;
    let mut client = house.signed_in().await;
    let token = token(&mut client).await;
    let made = client.post("/budgets/add", &new_budget(&token, &[("name", "Taken")])).await;
    assert_eq!(made.status, StatusCode::SEE_OTHER);
    for (other, complaint) in [
        (&[("amount", "20M")][..], "is not a number of tokens"),
        (&[("amount", "1.5"), ("unit", "tokens")], "is not a number of tokens"),
        (&[("name", " ")], "has 1 to 128 bytes"),
        (&[("name", "Taken")], "There is already the budget `Taken`."),
        (&[("user", "nobody@acme.example")], "There is no person with the address"),
        (&[("department", "gone")], "There is no such department any more"),
        (&[("department", "x"), ("user", "y")], "not both"),
        (&[("thresholds", "100, 50")], "ascending"),
        (&[("message", "<b>loud</b>"), ("amount", "")], "is not a number of tokens"),
    ] {
        let reply = client.post("/budgets/add", &new_budget(&token, other)).await;
        assert_eq!(reply.status, StatusCode::UNPROCESSABLE_ENTITY, "{other:?}");
        assert!(reply.text.contains(r#"role="alert""#) && reply.text.contains(complaint), "{other:?}");
        assert!(!reply.text.contains("<b>loud"), "it is text");
        for (_, value) in other.iter().filter(|(name, _)| *name == "amount") {
            assert!(reply.text.contains(&format!(r#"name="amount" value="{value}""#)), "{value}");
        }
    }
    let taken = &all(&house).await[0];
    let reply =
        client.post("/budgets/set", &new_budget(&token, &[("budget", &taken.id), ("amount", "0")])).await;
    assert_eq!(reply.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(reply.text.contains("“Taken” was not changed: An amount is at least 1"), "{}", reply.text);
    assert_eq!(all(&house).await, std::slice::from_ref(taken), "nothing has changed");
}

#[tokio::test]
async fn every_form_needs_a_session_its_token_and_a_thing_of_its_organisation() {
    let house = House::new().await;
    let elsewhere = fleet::organisation(&house.store, "Elsewhere", "eve", NOW).await;
    let mut eve = house.client();
    eve.sign_in("eve", fleet::PASSWORD).await;
    let hers = token(&mut eve).await;
    eve.post("/budgets/add", &new_budget(&hers, &[("name", "Theirs")])).await;
    let theirs = budgets::of_organisation(&house.store, &elsewhere).await.unwrap()[0].id.clone();

    let mut client = house.signed_in().await;
    let page = client.get("/budgets").await;
    assert!(!page.text.contains("Theirs"));
    let own = page.form_token().to_owned();
    for path in ["add", "set", "remove", "caps", "exemptions"] {
        let path = format!("/budgets/{path}");
        let sent = |token: &str| {
            let other = [("budget", &*theirs), ("on", "true"), ("exemption", "x"), ("decision", "end")];
            new_budget(token, &other)
        };
        assert_eq!(client.post(&path, &sent(&hers)).await.status, StatusCode::FORBIDDEN, "{path}");
        assert_eq!(house.client().post(&path, &sent("x")).await.location(), "/login", "{path}");
        if !path.ends_with("add") && !path.ends_with("caps") {
            assert_eq!(client.post(&path, &sent(&own)).await.status, StatusCode::NOT_FOUND, "{path}");
        }
    }
    assert!(all(&house).await.is_empty());
    assert_eq!(budgets::of_organisation(&house.store, &elsewhere).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_passed_cap_is_shown_and_the_request_for_more_is_granted_ended_and_denied() {
    let house = House::new().await;
    let lab = create_department(&house.store, &house.organisation, "Lab", "test", NOW).await.unwrap();
    let machine = ("host", "linux", Some("<i>grace@acme.example"));
    let device = fleet::device(&house.store, &house.organisation, Some(&lab), machine, NOW).await;
    fleet::book(
        &fleet::ledger(&house.store, NOW),
        device,
        vec![(NOW.minute(), fleet::usage(0, 900, 900, 1))],
    )
    .await;
    let mut client = house.signed_in().await;
    let own = token(&mut client).await;
    let cap = [("department", &*lab.id), ("amount", "1500"), ("hard", "on")];
    client.post("/budgets/add", &new_budget(&own, &cap)).await;
    let page = client.get("/budgets").await.text;
    assert!(page.contains("Passed; hard caps are off") && page.contains("120 % of the limit"), "{page}");
    assert!(page.contains("less than one long conversation"), "an amount to doubt");
    let switch = form(&[("token", &own), ("on", "true")]);
    assert_eq!(client.post("/budgets/caps", &switch).await.status, StatusCode::SEE_OTHER);
    let caps = flags::of_organisation(&house.store, &house.organisation).await.unwrap();
    assert!(caps[FF_BUDGET_HARD_CAPS]);
    assert!(client.get("/budgets").await.text.contains(">Blocks<"));

    let id = all(&house).await[0].id.clone();
    exemptions::request(&house.store, device, &id, "A <b>deadline</b>.", NOW).await.unwrap();
    let page = client.get("/budgets").await.text;
    assert!(page.contains("A &#60;b&#62;deadline") && page.contains("&#60;i&#62;grace"), "{page}");
    let waiting = async || {
        exemptions::of_organisation(&house.store, &house.organisation, false, NOW).await.unwrap().pop()
    };
    let request = waiting().await.unwrap().id;
    let decide = |decision: &str, hours: &str| {
        form(&[("token", &own), ("exemption", &request), ("decision", decision), ("hours", hours)])
    };
    for wrong in [decide("grant", "0"), decide("grant", "745"), decide("shrug", "1"), decide("grant", "x")] {
        assert_eq!(client.post("/budgets/exemptions", &wrong).await.status, StatusCode::BAD_REQUEST);
    }
    client.post("/budgets/exemptions", &decide("grant", "4")).await;
    let granted = waiting().await.unwrap();
    assert_eq!((granted.state.as_str(), granted.until), ("granted", Some((NOW.0 + 4 * 3_600) as i64)));
    assert!(client.get("/budgets").await.text.contains("Exempt for now"));
    // Somebody who decides on an old page is shown how it stands.
    assert_eq!(client.post("/budgets/exemptions", &decide("deny", "")).await.status, StatusCode::BAD_REQUEST);
    assert_eq!(client.post("/budgets/exemptions", &decide("deny", "0")).await.location(), "/budgets");
    assert_eq!(waiting().await.unwrap().state, "granted");
    client.post("/budgets/exemptions", &decide("end", "0")).await;
    assert_eq!(waiting().await, None);
    let trail = audit::newest(&house.store, 2).await.unwrap();
    let done: Vec<_> = trail.iter().map(|row| (row.actor.as_str(), row.action.as_str())).collect();
    assert_eq!(done, [(fleet::NAME, "exemption_end"), (fleet::NAME, "exemption_grant")]);
}

#[tokio::test]
async fn budgets_stand_in_the_order_of_the_tree() {
    let house = House::new().await;
    let (store, organisation) = (&house.store, &house.organisation);
    let zoo = create_department(store, organisation, "Zoo", "test", NOW).await.unwrap();
    create_department(store, organisation, "Aviary-less", "test", NOW).await.unwrap();
    let ape = create_department_within(store, organisation, Some(&zoo), "Apes", "test", NOW).await.unwrap();
    let mut client = house.signed_in().await;
    let own = token(&mut client).await;
    for (name, department) in [("1 apes", &*ape.id), ("2 whole", ""), ("3 zoo", &*zoo.id)] {
        let other = [("name", name), ("department", department)];
        client.post("/budgets/add", &new_budget(&own, &other)).await;
    }
    let page = client.get("/budgets").await.text;
    let at = |text: &str| page.find(&format!(">{text}</bdi>")).unwrap();
    assert!(at("2 whole") < at("3 zoo") && at("3 zoo") < at("1 apes"));
    assert!(page.contains(r#"<div class="depth-2"><bdi class="hostname">1 apes"#));
    assert!(page.contains("– Apes</option>"), "the choice shows the tree");
}
