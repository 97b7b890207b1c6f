//! Personal mode on the device (`docs/personal.md`): who opted in, where their use goes, and the sealed
//! records on their way to the vault.
//!
//! [`membership`] is what is kept of the user's choice, [`allowance`] decides where use goes, [`sealing`]
//! and [`queue`] keep records, [`uplink`] sends them, [`desk`] answers the user, and [`watch`] ends by itself
//! what ends by itself.
//!
//! Invariants: a record is sealed before it is written anywhere, and what seals cannot open; nothing goes
//! from here into the corporate spool or comes from it; a choice is on disk before it is in force; what is
//! true of a user's ledger is told to that user alone.

pub mod allowance;
pub mod desk;
pub mod membership;
pub mod queue;
pub mod sealing;
pub mod uplink;
pub mod watch;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ring::digest::{SHA256, digest};
use tokio::sync::watch::{Receiver, Sender};
use toktra_protocol::UnixSeconds;
use toktra_protocol::personal::control::{Mode, PersonalLedger, PersonalStatus, Recipient, WhenExhausted};
use toktra_protocol::personal::local::{PersonalMode, PersonalRecord};
use toktra_protocol::personal::wire::TOKENS_LIMIT;
use toktra_protocol::personal::{Member, Month, Sealed, Slot};
use uuid::Uuid;

pub use allowance::Offer;
use allowance::Situation;
use membership::{Closing, Membership, Standing};
use queue::{Batch, Queue, Total};
use sealing::TakeInError;

/// Who wants to opt in.
#[derive(Debug)]
pub struct Candidate {
    /// The user.
    pub uid: u32,
    /// The user's account, as the extension names accounts.
    pub account: String,
    /// What records are sealed to.
    pub recipient: Recipient,
    /// Under what the backend files them.
    pub member: Member,
    /// What is to happen when the allowance is used up.
    pub when_exhausted: WhenExhausted,
}

/// What a user changes.
#[derive(Clone, Copy, Debug)]
pub enum Change {
    /// The mode on, until then.
    On(Option<UnixSeconds>),
    /// The mode off.
    Off,
    /// What is to happen when the allowance is used up.
    WhenExhausted(WhenExhausted),
}

/// Why nothing was changed. In words for the user.
#[derive(Debug, thiserror::Error)]
pub enum PersonalError {
    /// The device has no organisation, or it is not known what it gives.
    #[error("the device is not enrolled with an organisation, or has not heard from it yet")]
    NoOrganisation,
    /// The organisation gives this user nothing.
    #[error(
        "your organisation does not offer personal mode, or no administrator has enrolled the user of this device in it; ask your administrator"
    )]
    NotEnrolled,
    /// Somebody else did.
    #[error("another user of this machine has opted in; only one can at a time, and only they can opt out")]
    Another,
    /// With another key.
    #[error(
        "you have opted in with another key; run `toktra-agent personal opt-out` first, or import the key's phrase"
    )]
    OtherKey,
    /// The asker has not.
    #[error("you have not opted in on this device; run `toktra-agent personal opt-in`")]
    NotOptedIn,
    /// It is over already.
    #[error("this time has passed already")]
    Past,
    /// The disk.
    #[error("it cannot be stored, nothing was changed: {0}")]
    Store(#[from] io::Error),
    /// Nothing was ever opened to keep it in.
    #[error("the agent is starting; try again in a moment")]
    Starting,
    /// The system gave none.
    #[error("the system's random number generator failed; nothing was changed")]
    Randomness,
}

/// Personal mode.
#[derive(Debug, Default)]
pub struct Personal {
    known: Mutex<Known>,
    /// Apart, since it waits for the disk. Taken before `known` where both are.
    queue: Mutex<Option<Queue>>,
    news: Sender<()>,
}

#[derive(Debug, Default)]
struct Known {
    state: Option<PathBuf>,
    membership: Option<Membership>,
    unreadable: Option<String>,
    figures: Figures,
    /// What the extension said last, if it is there.
    taken_up: Option<Option<PersonalMode>>,
    last_sent: Option<UnixSeconds>,
    last_error: Option<String>,
}

/// What stands in the queue.
#[derive(Clone, Debug, Default)]
struct Figures {
    waiting: u64,
    dropped: u64,
    totals: Vec<Total>,
}

impl Known {
    fn membership_of(&self, uid: u32) -> Option<&Membership> {
        self.membership.as_ref().filter(|membership| membership.uid == uid)
    }

