//! Enrolment: a key made here, a request for it, and what the backend answers. The key is
//! stored only together with its certificate.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::{Request, header};
use toktra_identity::{Credential, DeviceKey};
use toktra_protocol::enrol::{DeviceDescription, EnrolRequest, EnrolResponse, PATH};
use toktra_protocol::event::TEXT_LIMIT;
use toktra_protocol::{Code, ToktraDomain, UnixSeconds};
use zeroize::Zeroizing;

use crate::clock::Clock;
use crate::dial::{DialError, Host};

const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Why the device is not enrolled.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// The backend was not reached, or refused.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// Anything on this side, or an answer that is not one.
    #[error(transparent)]
    Other(#[from] anyhow::Error),
}

impl EnrolError {
    /// Whether the same command may succeed later.
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Dial(error) => {
                matches!(error.code(), None | Some(Code::RateLimited | Code::Busy | Code::Internal))
            }
            Self::Other(_) => false,
        }
    }

    /// What a person should do.
    pub fn next_step(&self) -> &'static str {
        let Self::Dial(error) = self else {
            return "Correct what the message names, then run the command again.";
        };
        match error.code() {
            Some(Code::TokenUnknown) => {
                "Check that the token is complete and of this backend; tokens are made with `toktra-server token create`."
            }
            Some(Code::TokenUsed) => "A token enrols one device, once. Ask your administrator for a new one.",
            Some(Code::TokenExpired) => "Ask your administrator for a new token.",
            Some(Code::RateLimited | Code::Busy | Code::Internal) => {
                "Run the same command again in some minutes."
            }
            Some(_) => {
                "Agent and backend may be of different versions; install the agent that the backend offers."
            }
            None => {
                "Check the domain, the network and, for a private backend, that --ca names its CA file; then run the same command again. Should the backend then call the token used, its answer was lost: ask your administrator for a new token."
            }
        }
    }
}

/// Enrols the device; also gives the server's clock.
pub async fn enrol(
    domain: ToktraDomain,
    token: &str,
    ca_pem: Option<String>,
) -> Result<(Credential, UnixSeconds), EnrolError> {
    let key = DeviceKey::generate().map_err(anyhow::Error::from)?;
    let csr = key.certificate_signing_request().map_err(anyhow::Error::from)?;
    let body = request_body(token, &csr)?;
    let mut host = Host::api(&domain, ca_pem.as_deref())?;
    let request = Request::post(PATH)
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(body))
        .map_err(anyhow::Error::from)?;
    let answer = host.ask(request, ANSWER_TIMEOUT).await?;
    let response: EnrolResponse = serde_json::from_slice(&answer.body)
        .map_err(|error| anyhow::Error::from(error).context("the backend's answer is no enrolment"))?;
    let server_time = response.server_time;
    let credential =
        Credential::new(key, domain, ca_pem, response, Clock::System.now()).map_err(anyhow::Error::from)?;
    Ok((credential, server_time))
}

fn request_body(token: &str, csr: &[u8]) -> Result<Bytes, EnrolError> {
    let device = DeviceDescription {
        hostname: hostname(),
        platform: std::env::consts::OS.to_owned(),
        agent_version: crate::VERSION.to_owned(),
        hardware: None,
    };
    let request = EnrolRequest { token: token.to_owned(), csr: STANDARD.encode(csr), device };
    let json = serde_json::to_vec(&request).map_err(anyhow::Error::from)?;
    drop(Zeroizing::new(request.token));
    Ok(json.into())
}

fn hostname() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let name: String = name.chars().filter(|c| !c.is_control()).collect();
    if name.is_empty() || name.len() > TEXT_LIMIT { "unknown".to_owned() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_an_answer_that_did_not_come_it_is_not_said_that_the_token_was_not_used() {
        let lost = EnrolError::Dial(DialError::Unreachable("no answer within 30 s".to_owned()));
        assert!(!lost.next_step().contains("was not used"));
        assert!(lost.next_step().contains("new token"));
        assert!(lost.is_temporary());
    }
}
