//! Sends what waits in the spool: batches of [`EVENTS`] or after [`INTERVAL`], whichever is
//! first, and at once when asked. Batches grow to the protocol's limit when catching up.
//!
//! | answer | what follows |
//! | --- | --- |
//! | acknowledged | deleted from the spool |
//! | `too_large` | half as many at once; a single event becomes `Dropped` |
//! | `bad_event`, `bad_request` | half as many at once until the event is found, which becomes `Dropped`; a refused `Dropped` is nobody's poison, so it counts as a failure |
//! | `batch_order` with a number | the spool goes on from that number, once |
//! | `revoked`, `unknown_device`, certificate refused | nothing is sent but one attempt a day if revoked, an hour if lost, or when the certificate was replaced; the spool keeps everything |
//! | anything else, or no answer | back-off with full jitter, at least `Retry-After` |
//!
//! In privacy hours no batch goes: what was recorded before waits in the spool until they are over.
//! A batch whose answer was lost is sent again under the same numbers; the backend counts
//! it once.

use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::{Method, Request, header};
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::time::timeout;
use toktra_identity::life;
use toktra_protocol::codec::{CodecError, DECOMPRESSED_LIMIT, EVENTS_LIMIT, EVENTS_PATH};
use toktra_protocol::{Ack, Batch, Code, Event, EventBody};
use toktra_spool::SpoolError;

use crate::backoff::{self, Backoff};
use crate::board::{Board, FlushAsk, Uplink};
use crate::dial::{DialError, Host};
use crate::spooler::{Closed, Spooler};

/// Events that make a batch go at once.
pub const EVENTS: u64 = 50;
/// The longest that an event waits for others.
pub const INTERVAL: Duration = Duration::from_secs(5);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Half of what the protocol allows, since the spool's measure is not exact.
const BYTES: usize = DECOMPRESSED_LIMIT / 2;

