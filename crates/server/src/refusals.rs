//! Who was refused an enrolment lately. Only refusals count, so that a thousand laptops
//! behind one office address enrol at once while a guesser of tokens is slowed down.
//!
//! Limits: [`PER_ADDRESS`] refusals of an address and [`AUDITED`] audit rows of all of them
//! in a [`WINDOW_S`]; beyond [`ADDRESSES`] addresses the table starts anew.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};

use toktra_protocol::UnixSeconds;

const WINDOW_S: u64 = 60;
const PER_ADDRESS: u32 = 20;
const AUDITED: u32 = 120;
const ADDRESSES: usize = 10_000;

/// The table of the current minute.
#[derive(Debug, Default)]
pub struct Refusals {
    window: Mutex<Window>,
}

#[derive(Debug, Default)]
struct Window {
    start: u64,
    refused: HashMap<IpAddr, u32>,
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
    fn only_so_many_refusals_reach_the_audit_trail() {
        let refusals = Refusals::default();
        let audited = (0..1000u32)
            .filter(|&host| refusals.note(std::net::Ipv4Addr::from_bits(host).into(), UnixSeconds(5)))
            .count();
        assert_eq!(audited, AUDITED as usize);
    }
}
