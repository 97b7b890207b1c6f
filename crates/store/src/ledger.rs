//! The ledger's one writer: an actor that books many devices' batches in one transaction.
//!
//! A commit costs a disk flush, some milliseconds, however much it holds; so while one
//! transaction is flushed, batches gather in the queue and the next transaction takes them
//! all. A batch is answered after the commit that holds it and never before.
//!
//! That a device was heard of is worth no flush of its own: such sightings gather, one for each device,
//! and are written down every [`SIGHTINGS_EVERY`].
//!
//! Limits: at most [`WAITING_EVENTS_LIMIT`] events wait (beyond that [`BookError::Busy`]),
//! and a transaction takes at most [`GROUP_EVENTS`] or [`GROUP_BATCHES`].

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;
use toktra_protocol::{Ack, Batch, DeviceId, Estimate, UnixSeconds};

use crate::certificates::{Shown, Worth};
use crate::price_mix::Share;
use crate::terms::Terms;
use crate::{Store, StoreError, booking, certificates};

/// Most events that wait for a transaction, over all devices.
pub const WAITING_EVENTS_LIMIT: usize = 64 * 1024;
/// Events after which a transaction takes no further batch.
pub const GROUP_EVENTS: usize = 16 * 1024;
/// Batches after which a transaction takes no further one.
pub const GROUP_BATCHES: usize = 1024;
/// How often sightings are written down.
const SIGHTINGS_EVERY: Duration = Duration::from_secs(1);
/// Sightings that a transaction takes.
const GROUP_SIGHTINGS: usize = 1024;
/// Commands that wait in the actor's queue.
const QUEUE: usize = 4096;

/// Why a batch was not booked. Nothing of it was stored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BookError {
    /// Too much waits already; try again in a second.
    #[error("the ledger's queue is full")]
    Busy,
    /// There is no such device.
    #[error("the device is not known")]
    UnknownDevice,
    /// Its certificate was withdrawn.
    #[error("the device was revoked")]
    Revoked,
    /// The batch starts beyond what the ledger has.
    #[error("the batch starts at {first}, but the ledger has the device's events up to {acknowledged}")]
    Gap {
        /// First number of the batch.
        first: u64,
        /// Highest contiguous number stored.
        acknowledged: u64,
    },
    /// The database failed; the log has the cause.
    #[error("the database failed")]
    Database,
}

/// What usage costs, in micro-dollars.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Of the lower bounds.
    pub low_micros: u64,
    /// Of the points.
    pub point_micros: u64,
    /// Of the upper bounds.
    pub high_micros: u64,
}

/// Prices of services. The catalogue has the real ones.
pub trait Tariff: Send + Sync {
    /// What these tokens cost at that time; `None` where the service has no price. `mix` is what the
    /// organisation declared of the service's models, empty where it declared nothing.
    fn cost(
        &self,
        mix: &[Share],
        service: &str,
        at: UnixSeconds,
        tokens_in: Estimate,
        tokens_out: Estimate,
    ) -> Option<Cost>;
}

pub(crate) struct Entry {
    pub device: DeviceId,
    pub batch: Batch,
    reply: oneshot::Sender<Result<Ack, BookError>>,
    _permit: OwnedSemaphorePermit,
}

/// A device was heard of, without a batch.
pub(crate) struct Sighting {
    pub device: DeviceId,
    pub directive_applied: Option<u64>,
}

/// Devices that were heard of and not yet written down, with the directive that each last said it runs.
#[derive(Debug, Default)]
struct Sightings(Mutex<HashMap<DeviceId, Option<u64>>>);

impl Sightings {
    fn add(&self, device: DeviceId, directive_applied: Option<u64>) {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let applied = waiting.entry(device).or_default();
        *applied = directive_applied.or(*applied);
    }

    /// At most [`GROUP_SIGHTINGS`] of them, and whether more wait.
    fn take(&self) -> (Vec<Sighting>, bool) {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let taken: Vec<DeviceId> = waiting.keys().copied().take(GROUP_SIGHTINGS).collect();
        let taken = taken.into_iter().filter_map(|device| {
            let directive_applied = waiting.remove(&device)?;
            Some(Sighting { device, directive_applied })
        });
        (taken.collect(), !waiting.is_empty())
    }
}

/// A certificate may be used for the first time.
struct FirstUse {
    shown: Shown,
    reply: oneshot::Sender<Result<Worth, BookError>>,
}

enum Command {
    Book(Entry),
    Use(FirstUse),
}

/// A handle to the actor. It ends when every handle is gone and what waits is booked.
#[derive(Clone, Debug)]
pub struct Ledger {
    commands: mpsc::Sender<Command>,
    room: Arc<Semaphore>,
    sightings: Arc<Sightings>,
    changed: Arc<Notify>,
}

impl Ledger {
    /// Starts the actor. `now` is its clock. Await the task at shutdown, after dropping
    /// every handle.
    pub fn start(
        store: Store,
        tariff: Box<dyn Tariff>,
        now: impl Fn() -> UnixSeconds + Send + 'static,
    ) -> (Self, JoinHandle<()>) {
        let (commands, queue) = mpsc::channel(QUEUE);
        let (sightings, changed) = (Arc::<Sightings>::default(), Arc::<Notify>::default());
        let actor = Actor { store, tariff, sightings: Arc::clone(&sightings), changed: Arc::clone(&changed) };
        let task = tokio::spawn(actor.run(now, queue));
        let room = Arc::new(Semaphore::new(WAITING_EVENTS_LIMIT));
        (Self { commands, room, sightings, changed }, task)
    }

