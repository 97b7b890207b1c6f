//! What the system tells of a flow, as plain values, and how it is to be read.

use std::net::{IpAddr, SocketAddr};

use toktra_engine::Transport;

/// The system's name for a flow: the bytes of its UUID. It may be used anew once a flow has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FlowKey(pub [u8; 16]);

/// A new flow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewFlow {
    /// `IPPROTO_TCP`, `IPPROTO_UDP`, or another.
    pub protocol: i32,
    /// Whether this machine opened it.
    pub outbound: bool,
    /// Where it goes, if that is known already.
    pub remote: Option<Endpoint>,
    /// The name that the application asked for: only of Network.framework and NSURLSession.
    pub hostname: Option<String>,
    /// The local user account.
    pub account: Option<String>,
    /// The application's name.
    pub application: Option<String>,
}

/// An endpoint as the system writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// An address, maybe with a scope, or a host's name.
    pub host: String,
    /// Decimal.
    pub port: String,
}

impl NewFlow {
    /// Its transport; `None` for what is neither TCP nor UDP.
    pub fn transport(&self) -> Option<Transport> {
        const TCP: i32 = 6;
        const UDP: i32 = 17;
        match self.protocol {
            TCP => Some(Transport::Tcp),
            UDP => Some(Transport::Udp),
            _ => None,
        }
    }

    /// The name that was asked for: an address is none. An endpoint may hold a name too.
    pub fn asked_name(&self) -> Option<&str> {
        let names = [self.hostname.as_deref(), self.remote.as_ref().map(|remote| remote.host.as_str())];
        names.into_iter().flatten().find(|name| !name.is_empty() && address(name).is_none())
    }
}

impl Endpoint {
    /// The address and port, where the host is an address.
    pub fn address(&self) -> Option<SocketAddr> {
        Some(SocketAddr::new(address(&self.host)?, self.port.parse().ok()?))
    }
}

/// An address, without brackets or scope.
fn address(host: &str) -> Option<IpAddr> {
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let host = host.split_once('%').map_or(host, |(host, _)| host);
    host.parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

/// An audit token's words (`audit_token_t`; the order is that of bsm/libbsm.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AuditToken(pub [u32; 8]);

impl AuditToken {
    /// From the bytes that the system hands out; `None` unless they are eight words.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != 32 {
            return None;
        }
        let mut words = [0; 8];
        for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(4)) {
            *word = u32::from_ne_bytes(bytes.try_into().ok()?);
        }
        Some(Self(words))
    }

    /// The effective user.
    pub fn user(self) -> u32 {
        self.0[1]
    }

    /// The process; zero is the kernel.
    pub fn process(self) -> u32 {
        self.0[5]
    }
}

/// The application's name out of the identifier of its signature, which is `TEAM.com.example.app`, or
/// `.com.example.app` for one without a team; else out of the path of its program.
pub fn application(identifier: Option<&str>, path: Option<&str>) -> Option<String> {
    let named = identifier.map(without_team).filter(|identifier| !identifier.is_empty());
    let file = || path.and_then(|path| path.rsplit('/').next()).filter(|file| !file.is_empty());
    named.or_else(file).map(|name| name.chars().take(NAME_LIMIT).collect())
}

/// Longest application's name, in characters.
const NAME_LIMIT: usize = 128;

fn without_team(identifier: &str) -> &str {
    match identifier.split_once('.') {
        Some((team, rest)) if team.is_empty() || is_team(team) => rest,
        _ => identifier,
    }
}

fn is_team(text: &str) -> bool {
    text.len() == 10 && text.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostname_that_is_an_address_is_no_name_and_an_endpoint_may_hold_one() {
        let asked = |hostname: Option<&str>, host: &str| {
            let remote = Some(Endpoint { host: host.into(), port: "443".into() });
            let flow = NewFlow { hostname: hostname.map(str::to_owned), remote, ..NewFlow::default() };
            flow.asked_name().map(str::to_owned)
        };
        assert_eq!(asked(Some("api.openai.com"), "1.2.3.4").as_deref(), Some("api.openai.com"));
        for address in ["1.2.3.4", "2001:db8::1", "fe80::1%en0", "[2001:db8::1]", ""] {
            assert_eq!(asked(Some(address), "1.2.3.4"), None, "{address}");
        }
        assert_eq!(asked(Some("1.2.3.4"), "api.openai.com").as_deref(), Some("api.openai.com"));
        assert_eq!(NewFlow::default().asked_name(), None);
    }

    #[test]
    fn endpoints_are_addresses_with_ports_or_not_at_all() {
        let address = |host: &str, port: &str| Endpoint { host: host.into(), port: port.into() }.address();
        assert_eq!(address("1.2.3.4", "443"), Some("1.2.3.4:443".parse().unwrap()));
        assert_eq!(address("fe80::1%en0", "443"), Some("[fe80::1]:443".parse().unwrap()));
        for (host, port) in [("api.openai.com", "443"), ("1.2.3.4", "https"), ("1.2.3.4", "65536"), ("", "")]
        {
            assert_eq!(address(host, port), None, "{host} {port}");
        }
    }

    #[test]
    fn a_token_is_eight_words_in_the_order_of_bsm() {
        let words: Vec<u8> = (0_u32..8).flat_map(|word| (word + 500).to_ne_bytes()).collect();
        let token = AuditToken::from_bytes(&words).unwrap();
        assert_eq!((token.user(), token.process()), (501, 505));
        assert_eq!(AuditToken::from_bytes(&words[1..]), None);
        assert_eq!(AuditToken::from_bytes(&[]), None);
    }

    #[test]
    fn an_applications_name_is_its_bundle_whoever_signed_it_or_its_programs() {
        let name = |identifier, path| application(identifier, path);
        for identifier in ["EQHXZ8M8AV.com.google.Chrome", ".com.google.Chrome", "com.google.Chrome"] {
            assert_eq!(name(Some(identifier), None).as_deref(), Some("com.google.Chrome"), "{identifier}");
        }
        assert_eq!(name(Some("com.apple.curl"), Some("/usr/bin/curl")).as_deref(), Some("com.apple.curl"));
        assert_eq!(name(Some(""), Some("/opt/homebrew/bin/ollama")).as_deref(), Some("ollama"));
        assert_eq!(name(None, Some("/")), None);
        assert_eq!(name(None, None), None);
        assert_eq!(name(Some(&"x".repeat(1000)), None).unwrap().len(), NAME_LIMIT);
    }

    #[test]
    fn only_tcp_and_udp_have_a_transport() {
        let transport = |protocol| NewFlow { protocol, ..NewFlow::default() }.transport();
        assert_eq!(
            (transport(6), transport(17), transport(1)),
            (Some(Transport::Tcp), Some(Transport::Udp), None)
        );
    }
}
