//! Keeps the device's identity alive: looks once a second what [`Life`] wants by the clocks of that
//! moment, and does it. Also notices what a command line changes in the store.
//!
//! What is asked for is kept before it is asked for, and what was given is kept before it is used;
//! so a crash at any moment costs a repetition.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::Request;
use hyper::body::Bytes;
use tokio::sync::watch;
use tokio::time::sleep;
use toktra_identity::life::{Facts, Keep, Life, Outcome, Step, Term};
use toktra_identity::{Application, Credential, DeviceKey, Mark, Store, StoreError};
use toktra_protocol::UnixSeconds;
use toktra_protocol::enrol::TIME_PATH;
use toktra_protocol::local::Identity;

use crate::board::Board;
use crate::dial::Host;
use crate::enrolment::{self, EnrolError};
use crate::tls::Tls;
use crate::uplink::random;

/// How often it is looked. Cheap: two `stat` and some arithmetic.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Where an identity stands while nobody keeps it, by the wall clock.
pub fn at_rest(term: Option<Term>, applied: bool, now: UnixSeconds) -> Identity {
    let elapsed = Duration::ZERO;
    let facts = Facts { now, confirmed: false, elapsed, term, applied, renew_before: None };
    let renews_at = term.map(|term| term.renews_at(None));
    Identity { phase: Life::default().phase(&facts), renews_at, ..Identity::default() }
}

/// The keeper.
pub struct Keeper<S> {
    store: Arc<S>,
    board: Arc<Board>,
    life: Life,
    seen: Mark,
    credential: Option<Credential>,
    application: Option<Application>,
    /// When it was last looked.
    elapsed: Duration,
}

impl<S: Store> Keeper<S> {
    /// A keeper of what this store holds.
    pub fn new(store: Arc<S>, board: Arc<Board>) -> Self {
        let elapsed = board.clock.elapsed();
        Self {
            store,
            board,
            life: Life::default(),
            seen: Mark::default(),
            credential: None,
            application: None,
            elapsed,
        }
    }

    /// Reads what the store holds; the credential, if there is one.
    pub fn look(&mut self) -> Result<Option<Credential>, StoreError> {
        self.seen = self.store.mark();
        (self.credential, self.application) = (None, None);
        self.application = self.store.application()?;
        self.credential = self.store.credential()?;
        if let Some(credential) = &self.credential {
            self.board.time.remember(credential.term().from);
        }
        self.publish();
        Ok(self.credential.clone())
    }

    /// Whether the device has asked to be enrolled.
    pub fn has_applied(&self) -> bool {
        self.application.is_some()
    }

    /// Keeps the identity alive until the device is enrolled, or enrolled anew, or what is stored
    /// cannot be used. A renewed certificate goes to `tls`, and everything goes on.
    pub async fn keep(&mut self, tls: Option<&watch::Sender<Arc<Tls>>>) {
        loop {
            if self.store.mark() != self.seen && !self.is_still_enrolled(tls) {
                return;
            }
            match self.board.take_word() {
                Some(Ok(())) => self.life.note_accepted(),
                Some(Err(code)) => self.life.note_refusal(code, self.board.clock.elapsed(), random()),
                None => {}
            }
            self.notice_sleep();
            let step = self.life.next(&self.facts());
            let enrolled = match step {
                Step::Wait(_) | Step::Stopped => false,
                Step::AskTime => {
                    self.ask_time().await;
                    false
                }
                Step::Enrol => self.enrol().await,
                Step::Renew | Step::Recover => {
                    self.renew(step, tls).await;
                    false
                }
            };
            self.publish();
            if enrolled {
                return;
            }
            sleep(LOOK_EVERY).await;
        }
    }

    fn facts(&self) -> Facts {
        let policy = self.board.policy();
        let policy = policy.borrow();
        let directive = policy.directive.as_ref();
        if let Some(directive) = directive {
            self.board.time.remember(directive.issued_at);
        }
        Facts {
            now: self.board.time.now(),
            confirmed: self.board.time.is_confirmed(),
            elapsed: self.board.clock.elapsed(),
            term: self.credential.as_ref().map(Credential::term),
            applied: self.application.is_some(),
            renew_before: directive.and_then(|directive| directive.renew_before),
        }
    }

    fn publish(&self) {
        let facts = self.facts();
        let renews_at = facts.term.map(|term| term.renews_at(facts.renew_before));
        self.board.set_identity(self.life.phase(&facts), renews_at, self.life.refused());
    }

    fn notice_sleep(&mut self) {
        let now = self.board.clock.elapsed();
        let away = now.saturating_sub(self.elapsed);
        self.elapsed = now;
        if away > LOOK_EVERY * 120 {
            tracing::info!(away_s = away.as_secs(), "The machine was asleep, or the agent held up.");
            self.life.wake();
        }
    }

