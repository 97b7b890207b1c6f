//! Keeps the directive up to date: a long poll that brings a change within a second. What is
//! accepted goes to the extension first and to the disk after that; a crash in between costs
//! a poll.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::Request;
use hyper::body::Bytes;
use tokio::time::{Instant, sleep};
use toktra_identity::{Credential, Store};
use toktra_protocol::codec::DIRECTIVE_PATH;
use toktra_protocol::directive::DirectivePoll;
use toktra_protocol::{Directive, SignedDirective};

use crate::backoff::Backoff;
use crate::board::{Board, Policy};
use crate::dial::{DialError, Host};
use crate::uplink::{pause_of, random};

/// The server holds a poll for less.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// Between polls that bring nothing new, at least.
const PACE: Duration = Duration::from_secs(5);
/// A directive that differs from the stored one in its validity only is stored anew when
/// the stored one is older, in seconds.
const STORED_AGE_S: u64 = 5 * 60;

/// The task.
pub struct Follower<S> {
    host: Host,
    credential: Credential,
    store: Arc<S>,
    board: Arc<Board>,
    backoff: Backoff,
    stored: Option<Directive>,
}

#[derive(Debug, thiserror::Error)]
enum PollError {
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error("the backend's answer is no directive")]
    Json(#[from] serde_json::Error),
    #[error(transparent)]
    Directive(#[from] toktra_identity::DirectiveError),
    #[error("no request")]
    Request(#[from] hyper::http::Error),
}

impl<S: Store> Follower<S> {
    /// Puts the stored directive in force and gets ready to follow.
    pub fn new(host: Host, credential: Credential, store: Arc<S>, board: Arc<Board>) -> Self {
        let mut follower = Self { host, credential, store, board, backoff: Backoff::default(), stored: None };
        follower.restore();
        follower
    }

    fn restore(&mut self) {
        let key = self.credential.directive_key();
        let device = self.credential.enrolled().device;
        let directive = match self.store.directive() {
            Ok(None) => return,
            Ok(Some(signed)) => key.verify(&signed, device).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        match directive {
            Ok(directive) => {
                self.board.apply(Policy::stored(directive.clone()).held_since(self.board.moment()));
                self.stored = Some(directive);
            }
            Err(error) => tracing::warn!(error, "The stored directive is not used."),
        }
    }

    /// Follows until the agent stops.
    pub async fn run(mut self) {
        loop {
            let began = Instant::now();
            match self.poll().await {
                Ok(true) => self.well(),
                Ok(false) => {
                    self.well();
                    // Only a server that does not hold the poll makes this wait.
                    sleep(PACE.saturating_sub(began.elapsed())).await;
                }
                Err(error) => {
                    let wait = self.failed(&error);
                    tokio::select! {
                        () = self.board.clock.pause(wait) => {}
                        () = self.host.renewed() => {}
                    }
                }
            }
        }
    }

    fn well(&mut self) {
        self.backoff.reset();
        self.board.set_directive_error(None);
        self.board.note_identity(Ok(()));
    }

    /// One poll; whether it brought something new.
    async fn poll(&mut self) -> Result<bool, PollError> {
        let current = self.board.policy().borrow().directive.clone();
        let version = current.as_ref().map(|directive| directive.version);
        let poll = DirectivePoll { after: version.unwrap_or(0), applied: version };
        let uri = format!("{DIRECTIVE_PATH}?{}", poll.query());
        let request = Request::get(uri).body(Full::new(Bytes::new()))?;
        let answer = self.host.ask(request, ANSWER_TIMEOUT).await?;
        let signed: SignedDirective = serde_json::from_slice(&answer.body)?;
        let device = self.credential.enrolled().device;
        let directive = self.credential.directive_key().accept(&signed, device, current.as_ref())?;
        let news = version != Some(directive.version);
        if news {
            tracing::info!(
                version = directive.version,
                lock = directive.lock.is_some(),
                block = directive.block.is_some(),
                "A directive is in force."
            );
        }
        self.board.apply(Policy::received(directive.clone(), self.board.moment()));
        self.keep(&signed, directive);
        Ok(news)
    }

    fn keep(&mut self, signed: &SignedDirective, directive: Directive) {
        let fresh = self.stored.as_ref().is_some_and(|stored| {
            stored.version == directive.version
                && directive.issued_at.0.saturating_sub(stored.issued_at.0) < STORED_AGE_S
        });
        if fresh {
            return;
        }
        match self.store.save_directive(signed) {
            Ok(()) => self.stored = Some(directive),
            Err(error) => {
                tracing::warn!(%error, "The directive could not be stored; it holds until the agent stops.")
            }
        }
    }

    fn failed(&mut self, error: &PollError) -> Duration {
        self.board.set_directive_error(Some(error.to_string()));
        let random = random();
        let dial = if let PollError::Dial(error) = error { Some(error) } else { None };
        let code = dial.and_then(DialError::code);
        let pause = code.and_then(|code| pause_of(code, random));
        if let (Some(code), Some(_)) = (code, pause) {
            self.board.note_identity(Err(code));
        }
        let asked = dial.and_then(DialError::retry_after);
        let wait = pause.unwrap_or_else(|| self.backoff.next(asked, random));
        tracing::warn!(%error, retry_s = wait.as_secs(), "No directive.");
        wait
    }
}