    fn situation<'a>(&'a self, offer: &'a Offer) -> Option<Situation<'a>> {
        let membership = self.membership.as_ref()?;
        let is_ours = offer.tenant.as_ref() == Some(&membership.tenant);
        let month = offer.month();
        let total = self.figures.totals.iter().find(|total| Some(total.month) == month);
        Some(Situation {
            membership,
            perks: offer.perks.as_ref().filter(|_| is_ours),
            month,
            used: total.map(|total| total.used).unwrap_or_default(),
            now: offer.now,
        })
    }

    /// Keeps a membership and puts it in force.
    fn keep(&mut self, membership: Membership) -> Result<(), PersonalError> {
        let state = self.state.as_deref().ok_or(PersonalError::Starting)?;
        membership::write(state, &membership)?;
        self.membership = Some(membership);
        Ok(())
    }
}

impl Personal {
    /// Takes up what is kept in the state directory.
    pub fn open(&self, state: &Path) {
        let (membership, unreadable) = match membership::read(state) {
            Ok(membership) => (membership, None),
            Err(error) => {
                tracing::error!("Personal mode is off, since it cannot be read who opted in: {error}");
                (None, Some(error))
            }
        };
        let queue = membership.as_ref().and_then(|membership| match open_queue(state, &membership.member) {
            Ok(queue) => Some(queue),
            Err(error) => {
                tracing::error!("The personal queue cannot be opened: {error}");
                None
            }
        });
        let mut place = self.queue();
        let figures = queue.as_ref().map(figures).unwrap_or_default();
        *place = queue;
        *self.known() =
            Known { state: Some(state.to_owned()), membership, unreadable, figures, ..Known::default() };
    }

    /// A notice at every change.
    pub fn news(&self) -> Receiver<()> {
        self.news.subscribe()
    }

    /// Opts a user in. The same user with the same key may do so again.
    pub fn opt_in(&self, candidate: Candidate, offer: &Offer) -> Result<(), PersonalError> {
        let tenant = offer.tenant.clone().filter(|_| offer.known).ok_or(PersonalError::NoOrganisation)?;
        if offer.perks.is_none() {
            return Err(PersonalError::NotEnrolled);
        }
        let mut queue = self.queue();
        let mut known = self.known();
        let state = known.state.clone().ok_or(PersonalError::Starting)?;
        let Candidate { uid, account, recipient, member, when_exhausted } = candidate;
        let is_another = known.membership.as_ref().is_some_and(|before| before.member != member);
        match known.membership.clone() {
            Some(before) if before.uid != uid => return Err(PersonalError::Another),
            Some(before) if before.tenant == tenant && before.member != member => {
                return Err(PersonalError::OtherKey);
            }
            Some(before) if before.tenant == tenant && queue.is_some() => {
                known.keep(Membership { when_exhausted, ended: false, account, ..before })?;
            }
            _ => {
                if known.unreadable.is_some() {
                    membership::put_aside(&state)?;
                }
                let opened = open_queue(&state, &member)?;
                let since = offer.backend_now.minute();
                let membership = Membership {
                    tenant,
                    uid,
                    account,
                    recipient,
                    member,
                    since,
                    on: false,
                    until: None,
                    when_exhausted,
                    ended: false,
                    standing: None,
                    closing: None,
                };
                known.keep(membership)?;
                (known.unreadable, known.figures) = (None, figures(&opened));
                // For the vault of an organisation that is this device's no longer. The user was told.
                let other = queue.replace(opened).filter(|_| is_another);
                if let Some(Err(error)) = other.map(Queue::remove) {
                    tracing::warn!("The records for another organisation's vault cannot be deleted: {error}");
                }
            }
        }
        drop((known, queue));
        self.news.send_replace(());
        Ok(())
    }

    /// Does what a user asks.
    pub fn change(&self, uid: u32, change: Change, offer: &Offer) -> Result<(), PersonalError> {
        let mut known = self.known();
        let before = known.membership_of(uid).cloned().ok_or(PersonalError::NotOptedIn)?;
        let after = match change {
            Change::On(until) => {
                if until.is_some_and(|until| until <= offer.now) {
                    return Err(PersonalError::Past);
                }
                let given = offer.tenant.as_ref() == Some(&before.tenant) && offer.perks.is_some();
                if !given {
                    return Err(if offer.known {
                        PersonalError::NotEnrolled
                    } else {
                        PersonalError::NoOrganisation
                    });
                }
                Membership { on: true, until, ended: false, ..before }
            }
            Change::Off => Membership { on: false, until: None, ended: false, ..before },
            // Who chooses anew is told anew, if it comes to that.
            Change::WhenExhausted(when_exhausted) => Membership { when_exhausted, closing: None, ..before },
        };
        known.keep(after)?;
        drop(known);
        self.news.send_replace(());
        Ok(())
    }