    /// Reads what was changed; false if the device is no longer enrolled as it was.
    fn is_still_enrolled(&mut self, tls: Option<&watch::Sender<Arc<Tls>>>) -> bool {
        let seen = self.store.mark();
        let (Ok(credential), Ok(application)) = (self.store.credential(), self.store.application()) else {
            return false;
        };
        let same = match (&credential, &self.credential) {
            (None, None) => true,
            (Some(new), Some(old)) => new.is_of_one_enrolment(old),
            _ => false,
        };
        if !same {
            self.life = Life::default();
            return false;
        }
        self.seen = seen;
        self.application = application;
        self.life.apply();
        if let (Some(new), Some(old)) = (credential, &self.credential)
            && !new.has_certificate_of(old)
        {
            self.take_up(new, tls);
        }
        true
    }

    /// Goes on with a certificate that is stored already.
    fn take_up(&mut self, credential: Credential, tls: Option<&watch::Sender<Arc<Tls>>>) {
        if let Some(sender) = tls {
            match Tls::of_device(&credential, Arc::clone(&self.board.time)) {
                Ok(tls) => drop(sender.send_replace(tls)),
                Err(error) => tracing::error!("The new certificate cannot be used: {error:#}"),
            }
        }
        self.board.set_credential(credential.clone());
        self.credential = Some(credential);
    }

    async fn ask_time(&mut self) {
        let Some(credential) = &self.credential else { return };
        let enrolled = credential.enrolled();
        let asked = async {
            let tls = Tls::anonymous(enrolled.ca.as_deref(), Arc::clone(&self.board.time))?;
            let request = Request::get(TIME_PATH).body(Full::new(Bytes::new()))?;
            // Any answer says it.
            Host::api(&enrolled.domain, tls).ask(request, ANSWER_TIMEOUT).await?;
            anyhow::Ok(())
        };
        let outcome = match asked.await {
            _ if self.board.time.is_confirmed() => Outcome::Done,
            Ok(()) => Outcome::Failed,
            Err(error) => {
                tracing::info!("The backend does not say the time yet: {error:#}");
                Outcome::Failed
            }
        };
        self.life.note(Step::AskTime, outcome, self.board.clock.elapsed(), random());
    }

    /// Asks with the application; whether the device is enrolled now.
    async fn enrol(&mut self) -> bool {
        let Some(application) = &self.application else { return false };
        let answer = enrolment::enrol(application, &self.board.time, self.board.clock).await;
        if self.store.mark() != self.seen {
            // A command line was at it too, and what it left is what counts.
            return false;
        }
        let outcome = match answer {
            Ok(credential) => match self.store.save_credential(&credential) {
                Ok(()) => {
                    tracing::info!(device = %credential.enrolled().device, "The backend has enrolled the device.");
                    Outcome::Done
                }
                Err(error) => {
                    tracing::error!(%error, "The credential cannot be stored; it will be asked for again.");
                    Outcome::Failed
                }
            },
            Err(error) => {
                tracing::warn!(%error, "The device is not enrolled yet.");
                error.outcome()
            }
        };
        let keep = self.life.note(Step::Enrol, outcome, self.board.clock.elapsed(), random());
        if let Err(error) = self.keep_application(keep) {
            tracing::error!(%error, "The application cannot be changed.");
        }
        outcome == Outcome::Done
    }

    fn keep_application(&mut self, keep: Keep) -> Result<(), StoreError> {
        match (keep, &mut self.application) {
            (Keep::NotTheApplication, _) => {
                self.application = None;
                self.store.forget_application()?;
            }
            (Keep::NotTheKey, Some(application)) => {
                application.key = DeviceKey::generate().map_err(toktra_identity::CredentialError::from)?;
                self.store.save_application(application)?;
            }
            _ => return Ok(()),
        }
        self.seen = self.store.mark();
        Ok(())
    }

    async fn renew(&mut self, step: Step, tls: Option<&watch::Sender<Arc<Tls>>>) {
        let (Some(credential), Some(sender)) = (&self.credential, tls) else { return };
        let outcome = match self.renewed(credential, sender).await {
            Ok(renewed) => {
                tracing::info!(
                    recovered = step == Step::Recover,
                    until = renewed.valid_until().0,
                    "The device has a new certificate."
                );
                self.seen = self.store.mark();
                self.take_up(renewed, tls);
                Outcome::Done
            }
            Err(error) => {
                tracing::warn!(%error, "The certificate is not renewed yet.");
                error.outcome()
            }
        };
        let keep = self.life.note(step, outcome, self.board.clock.elapsed(), random());
        if keep == Keep::NotTheKey
            && let Err(error) = self.store.forget_candidate()
        {
            tracing::error!(%error, "The key that was certified before cannot be deleted.");
        }
    }

    /// A new certificate, kept.
    async fn renewed(
        &self,
        credential: &Credential,
        tls: &watch::Sender<Arc<Tls>>,
    ) -> Result<Credential, EnrolError> {
        let key = self.store.candidate(credential).map_err(anyhow::Error::from)?;
        let host = Host::ingest(&credential.enrolled().domain, tls.subscribe());
        let renewed = enrolment::renew(credential, key, host, &self.board.time).await?;
        if self.store.mark() != self.seen {
            return Err(anyhow::anyhow!("what is stored was changed meanwhile").into());
        }
        self.store.save_renewed(&renewed).map_err(anyhow::Error::from)?;
        Ok(renewed)
    }
}
