//! The budget book in memory.
//!
//! Directives are made from a snapshot of the database ([`Book`]): taken anew with every change of
//! an administrator and every cap that is passed, when a period or an exemption ends, and otherwise
//! when a device asks and the last is older than [`FRESH_S`]. One is taken at a time, so that an
//! older never takes the place of a newer. The task of [`crate::serve`] looks many times a
//! second by the server's clock whether a period or an exemption has ended: it never sleeps
//! towards that moment, so no set or stopped clock makes it late.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::{Mutex, MutexGuard};
use toktra_protocol::UnixSeconds;
use toktra_store::book::{self, Book};
use toktra_store::devices::Device;
use toktra_store::{Store, StoreError};

use crate::roster::Roster;

/// How old the spend in a directive may be when it is issued.
const FRESH_S: u64 = 5;
/// At a start, how far back ended periods and exemptions are looked for.
const LOOK_BACK_S: u64 = 24 * 60 * 60;

/// The newest snapshot.
#[derive(Debug)]
pub struct BudgetBook {
    book: ArcSwap<Book>,
    taking: Mutex<Option<UnixSeconds>>,
}

impl BudgetBook {
    /// Takes the first.
    pub async fn open(store: &Store, now: UnixSeconds) -> Result<Self, StoreError> {
        Ok(Self { book: ArcSwap::from_pointee(Book::read(store, now).await?), taking: Mutex::default() })
    }

    /// A snapshot whose spend is no older than [`FRESH_S`] and which has what this version of the device's
    /// directive says, or the newest there is if the database fails.
    pub async fn fresh(&self, store: &Store, device: &Device, now: UnixSeconds) -> Arc<Book> {
        let book = self.book.load_full();
        if is_fresh(&book, device, now) {
            return book;
        }
        let _taking = self.taking.lock().await;
        if !is_fresh(&self.book.load(), device, now) {
            match Book::read(store, now).await {
                Ok(book) => self.book.store(Arc::new(book)),
                Err(error) => tracing::error!(%error, "The budgets could not be read anew."),
            }
        }
        self.book.load_full()
    }

    /// Tells devices of periods and exemptions that ended, then takes a snapshot with the devices'
    /// standing of the same moment, if anything has changed since the last.
    pub async fn follow(
        &self,
        store: &Store,
        roster: &Roster,
        seen: Option<i64>,
        now: UnixSeconds,
    ) -> Result<i64, StoreError> {
        let mut taking = self.taking.lock().await;
        let due = self.book.load().next_turn().is_some_and(|turn| turn <= now);
        if due || taking.is_none() {
            turn(store, &mut taking, now).await?;
        }
        let counter = store.changes().await?;
        if !due && seen == Some(counter) {
            return Ok(counter);
        }
        let (book, devices) = Book::read_with_devices(store, now).await?;
        let counter = book.counter().unwrap_or(counter);
        // First what directives are made from, then whoever waits for them.
        self.book.store(Arc::new(book));
        roster.update(devices)?;
        Ok(counter)
    }
}

fn is_fresh(book: &Book, device: &Device, now: UnixSeconds) -> bool {
    let seen = device.device_id().ok().and_then(|id| book.seen(id));
    book.taken_at().0.abs_diff(now.0) <= FRESH_S
        && book.next_turn().is_none_or(|turn| now < turn)
        && seen.is_some_and(|seen| seen.directive_version >= device.directive_version)
}

async fn turn(
    store: &Store,
    turned: &mut MutexGuard<'_, Option<UnixSeconds>>,
    now: UnixSeconds,
) -> Result<(), StoreError> {
    // A clock that was set back passes the same moment twice.
    let since = turned.unwrap_or(UnixSeconds(now.0.saturating_sub(LOOK_BACK_S))).min(now);
    book::turn(store, since, now).await?;
    **turned = Some(now);
    Ok(())
}