    /// Who a user is to the backend; what opting out has it forget.
    pub fn member_of(&self, uid: u32) -> Result<Member, PersonalError> {
        let known = self.known();
        known.membership_of(uid).map(|one| one.member.clone()).ok_or(PersonalError::NotOptedIn)
    }

    /// Forgets a user on this device, queue and all.
    pub fn forget(&self, uid: u32) -> Result<(), PersonalError> {
        let mut queue = self.queue();
        let mut known = self.known();
        known.membership_of(uid).ok_or(PersonalError::NotOptedIn)?;
        let state = known.state.clone().ok_or(PersonalError::Starting)?;
        // Without a membership nothing is recorded here, even if the rest fails.
        membership::remove(&state)?;
        known.membership = None;
        known.figures = Figures::default();
        (known.last_sent, known.last_error) = (None, None);
        let gone = queue.take().map_or(Ok(()), Queue::remove);
        drop((known, queue));
        self.news.send_replace(());
        Ok(gone?)
    }

    /// What the extension is to be told.
    pub fn told(&self, offer: &Offer) -> Option<PersonalMode> {
        self.known().situation(offer)?.told()
    }

    /// What the extension has taken up; none while it is away.
    pub fn set_taken_up(&self, mode: Option<Option<PersonalMode>>) {
        self.known().taken_up = mode;
        self.news.send_replace(());
    }

    /// What is true of personal mode, for this user.
    pub fn status(&self, uid: Option<u32>, offer: &Offer) -> PersonalStatus {
        let known = self.known();
        let ledger = uid.and_then(|uid| known.membership_of(uid)).and_then(|_| {
            let situation = known.situation(offer)?;
            Some(PersonalLedger {
                mode: situation.mode(),
                until: situation.membership.until,
                taken_up: known.taken_up.as_ref() == Some(&situation.told()),
                when_exhausted: situation.membership.when_exhausted,
                month: situation.month,
                allowance: situation.allowance(),
                used: situation.used,
                others: situation.others(),
                waiting: known.figures.waiting,
                elsewhere: offer
                    .tenant
                    .as_ref()
                    .filter(|&tenant| *tenant != situation.membership.tenant)
                    .map(|_| situation.membership.tenant.clone()),
                dropped: known.figures.dropped,
                last_sent: known.last_sent,
                last_error: known.last_error.clone(),
            })
        });
        let (perks, unreadable) = (offer.perks.clone(), known.unreadable.clone());
        PersonalStatus { organisation: offer.tenant.clone(), perks, ledger, unreadable }
    }

    /// Highest number of a run of the extension that is sealed and on disk.
    pub fn highest(&self, run: Uuid) -> u64 {
        self.queue().as_ref().map_or(0, |queue| queue.highest(run))
    }

    /// Seals records and stores them, in order; those that are nobody's are kept nowhere. Returns the
    /// number up to which they may be acknowledged. Waits for the disk.
    pub fn take_in(&self, run: Uuid, records: &[PersonalRecord], offer: &Offer) -> Result<u64, TakeInError> {
        let last = records.iter().map(|record| record.number).max().unwrap_or_default();
        let mut place = self.queue();
        let membership = self.known().membership.clone();
        let membership = membership.filter(|one| offer.tenant.as_ref() == Some(&one.tenant));
        let (Some(queue), Some(membership)) = (place.as_mut(), membership) else { return Ok(last) };
        let highest = queue.highest(run);
        let mut incoming = Vec::new();
        for record in records.iter().filter(|record| record.number > highest) {
            if record.minute >= membership.since {
                incoming.push(sealing::sealed(record, &membership, offer)?);
            }
        }
        if !incoming.is_empty() {
            queue.append(run, incoming)?;
            self.known().figures = figures(queue);
            drop(place);
            self.news.send_replace(());
        }
        Ok(last)
    }

    /// Sealed records that wait, for who opted in.
    pub fn waiting(&self, uid: u32, after: u64, most: usize) -> Result<Vec<(u64, Sealed)>, PersonalError> {
        self.known().membership_of(uid).ok_or(PersonalError::NotOptedIn)?;
        Ok(self.queue().as_ref().map(|queue| queue.list(after, most)).unwrap_or_default())
    }

