//! Enrolment and renewal: a request for a key that is kept here already, and what the backend
//! answers. When to ask is decided in [`toktra_identity::life`]; what is kept, by the caller.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::{Request, header};
use serde::Serialize;
use toktra_identity::life::Outcome;
use toktra_identity::{Application, Credential, DeviceKey};
use toktra_protocol::enrol::{
    DeviceDescription, EnrolRequest, EnrolResponse, PATH, RENEW_PATH, RenewRequest, RenewResponse, TIME_PATH,
};
use toktra_protocol::event::TEXT_LIMIT;
use toktra_protocol::{Code, ToktraDomain};
use zeroize::Zeroizing;

use crate::clock::{BackendTime, Clock};
use crate::dial::{DialError, Host};
use crate::tls::{self, Tls};

const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// The machine's clock and the backend's agree if they differ by no more, in seconds.
const AGREEMENT_S: u64 = 24 * 60 * 60;

/// Why there is no new certificate.
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

    /// The backend's code, if it was the backend that refused.
    pub fn code(&self) -> Option<Code> {
        let Self::Dial(error) = self else { return None };
        error.code()
    }

    /// What came of the attempt, for [`toktra_identity::life`].
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Dial(error) => match error.code() {
                Some(code) => Outcome::Refused { code, retry_after: error.retry_after() },
                None => Outcome::Failed,
            },
            Self::Other(_) => Outcome::Failed,
        }
    }

    /// What a person should do.
    pub fn next_step(&self) -> &'static str {
        let Self::Dial(error) = self else {
            return "Correct what the message names, then run the command again.";
        };
        match error.code() {
            Some(code) if next_step(code).is_some() => next_step(code).unwrap_or_default(),
            Some(Code::RateLimited | Code::Busy | Code::Internal) => {
                "Run the same command again in some minutes."
            }
            Some(_) => {
                "Agent and backend may be of different versions; install the agent that the backend offers."
            }
            None => {
                "Check the domain, the network and, for a private backend, that --ca names its CA file; The agent goes on asking while it runs; the same command asks at once. An answer that was lost costs nothing: the same key is asked with again."
            }
        }
    }
}

/// What a person should do about a refusal of the device or its token; `None` where it is nothing to
/// do with either.
pub fn next_step(code: Code) -> Option<&'static str> {
    Some(match code {
        Code::TokenUnknown => {
            "Check that the token is complete and of this backend; tokens are made with `toktra-server token create`."
        }
        Code::TokenUsed => "A token enrols one device, once. Ask your administrator for a new one.",
        Code::TokenExpired | Code::TokenClosed => "Ask your administrator for a new token.",
        Code::Denied => "An administrator refused this device. Ask why, and for a new token.",
        Code::Pending => "An administrator has yet to approve this device. The agent asks again by itself.",
        Code::Revoked => "An administrator revoked this device. Ask why; a new token makes it a new device.",
        Code::UnknownDevice | Code::CertificateRequired => {
            "The backend does not know this device. Ask your administrator for a new token, then enrol with --again."
        }
        Code::RecoveryClosed => {
            "The certificate expired too long ago. Ask your administrator for a new token, then enrol with --again."
        }
        Code::CertificateSuperseded => {
            "A newer certificate of this device is in use: was this disk restored or copied? Ask your administrator for a new token, then enrol with --again."
        }
        _ => return None,
    })
}

/// Asks with an application; the credential is yet to be stored. Asked again with the same key, the
/// backend gives the same certificate, until that is used.
pub async fn enrol(
    application: &Application,
    time: &Arc<BackendTime>,
    wall: Clock,
) -> Result<Credential, EnrolError> {
    let Application { domain, ca, token, key } = application;
    let tls = Tls::anonymous(ca.as_deref(), Arc::clone(time))?;
    let body = Zeroizing::new(to_json(&EnrolRequest {
        token: token.to_string(),
        csr: request_of(key)?,
        device: description(),
    })?);
    let answer = Host::api(domain, tls).ask(post(PATH, &body)?, ANSWER_TIMEOUT).await?;
    let mut response: EnrolResponse = serde_json::from_slice(&answer.body)
        .map_err(|error| anyhow::Error::from(error).context("the backend's answer is no enrolment"))?;
    if let Some(known) = ca {
        judge_roots(known, &mut response.roots, domain, time).await;
    }
    let now = time.minute(wall.now().minute()).start();
    Ok(Credential::new(key.clone(), domain.clone(), ca.clone(), response, now)
        .map_err(anyhow::Error::from)?)
}

