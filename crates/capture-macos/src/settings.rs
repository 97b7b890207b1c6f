//! Which flows the system hands over: its own rules, as plain values.
//!
//! Rules are matched in the kernel's order by the system itself, before this process is asked; what matches
//! none is allowed. While nothing may be recorded there is one rule, which allows what nobody sends: a default
//! of "allow" wants at least one (NEFilterSettings.h), and loopback is never handed over.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use toktra_engine::Transport;

/// Most ports that can be watched: four rules each, and the system takes a thousand.
pub const PORTS_LIMIT: usize = 64;
/// The port of HTTPS, by TLS and by QUIC.
const HTTPS: u16 = 443;
/// An address for documentation (RFC 5737), to which nobody sends.
const NOWHERE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
/// The port of the service that discards (RFC 863).
const DISCARD: u16 = 9;

/// Which outbound flows a rule is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rule {
    /// An address; the unspecified one stands for every remote host.
    pub remote: IpAddr,
    /// Length of the network's prefix, in bits.
    pub prefix: u8,
    /// Remote port.
    pub port: u16,
    /// Whether it is TCP; else UDP.
    pub is_tcp: bool,
    /// Whether flows are handed over; else the system allows them by itself.
    pub delivers: bool,
}

/// The rules in force. What matches none is allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// In order; never empty.
    pub rules: Vec<Rule>,
}

impl Settings {
    /// HTTPS and these ports, on every remote host; nothing at all unless it is listened to.
    pub fn new(ports: &[u16], listening: bool) -> Self {
        if !listening {
            let rule = Rule { remote: NOWHERE, prefix: 32, port: DISCARD, is_tcp: true, delivers: false };
            return Self { rules: vec![rule] };
        }
        let ports: BTreeSet<u16> =
            std::iter::once(HTTPS).chain(ports.iter().copied().filter(|&port| port > 0)).collect();
        let everyone = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
        let rules = ports
            .into_iter()
            .take(PORTS_LIMIT)
            .flat_map(|port| [Transport::Tcp, Transport::Udp].map(|transport| (port, transport)))
            .flat_map(|(port, transport)| {
                let is_tcp = transport == Transport::Tcp;
                everyone.map(|remote| Rule { remote, prefix: 0, port, is_tcp, delivers: true })
            })
            .collect();
        Self { rules }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn https_is_watched_over_both_transports_and_both_families_and_nothing_else_is() {
        let rules = Settings::new(&[], true).rules;
        assert_eq!(rules.len(), 4);
        for rule in &rules {
            assert!(rule.port == 443 && rule.prefix == 0 && rule.delivers && rule.remote.is_unspecified());
        }
        let kinds: BTreeSet<_> = rules.iter().map(|rule| (rule.is_tcp, rule.remote.is_ipv4())).collect();
        assert_eq!(kinds.len(), 4);
    }

    #[test]
    fn more_ports_are_more_rules_up_to_a_limit_that_the_system_takes() {
        let ports = |settings: Settings| {
            settings
                .rules
                .iter()
                .map(|rule| rule.port)
                .collect::<BTreeSet<_>>()
                .into_iter()
                .collect::<Vec<_>>()
        };
        assert_eq!(ports(Settings::new(&[8443, 443, 0, 8080], true)), [443, 8080, 8443]);
        let many: Vec<u16> = (1..=2000).collect();
        let settings = Settings::new(&many, true);
        assert!(settings.rules.len() == 4 * PORTS_LIMIT && settings.rules.len() <= 1000);
    }

    #[test]
    fn while_nothing_may_be_recorded_no_rule_delivers_anything() {
        let settings = Settings::new(&[8443], false);
        assert!(!settings.rules.is_empty(), "a default of allow wants a rule");
        assert!(settings.rules.iter().all(|rule| !rule.delivers));
        assert!(!settings.rules.iter().any(|rule| rule.port == 443 || rule.remote.is_unspecified()));
    }
}
