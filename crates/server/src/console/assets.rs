//! The style sheet, the one script and the icon, compiled in. The addresses of the first two carry a hash of
//! their text, so that browsers keep them for good and still see new ones at once.

use std::sync::LazyLock;

use axum::http::HeaderName;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::IntoResponse;
use ring::digest::{SHA256, digest};

const STYLE: &str = include_str!("../../templates/style.css");
const FAVICON: &str = include_str!("../../templates/favicon.svg");

const LIVE: &str = include_str!("../../templates/live.js");

static STYLE_HREF: LazyLock<String> = LazyLock::new(|| href("style.css", STYLE));
static LIVE_HREF: LazyLock<String> = LazyLock::new(|| href("live.js", LIVE));

fn href(name: &str, text: &str) -> String {
    let hash = digest(&SHA256, text.as_bytes());
    let short: String = hash.as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("/{name}?v={short}")
}

/// The style sheet's address.
pub(super) fn style_href() -> &'static str {
    &STYLE_HREF
}

/// The address of the script that brings pages up to date.
pub(super) fn live_href() -> &'static str {
    &LIVE_HREF
}

/// `GET /style.css`
pub(super) fn style() -> impl IntoResponse {
    (headers("text/css; charset=utf-8", "public, max-age=31536000, immutable"), STYLE)
}

/// `GET /live.js`
pub(super) fn live() -> impl IntoResponse {
    (headers("text/javascript; charset=utf-8", "public, max-age=31536000, immutable"), LIVE)
}

/// `GET /favicon.svg`
pub(super) fn favicon() -> impl IntoResponse {
    (headers("image/svg+xml", "public, max-age=86400"), FAVICON)
}

fn headers(kind: &'static str, caching: &'static str) -> [(HeaderName, &'static str); 2] {
    [(CONTENT_TYPE, kind), (CACHE_CONTROL, caching)]
}
