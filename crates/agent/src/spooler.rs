//! The spool on a thread of its own, because it waits for the disk: work goes in as
//! closures, one after the other, and what stands in the spool is published after each.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

use anyhow::Context as _;
use tokio::sync::{mpsc, oneshot, watch};
use toktra_spool::{Limits, Owner, Spent, Spool};

/// Work that may wait for the thread.
const QUEUE: usize = 64;

/// Does something and gives back how to answer, which waits until the counts are published:
/// who was answered finds in them what was done.
type Work = Box<dyn FnOnce(&mut Spool) -> Reply + Send>;
type Reply = Box<dyn FnOnce()>;

/// What stands in the spool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Events that are not acknowledged.
    pub waiting: u64,
    /// Highest acknowledged number.
    pub acknowledged: u64,
    /// Events dropped since enrolment.
    pub dropped: u64,
}

impl Counts {
    fn of(spool: &Spool) -> Self {
        Self { waiting: spool.waiting(), acknowledged: spool.acknowledged(), dropped: spool.dropped() }
    }
}

/// The spool's thread is gone, which happens only when the agent stops.
#[derive(Debug, thiserror::Error)]
#[error("the spool is closed")]
pub struct Closed;

/// A handle; when the last is dropped, the spool closes.
#[derive(Clone, Debug)]
pub struct Spooler {
    work: mpsc::Sender<Work>,
    counts: watch::Receiver<Counts>,
    spent: watch::Receiver<Arc<[Spent]>>,
}

impl Spooler {
    /// Opens the spool and starts its thread. The receiver resolves when the spool is closed.
    pub fn open(
        directory: PathBuf,
        owner: &Owner,
        limits: Limits,
    ) -> anyhow::Result<(Self, oneshot::Receiver<()>)> {
        let mut spool = Spool::open(&directory, owner, limits)?;
        let (publish, counts) = watch::channel(Counts::of(&spool));
        let (publish_spent, spent) = watch::channel(Arc::<[Spent]>::from(spool.spent()));
        let (work, mut queue) = mpsc::channel::<Work>(QUEUE);
        let (closed, wait) = oneshot::channel();
        thread::Builder::new()
            .name("spool".to_owned())
            .spawn(move || {
                while let Some(work) = queue.blocking_recv() {
                    let reply = work(&mut spool);
                    publish.send_replace(Counts::of(&spool));
                    publish_spent.send_if_modified(|known| {
                        let now = spool.spent();
                        let changed = known[..] != now[..];
                        if changed {
                            *known = now.into();
                        }
                        changed
                    });
                    reply();
                }
                drop(spool);
                let _ = closed.send(());
            })
            .context("cannot start the spool's thread")?;
        Ok((Self { work, counts, spent }, wait))
    }

    /// Has the thread do something, and waits for it.
    pub async fn run<T, F>(&self, act: F) -> Result<T, Closed>
    where
        T: Send + 'static,
        F: FnOnce(&mut Spool) -> T + Send + 'static,
    {
        let (answer, wait) = oneshot::channel();
        let work: Work = Box::new(move |spool| {
            let done = act(spool);
            Box::new(move || drop(answer.send(done)))
        });
        self.work.send(work).await.map_err(|_| Closed)?;
        wait.await.map_err(|_| Closed)
    }

    /// What the events have spent that the backend may not count yet, and a notice when it changes.
    pub fn spent(&self) -> watch::Receiver<Arc<[Spent]>> {
        self.spent.clone()
    }

    /// What stands in the spool, and a notice when it changes.
    pub fn counts(&self) -> watch::Receiver<Counts> {
        self.counts.clone()
    }
}
