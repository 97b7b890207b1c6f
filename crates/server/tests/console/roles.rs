//! Who may open what: every route as every role and as nobody, and how far a budget owner reaches.

use axum::body::Body;
use axum::http::{Method, StatusCode};
use toktra_server::console::{self, Access, Route};
use toktra_server::password;
use toktra_store::directory::{
    Department, create_department, create_department_within, create_user, move_department,
};
use toktra_store::roles::{self, Role};
use toktra_store::{accounts, audit, budgets, exemptions};

use super::client::{Client, House, NOW, Reply, form};
use super::fleet;

/// Makes an account of this name and role, and signs in.
pub async fn signed_in_as(house: &House, name: &str, role: Role, departments: &[Department]) -> Client {
    let hash = password::hash(fleet::PASSWORD).unwrap();
    let new = (name, role, departments);
    accounts::create_administrator(&house.store, &house.organisation, new, &hash, "test", NOW).await.unwrap();
    let mut client = house.client();
    let reply = client.sign_in(name, fleet::PASSWORD).await;
    assert_eq!(reply.status, StatusCode::SEE_OTHER);
    client
}

async fn ask(client: &mut Client, route: &Route, form: &str) -> Reply {
    if route.method == Method::GET {
        client.get(route.path).await
    } else {
        client.post(route.path, form).await
    }
}

#[tokio::test]
async fn every_route_is_open_to_the_roles_that_it_states_and_to_nobody_else() {
    let house = House::new().await;
    let lab = create_department(&house.store, &house.organisation, "Lab", "test", NOW).await.unwrap();
    let mut walked = 0;
    for role in Role::ALL {
        let departments = if role == Role::BudgetOwner { std::slice::from_ref(&lab) } else { &[] };
        let mut client = signed_in_as(&house, role.name(), role, departments).await;
        let token = client.get("/budgets").await.form_token().to_owned();
        for route in console::routes() {
            if route.path == "/logout" || route.path == "/login" {
                continue;
            }
            let open = match route.access {
                Access::Anyone => true,
                Access::Roles(roles) => roles.contains(&role),
            };
            let what = format!("{} {} as {}", route.method, route.path, role.name());
            // An empty form is refused by a handler that was reached, never by its guard.
            let status = ask(&mut client, route, &format!("token={token}")).await.status;
            let expected = match (open, &route.method) {
                (true, &Method::GET) => StatusCode::OK,
                (false, _) => StatusCode::FORBIDDEN,
                (true, _) => {
                    assert_ne!(status, StatusCode::FORBIDDEN, "{what}");
                    assert!(!status.is_server_error(), "{what}: {status}");
                    status
                }
            };
            assert_eq!(status, expected, "{what}");
            walked += 1;
        }
    }
    assert_eq!(walked, (console::routes().len() - 3) * Role::ALL.len());
    let everyone = Access::Roles(&Role::ALL);
    for route in console::routes() {
        let reply = ask(&mut house.client(), route, "token=x").await;
        let what = format!("{} {}", route.method, route.path);
        if route.access == Access::Anyone {
            assert_ne!((reply.status, reply.location()), (StatusCode::SEE_OTHER, "/login"), "{what}");
            continue;
        }
        assert_eq!((reply.status, reply.location()), (StatusCode::SEE_OTHER, "/login"), "{what}");
        assert!(route.path != "/logout" || route.access == everyone);
    }
}