/// Why a batch did not go.
#[derive(Debug, thiserror::Error)]
enum SendError {
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error(transparent)]
    Spool(#[from] SpoolError),
    #[error(transparent)]
    Closed(#[from] Closed),
    #[error("the batch cannot be written")]
    Encode(#[source] CodecError),
    #[error("the backend's answer cannot be read: {0}")]
    Answer(&'static str),
}

impl SendError {
    fn code(&self) -> Option<Code> {
        let Self::Dial(error) = self else { return None };
        error.code()
    }

    fn retry_after(&self) -> Option<Duration> {
        let Self::Dial(error) = self else { return None };
        error.retry_after()
    }
}

/// How long to wait after a code that refuses the device, rather than the moment or the request.
pub fn pause_of(code: Code, random: u64) -> Option<Duration> {
    match code {
        // Recovers by itself, and then is noticed at once.
        Code::CertificateExpired => Some(backoff::refused(random)),
        code => life::pause(code, random),
    }
}

/// The task.
pub struct Sender {
    host: Host,
    spooler: Spooler,
    board: Arc<Board>,
    asks: mpsc::Receiver<FlushAsk>,
    asked: Vec<FlushAsk>,
    backoff: Backoff,
    /// Most events in the next batch.
    most: usize,
    /// The numbering was put right, and no batch was acknowledged since.
    resynchronised: bool,
}

impl Sender {
    /// A task that is yet to run.
    pub fn new(host: Host, spooler: Spooler, board: Arc<Board>, asks: mpsc::Receiver<FlushAsk>) -> Self {
        Self {
            host,
            spooler,
            board,
            asks,
            asked: Vec::new(),
            backoff: Backoff::default(),
            most: EVENTS_LIMIT,
            resynchronised: false,
        }
    }

    /// Sends until the agent stops.
    pub async fn run(mut self) {
        while self.wait_for_work().await.is_some() {
            if self.board.privacy().inside {
                // Who asks meanwhile is told so where they ask.
                self.asked.clear();
                self.board.outside_privacy().await;
                continue;
            }
            let outcome = self.drain().await;
            let wait = match &outcome {
                Ok(()) => None,
                Err(SendError::Closed(_)) => return,
                Err(error) => Some(self.failed(error)),
            };
            for ask in self.asked.drain(..) {
                let _ = ask.send(());
            }
            if let Some(wait) = wait {
                self.wait_or_ask(wait).await;
            }
        }
    }

    /// Until there is a batch, or someone asks; `None` when the agent stops.
    async fn wait_for_work(&mut self) -> Option<()> {
        let mut counts = self.spooler.counts();
        if self.asked.is_empty() {
            tokio::select! {
                ask = self.asks.recv() => self.asked.push(ask?),
                some = counts.wait_for(|counts| counts.waiting > 0) => { some.ok()?; }
            }
        }
        if self.asked.is_empty() {
            let full = timeout(INTERVAL, counts.wait_for(|counts| counts.waiting >= EVENTS));
            tokio::select! {
                ask = self.asks.recv() => self.asked.push(ask?),
                _ = full => {}
            }
        }
        // Others who asked meanwhile get the same answer.
        while let Ok(ask) = self.asks.try_recv() {
            self.asked.push(ask);
        }
        Some(())
    }

    async fn wait_or_ask(&mut self, wait: Duration) {
        tokio::select! {
            ask = self.asks.recv() => self.asked.extend(ask),
            () = self.board.clock.pause(wait) => {}
            () = self.host.renewed() => {}
            () = self.board.accepted() => {}
        }
    }

    /// Sends what waits now. What comes meanwhile makes a batch of its own.
    async fn drain(&mut self) -> Result<(), SendError> {
        let start = *self.spooler.counts().borrow();
        let target = start.acknowledged + start.waiting;
        while self.spooler.counts().borrow().acknowledged < target {
            // They may have begun since the last batch.
            if self.board.privacy().inside || !self.send_one().await? {
                break;
            }
        }
        Ok(())
    }

    /// Sends one batch; false if there was none.
    async fn send_one(&mut self) -> Result<bool, SendError> {
        let catching_up = self.spooler.counts().borrow().waiting > EVENTS;
        let usual = if catching_up { EVENTS_LIMIT } else { EVENTS as usize };
        let most = self.most.min(usual);
        let minute = self.board.time.now().minute();
        let events = self.spooler.run(move |spool| spool.peek(most, BYTES, minute)).await??;
        let (Some(first), Some(last)) = (events.first(), events.last()) else { return Ok(false) };
        let (first, last) = (first.sequence, last.sequence);
        let batch = Batch { events };
        let outcome = match batch.encode() {
            Ok(body) => self.post(body).await,
            Err(CodecError::TooLarge) => return self.halve(&batch.events).await,
            Err(error) => return Err(SendError::Encode(error)),
        };
        match outcome {
            Ok(ack) => {
                let done = self.acknowledge(ack, first, last).await?;
                let has = |event: &Event| event.sequence <= ack.acknowledged;
                self.board.sent.note(batch.events.into_iter().filter(has));
                Ok(done)
            }
            Err(error) => self.put_right(error, &batch.events).await,
        }
    }

    async fn post(&mut self, body: Vec<u8>) -> Result<Ack, SendError> {
        let request = Request::builder()
            .method(Method::POST)
            .uri(EVENTS_PATH)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::CONTENT_ENCODING, "zstd")
            .body(Full::new(Bytes::from(body)))
            .map_err(|_| SendError::Answer("no request"))?;
        let answer = self.host.ask(request, ANSWER_TIMEOUT).await?;
        serde_json::from_slice(&answer.body).map_err(|_| SendError::Answer("it is no acknowledgement"))
    }

    async fn acknowledge(&mut self, ack: Ack, first: u64, last: u64) -> Result<bool, SendError> {
        let up_to = ack.acknowledged;
        if up_to < first {
            return Err(SendError::Answer("it acknowledges nothing of the batch"));
        }
        if up_to > last {
            tracing::warn!(
                sent = last,
                acknowledged = up_to,
                "The backend has events of this device that are not known here; was the state directory restored from a copy?"
            );
        }
        self.spooler.run(move |spool| spool.acknowledge(up_to)).await??;
        tracing::debug!(first, last, acknowledged = up_to, "A batch was acknowledged.");
        self.board.flushed();
        self.board.note_identity(Ok(()));
        self.backoff.reset();
        self.most = (self.most * 2).min(EVENTS_LIMIT);
        self.resynchronised = false;
        Ok(true)
    }

    /// Does what can be done about a refused batch; gives the error back if nothing can.
    async fn put_right(&mut self, error: SendError, events: &[Event]) -> Result<bool, SendError> {
        let SendError::Dial(DialError::Refused(refusal)) = &error else { return Err(error) };
        match refusal.problem.code {
            Code::TooLarge => self.halve(events).await,
            Code::BadEvent | Code::BadRequest => match events {
                [event] if matches!(event.body, EventBody::Dropped(_)) => Err(error),
                _ => {
                    tracing::warn!(
                        events = events.len(),
                        detail = refusal.problem.detail,
                        "The backend refused a batch."
                    );
                    self.halve(events).await
                }
            },
            Code::BatchOrder => match refusal.problem.acknowledged {
                Some(backend) if !self.resynchronised => self.rewind(backend).await.map_err(|()| error),
                _ => Err(error),
            },
            _ => Err(error),
        }
    }

    /// Half as many the next time; a single event goes as `Dropped` from now on.
    async fn halve(&mut self, events: &[Event]) -> Result<bool, SendError> {
        match events {
            [event] => {
                let sequence = event.sequence;
                tracing::warn!(sequence, "An event that the backend refuses is reported as dropped.");
                self.spooler.run(move |spool| spool.quarantine(sequence)).await??;
            }
            _ => self.most = (events.len() / 2).max(1),
        }
        Ok(true)
    }

    async fn rewind(&mut self, backend: u64) -> Result<bool, ()> {
        let here = self.spooler.counts().borrow().acknowledged;
        if backend >= here {
            return Err(());
        }
        tracing::warn!(
            here,
            backend,
            "The backend has lost events that it had acknowledged; they are counted as dropped."
        );
        self.spooler.run(move |spool| spool.rewind(backend)).await.map_err(drop)?.map_err(drop)?;
        self.resynchronised = true;
        Ok(true)
    }

    /// Notes a failure; how long to wait.
    fn failed(&mut self, error: &SendError) -> Duration {
        let random = random();
        if let Some(code) = error.code()
            && let Some(pause) = pause_of(code, random)
        {
            tracing::warn!(%error, "The backend refuses this device. Events are kept.");
            self.board.note_identity(Err(code));
            self.board.set_uplink(Uplink::Refused(error.to_string()));
            return pause;
        }
        let wait = self.backoff.next(error.retry_after(), random);
        tracing::warn!(%error, retry_s = wait.as_secs(), "Events could not be sent.");
        self.board.set_uplink(Uplink::Failing(error.to_string()));
        wait
    }
}

/// Jitter needs no more than this: where the system gives no randomness, waits are not spread.
pub fn random() -> u64 {
    getrandom::u64().unwrap_or(u64::MAX)
}