    /// Books a checked batch. Returns once it is durable.
    pub async fn book(&self, device: DeviceId, batch: Batch) -> Result<Ack, BookError> {
        let events = u32::try_from(batch.events.len()).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.room).try_acquire_many_owned(events).map_err(|_| BookError::Busy)?;
        let (reply, answer) = oneshot::channel();
        let entry = Entry { device, batch, reply, _permit: room };
        self.commands.try_send(Command::Book(entry)).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => BookError::Busy,
            mpsc::error::TrySendError::Closed(_) => BookError::Database,
        })?;
        answer.await.map_err(|_| BookError::Database)?
    }

    /// Returns if the actor has ended before its handles, which only a fault of ours can do.
    pub async fn failed(&self) {
        self.commands.closed().await;
    }

    /// Whether it has.
    pub fn has_failed(&self) -> bool {
        self.commands.is_closed()
    }

    /// Notes that a certificate is used, and says what it is worth. Returns once that is durable.
    pub async fn certificate_used(&self, shown: Shown) -> Result<Worth, BookError> {
        let (reply, answer) = oneshot::channel();
        let sent = self.commands.try_send(Command::Use(FirstUse { shown, reply }));
        sent.map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => BookError::Busy,
            mpsc::error::TrySendError::Closed(_) => BookError::Database,
        })?;
        answer.await.map_err(|_| BookError::Database)?
    }

    /// Returns once something was booked that changes what devices are to do, as a cap that is passed;
    /// at once if that was since the last call.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Notes that a device was heard of, within some seconds; lost if the server stops. Said again within
    /// two minutes.
    pub fn seen(&self, device: DeviceId, directive_applied: Option<u64>) {
        self.sightings.add(device, directive_applied);
    }
}

struct Actor {
    store: Store,
    tariff: Box<dyn Tariff>,
    sightings: Arc<Sightings>,
    changed: Arc<Notify>,
}

impl Actor {
    async fn run(self, now: impl Fn() -> UnixSeconds, mut queue: mpsc::Receiver<Command>) {
        let mut terms = Terms::default();
        let mut ticks = tokio::time::interval(SIGHTINGS_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let mut sightings = Vec::new();
            let mut next = tokio::select! {
                biased;
                _ = ticks.tick() => {
                    let (taken, more) = self.sightings.take();
                    if more {
                        ticks.reset_immediately();
                    }
                    sightings = taken;
                    queue.try_recv().ok()
                }
                command = queue.recv() => match command {
                    Some(command) => Some(command),
                    None => return,
                },
            };
            let mut entries = Vec::new();
            let mut uses = Vec::new();
            let mut events = 0;
            while let Some(command) = next.take() {
                match command {
                    Command::Book(entry) => {
                        events += entry.batch.events.len();
                        entries.push(entry);
                    }
                    Command::Use(first) => uses.push(first),
                }
                if events < GROUP_EVENTS && entries.len() + uses.len() < GROUP_BATCHES {
                    next = queue.try_recv().ok();
                }
            }
            if entries.is_empty() && sightings.is_empty() && uses.is_empty() {
                continue;
            }
            let group = Group { now: now(), entries: &entries, sightings: &sightings, uses: &uses };
            let answers = self.book_group(&mut terms, &group).await;
            // Whoever asked may have gone; what was done is done all the same.
            for (entry, answer) in entries.into_iter().zip(answers.booked) {
                let _ = entry.reply.send(answer);
            }
            for (first, answer) in uses.into_iter().zip(answers.used) {
                let _ = first.reply.send(answer);
            }
        }
    }

    async fn book_group(&self, terms: &mut Terms, group: &Group<'_>) -> Answers {
        match self.booked(terms, group).await {
            Ok(answers) => answers,
            Err(error) => {
                let cause = &error as &dyn std::error::Error;
                tracing::error!(
                    cause,
                    batches = group.entries.len(),
                    "A group of batches could not be booked."
                );
                Answers {
                    booked: vec![Err(BookError::Database); group.entries.len()],
                    used: vec![Err(BookError::Database); group.uses.len()],
                }
            }
        }
    }

    async fn booked(&self, terms: &mut Terms, group: &Group<'_>) -> Result<Answers, StoreError> {
        let mut transaction = self.store.begin().await?;
        let tariff = &*self.tariff;
        let booked = booking::book(&mut transaction, terms, tariff, group.now, group.entries).await?;
        booking::note_sightings(&mut transaction, group.now, group.sightings).await?;
        let mut used = Vec::with_capacity(group.uses.len());
        for first in group.uses {
            used.push(Ok(certificates::note_use(&mut transaction, group.now, &first.shown).await?));
        }
        let changed = terms.are_stale(&mut transaction).await?;
        transaction.commit().await?;
        if changed {
            self.changed.notify_one();
        }
        Ok(Answers { booked, used })
    }
}

/// What one transaction takes.
struct Group<'a> {
    now: UnixSeconds,
    entries: &'a [Entry],
    sightings: &'a [Sighting],
    uses: &'a [FirstUse],
}

/// What there is to answer to a group, in its order.
struct Answers {
    booked: Vec<Result<Ack, BookError>>,
    used: Vec<Result<Worth, BookError>>,
}