#[tokio::test]
async fn whatever_changes_something_needs_the_sessions_own_token_and_origin() {
    let house = House::new().await;
    let mut client = house.signed_in().await;
    let own = client.get("/").await.form_token().to_owned();
    let other = house.signed_in().await.get("/").await.form_token().to_owned();
    let changing = console::routes().iter().filter(|route| route.method != Method::GET);
    let changing: Vec<_> = changing.filter(|route| route.access != Access::Anyone).collect();
    assert!(changing.len() > 10);
    for route in changing {
        for body in ["", "token=", "token=x", &format!("token={other}"), &format!("token={own}&token={own}")]
        {
            let reply = client.post(route.path, body).await;
            assert_eq!(reply.status, StatusCode::FORBIDDEN, "{} {body}", route.path);
        }
        let request = client.request("POST", route.path).header("origin", "https://evil.example");
        let request = request.header("content-type", "application/x-www-form-urlencoded");
        let reply = client.send(request.body(Body::from(format!("token={own}"))).unwrap()).await;
        assert_eq!(reply.status, StatusCode::FORBIDDEN, "{}", route.path);
        let large = format!("token={own}&filler={}", "x".repeat(2 * 1024 * 1024));
        assert_eq!(client.post(route.path, &large).await.status, StatusCode::BAD_REQUEST, "{}", route.path);
    }
    assert_eq!(client.get("/").await.status, StatusCode::OK, "the session is still there");
    assert_eq!(audit::newest(&house.store, 1).await.unwrap()[0].action, "sign_in", "nothing was done");
}

#[tokio::test]
async fn what_a_role_may_not_do_its_pages_do_not_offer() {
    let house = House::new().await;
    fleet::device(&house.store, &house.organisation, None, ("host", "linux", None), NOW).await;
    let mut auditor = signed_in_as(&house, "aud", Role::Auditor, &[]).await;
    for path in console::routes().iter().filter(|route| route.method == Method::GET) {
        let page = auditor.get(path.path).await.text;
        for form in page.split("<form").skip(1) {
            let allowed = ["/logout", "/login"].iter().any(|to| form.contains(&format!("action=\"{to}\"")))
                || form.contains("method=\"get\"")
                || path.path == "/account";
            assert!(allowed, "{}: {form:.200}", path.path);
        }
    }
    let mut keeper = signed_in_as(&house, "bob", Role::BudgetOwner, &[]).await;
    let page = keeper.get("/budgets").await.text;
    assert!(!page.contains("href=\"/devices\"") && !page.contains("/budgets/caps"), "{page}");
    assert!(page.contains("href=\"/budgets\"") && page.contains("/budgets/add"));
    assert!(keeper.get("/").await.text.contains("Overview"), "where they begin");
    let refused = keeper.get("/devices").await;
    assert!(refused.text.contains("not part of your role"));
}

fn budget<'a>(token: &'a str, other: &[(&'a str, &'a str)]) -> String {
    let mut fields = vec![("token", token), ("name", "B"), ("unit", "tokens"), ("amount", "1000000")];
    fields.extend([("period", "monthly"), ("thresholds", "75"), ("rollover", ""), ("message", "")]);
    fields.retain(|(name, _)| other.iter().all(|(replaced, _)| replaced != name));
    fields.extend(other);
    form(&fields)
}

