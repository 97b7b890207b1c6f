//! What is true of the agent at the moment. Tasks write their part; `status` and the
//! extension's seed are read from it.

mod session;
mod standing;
mod words;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc, watch};
use tokio::time::timeout;
use toktra_identity::Credential;
use toktra_policy::hours::Place;
use toktra_protocol::local::{Health, Identity, Seed, Status, VERSION};
use toktra_protocol::personal::local::PersonalMode;
use toktra_protocol::{Block, Lock, ToktraDomain, UnixSeconds};
use toktra_spool::Spent;

pub use crate::budget::Policy;
use crate::budget::{InForce, Moment};
use crate::clock::{BackendTime, Clock};
use crate::config::Config;
use crate::personal::{Offer, Personal};
use crate::privacy::{self, Schedule, SetError, Told};
use crate::records::Sent;
use crate::spooler::{Counts, Spooler};
pub use session::FlushAsk;
use session::Session;
use standing::Standing;
pub use words::{CAP_OPENED, NOT_ENROLLED, describe, expiry, in_force, misconfigured};
use words::{own_hosts, put_down, skew};

/// What is in force is looked at this often, though nothing is heard.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// How the uplink fares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Uplink {
    /// Nothing is wrong.
    #[default]
    Well,
    /// The last attempt failed; another follows.
    Failing(String),
    /// The backend refuses this device; only a person can change that.
    Refused(String),
}

#[derive(Debug, Default)]
struct Facts {
    credential: Option<Credential>,
    identity_error: Option<String>,
    uplink: Uplink,
    last_flush: Option<UnixSeconds>,
    directive_error: Option<String>,
    spool_error: Option<String>,
    connections: usize,
    extension_version: Option<String>,
    blind: bool,
    health: Option<Health>,
    counts: Option<watch::Receiver<Counts>>,
    session: Session,
}

/// What keeps connections from providers, and when nothing is recorded; what the extension is told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restraint {
    /// A lock.
    pub lock: Option<Lock>,
    /// A block.
    pub block: Option<Block>,
    /// When the block ends by itself, by the device's clock.
    pub block_until: Option<UnixSeconds>,
    /// When nothing is recorded.
    pub privacy: Told,
    /// Whose use goes to a ledger of their own.
    pub personal: Option<PersonalMode>,
    /// Remote ports to watch beside 443, as configured.
    pub ports: Vec<u16>,
}

/// What the administrator has configured, as far as it is in force at once.
#[derive(Debug, Default)]
struct Configured {
    domain: Option<ToktraDomain>,
    ports: Vec<u16>,
    /// Why what is configured now is not in force.
    error: Option<String>,
}

/// The board.
#[derive(Debug)]
pub struct Board {
    /// The only source of time.
    pub clock: Clock,
    /// The backend's, as far as it is known.
    pub time: Arc<BackendTime>,
    configured: Mutex<Configured>,
    facts: Mutex<Facts>,
    identity: Mutex<Standing>,
    accepted: Notify,
    policy: watch::Sender<Policy>,
    own: watch::Sender<Arc<[Spent]>>,
    restraint: watch::Sender<Restraint>,
    privacy: Schedule,
    /// Personal mode. Outlives sessions.
    pub personal: Personal,
    /// Where the login manager says who sits at the machine.
    pub seat: PathBuf,
    /// The last records that were sent.
    pub sent: Sent,
}

impl Board {
    /// An empty board.
    pub fn new(clock: Clock, configured: Option<ToktraDomain>) -> Self {
        Self {
            clock,
            time: Arc::new(BackendTime::new(clock)),
            configured: Mutex::new(Configured { domain: configured, ..Configured::default() }),
            facts: Mutex::default(),
            identity: Mutex::default(),
            accepted: Notify::new(),
            policy: watch::Sender::default(),
            own: watch::Sender::new(Arc::default()),
            restraint: watch::Sender::default(),
            privacy: Schedule::default(),
            personal: Personal::default(),
            seat: PathBuf::from(privacy::SEAT),
            sent: Sent::default(),
        }
    }

