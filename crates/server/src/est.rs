//! Enrolment over Secure Transport (RFC 7030) on the ingest host, for clients that are not ours:
//! `cacerts`, `simpleenroll` and `simplereenroll` under `/.well-known/est/`.
//!
//! The same tokens, limits, refusals and certificates as enrolment and renewal: the token is the
//! password of HTTP Basic, whatever the user name, and a renewal is authorised by the device
//! certificate of the connection. Where we differ from the letter: a renewal needs a new key, and
//! of a request nothing but the key is taken (RFC 7030, 4.2.1 lets a server change the rest).

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use toktra_pki::VerifiedCsr;
use toktra_protocol::Code;
use toktra_protocol::enrol::{DeviceDescription, REQUEST_LIMIT};
use zeroize::Zeroizing;

use crate::app::SharedApp;
use crate::enrol::{Application, grant, may_try, read_csr};
use crate::ingest::read_body;
use crate::peer::{Caller, Peer};
use crate::refusal::Refusal;
use crate::renew::certify;

/// Longest name of a client's software that is kept, in bytes.
const AGENT_LIMIT: usize = 64;
const TRANSFER_ENCODING: HeaderName = HeaderName::from_static("content-transfer-encoding");

/// The three operations.
pub fn router() -> Router<SharedApp> {
    Router::new()
        .route("/.well-known/est/cacerts", get(cacerts))
        .route("/.well-known/est/simpleenroll", post(simpleenroll))
        .route("/.well-known/est/simplereenroll", post(simplereenroll))
}

/// The roots and what issues below them (RFC 7030, 4.1).
async fn cacerts(State(app): State<SharedApp>) -> Result<Response, Refusal> {
    let pem = app.authority().ca_pem();
    let certificates = CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<Vec<_>, _>>();
    let certificates = certificates.map_err(|error| Refusal::internal(&error))?;
    Ok(answer("application/pkcs7-mime", &certificates))
}

/// A new device (RFC 7030, 4.2.1).
async fn simpleenroll(
    State(app): State<SharedApp>,
    Extension(peer): Extension<Peer>,
    request: Request,
) -> Response {
    let (now, address) = (app.clock.now(), peer.address.ip());
    let outcome = match may_try(&app, address, now) {
        Err(refusal) => Err(refusal),
        Ok(()) => {
            let description = description(request.headers(), &peer);
            let application = match read(request).await {
                Ok((Some(token), csr)) => Ok(Application { token, description, csr }),
                Ok((None, _)) => return unauthorised(),
                Err(refusal) => Err(refusal),
            };
            grant(&app, address, application, now).await
        }
    };
    outcome.and_then(|enrolled| leaf(&enrolled.certificate_chain)).unwrap_or_else(refused)
}

/// A new key for an enrolled device (RFC 7030, 4.2.2).
async fn simplereenroll(
    State(app): State<SharedApp>,
    Extension(peer): Extension<Peer>,
    request: Request,
) -> Result<Response, Refusal> {
    let caller = Caller::admit_to_renew(&app, &peer).await?;
    let renewed = async {
        let (_, csr) = read(request).await?;
        certify(&app, &caller, &app.authority(), (None, &csr), app.clock.now()).await
    };
    let renewed = renewed.await;
    leaf(&caller.settle(&app, "renew_refused", renewed).await?.chain_pem)
}

async fn read(request: Request) -> Result<(Option<Zeroizing<String>>, VerifiedCsr), Refusal> {
    let media_type = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media_type = media_type.and_then(|value| value.split(';').next()).unwrap_or_default().trim();
    if !media_type.eq_ignore_ascii_case("application/pkcs10") {
        return Err(Refusal::new(Code::MediaType, "Send `content-type: application/pkcs10`."));
    }
    let token = password(request.headers());
    let body = read_body(request.into_body(), REQUEST_LIMIT).await?;
    let base64: String =
        body.iter().filter(|byte| !byte.is_ascii_whitespace()).map(|&byte| char::from(byte)).collect();
    Ok((token, read_csr(&base64)?))
}

/// The password of HTTP Basic (RFC 7617).
fn password(headers: &HeaderMap) -> Option<Zeroizing<String>> {
    let (scheme, value) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    let decoded = Zeroizing::new(STANDARD.decode(value.trim()).ok()?);
    let (_, password) = std::str::from_utf8(&decoded).ok()?.split_once(':')?;
    scheme.eq_ignore_ascii_case("basic").then(|| Zeroizing::new(password.to_owned()))
}

