//! The style sheet and the icon, compiled in. The style sheet's address carries a hash of its
//! text, so that browsers keep it for good and still see a new one at once.

use std::sync::LazyLock;

use axum::http::HeaderName;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::IntoResponse;
use ring::digest::{SHA256, digest};

const STYLE: &str = include_str!("../../templates/style.css");
const FAVICON: &str = include_str!("../../templates/favicon.svg");

static STYLE_HREF: LazyLock<String> = LazyLock::new(|| {
    let hash = digest(&SHA256, STYLE.as_bytes());
    let short: String = hash.as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("/style.css?v={short}")
});

/// The style sheet's address.
pub(super) fn style_href() -> &'static str {
    &STYLE_HREF
}

/// `GET /style.css`
pub(super) fn style() -> impl IntoResponse {
    (headers("text/css; charset=utf-8", "public, max-age=31536000, immutable"), STYLE)
}

/// `GET /favicon.svg`
pub(super) fn favicon() -> impl IntoResponse {
    (headers("image/svg+xml", "public, max-age=86400"), FAVICON)
}

fn headers(kind: &'static str, caching: &'static str) -> [(HeaderName, &'static str); 2] {
    [(CONTENT_TYPE, kind), (CACHE_CONTROL, caching)]
}
