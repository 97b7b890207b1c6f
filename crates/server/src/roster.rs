//! The devices' standing in memory, so that every request is judged by what an
//! administrator last said, on connections of any age, without a query.
//!
//! A task compares the database's change counter many times a second and reads all devices
//! anew when it has grown ([`crate::budgets`]); whoever waits for a device's directive is woken by that.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use toktra_protocol::{DeviceId, UnixSeconds};
use toktra_store::devices::{self, Device};
use toktra_store::{Store, StoreError};

/// A device that is heard of again within this time is not written down again.
const SEEN_EVERY_S: u64 = 60;
/// Requests of one device at once. A device has two; those of connections that broke linger.
pub const REQUESTS_PER_DEVICE: usize = 16;

/// All devices that were asked for or read.
#[derive(Debug, Default)]
pub struct Roster {
    devices: RwLock<HashMap<DeviceId, Arc<Entry>>>,
}

/// A device.
#[derive(Debug)]
pub struct Entry {
    standing: watch::Sender<Arc<Device>>,
    applied: AtomicU64,
    seen_at: AtomicU64,
    /// The serial of the certificate that was last found to be in use.
    certificate: RwLock<Option<String>>,
    requests: Arc<Semaphore>,
}

impl Entry {
    fn new(device: Device) -> Self {
        let applied = device.directive_applied.unwrap_or_default();
        Self {
            applied: AtomicU64::new(u64::try_from(applied).unwrap_or_default()),
            seen_at: AtomicU64::new(0),
            certificate: RwLock::new(device.certificate_serial.clone()),
            requests: Arc::new(Semaphore::new(REQUESTS_PER_DEVICE)),
            standing: watch::Sender::new(Arc::new(device)),
        }
    }

    /// The device as last read.
    pub fn device(&self) -> Arc<Device> {
        Arc::clone(&self.standing.borrow())
    }

    /// A place for one more request, if there is one left.
    pub fn request(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.requests).try_acquire_owned().ok()
    }

    /// Whether this is the device's certificate in use, as far as is known without asking.
    pub fn is_in_use(&self, serial: &str) -> bool {
        self.certificate.read().unwrap_or_else(PoisonError::into_inner).as_deref() == Some(serial)
    }

    /// The database says that this certificate is in use.
    pub fn note_in_use(&self, serial: &str) {
        *self.certificate.write().unwrap_or_else(PoisonError::into_inner) = Some(serial.to_owned());
    }

    /// To wait for a change.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Device>> {
        self.standing.subscribe()
    }

    /// Whether it is worth writing down that the device was heard of and runs this directive.
    pub fn is_news(&self, applied: Option<u64>, now: UnixSeconds) -> bool {
        let applied_changed =
            applied.is_some_and(|applied| self.applied.swap(applied, Ordering::Relaxed) != applied);
        let last = self.seen_at.load(Ordering::Relaxed);
        let seen_long_ago = now.0.abs_diff(last) >= SEEN_EVERY_S;
        if applied_changed || seen_long_ago {
            self.seen_at.store(now.0, Ordering::Relaxed);
        }
        applied_changed || seen_long_ago
    }

    fn update(&self, device: Device) {
        self.standing.send_if_modified(|standing| {
            let news =
                standing.directive_version != device.directive_version || standing.state != device.state;
            if news {
                *standing = Arc::new(device);
            }
            news
        });
    }
}

impl Roster {
    /// The device, from memory or else from the database.
    pub async fn find(&self, store: &Store, id: DeviceId) -> Result<Option<Arc<Entry>>, StoreError> {
        let known = self.devices.read().unwrap_or_else(PoisonError::into_inner).get(&id).cloned();
        if known.is_some() {
            return Ok(known);
        }
        let Some(device) = devices::find(store, id).await? else { return Ok(None) };
        let mut devices = self.devices.write().unwrap_or_else(PoisonError::into_inner);
        Ok(Some(Arc::clone(devices.entry(id).or_insert_with(|| Arc::new(Entry::new(device))))))
    }

    /// Takes every device as it was read, and wakes whoever waits for a change of it.
    pub fn update(&self, rows: Vec<Device>) -> Result<(), StoreError> {
        let mut devices = self.devices.write().unwrap_or_else(PoisonError::into_inner);
        for row in rows {
            let id = row.device_id()?;
            match devices.get(&id) {
                Some(entry) => entry.update(row),
                None => {
                    devices.insert(id, Arc::new(Entry::new(row)));
                }
            }
        }
        Ok(())
    }
}