#[tokio::test]
async fn a_budget_owner_sees_and_changes_what_their_departments_have_and_nothing_else() {
    let house = House::new().await;
    let (store, organisation) = (&house.store, &house.organisation);
    let lab = create_department(store, organisation, "Lab", "test", NOW).await.unwrap();
    let optics =
        create_department_within(store, organisation, Some(&lab), "Optics", "test", NOW).await.unwrap();
    let sales = create_department(store, organisation, "Sales", "test", NOW).await.unwrap();
    create_user(store, organisation, Some(&sales), "sam@acme.example", "test", NOW).await.unwrap();
    let mine =
        fleet::device(store, organisation, Some(&optics), ("m", "linux", Some("olga@acme.example")), NOW);
    let mine = mine.await;
    let theirs = fleet::device(store, organisation, Some(&sales), ("t", "linux", None), NOW).await;
    let mut owner = house.signed_in().await;
    let token = owner.get("/budgets").await.form_token().to_owned();
    for other in [
        [("name", "Whole"), ("department", "")],
        [("name", "Of-sales"), ("department", &*sales.id)],
        [("name", "Of-optics"), ("department", &*optics.id)],
        [("name", "Of-olga"), ("user", "olga@acme.example")],
        [("name", "Of-sam"), ("user", "sam@acme.example")],
    ] {
        assert_eq!(owner.post("/budgets/add", &budget(&token, &other)).await.status, StatusCode::SEE_OTHER);
    }
    let all = budgets::of_organisation(store, organisation).await.unwrap();
    let id = |name: &str| all.iter().find(|budget| budget.name == name).unwrap().id.clone();
    for (device, of) in [(mine, "Whole"), (mine, "Of-optics"), (theirs, "Of-sales")] {
        exemptions::request(store, device, &id(of), "Please.", NOW).await.unwrap();
    }
    let requests = exemptions::of_organisation(store, organisation, false, NOW).await.unwrap();
    let request = |of: &str| requests.iter().find(|row| row.budget == of).unwrap().id.clone();

    let mut keeper = signed_in_as(&house, "bob", Role::BudgetOwner, std::slice::from_ref(&lab)).await;
    let page = keeper.get("/budgets").await;
    for (text, shown) in [("Of-optics", true), ("Of-olga", true), ("Whole", false), ("Of-sales", false)] {
        assert_eq!(page.text.contains(text), shown, "{text}");
    }
    assert!(
        !page.text.contains("Of-sam") && !page.text.contains("Sales") && page.text.contains("Lab</option>")
    );
    let own = page.form_token().to_owned();
    for of in ["Whole", "Of-sales", "Of-sam"] {
        let changed = budget(&own, &[("budget", &id(of))]);
        for path in ["/budgets/set", "/budgets/remove"] {
            assert_eq!(keeper.post(path, &changed).await.status, StatusCode::NOT_FOUND, "{of}");
        }
    }
    for of in ["Whole", "Of-sales"] {
        let decided =
            form(&[("token", &own), ("exemption", &request(of)), ("decision", "grant"), ("hours", "4")]);
        assert_eq!(keeper.post("/budgets/exemptions", &decided).await.status, StatusCode::NOT_FOUND, "{of}");
    }
    for (other, complaint) in [
        (&[("name", "N"), ("department", "")][..], "Choose a department"),
        (&[("name", "N"), ("department", &*sales.id)], "no such department"),
        (&[("name", "N"), ("user", "sam@acme.example")], "no person with the address"),
    ] {
        let reply = keeper.post("/budgets/add", &budget(&own, other)).await;
        assert_eq!(reply.status, StatusCode::UNPROCESSABLE_ENTITY);
        assert!(reply.text.contains(complaint), "{complaint}");
    }
    assert_eq!(budgets::of_organisation(store, organisation).await.unwrap(), all, "nothing has changed");
    let decided =
        form(&[("token", &own), ("exemption", &request("Of-optics")), ("decision", "deny"), ("hours", "0")]);
    assert_eq!(keeper.post("/budgets/exemptions", &decided).await.status, StatusCode::SEE_OTHER);
    let added = budget(&own, &[("name", "Mine"), ("department", &*lab.id)]);
    assert_eq!(keeper.post("/budgets/add", &added).await.status, StatusCode::SEE_OTHER);
    let removed = form(&[("token", &own), ("budget", &id("Of-olga"))]);
    assert_eq!(keeper.post("/budgets/remove", &removed).await.status, StatusCode::SEE_OTHER);
    // What leaves the tree is out of reach at once, in a session that goes on.
    move_department(store, &optics, Some(&sales), "test", NOW).await.unwrap();
    assert!(!keeper.get("/budgets").await.text.contains("Of-optics"));
}

#[tokio::test]
async fn a_session_goes_on_with_another_role_at_once_and_ends_with_its_account() {
    let house = House::new().await;
    let mut client = signed_in_as(&house, "bob", Role::Admin, &[]).await;
    assert_eq!(client.get("/devices").await.status, StatusCode::OK);
    roles::set_role(&house.store, "bob", Role::BudgetOwner, &[], "test", NOW).await.unwrap();
    assert_eq!(client.get("/devices").await.status, StatusCode::FORBIDDEN);
    roles::disable(&house.store, "bob", "test", NOW).await.unwrap();
    assert_eq!(client.get("/budgets").await.location(), "/login");
    // Disabled and unknown get one answer.
    let disabled = house.client().sign_in("bob", fleet::PASSWORD).await;
    let unknown = house.client().sign_in("eve", fleet::PASSWORD).await;
    assert_eq!((disabled.status, disabled.text.replace("bob", "eve")), (unknown.status, unknown.text));
}
