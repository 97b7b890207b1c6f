//! Sessions: a cookie of 256 random bits that only its SHA-256 hash is stored of. A session
//! ends an hour after it was last used and twelve hours after it was opened. The token in
//! forms is derived from the cookie, so it needs no storage and dies with the session.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::header::COOKIE;
use axum::http::request::Parts;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{SHA256, digest};
use subtle::ConstantTimeEq;
use toktra_protocol::UnixSeconds;
use toktra_store::accounts::{self, Session};
use toktra_store::directory::{self, Organisation};
use toktra_store::roles::{self, Reach};
use toktra_store::{Store, StoreError};
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::Console;
use super::failure::Failure;
use super::routes;

/// A session that is not used ends after this, in seconds.
pub(super) const IDLE_LIMIT_S: u64 = 60 * 60;
/// A session ends after this even when it is used, in seconds.
pub(super) const LIFETIME_S: u64 = 12 * 60 * 60;
/// A session's end is moved when that gains at least this much, so that reading rarely writes.
const EXTENSION_GRAIN_S: u64 = 60;

/// A request of a page that brings itself up to date, which does not keep a session alive.
const LIVE: &str = "x-toktra-live";

/// `__Host-`: set by this very host, over TLS, for every path.
const COOKIE_NAME: &str = "__Host-toktra-session";
const COOKIE_ATTRIBUTES: &str = "Path=/; Secure; HttpOnly; SameSite=Strict";

/// What a browser holds.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub(super) struct SessionKey([u8; 32]);

/// Whoever makes a request, as the guard of its route found them.
#[derive(Clone, Debug)]
pub(super) struct Administrator {
    /// Who, and of which organisation.
    pub(super) session: Session,
    /// What of the organisation they may see and change.
    pub(super) reach: Reach,
    key: SessionKey,
}

impl SessionKey {
    /// A fresh key.
    pub(super) fn generate() -> Result<Self, getrandom::Error> {
        let mut key = [0; 32];
        getrandom::fill(&mut key)?;
        Ok(Self(key))
    }

    /// What is stored of it.
    pub(super) fn hash(&self) -> String {
        hexadecimal(digest(&SHA256, &self.0).as_ref())
    }

    /// The header that gives it to the browser, to keep until the browser is closed.
    pub(super) fn cookie(&self) -> String {
        format!("{COOKIE_NAME}={}; {COOKIE_ATTRIBUTES}", URL_SAFE_NO_PAD.encode(self.0))
    }

    /// The token that forms carry.
    pub(super) fn form_token(&self) -> String {
        let mut input = b"toktra console form\0".to_vec();
        input.extend_from_slice(&self.0);
        let token = hexadecimal(digest(&SHA256, &input).as_ref());
        input.zeroize();
        token
    }

    /// Whether a form's token is this session's, in constant time.
    pub(super) fn owns(&self, form_token: &str) -> bool {
        self.form_token().as_bytes().ct_eq(form_token.as_bytes()).into()
    }

    fn from_headers(headers: &HeaderMap) -> Option<Self> {
        let value = headers
            .get_all(COOKIE)
            .iter()
            .filter_map(|header| header.to_str().ok())
            .flat_map(|header| header.split(';'))
            .find_map(|pair| pair.trim().strip_prefix(COOKIE_NAME)?.strip_prefix('='))?;
        let mut key = [0; 32];
        match URL_SAFE_NO_PAD.decode_slice(value, &mut key) {
            Ok(32) => Some(Self(key)),
            _ => None,
        }
    }
}

impl std::fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SessionKey(..)")
    }
}

/// The header that makes the browser forget its key.
pub(super) fn expired_cookie() -> String {
    format!("{COOKIE_NAME}=; {COOKIE_ATTRIBUTES}; Max-Age=0")
}

/// When a session that was opened then and used now ends.
pub(super) fn end(opened_at: UnixSeconds, now: UnixSeconds) -> UnixSeconds {
    now.plus(IDLE_LIMIT_S).min(opened_at.plus(LIFETIME_S))
}

