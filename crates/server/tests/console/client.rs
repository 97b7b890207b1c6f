//! A console without a socket, and a client that keeps its cookie as a browser would.

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request, StatusCode};
use tempfile::TempDir;
use toktra_protocol::UnixSeconds;
use toktra_server::{Clock, console};
use toktra_store::Store;
use toktra_store::directory::Organisation;
use tower::ServiceExt as _;

use super::fleet;

/// Monday 23 November 2026, 15:30 UTC.
pub const NOW: UnixSeconds = UnixSeconds(1_795_447_800);
pub const HOST: &str = "api.toktra.localhost";

pub struct House {
    pub store: Store,
    pub organisation: Organisation,
    _directory: TempDir,
}

impl House {
    /// An organisation, Acme, with an administrator and no device.
    pub async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("toktra.db")).await.unwrap();
        let organisation = fleet::organisation(&store, "Acme", fleet::NAME, NOW).await;
        Self { store, organisation, _directory: directory }
    }

    pub fn client(&self) -> Client {
        self.client_at(NOW)
    }

    pub fn client_at(&self, now: UnixSeconds) -> Client {
        Client { router: console::router(self.store.clone(), Clock::Fixed(now)), cookie: None }
    }

    /// A client that has signed in.
    pub async fn signed_in(&self) -> Client {
        let mut client = self.client();
        let reply = client.sign_in(fleet::NAME, fleet::PASSWORD).await;
        assert_eq!((reply.status, reply.location()), (StatusCode::SEE_OTHER, "/"));
        client
    }
}

pub struct Client {
    pub router: Router,
    pub cookie: Option<String>,
}

pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub text: String,
}

impl Reply {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub fn location(&self) -> &str {
        self.header("location")
    }

    /// The token of the page's form.
    pub fn form_token(&self) -> &str {
        let (_, rest) = self.text.split_once(r#"name="token" value=""#).expect("a form token");
        rest.split_once('"').unwrap().0
    }
}

impl Client {
    pub async fn send(&mut self, request: Request<Body>) -> Reply {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let text = String::from_utf8(to_bytes(body, 4 * 1024 * 1024).await.unwrap().to_vec()).unwrap();
        let reply = Reply { status: parts.status, headers: parts.headers, text };
        if let Some((pair, _)) = reply.header("set-cookie").split_once(';') {
            self.cookie = if pair.ends_with('=') { None } else { Some(pair.to_owned()) };
        }
        reply
    }

    pub async fn get(&mut self, path: &str) -> Reply {
        self.send(self.request("GET", path).body(Body::empty()).unwrap()).await
    }

    /// Posts a form as a browser does from a page of ours.
    pub async fn post(&mut self, path: &str, form: &str) -> Reply {
        let request = self.request("POST", path).header("origin", format!("https://{HOST}"));
        self.send(
            request
                .header("content-type", "application/x-www-form-urlencoded")
                .body(form.to_owned().into())
                .unwrap(),
        )
        .await
    }

    pub async fn sign_in(&mut self, name: &str, password: &str) -> Reply {
        let password = password.replace(' ', "+");
        self.post("/login", &format!("name={name}&password={password}")).await
    }

    pub fn request(&self, method: &str, path: &str) -> axum::http::request::Builder {
        let request = Request::builder().method(method).uri(path).header("host", HOST);
        match &self.cookie {
            Some(cookie) => request.header("cookie", cookie),
            None => request,
        }
    }
}

/// A form as a browser sends it.
pub fn form(fields: &[(&str, &str)]) -> String {
    let encode = |text: &str| -> String {
        text.bytes()
            .map(|byte| match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' => char::from(byte).to_string(),
                byte => format!("%{byte:02X}"),
            })
            .collect()
    };
    let pairs = fields.iter().map(|(name, value)| format!("{name}={}", encode(value)));
    pairs.collect::<Vec<_>>().join("&")
}