    fn facts(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn configured(&self) -> MutexGuard<'_, Configured> {
        self.configured.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is configured has changed.
    pub fn configure(&self, config: &Config) {
        *self.configured() =
            Configured { domain: config.domain.clone(), ports: config.ports.clone(), error: None };
        // A configuration is checked where it is read.
        self.privacy.administer(config.privacy_hours().map_err(drop));
        self.settle();
    }

    /// What is configured cannot be used, for this reason; what was in force before goes on.
    pub fn set_config_error(&self, error: String) {
        self.configured().error = Some(error);
        self.privacy.administer(Err(()));
        self.settle();
    }

    /// The device is enrolled as this, and the session has begun.
    pub fn begin(
        &self,
        credential: Credential,
        counts: watch::Receiver<Counts>,
        flush: mpsc::Sender<FlushAsk>,
    ) {
        let (credential, session) = (Some(credential), Session::new(flush));
        *self.facts() = Facts { credential, counts: Some(counts), session, ..Facts::default() };
    }

    /// No session: the device is not enrolled, or the reason given holds it up.
    pub fn end(&self, reason: Option<String>) {
        *self.facts() = Facts { identity_error: reason, ..Facts::default() };
        self.own.send_replace(Arc::default());
        self.apply(Policy::default());
    }

    /// The uplink's last attempt.
    pub fn set_uplink(&self, uplink: Uplink) {
        self.facts().uplink = uplink;
    }

    /// The backend has acknowledged a batch.
    pub fn flushed(&self) {
        let now = self.clock.now();
        let mut facts = self.facts();
        facts.last_flush = Some(now);
        facts.uplink = Uplink::Well;
    }

    /// Why directives do not come, if they do not.
    pub fn set_directive_error(&self, error: Option<String>) {
        self.facts().directive_error = error;
    }

    /// Why records cannot be stored, if they cannot.
    pub fn set_spool_error(&self, error: Option<String>) {
        self.facts().spool_error = error;
    }

    /// The certificate was replaced; the enrolment is the same.
    pub fn set_credential(&self, credential: Credential) {
        let mut facts = self.facts();
        facts.credential = Some(credential);
        facts.uplink = Uplink::Well;
        facts.directive_error = None;
    }

    /// An extension has connected (1) or gone (-1).
    pub fn count_extension(&self, change: isize) {
        let mut facts = self.facts();
        facts.connections = facts.connections.saturating_add_signed(change);
        if facts.connections == 0 {
            facts.health = None;
            self.personal.set_taken_up(None);
        }
    }

    /// An extension has said its version, connected or about to be refused.
    pub fn set_extension_version(&self, version: String) {
        self.facts().extension_version = Some(version);
    }

    /// Whether the extension does not see connections that there are.
    pub fn set_blind(&self, blind: bool) {
        self.facts().blind = blind;
    }

    /// Connections that the extension has seen; `None` where it sees none because it should not.
    pub fn flows_seen(&self) -> Option<u64> {
        let inside = self.privacy().inside;
        let facts = self.facts();
        facts.health.as_ref().filter(|_| facts.connections > 0 && !inside).map(|health| health.flows_seen)
    }

    /// How the capture is doing.
    pub fn set_health(&self, health: Health) {
        self.facts().health = Some(health);
    }

    /// Puts a directive in force.
    pub fn apply(&self, policy: Policy) {
        self.policy.send_replace(policy);
        self.settle();
    }

    /// The newest directive, and a notice when it is received anew.
    pub fn policy(&self) -> watch::Receiver<Policy> {
        self.policy.subscribe()
    }

    /// What the device's own events have spent that the backend may not count yet.
    pub fn set_spent(&self, own: Arc<[Spent]>) {
        self.own.send_replace(own);
        self.settle();
    }

    /// What keeps connections from providers, and a notice when it changes.
    pub fn restraint(&self) -> watch::Receiver<Restraint> {
        self.restraint.subscribe()
    }

    /// Takes up the privacy hours that the user has set before.
    pub fn open_privacy(&self, state: &Path) {
        self.privacy.open(state);
        self.settle();
    }

    /// Puts windows in place of the user's own privacy hours.
    pub fn set_privacy(&self, windows: &[String]) -> Result<(), SetError> {
        self.privacy.set(windows)?;
        self.settle();
        Ok(())
    }

    /// Where this moment lies, by the wall clock.
    pub fn privacy(&self) -> Place {
        self.privacy.place(self.clock.now())
    }

    /// Waits until privacy hours are over; not at all where they are not.
    pub async fn outside_privacy(&self) {
        let mut restraint = self.restraint();
        loop {
            restraint.borrow_and_update();
            let place = self.privacy();
            if !place.inside {
                return;
            }
            let wait_s =
                place.until.map_or(u64::MAX, |until| until.0.saturating_sub(self.clock.now().0).max(1));
            // Often enough that a clock or a zone that was set is noticed; either way it is time to look.
            let _ = timeout(Duration::from_secs(wait_s).min(LOOK_EVERY), restraint.changed()).await;
        }
    }

    /// What the organisation offers the user of this device, and the time.
    pub fn offer(&self) -> Offer {
        let tenant = self.facts().credential.as_ref().map(|credential| credential.enrolled().tenant());
        let directive = self.policy.borrow().directive.clone();
        Offer {
            tenant,
            known: directive.is_some(),
            perks: directive.and_then(|directive| directive.perks),
            now: self.clock.now(),
            backend_now: self.time.now(),
        }
    }

    /// Takes up what a user has changed about personal mode, or what has ended by itself.
    pub fn settle_personal(&self) {
        self.settle();
    }

    /// Both clocks.
    pub fn moment(&self) -> Moment {
        Moment { wall: self.clock.now(), elapsed: self.clock.elapsed() }
    }

    /// Settles whenever something ends by itself, until the agent stops.
    pub async fn watch_time(self: Arc<Self>) {
        let mut policy = self.policy();
        loop {
            let changes_at = self.settle().changes_at;
            let wait_s = changes_at.map_or(u64::MAX, |at| at.0.saturating_sub(self.clock.now().0).max(1));
            // Often enough that a clock that was set is noticed.
            let wait = Duration::from_secs(wait_s).min(LOOK_EVERY);
            // Either way it is time to look.
            let _ = timeout(wait, policy.changed()).await;
        }
    }

    /// Adds what the spool's events have spent, from now on until the agent stops; what the backend
    /// counts is forgotten there.
    pub fn count_spent(self: Arc<Self>, spooler: Spooler) -> impl Future<Output = ()> {
        let (mut spent, mut policy) = (spooler.spent(), self.policy());
        // At once, so that no extension is told less.
        self.set_spent(Arc::clone(&spent.borrow_and_update()));
        async move {
            loop {
                tokio::select! {
                    changed = spent.changed() => {
                        if changed.is_err() {
                            return;
                        }
                        let own = Arc::clone(&spent.borrow_and_update());
                        self.set_spent(own);
                    }
                    _ = policy.changed() => {
                        let counted = policy.borrow_and_update().directive.as_ref().map(|one| one.counted);
                        let counted = counted.unwrap_or_default();
                        if spooler.run(move |spool| spool.forget_spent(counted)).await.is_err() {
                            return;
                        }
                    }
                }
            }
        }
    }

    /// Finds what is in force now, and tells those who wait for a change.
    fn settle(&self) -> InForce {
        let mut found = InForce::default();
        // Under the channel's lock: of two that settle at once, the later has the newer directive.
        self.restraint.send_if_modified(|restraint| {
            found = self.in_force();
            let new = Restraint {
                lock: found.lock.clone(),
                block: found.block.clone(),
                block_until: found.block_until,
                privacy: self.privacy.told(),
                personal: self.personal.told(&self.offer()),
                ports: self.configured().ports.clone(),
            };
            let changed = *restraint != new;
            *restraint = new;
            changed
        });
        found
    }

    fn in_force(&self) -> InForce {
        let own = Arc::clone(&self.own.borrow());
        self.policy.borrow().in_force(&own, self.moment())
    }

    /// What an extension must know.
    pub fn seed(&self, acknowledged: u64, personal_acknowledged: u64) -> Seed {
        let Restraint { lock, block, block_until, privacy, personal, ports } =
            self.restraint.borrow().clone();
        let facts = self.facts();
        let domain = facts.credential.as_ref().map(|credential| &credential.enrolled().domain);
        Seed {
            version: VERSION,
            acknowledged,
            lock,
            block,
            block_until,
            own_hosts: domain.map(own_hosts).unwrap_or_default(),
            privacy: privacy.windows,
            privacy_unreadable: privacy.unreadable,
            personal,
            personal_acknowledged,
            ports,
        }
    }

    /// What is true, as far as this user is to be told.
    pub fn status(&self, uid: Option<u32>) -> Status {
        let now = self.time.now();
        let (in_force, policy) = (self.in_force(), self.policy.borrow().clone());
        let standing = *self.identity();
        let ahead_s = self.time.ahead_s();
        let personal = self.personal.status(uid, &self.offer());
        let (configured, config_error) = {
            let configured = self.configured();
            (configured.domain.clone(), configured.error.clone())
        };
        let facts = self.facts();
        let mut degraded: Vec<String> = config_error.iter().map(|error| misconfigured(error)).collect();
        degraded.extend(facts.degraded(now, configured.as_ref(), &standing));
        degraded.extend(skew(ahead_s));
        let privacy = self.privacy.describe(self.clock.now());
        degraded.extend(privacy.unreadable.as_ref().map(|error| {
            format!("privacy hours cannot be read, nothing is recorded; set them again with `toktra-agent privacy set` or `clear`: {error}")
        }));
        let mut status = Status { degraded, ..Status::default() };
        status.identity = Identity {
            phase: standing.phase,
            renews_at: standing.renews_at.map(|at| self.time.on_wall(at)),
            refused: standing.refused,
            clock_ahead_s: ahead_s,
        };
        describe(&mut status, facts.credential.as_ref(), configured.as_ref());
        let counts = facts.counts.as_ref().map(|counts| *counts.borrow()).unwrap_or_default();
        status.last_flush = facts.last_flush;
        status.last_error = match &facts.uplink {
            Uplink::Well => None,
            Uplink::Failing(error) | Uplink::Refused(error) => Some(error.clone()),
        };
        status.events_waiting = counts.waiting;
        status.acknowledged = counts.acknowledged;
        status.events_dropped = counts.dropped;
        status.extension_connected = facts.connections > 0;
        status.extension_version.clone_from(&facts.extension_version);
        status.health = facts.health.clone();
        status.privacy = Some(privacy);
        status.personal = Some(personal);
        put_down(&mut status, policy, in_force);
        status
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_the_extension_hit_is_said() {
        let board = Board::new(Clock::System, None);
        board.count_extension(1);
        let silent = board.status(None).degraded.len();
        board.set_health(Health { flows_seen: 9, ..Health::default() });
        assert_eq!(board.status(None).degraded.len(), silent);
        let health = Health { flows_unread: 3, records_lost: 5, hellos_lost: 7, ..Health::default() };
        board.set_health(health);
        let degraded = board.status(None).degraded;
        for number in ["3 connections", "5 records", "7 pieces"] {
            assert!(degraded.iter().any(|words| words.starts_with(number)), "{number}: {degraded:?}");
        }
    }
}
