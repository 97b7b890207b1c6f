//! How often a device may ask the vault: counted by the minute, forgotten with it.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use toktra_protocol::{DeviceId, UnixSeconds};

/// Requests of a device in a minute: a long ledger is listed at that pace.
pub(super) const PER_MINUTE: u32 = 240;
const MINUTE_S: u64 = 60;

/// The present minute's requests.
#[derive(Debug, Default)]
pub(super) struct Rates(Mutex<(u64, HashMap<DeviceId, u32>)>);

impl Rates {
    /// Counts a request; refused, in how many seconds it may be tried again.
    pub(super) fn may_ask(&self, device: DeviceId, now: UnixSeconds) -> Result<(), u64> {
        let mut counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (minute, devices) = &mut *counted;
        if *minute != now.0 / MINUTE_S {
            *minute = now.0 / MINUTE_S;
            devices.clear();
        }
        let count = devices.entry(device).or_default();
        if *count >= PER_MINUTE {
            return Err(MINUTE_S - now.0 % MINUTE_S);
        }
        *count += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_asks_too_often_waits_for_the_next_minute_and_keeps_nobody_else() {
        let rates = Rates::default();
        let [one, other] = [1, 2].map(DeviceId::from_u128);
        for _ in 0..PER_MINUTE {
            assert_eq!(rates.may_ask(one, UnixSeconds(6_010)), Ok(()));
        }
        assert_eq!(rates.may_ask(one, UnixSeconds(6_050)), Err(10));
        assert_eq!(rates.may_ask(other, UnixSeconds(6_050)), Ok(()));
        assert_eq!(rates.may_ask(one, UnixSeconds(6_060)), Ok(()));
    }
}
