//! Who gets in, who does not, and what every answer carries.

use axum::body::Body;
use axum::http::StatusCode;
use toktra_store::accounts::{ATTEMPTS_BEFORE_LOCK, LOCK_DURATION_S};
use toktra_store::{approvals, audit};

use super::client::{HOST, House, NOW};
use super::fleet;

#[tokio::test]
async fn every_page_but_the_sign_in_needs_a_session() {
    let house = House::new().await;
    let mut client = house.client();
    for path in
        ["/", "/?days=7", "/budgets", "/devices", "/devices?page=2", "/usage", "/usage.csv", "/usage.json"]
    {
        let reply = client.get(path).await;
        assert_eq!((reply.status, reply.location()), (StatusCode::SEE_OTHER, "/login"), "{path}");
    }
    let reply = client.post("/logout", "token=x").await;
    assert_eq!((reply.status, reply.location()), (StatusCode::SEE_OTHER, "/login"));
    assert_eq!(client.get("/login").await.status, StatusCode::OK);
    client.cookie = Some(format!("__Host-toktra-session={}", "A".repeat(43)));
    assert_eq!(client.get("/").await.location(), "/login");
}

#[tokio::test]
async fn the_right_password_opens_the_pages_and_a_strict_cookie_keeps_them_open() {
    let house = House::new().await;
    let mut client = house.client();
    let reply = client.sign_in(fleet::NAME, fleet::PASSWORD).await;
    let cookie = reply.header("set-cookie");
    assert!(cookie.starts_with("__Host-toktra-session="), "{cookie}");
    assert!(cookie.ends_with("; Path=/; Secure; HttpOnly; SameSite=Strict"), "{cookie}");
    assert_eq!(client.get("/").await.status, StatusCode::OK);
    assert_eq!(client.get("/devices").await.status, StatusCode::OK);
    assert_eq!(client.get("/login").await.location(), "/");
}