    /// Turns off what has ended by itself, and decides from when use counts for the organisation. Returns
    /// when something changes next.
    fn look(&self, offer: &Offer) -> Option<UnixSeconds> {
        let mut known = self.known();
        let situation = known.situation(offer)?;
        let membership = situation.membership.clone();
        let after = match situation.mode() {
            Mode::Ended if membership.on && offer.known => {
                tracing::info!("The organisation has ended personal mode.");
                Some(Membership { on: false, until: None, ended: true, ..membership.clone() })
            }
            Mode::Off if membership.on => Some(Membership { on: false, until: None, ..membership.clone() }),
            Mode::Closing { until } if situation.closes_at().is_none() => situation.month.map(|month| {
                Membership { closing: Some(Closing { month, at: until }), ..membership.clone() }
            }),
            _ => None,
        };
        if let Some(after) = after
            && let Err(error) = known.keep(after.clone())
        {
            // What is in force must not wait for the disk.
            tracing::error!("A change of personal mode cannot be stored: {error}");
            known.membership = Some(after);
        }
        let membership = known.membership.as_ref()?;
        let times = membership.until.into_iter().chain(membership.closing.map(|closing| closing.at));
        times.filter(|at| *at > offer.now).min()
    }

    /// Whose records are to be sent, while the organisation is the one that they are for.
    fn member_for(&self, offer: &Offer) -> Option<Member> {
        let known = self.known();
        let membership = known.membership.as_ref()?;
        (offer.tenant.as_ref() == Some(&membership.tenant)).then(|| membership.member.clone())
    }

    /// Whether there is enough to send, or the backend is to be asked how a month stands of which it has
    /// said nothing yet.
    fn is_due(&self, offer: &Offer, enough: u64) -> bool {
        let known = self.known();
        let Some(membership) = known.membership.as_ref() else { return false };
        let is_ours = offer.tenant.as_ref() == Some(&membership.tenant);
        let heard = membership.standing.map(|standing| standing.month);
        is_ours && offer.month().is_some_and(|month| heard != Some(month) || known.figures.waiting >= enough)
    }

    fn peek(&self, most: usize) -> io::Result<Option<Batch>> {
        let slot = new_slot()?;
        self.with_queue(|queue| queue.peek(most, slot)).unwrap_or(Ok(None))
    }

    fn acknowledge(&self, slot: Slot, up_to: u64) -> io::Result<()> {
        self.with_queue(|queue| queue.acknowledge(slot, up_to)).unwrap_or(Ok(()))
    }

    fn begin_slot(&self) -> io::Result<()> {
        let slot = new_slot()?;
        self.with_queue(|queue| queue.begin_slot(slot, 0)).unwrap_or(Ok(()))
    }

    /// Totals to tell the backend, with the slot that they are of, the oldest first: what it does not know,
    /// and this month's, by which it says how the other devices stand.
    fn totals_to_tell(&self, month: Month) -> Vec<(Slot, Month, u64)> {
        let place = self.queue();
        let Some(queue) = place.as_ref() else { return Vec::new() };
        let untold = |total: &&Total| total.month != month && total.told != Some(total.used.point);
        let before = queue.totals().iter().filter(untold).map(|total| (total.month, total.used.point));
        let now = queue.totals().iter().find(|total| total.month == month);
        let now = (month, now.map_or(0, |total| total.used.point));
        before.chain([now]).map(|(month, used)| (queue.slot(), month, used.min(TOKENS_LIMIT))).collect()
    }

    /// The backend knows a total, and said how the month stands.
    fn set_told(&self, slot: Slot, used: u64, standing: Standing, is_now: bool) -> Result<(), PersonalError> {
        self.with_queue(|queue| queue.set_told(slot, standing.month, used)).unwrap_or(Ok(()))?;
        let mut known = self.known();
        match known.membership.clone() {
            Some(before) if is_now && before.standing != Some(standing) => {
                known.keep(Membership { standing: Some(standing), ..before })
            }
            _ => Ok(()),
        }
    }

    fn with_queue<T>(&self, act: impl FnOnce(&mut Queue) -> T) -> Option<T> {
        let mut place = self.queue();
        let queue = place.as_mut()?;
        let done = act(queue);
        self.known().figures = figures(queue);
        Some(done)
    }

    /// How sending fares.
    fn set_sent(&self, at: UnixSeconds, outcome: Result<(), String>) {
        let mut known = self.known();
        match outcome {
            Ok(()) => (known.last_sent, known.last_error) = (Some(at), None),
            Err(error) => known.last_error = Some(error),
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn queue(&self) -> MutexGuard<'_, Option<Queue>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn figures(queue: &Queue) -> Figures {
    Figures { waiting: queue.waiting(), dropped: queue.dropped(), totals: queue.totals().to_vec() }
}

/// A member's queue: what another left behind is not this one's.
fn open_queue(state: &Path, member: &Member) -> io::Result<Queue> {
    let hash = digest(&SHA256, member.bytes());
    let name: String = hash.as_ref()[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    Queue::open(&state.join(queue::DIRECTORY).join(name), new_slot()?)
}

/// A slot that no device has.
fn new_slot() -> io::Result<Slot> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)
        .map_err(|_| io::Error::other("the system's random number generator failed"))?;
    Ok(Slot::new(bytes))
}