impl Administrator {
    /// The token for this page's forms.
    pub(super) fn form_token(&self) -> String {
        self.key.form_token()
    }

    /// Whether a form was made for this session.
    pub(super) fn owns(&self, form_token: &str) -> bool {
        self.key.owns(form_token)
    }

    /// Whether they may use what is at this path; what they may not, pages do not offer.
    pub(super) fn may(&self, path: &str) -> bool {
        routes::is_open(path, self.session.role)
    }

    /// The only organisation that the session may see.
    pub(super) async fn organisation(&self, store: &Store) -> Result<Organisation, StoreError> {
        directory::organisation(store, &self.session.organisation).await
    }

    /// What the store knows the session by.
    pub(super) fn session_hash(&self) -> String {
        self.key.hash()
    }

    /// Finds the session of a request's cookie and notes that it is in use, unless a page asks by itself.
    pub(super) async fn find(console: &Console, headers: &HeaderMap) -> Result<Option<Self>, Failure> {
        let Some(key) = SessionKey::from_headers(headers) else {
            return Ok(None);
        };
        let (hash, now) = (key.hash(), console.clock.now());
        let Some(session) = accounts::session(&console.store, &hash, now).await? else {
            return Ok(None);
        };
        let end = end(unix_seconds(session.created_at), now);
        let by_itself = headers.contains_key(LIVE);
        if !by_itself && end.0 >= unix_seconds(session.expires_at).0.saturating_add(EXTENSION_GRAIN_S) {
            accounts::extend_session(&console.store, &hash, end).await?;
        }
        let reach = roles::reach(&console.store, &session).await?;
        Ok(Some(Self { session, reach, key }))
    }
}

impl FromRequestParts<Arc<Console>> for Administrator {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<Console>) -> Result<Self, Failure> {
        // A route that is open to anyone has none: its handler must not ask.
        parts.extensions.get().cloned().ok_or(Failure::Internal)
    }
}

fn unix_seconds(column: i64) -> UnixSeconds {
    UnixSeconds(u64::try_from(column).unwrap_or(0))
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(cookie: &str) -> HeaderMap {
        [(COOKIE, cookie.parse().expect("a header"))].into_iter().collect()
    }

    #[test]
    fn a_cookie_comes_back_as_the_key_that_made_it() {
        let key = SessionKey([7; 32]);
        let cookie = key.cookie();
        let (pair, attributes) = cookie.split_once("; ").expect("attributes");
        assert_eq!(attributes, "Path=/; Secure; HttpOnly; SameSite=Strict");
        let back = SessionKey::from_headers(&headers(&format!("a=b; {pair}; c=d"))).expect("a key");
        assert_eq!(back.0, key.0);
    }

    #[test]
    fn a_cookie_that_is_no_key_is_no_session() {
        for value in ["", "x", "!!", &"A".repeat(44), &"A".repeat(400)] {
            let cookie = format!("{COOKIE_NAME}={value}");
            assert!(SessionKey::from_headers(&headers(&cookie)).is_none(), "{cookie}");
        }
        let lookalike = format!("{COOKIE_NAME}2={}", "A".repeat(43));
        assert!(SessionKey::from_headers(&headers(&lookalike)).is_none());
    }

    #[test]
    fn a_form_token_belongs_to_one_session_and_is_not_the_stored_hash() {
        let (one, other) = (SessionKey([1; 32]), SessionKey([2; 32]));
        assert!(one.owns(&one.form_token()));
        assert!(!one.owns(&other.form_token()));
        assert!(!one.owns(""));
        assert_ne!(one.form_token(), one.hash());
    }

    #[test]
    fn a_used_session_lives_on_until_its_lifetime_is_over() {
        let opened = UnixSeconds(1_000_000);
        assert_eq!(end(opened, opened), opened.plus(IDLE_LIMIT_S));
        let late = opened.plus(LIFETIME_S - 10);
        assert_eq!(end(opened, late), opened.plus(LIFETIME_S));
    }
}
