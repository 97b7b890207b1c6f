//! Where a request that changes something may come from: a page of this very host. Browsers
//! say so in `Sec-Fetch-Site`, older ones in `Origin`; a request that says neither is refused.
//! Together with `SameSite=Strict` and the token in each form this keeps other sites out.

use axum::extract::Request;
use axum::http::header::{HOST, ORIGIN};
use axum::http::{HeaderMap, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::failure::Failure;

/// Lets reading through, and writing from our own pages.
pub(super) async fn refuse_foreign_writes(request: Request, next: Next) -> Response {
    if request.method().is_safe() || is_same_origin(request.headers(), request.uri()) {
        next.run(request).await
    } else {
        Failure::ForeignOrigin.into_response()
    }
}

fn is_same_origin(headers: &HeaderMap, uri: &Uri) -> bool {
    if let Some(site) = headers.get("sec-fetch-site") {
        return site == "same-origin";
    }
    let host = uri.authority().map(|authority| authority.as_str()).or_else(|| text(headers.get(HOST)));
    let origin = text(headers.get(ORIGIN)).and_then(|origin| origin.strip_prefix("https://"));
    matches!((origin, host), (Some(origin), Some(host)) if origin.eq_ignore_ascii_case(host))
}

fn text(value: Option<&axum::http::HeaderValue>) -> Option<&str> {
    value.and_then(|value| value.to_str().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(pairs: &[(&'static str, &'static str)], uri: &'static str) -> bool {
        let headers = pairs
            .iter()
            .map(|(name, value)| (name.parse().expect("a name"), value.parse().expect("a value")))
            .collect();
        is_same_origin(&headers, &Uri::from_static(uri))
    }

    #[test]
    fn a_form_of_ours_may_write_over_either_version_of_http() {
        assert!(allows(&[("sec-fetch-site", "same-origin")], "/login"));
        assert!(allows(&[("host", "api.acme.example"), ("origin", "https://api.acme.example")], "/login"));
        assert!(allows(
            &[("origin", "https://api.acme.example:8443")],
            "https://api.acme.example:8443/login"
        ));
    }

    #[test]
    fn other_sites_siblings_plain_http_and_silence_may_not() {
        let host = ("host", "api.acme.example");
        assert!(!allows(&[host], "/login"));
        assert!(!allows(&[host, ("origin", "null")], "/login"));
        assert!(!allows(&[host, ("origin", "http://api.acme.example")], "/login"));
        assert!(!allows(&[host, ("origin", "https://evil.example")], "/login"));
        assert!(!allows(&[host, ("origin", "https://api.acme.example.evil.example")], "/login"));
        for site in ["cross-site", "same-site", "none"] {
            let pairs = [host, ("origin", "https://api.acme.example"), ("sec-fetch-site", site)];
            assert!(!allows(&pairs, "/login"));
        }
    }
}