/// Asks for the next certificate of a device with the present one, within its time or after it; the
/// credential is yet to be stored.
pub async fn renew(
    credential: &Credential,
    key: DeviceKey,
    mut host: Host,
    time: &Arc<BackendTime>,
) -> Result<Credential, EnrolError> {
    let body = to_json(&RenewRequest { csr: request_of(&key)?, device: description() })?;
    let answer = host.ask(post(RENEW_PATH, &body)?, ANSWER_TIMEOUT).await?;
    let mut response: RenewResponse = serde_json::from_slice(&answer.body)
        .map_err(|error| anyhow::Error::from(error).context("the backend's answer is no renewal"))?;
    if let Some(known) = &credential.enrolled().ca {
        if !tls::vouch(known, &response.certificate_chain, time.now()) {
            return Err(
                anyhow::anyhow!("the authorities known here do not vouch for the new certificate").into()
            );
        }
        judge_roots(known, &mut response.roots, &credential.enrolled().domain, time).await;
    }
    let renewed = credential.renewed(key, response).map_err(anyhow::Error::from)?;
    let (term, now) = (renewed.term(), time.now());
    if now < term.from || term.until <= now {
        return Err(anyhow::anyhow!("the backend's new certificate is not valid now").into());
    }
    Ok(renewed)
}

fn agrees(time: &BackendTime) -> bool {
    time.ahead_s().unsigned_abs() <= AGREEMENT_S
}

/// Puts the authorities that are known in the place of those that the backend says, where the latter
/// are not to be taken.
async fn judge_roots(known: &str, said: &mut String, domain: &ToktraDomain, time: &Arc<BackendTime>) {
    if said.as_str() != known
        && !said.is_empty()
        && let Err(error) = check_roots(said, domain, time).await
    {
        tracing::error!("The backend's new authorities are not taken: {error:#}");
        known.clone_into(said);
    }
}

/// Believing authorities that do not vouch for the backend would end all talk with it. Nor are any
/// taken from one that is believed by a time that the machine's clock contradicts.
async fn check_roots(pem: &str, domain: &ToktraDomain, time: &Arc<BackendTime>) -> anyhow::Result<()> {
    anyhow::ensure!(agrees(time), "the machine's clock contradicts the backend's; set it");
    let tls = Tls::anonymous(Some(pem), Arc::clone(time))?;
    let request = Request::get(TIME_PATH).body(Full::new(Bytes::new()))?;
    Host::api(domain, tls).ask(request, ANSWER_TIMEOUT).await.context("they do not vouch for it")?;
    Ok(())
}

fn request_of(key: &DeviceKey) -> anyhow::Result<String> {
    Ok(STANDARD.encode(key.certificate_signing_request()?))
}

fn to_json(request: &impl Serialize) -> anyhow::Result<Vec<u8>> {
    Ok(serde_json::to_vec(request)?)
}

fn post(path: &str, body: &[u8]) -> anyhow::Result<Request<Full<Bytes>>> {
    let request = Request::post(path).header(header::CONTENT_TYPE, "application/json");
    Ok(request.body(Full::new(Bytes::copy_from_slice(body)))?)
}

fn description() -> DeviceDescription {
    DeviceDescription {
        hostname: hostname(),
        platform: std::env::consts::OS.to_owned(),
        agent_version: crate::VERSION.to_owned(),
        hardware: toktra_identity::hardware(),
    }
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
        assert!(lost.next_step().contains("the same key"));
        assert!(lost.is_temporary());
    }
}