/// EST says nothing of the machine; what the connection shows stands in for it.
fn description(headers: &HeaderMap, peer: &Peer) -> DeviceDescription {
    let agent = headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let agent: String = agent.chars().filter(|c| !c.is_control()).take(AGENT_LIMIT).collect();
    DeviceDescription {
        hostname: format!("EST client at {}", peer.address.ip()),
        platform: "est".to_owned(),
        agent_version: if agent.is_empty() { "unknown".to_owned() } else { agent },
        hardware: None,
    }
}

/// The certificate that was issued, alone (RFC 7030, 4.2.3).
fn leaf(chain_pem: &str) -> Result<Response, Refusal> {
    let leaf =
        CertificateDer::from_pem_slice(chain_pem.as_bytes()).map_err(|error| Refusal::internal(&error))?;
    Ok(answer("application/pkcs7-mime; smime-type=certs-only", &[leaf]))
}

fn answer(media_type: &'static str, certificates: &[CertificateDer<'_>]) -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(media_type)),
        (TRANSFER_ENCODING, HeaderValue::from_static("base64")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    // On one line: RFC 8951, 3.1 has it so, and there are clients that read no other.
    (headers, STANDARD.encode(certs_only(certificates))).into_response()
}

/// A device that awaits approval is told so as RFC 7030, 4.2.3 has it.
fn refused(refusal: Refusal) -> Response {
    let pending = refusal.code() == Code::Pending;
    let mut response = refusal.into_response();
    if pending {
        *response.status_mut() = StatusCode::ACCEPTED;
    }
    response
}

fn unauthorised() -> Response {
    let refusal = Refusal::new(Code::SignIn, "Send the enrolment token as the password of HTTP Basic.");
    let mut response = refusal.into_response();
    let challenge = HeaderValue::from_static("Basic realm=\"enrolment token\"");
    response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    response
}

/// A degenerate SignedData (RFC 5652, 5.1; RFC 2315 of old) that carries certificates and signs
/// nothing.
fn certs_only(certificates: &[CertificateDer<'_>]) -> Vec<u8> {
    const SIGNED_DATA: &[u8] = &[0x06, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x02];
    const DATA: &[u8] = &[0x06, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x01];
    const VERSION_1: &[u8] = &[0x02, 1, 1];
    const EMPTY_SET: &[u8] = &[0x31, 0];
    let certificates: Vec<u8> = certificates.iter().flat_map(|one| one.iter().copied()).collect();
    let signed = [VERSION_1, EMPTY_SET, &der(0x30, DATA), &der(0xa0, &certificates), EMPTY_SET].concat();
    der(0x30, &[SIGNED_DATA, &der(0xa0, &der(0x30, &signed))].concat())
}

/// A DER object (X.690, 8.1): tag, length in the shortest form, content.
fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len().to_be_bytes();
    let significant = &length[length.iter().take_while(|&&byte| byte == 0).count().min(length.len() - 1)..];
    let mut object = vec![tag];
    if content.len() >= 0x80 {
        // At most eight octets of length.
        object.push(0x80 | significant.len() as u8);
    }
    object.extend_from_slice(significant);
    object.extend_from_slice(content);
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_take_their_shortest_form() {
        for (length, head) in [
            (0, &[0x30, 0][..]),
            (0x7f, &[0x30, 0x7f]),
            (0x80, &[0x30, 0x81, 0x80]),
            (0x100, &[0x30, 0x82, 1, 0]),
            (0x1_0000, &[0x30, 0x83, 1, 0, 0]),
        ] {
            let object = der(0x30, &vec![0; length]);
            assert_eq!(&object[..head.len()], head);
            assert_eq!(object.len(), head.len() + length);
        }
    }

    #[test]
    fn only_the_password_of_http_basic_is_a_token() {
        let of = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, HeaderValue::from_str(value).unwrap());
            password(&headers).map(|token| token.to_string())
        };
        let basic = |text: &str| format!("Basic {}", STANDARD.encode(text));
        assert_eq!(of(&basic("anyone:the:token")).as_deref(), Some("the:token"));
        assert_eq!(of(&basic("anyone")), None);
        assert_eq!(of(&format!("Bearer {}", STANDARD.encode("a:b"))), None);
        assert_eq!(of("Basic !"), None);
        assert_eq!(of("Basic"), None);
    }
}