#[tokio::test]
async fn every_answer_carries_the_headers_and_no_page_is_kept_by_a_cache() {
    let house = House::new().await;
    let mut client = house.signed_in().await;
    let style = client.get("/").await.text;
    let (_, style) = style.split_once(r#"rel="stylesheet" href=""#).unwrap();
    let style = style.split_once('"').unwrap().0.to_owned();
    for (path, caching) in [
        ("/", "no-store"),
        ("/budgets", "no-store"),
        ("/devices", "no-store"),
        ("/login", "no-store"),
        (style.as_str(), "public, max-age=31536000, immutable"),
        ("/live.js", "public, max-age=31536000, immutable"),
        ("/usage", "no-store"),
        ("/usage.csv", "no-store"),
        ("/favicon.svg", "public, max-age=86400"),
    ] {
        let reply = client.get(path).await;
        assert_eq!(reply.header("cache-control"), caching, "{path}");
        let policy = reply.header("content-security-policy");
        assert!(
            policy.starts_with("default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'")
        );
        assert!(policy.ends_with("frame-ancestors 'none'; base-uri 'none'"), "{policy}");
        assert!(!policy.contains("unsafe") && policy.contains("script-src 'self';"), "{policy}");
        assert_eq!(reply.header("strict-transport-security"), "max-age=31536000");
        assert_eq!(reply.header("x-content-type-options"), "nosniff");
        assert_eq!(reply.header("referrer-policy"), "same-origin");
    }
}

#[tokio::test]
async fn a_wrong_password_an_unknown_name_and_a_locked_account_get_the_same_answer() {
    let house = House::new().await;
    let mut client = house.client();
    let wrong = client.sign_in(fleet::NAME, "wrong password wrong").await;
    assert_eq!(wrong.status, StatusCode::UNAUTHORIZED);
    assert_eq!(wrong.header("set-cookie"), "");
    let unknown = client.sign_in("eve", "wrong password wrong").await;
    assert_eq!(unknown.status, StatusCode::UNAUTHORIZED);
    assert_eq!(unknown.text.replace("\"eve\"", "\"ada\""), wrong.text);
    for _ in 1..ATTEMPTS_BEFORE_LOCK {
        client.sign_in(fleet::NAME, "wrong password wrong").await;
    }
    let locked = client.sign_in(fleet::NAME, fleet::PASSWORD).await;
    assert_eq!((locked.status, locked.text), (wrong.status, wrong.text));
    let trail = audit::newest(&house.store, 1).await.unwrap();
    assert_eq!(trail[0].action, "sign_in_locked");
    let later = NOW.plus(LOCK_DURATION_S);
    let reply = house.client_at(later).sign_in(fleet::NAME, fleet::PASSWORD).await;
    assert_eq!(reply.status, StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn too_many_attempts_in_a_minute_are_told_to_wait() {
    let house = House::new().await;
    let mut client = house.client();
    for _ in 0..20 {
        assert_ne!(client.sign_in("nobody", "x").await.status, StatusCode::TOO_MANY_REQUESTS);
    }
    let reply = client.sign_in(fleet::NAME, fleet::PASSWORD).await;
    assert_eq!((reply.status, reply.header("retry-after")), (StatusCode::TOO_MANY_REQUESTS, "60"));
}

#[tokio::test]
async fn signing_out_ends_the_session_for_whoever_holds_the_cookie() {
    let house = House::new().await;
    let mut client = house.signed_in().await;
    let stolen = client.cookie.clone();
    let token = client.get("/").await.form_token().to_owned();
    let reply = client.post("/logout", &format!("token={token}")).await;
    assert_eq!((reply.status, reply.location()), (StatusCode::SEE_OTHER, "/login"));
    assert!(reply.header("set-cookie").ends_with("Max-Age=0"));
    client.cookie = stolen;
    assert_eq!(client.get("/").await.location(), "/login");
}

#[tokio::test]
async fn a_session_ends_when_idle_for_an_hour_and_after_twelve_hours_even_when_used() {
    let house = House::new().await;
    let cookie = house.signed_in().await.cookie;
    let minutes = |minutes: u64| NOW.plus(minutes * 60);
    let mut idle = house.client_at(minutes(61));
    idle.cookie = cookie;
    assert_eq!(idle.get("/").await.location(), "/login");
    let cookie = house.signed_in().await.cookie;
    for half_hour in 1..24 {
        let mut client = house.client_at(minutes(half_hour * 30));
        client.cookie.clone_from(&cookie);
        assert_eq!(client.get("/").await.status, StatusCode::OK, "after {half_hour} half hours");
    }
    let mut late = house.client_at(minutes(12 * 60));
    late.cookie = cookie;
    assert_eq!(late.get("/").await.location(), "/login");
}

#[tokio::test]
async fn a_page_that_asks_by_itself_keeps_no_session_alive() {
    let house = House::new().await;
    let cookie = house.signed_in().await.cookie;
    let later = async |minutes: u64| {
        let mut client = house.client_at(NOW.plus(minutes * 60));
        client.cookie.clone_from(&cookie);
        let request = client.request("GET", "/devices").header("x-toktra-live", "1");
        client.send(request.body(Body::empty()).unwrap()).await.status
    };
    assert_eq!(later(30).await, StatusCode::OK);
    assert_eq!(later(59).await, StatusCode::OK);
    assert_eq!(later(61).await, StatusCode::SEE_OTHER, "nobody was there for an hour");
}

#[tokio::test]
async fn forms_of_other_sites_and_of_other_sessions_are_refused() {
    let house = House::new().await;
    let mut client = house.signed_in().await;
    let form = "application/x-www-form-urlencoded";
    for (name, value) in [
        ("origin", "https://evil.example"),
        ("origin", "null"),
        ("origin", "http://api.toktra.localhost"),
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
        ("x-nothing", "said"),
    ] {
        let token = client.get("/").await.form_token().to_owned();
        for (path, body) in [
            ("/logout", format!("token={token}")),
            ("/login", format!("name={}&password=correct+horse+battery+staple", fleet::NAME)),
        ] {
            let request = client.request("POST", path).header("content-type", form).header(name, value);
            let reply = client.send(request.body(Body::from(body)).unwrap()).await;
            assert_eq!(reply.status, StatusCode::FORBIDDEN, "{path} {name}: {value}");
            assert_eq!(reply.header("set-cookie"), "");
            assert_ne!(reply.header("content-security-policy"), "");
        }
    }
    let other = house.signed_in().await.get("/").await.form_token().to_owned();
    for token in ["", "x", other.as_str()] {
        let reply = client.post("/logout", &format!("token={token}")).await;
        assert_eq!(reply.status, StatusCode::FORBIDDEN);
    }
    assert_eq!(client.get("/").await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_form_that_is_no_form_or_too_large_is_refused_and_changes_nothing() {
    let house = House::new().await;
    let mut client = house.client();
    assert_eq!(client.post("/login", "name=ada").await.status, StatusCode::BAD_REQUEST);
    let large = format!("name=ada&password={}", "x".repeat(9 * 1024));
    assert_eq!(client.post("/login", &large).await.status, StatusCode::BAD_REQUEST);
    let json = client.request("POST", "/login").header("origin", format!("https://{HOST}"));
    let json = json.header("content-type", "application/json").body("{}".into()).unwrap();
    assert_eq!(client.send(json).await.status, StatusCode::BAD_REQUEST);
    let long = format!("name={}&password=x", "n".repeat(300));
    assert_eq!(client.post("/login", &long).await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_waiting_device_is_decided_on_by_a_form_of_the_session_and_only_of_its_organisation() {
    let house = House::new().await;
    let elsewhere = fleet::organisation(&house.store, "Elsewhere", "eve", NOW).await;
    fleet::waiting(&house.store, &elsewhere, "theirs", NOW).await;
    fleet::waiting(&house.store, &house.organisation, "<b>one", NOW).await;
    fleet::waiting(&house.store, &house.organisation, "two", NOW).await;
    let waiting =
        async |organisation: &str| approvals::waiting(&house.store, organisation, NOW).await.unwrap();
    let theirs = waiting(&elsewhere.id).await[0].id.clone();
    let ours = waiting(&house.organisation.id).await;
    let mut client = house.signed_in().await;
    let page = client.get("/devices").await;
    assert!(
        page.text.contains("&#60;b&#62;one") && page.text.contains("image") && !page.text.contains("theirs")
    );
    let token = page.form_token().to_owned();
    let form = |token: &str, id: &str| format!("token={token}&request={id}");
    for (form, status) in [
        (form("x", &ours[0].id), StatusCode::FORBIDDEN),
        (form(&token, &theirs), StatusCode::NOT_FOUND),
        (form(&token, "x"), StatusCode::BAD_REQUEST),
    ] {
        assert_eq!(client.post("/devices/approve", &form).await.status, status, "{form}");
    }
    let foreign = client.request("POST", "/devices/approve").header("origin", "https://evil.example");
    let foreign = foreign.header("content-type", "application/x-www-form-urlencoded");
    let foreign = foreign.body(form(&token, &ours[0].id).into()).unwrap();
    assert_eq!(client.send(foreign).await.status, StatusCode::FORBIDDEN);
    assert_eq!(waiting(&house.organisation.id).await.len(), 2);
    for (path, request) in [("/devices/approve", &ours[0]), ("/devices/deny", &ours[1])] {
        let reply = client.post(path, &form(&token, &request.id)).await;
        assert_eq!((reply.status, reply.location()), (StatusCode::SEE_OTHER, "/devices"));
    }
    assert!(!client.get("/devices").await.text.contains("Waiting for approval"));
    let trail = audit::newest(&house.store, 2).await.unwrap();
    let done: Vec<_> = trail.iter().map(|row| (row.actor.as_str(), row.action.as_str())).collect();
    assert_eq!(done, [(fleet::NAME, "deny"), (fleet::NAME, "approve")]);
    assert_eq!(waiting(&elsewhere.id).await.len(), 1);
}

#[tokio::test]
async fn a_device_is_locked_and_unlocked_by_a_form_of_the_session_and_only_of_its_organisation() {
    let house = House::new().await;
    let enrolled = ("host", "linux", None);
    let id = fleet::device(&house.store, &house.organisation, None, enrolled, NOW).await;
    let other = fleet::organisation(&house.store, "Other", "eve", NOW).await;
    let theirs = fleet::device(&house.store, &other, None, enrolled, NOW).await;
    let mut client = house.signed_in().await;
    let page = client.get("/devices").await;
    let token = page.form_token().to_owned();
    let device = async || toktra_store::devices::find(&house.store, id).await.unwrap().unwrap();
    let form = |token: &str, message: &str| format!("token={token}&device={id}&message={message}");
    for (form, status) in [
        (form("x", "Stop."), StatusCode::FORBIDDEN),
        (form(&token, ""), StatusCode::BAD_REQUEST),
        (form(&token, "a%0Ab"), StatusCode::BAD_REQUEST),
        (form(&token, &"x".repeat(1025)), StatusCode::BAD_REQUEST),
        (format!("token={token}&device={}&message=a", theirs), StatusCode::NOT_FOUND),
        (format!("token={token}&device=x&message=a"), StatusCode::BAD_REQUEST),
    ] {
        assert_eq!(client.post("/devices/lock", &form).await.status, status, "{form:.120}");
    }
    assert_eq!(device().await.lock_message, None);
    let reply = client.post("/devices/lock", &form(&token, "Stop.")).await;
    assert_eq!((reply.status, reply.location()), (StatusCode::SEE_OTHER, &*format!("/devices#device-{id}")));
    assert_eq!(device().await.lock_message.as_deref(), Some("Stop."));
    assert!(client.get("/devices").await.text.contains("Unlock"));
    let reply = client.post("/devices/unlock", &format!("token={token}&device={id}")).await;
    assert_eq!((reply.status, device().await.lock_message), (StatusCode::SEE_OTHER, None));
    let done = audit::newest(&house.store, 2).await.unwrap();
    assert!(done.iter().all(|row| row.actor == fleet::NAME && row.subject == id.to_string()));
    let mut stranger = house.client();
    assert_eq!(stranger.post("/devices/unlock", "token=x").await.location(), "/login");
}
