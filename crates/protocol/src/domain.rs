//! Names derived from `ToktraDomain`, the one setting that an administrator must give.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The port used when `ToktraDomain` names none.
pub const DEFAULT_PORT: u16 = 443;

/// `acme.example` or `toktra.localhost:8443`: the domain below which the backend's three
/// hosts live. Parsed once; holds a valid lower-case host name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ToktraDomain {
    host: String,
    port: u16,
}

/// Why a text is not a `ToktraDomain`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DomainError {
    /// The text names a scheme or a path.
    #[error("`{0}` is not a domain: write it as `acme.example`, without https:// and without a path")]
    NotADomain(String),
    /// The part after the colon is not a port.
    #[error("`{0}` has a port that is not a number from 1 to 65535")]
    BadPort(String),
}

impl ToktraDomain {
    /// Host of enrolment, public API and console.
    pub fn api_host(&self) -> String {
        format!("api.{}", self.host)
    }

    /// Host of device traffic; asks for a client certificate.
    pub fn ingest_host(&self) -> String {
        format!("ingest.{}", self.host)
    }

    /// Host of signed updates.
    pub fn updates_host(&self) -> String {
        format!("updates.{}", self.host)
    }

    /// The domain's own host part.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port of all three hosts.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Base URL of enrolment, public API and console.
    pub fn api_url(&self) -> String {
        self.url(&self.api_host())
    }

    /// Base URL of device traffic.
    pub fn ingest_url(&self) -> String {
        self.url(&self.ingest_host())
    }

    /// Base URL of signed updates.
    pub fn updates_url(&self) -> String {
        self.url(&self.updates_host())
    }

    /// Whether the name lies under `localhost`, which resolves to loopback without DNS (RFC 6761, 6.3).
    pub fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.host.ends_with(".localhost")
    }

    fn url(&self, host: &str) -> String {
        if self.port == DEFAULT_PORT {
            format!("https://{host}")
        } else {
            format!("https://{host}:{}", self.port)
        }
    }
}

impl FromStr for ToktraDomain {
    type Err = DomainError;

    fn from_str(text: &str) -> Result<Self, DomainError> {
        let (host, port) = match text.split_once(':') {
            None => (text, DEFAULT_PORT),
            Some((host, port)) => match port.parse() {
                Ok(port) if port != 0 => (host, port),
                _ if port.starts_with("//") => return Err(DomainError::NotADomain(text.to_owned())),
                _ => return Err(DomainError::BadPort(text.to_owned())),
            },
        };
        if !is_host_name(host) {
            return Err(DomainError::NotADomain(text.to_owned()));
        }
        Ok(Self { host: host.to_ascii_lowercase(), port })
    }
}

impl TryFrom<String> for ToktraDomain {
    type Error = DomainError;

    fn try_from(text: String) -> Result<Self, DomainError> {
        text.parse()
    }
}

impl From<ToktraDomain> for String {
    fn from(domain: ToktraDomain) -> Self {
        domain.to_string()
    }
}

impl fmt::Display for ToktraDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.port == DEFAULT_PORT {
            f.write_str(&self.host)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// RFC 1123 labels; `updates.` in front must still fit into 253 octets.
fn is_host_name(host: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    host.len() <= 253 - "updates.".len() && host.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_hosts_derive_from_one_domain() {
        let domain: ToktraDomain = "Acme.Example".parse().unwrap();
        assert_eq!(domain.api_url(), "https://api.acme.example");
        assert_eq!(domain.ingest_url(), "https://ingest.acme.example");
        assert_eq!(domain.updates_url(), "https://updates.acme.example");
        assert!(!domain.is_loopback());
    }

    #[test]
    fn a_port_is_kept_in_every_url() {
        let domain: ToktraDomain = "toktra.localhost:8443".parse().unwrap();
        assert_eq!(domain.api_url(), "https://api.toktra.localhost:8443");
        assert_eq!(domain.to_string(), "toktra.localhost:8443");
        assert!(domain.is_loopback());
    }

    #[test]
    fn what_is_no_domain_is_refused() {
        for text in [
            "",
            ".",
            "a..b",
            "https://acme.example",
            "acme.example/x",
            "-a.b",
            "a_b.c",
            "a b",
            "a:0",
            "a:x",
            "a:70000",
        ] {
            assert!(text.parse::<ToktraDomain>().is_err(), "{text}");
        }
        assert!("a".repeat(64).parse::<ToktraDomain>().is_err());
    }
}
