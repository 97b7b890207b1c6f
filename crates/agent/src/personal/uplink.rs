//! Sends sealed records to the vault, and this device's total of the month; its own task, its own
//! connection. A batch goes when [`ENOUGH`] records wait or [`INTERVAL`] after the last, so that its time
//! tells little of when something was used; never in privacy hours.
//!
//! | answer | what follows |
//! | --- | --- |
//! | acknowledged | deleted from the queue |
//! | `batch_order` | a new slot: the backend has lost this one's numbers |
//! | `perks_not_enrolled` | nothing is sent until the directive says otherwise; what waits stays |
//! | anything else, or no answer | back-off with full jitter, at least `Retry-After` |
//!
//! A batch whose answer was lost is sent again under the same numbers; the backend counts it once.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::{Method, Request, header};
use serde::de::DeserializeOwned;
use tokio::time::timeout;
use toktra_protocol::Code;
use toktra_protocol::personal::wire::{Body, RECORDS_LIMIT, RECORDS_PATH, TOTAL_PATH};
use toktra_protocol::personal::{Member, PersonalAck, PersonalBatch, PersonalStanding, PersonalTotal};

use super::membership::Standing;
use super::queue::Batch;
use crate::backoff::Backoff;
use crate::board::Board;
use crate::dial::{DialError, Host};
use crate::uplink::random;

/// Records that make a batch go at once.
pub const ENOUGH: u64 = 16;
/// The longest that a record waits for others.
pub const INTERVAL: Duration = Duration::from_secs(15 * 60);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Why nothing was sent or heard.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// The backend, or the way there.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The disk.
    #[error("the personal queue: {0}")]
    Queue(#[from] std::io::Error),
    /// What the backend said is kept nowhere.
    #[error(transparent)]
    Personal(#[from] super::PersonalError),
    /// The request cannot be written.
    #[error("no request can be made: {0}")]
    Request(String),
    /// The answer cannot be read.
    #[error("the backend's answer cannot be read: {0}")]
    Answer(&'static str),
}

impl VaultError {
    fn refusal(&self) -> Option<Code> {
        let Self::Dial(error) = self else { return None };
        error.code()
    }
}

/// Asks the vault something.
pub async fn ask<M: Body>(host: &mut Host, path: &str, message: &M) -> Result<Bytes, VaultError> {
    let body = message.encode().map_err(|error| VaultError::Request(error.to_string()))?;
    let request = Request::builder()
        .method(Method::POST)
        .uri(path)
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::copy_from_slice(&body)))
        .map_err(|error| VaultError::Request(error.to_string()))?;
    Ok(host.ask(request, ANSWER_TIMEOUT).await?.body)
}

/// Reads what the vault answers.
pub fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, VaultError> {
    serde_json::from_slice(body).map_err(|_| VaultError::Answer("it is not what was asked for"))
}

/// The task.
pub struct Sender {
    host: Host,
    board: Arc<Board>,
    backoff: Backoff,
}

impl Sender {
    /// A task that is yet to run.
    pub fn new(host: Host, board: Arc<Board>) -> Self {
        Self { host, board, backoff: Backoff::default() }
    }

    /// Sends until the agent stops.
    pub async fn run(mut self) {
        loop {
            self.board.outside_privacy().await;
            let outcome = self.send().await;
            let wait = match &outcome {
                Ok(()) => {
                    self.backoff.reset();
                    INTERVAL
                }
                Err(error) => self.failed(error),
            };
            self.wait(wait, outcome.is_err()).await;
        }
    }

    /// Until there is enough, or the time has come, or something that this depends on has changed.
    async fn wait(&mut self, wait: Duration, failed: bool) {
        let board = Arc::clone(&self.board);
        let (mut news, mut policy) = (board.personal.news(), board.policy());
        let before = board.offer().perks;
        let due = async {
            loop {
                news.borrow_and_update();
                policy.borrow_and_update();
                let offer = board.offer();
                let is_due = board.personal.is_due(&offer, ENOUGH);
                // After a failure, only what makes the next attempt another one.
                if is_due && !failed || offer.perks != before && offer.perks.is_some() {
                    return;
                }
                tokio::select! {
                    _ = news.changed() => {}
                    _ = policy.changed() => {}
                }
            }
        };
        tokio::select! {
            () = due => {}
            () = board.clock.pause(wait) => {}
            () = self.host.renewed() => {}
        }
    }

    /// Sends what waits now, then the totals.
    async fn send(&mut self) -> Result<(), VaultError> {
        let offer = self.board.offer();
        let (Some(member), Some(now)) = (self.board.personal.member_for(&offer), offer.month()) else {
            return Ok(());
        };
        loop {
            // They may have begun since the last batch.
            if self.board.privacy().inside {
                return Ok(());
            }
            let Some(batch) = self.board.personal.peek(RECORDS_LIMIT)? else { break };
            self.send_batch(&member, batch).await?;
        }
        for (slot, month, tokens) in self.board.personal.totals_to_tell(now) {
            let total = PersonalTotal { member: member.clone(), slot, month, tokens };
            let answer = match ask(&mut self.host, TOTAL_PATH, &total).await {
                // Its sums are made. This month's is to be told all the same.
                Err(error) if month != now && error.refusal().is_some() => {
                    tracing::info!(%month, %error, "The backend takes no total of this month any more.");
                    continue;
                }
                answer => read::<PersonalStanding>(&answer?)?,
            };
            let standing = Standing { month, others: answer.others, carried: answer.carried };
            self.board.personal.set_told(slot, tokens, standing, month == now)?;
        }
        self.board.personal.set_sent(self.board.clock.now(), Ok(()));
        self.board.settle_personal();
        Ok(())
    }

    async fn send_batch(&mut self, member: &Member, batch: Batch) -> Result<(), VaultError> {
        let Batch { slot, first, records } = batch;
        let last = first + records.len() as u64 - 1;
        let message = PersonalBatch { member: member.clone(), slot, first, records };
        let outcome = ask(&mut self.host, RECORDS_PATH, &message).await;
        match outcome {
            Ok(body) => {
                let PersonalAck { acknowledged } = read(&body)?;
                if acknowledged < first {
                    return Err(VaultError::Answer("it acknowledges nothing of the batch"));
                }
                tracing::debug!(last, acknowledged, "Personal records are in the vault.");
                Ok(self.board.personal.acknowledge(slot, acknowledged)?)
            }
            Err(error) if error.refusal() == Some(Code::BatchOrder) => {
                tracing::warn!("The vault has lost this device's numbers; what waits is sent in a new slot.");
                self.board.personal.begin_slot()?;
                // Once more at once; a vault that has never an order is waited for.
                Err(error)
            }
            Err(error) => Err(error),
        }
    }

    /// Notes a failure; how long to wait.
    fn failed(&mut self, error: &VaultError) -> Duration {
        let random = random();
        let retry_after = if let VaultError::Dial(error) = error { error.retry_after() } else { None };
        let wait = match error.refusal() {
            Some(Code::PerksNotEnrolled) => INTERVAL,
            _ => self.backoff.next(retry_after, random),
        };
        tracing::warn!(%error, retry_s = wait.as_secs(), "The vault was not reached.");
        self.board.personal.set_sent(self.board.clock.now(), Err(error.to_string()));
        wait
    }
}

/// Waits no longer than this for the vault where a user waits.
pub async fn within<T>(
    patience: Duration,
    asked: impl Future<Output = Result<T, VaultError>>,
) -> Result<T, VaultError> {
    timeout(patience, asked).await.map_err(|_| VaultError::Answer("there was none in time"))?
}
