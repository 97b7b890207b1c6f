//! How often one address may try to sign in: a count per minute and address. It bounds the
//! work that strangers can ask for; the lock-out of an account is the store's. The table is
//! bounded, and when it is full of the present minute everyone shares one entry.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use toktra_protocol::Minute;

/// Attempts that one address has each minute.
pub(super) const ATTEMPTS_PER_MINUTE: u32 = 20;
/// Addresses remembered at once.
const ADDRESSES: usize = 4096;

/// Counts of the present minute.
#[derive(Debug, Default)]
pub(super) struct Throttle {
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    minute: Option<Minute>,
    by_address: HashMap<Option<IpAddr>, u32>,
}

impl Throttle {
    /// Counts an attempt; whether it may go on. `None` stands for all unknown addresses.
    pub(super) fn admits(&self, address: Option<IpAddr>, minute: Minute) -> bool {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.minute != Some(minute) {
            *counts = Counts { minute: Some(minute), by_address: HashMap::new() };
        }
        let mut key = address.map(network);
        if counts.by_address.len() >= ADDRESSES && !counts.by_address.contains_key(&key) {
            key = None;
        }
        let count = counts.by_address.entry(key).or_default();
        *count = count.saturating_add(1);
        *count <= ATTEMPTS_PER_MINUTE
    }
}

/// Whoever has one IPv6 address has its /64.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & !u128::from(u64::MAX)).into()),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_so_many_attempts_a_minute_and_others_keep_theirs() {
        let throttle = Throttle::default();
        let one = Some(IpAddr::from([192, 0, 2, 1]));
        let other = Some(IpAddr::from([192, 0, 2, 2]));
        for _ in 0..ATTEMPTS_PER_MINUTE {
            assert!(throttle.admits(one, Minute(1)));
        }
        assert!(!throttle.admits(one, Minute(1)));
        assert!(throttle.admits(other, Minute(1)));
        assert!(throttle.admits(one, Minute(2)));
    }

    #[test]
    fn neighbours_in_one_ipv6_network_share_an_allowance() {
        let throttle = Throttle::default();
        for host in 0..=u128::from(ATTEMPTS_PER_MINUTE) {
            let address = IpAddr::V6((0x2001_0db8_u128 << 96 | host).into());
            let admitted = throttle.admits(Some(address), Minute(1));
            assert_eq!(admitted, host < u128::from(ATTEMPTS_PER_MINUTE));
        }
    }

    #[test]
    fn a_full_table_leaves_newcomers_one_shared_allowance() {
        let throttle = Throttle::default();
        for host in 0..4096_u32 {
            assert!(throttle.admits(Some(IpAddr::V4(host.into())), Minute(1)));
        }
        let admitted = (5000..5100_u32)
            .filter(|host| throttle.admits(Some(IpAddr::V4((*host).into())), Minute(1)))
            .count();
        assert_eq!(admitted, ATTEMPTS_PER_MINUTE as usize);
    }
}
