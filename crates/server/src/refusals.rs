//! Who was refused lately. Of enrolments only refusals count, so that a thousand laptops
//! behind one office address enrol at once while a guesser of tokens is slowed down.
//!
//! Limits: [`PER_ADDRESS`] refused enrolments of an address, as many of a token, and [`AUDITED`]
//! audit rows of all of them in a [`WINDOW_S`]; beyond [`ADDRESSES`] addresses or tokens the table
//! starts anew. Of refused requests, one audit row for each device (or network, of strangers)
//! and code in an [`HOUR_S`]: at most [`STRANGERS_NEWS`] of strangers, who may have any number of
//! addresses and must not hide what devices do, and [`DEVICES_NEWS`] of devices.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};

use toktra_protocol::{Code, DeviceId, UnixSeconds};

const WINDOW_S: u64 = 60;
const PER_ADDRESS: u32 = 20;
const AUDITED: u32 = 120;
const ADDRESSES: usize = 10_000;
const HOUR_S: u64 = 3600;
const STRANGERS_NEWS: usize = 2000;
const DEVICES_NEWS: usize = 20_000;

/// The tables of the current minute and hour.
#[derive(Debug, Default)]
pub struct Refusals {
    window: Mutex<Window>,
    hour: Mutex<Hour>,
}

/// Whose request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// A device of ours.
    Device(DeviceId),
    /// Somebody without a certificate of ours.
    Stranger(IpAddr),
}

#[derive(Debug, Default)]
struct Hour {
    number: u64,
    strangers: HashSet<(IpAddr, Code)>,
    devices: HashSet<(DeviceId, Code)>,
}

#[derive(Debug, Default)]
struct Window {
    start: u64,
    refused: HashMap<IpAddr, u32>,
    tokens: HashMap<String, u32>,
    audited: u32,
}

impl Refusals {
    /// Whether this address may try: otherwise in how many seconds.
    pub fn may_try(&self, address: IpAddr, now: UnixSeconds) -> Result<(), u64> {
        self.within(now, |window| match window.refused.get(&network(address)) {
            Some(&count) if count >= PER_ADDRESS => {
                Err((window.start + WINDOW_S).saturating_sub(now.0).max(1))
            }
            _ => Ok(()),
        })
    }

    /// Counts a refusal; whether it is to be written to the audit trail.
    pub fn note(&self, address: IpAddr, now: UnixSeconds) -> bool {
        self.within(now, |window| {
            if window.refused.len() >= ADDRESSES {
                window.refused.clear();
            }
            *window.refused.entry(network(address)).or_default() += 1;
            window.audited = window.audited.saturating_add(1);
            window.audited <= AUDITED
        })
    }

    /// Whether this token (its hash) may be tried: otherwise in how many seconds.
    pub fn may_use(&self, token: &str, now: UnixSeconds) -> Result<(), u64> {
        self.within(now, |window| match window.tokens.get(token) {
            Some(&count) if count >= PER_ADDRESS => {
                Err((window.start + WINDOW_S).saturating_sub(now.0).max(1))
            }
            _ => Ok(()),
        })
    }

    /// Counts a refusal of a token that exists.
    pub fn note_token(&self, token: &str, now: UnixSeconds) {
        self.within(now, |window| {
            if window.tokens.len() >= ADDRESSES {
                window.tokens.clear();
            }
            *window.tokens.entry(token.to_owned()).or_default() += 1;
        });
    }

    /// Whether the refusal of a request is to be written to the audit trail.
    pub fn is_news(&self, refused: Refused, code: Code, now: UnixSeconds) -> bool {
        let mut hour = self.hour.lock().unwrap_or_else(PoisonError::into_inner);
        if hour.number != now.0 / HOUR_S {
            *hour = Hour { number: now.0 / HOUR_S, ..Hour::default() };
        }
        match refused {
            Refused::Stranger(address) => {
                hour.strangers.len() < STRANGERS_NEWS && hour.strangers.insert((network(address), code))
            }
            Refused::Device(device) => {
                hour.devices.len() < DEVICES_NEWS && hour.devices.insert((device, code))
            }
        }
    }

    fn within<T>(&self, now: UnixSeconds, act: impl FnOnce(&mut Window) -> T) -> T {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        if now.0 >= window.start + WINDOW_S || now.0 < window.start {
            *window = Window { start: now.0, ..Window::default() };
        }
        act(&mut window)
    }
}

/// A site has 2^64 addresses of IPv6; they count as one.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_slowed_down_after_its_refusals_and_no_other_is() {
        let refusals = Refusals::default();
        let (guesser, honest): (IpAddr, IpAddr) =
            ("2001:db8::1".parse().unwrap(), "192.0.2.1".parse().unwrap());
        for _ in 0..PER_ADDRESS {
            assert_eq!(refusals.may_try(guesser, UnixSeconds(1000)), Ok(()));
            refusals.note(guesser, UnixSeconds(1000));
        }
        let neighbour = "2001:db8::2".parse().unwrap();
        assert_eq!(refusals.may_try(neighbour, UnixSeconds(1010)), Err(50));
        assert_eq!(refusals.may_try(honest, UnixSeconds(1010)), Ok(()));
        assert_eq!(refusals.may_try(guesser, UnixSeconds(1060)), Ok(()));
    }

    #[test]
    fn a_token_that_is_tried_from_everywhere_is_slowed_down_as_well() {
        let refusals = Refusals::default();
        for _ in 0..PER_ADDRESS {
            assert_eq!(refusals.may_use("t", UnixSeconds(1000)), Ok(()));
            refusals.note_token("t", UnixSeconds(1000));
        }
        assert_eq!(refusals.may_use("t", UnixSeconds(1010)), Err(50));
        assert_eq!(refusals.may_use("u", UnixSeconds(1010)), Ok(()));
        assert_eq!(refusals.may_use("t", UnixSeconds(1060)), Ok(()));
    }

    #[test]
    fn a_device_that_is_refused_again_and_again_is_news_once_an_hour() {
        let refusals = Refusals::default();
        let device = Refused::Device(DeviceId::nil());
        assert!(refusals.is_news(device, Code::CertificateSuperseded, UnixSeconds(7200)));
        assert!(!refusals.is_news(device, Code::CertificateSuperseded, UnixSeconds(7300)));
        assert!(refusals.is_news(device, Code::Revoked, UnixSeconds(7300)));
        assert!(refusals.is_news(device, Code::CertificateSuperseded, UnixSeconds(10_800)));
        let strangers = (0..10_000u32)
            .filter(|&host| {
                let stranger = Refused::Stranger(std::net::Ipv4Addr::from_bits(host).into());
                refusals.is_news(stranger, Code::CertificateRequired, UnixSeconds(14_400))
            })
            .count();
        assert_eq!(strangers, STRANGERS_NEWS);
        let news = refusals.is_news(device, Code::CertificateSuperseded, UnixSeconds(14_400));
        assert!(news, "strangers do not hide a device");
    }

    #[test]
    fn only_so_many_refusals_reach_the_audit_trail() {
        let refusals = Refusals::default();
        let audited = (0..1000u32)
            .filter(|&host| refusals.note(std::net::Ipv4Addr::from_bits(host).into(), UnixSeconds(5)))
            .count();
        assert_eq!(audited, AUDITED as usize);
    }
}
