//! What a person may see of the records: those that wait in the spool and the last [`SENT`] that the
//! backend acknowledged, as they leave the device. What was sent is remembered in memory only, and so
//! not beyond a restart of the agent: no second copy lies on disk.
//!
//! Who sees which: root and the agent's account all; anybody else those of their own account and those
//! without one. An account is named here as the extension names it.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use toktra_protocol::local::{Listed, RecordPlace, RecordState, RecordsPage};
use toktra_protocol::{Event, EventBody};

use crate::spooler::Spooler;

/// How many sent records are remembered.
pub const SENT: usize = 1000;
/// Records of a page; at some four KiB each at most, they fit a frame.
const PAGE: usize = 32;

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reader {
    /// Sees everything.
    All,
    /// Sees what is this account's or nobody's.
    Account(String),
}

impl Reader {
    /// A user who is not trusted with everything, by the machine's own accounts.
    pub fn of_user(uid: u32) -> Self {
        Self::Account(account_of(uid))
    }

    fn sees(&self, event: &Event) -> bool {
        let account = match &event.body {
            EventBody::Usage(usage) => &usage.user_account,
            EventBody::Blocked(blocked) => &blocked.user_account,
            EventBody::Dropped(_) => &None,
        };
        match (self, account) {
            (Self::All, _) | (_, None) => true,
            (Self::Account(own), Some(account)) => own == account,
        }
    }
}

/// The name of a user's account, as the extension names it.
pub fn account_of(uid: u32) -> String {
    toktra_peer::account(uid)
}

/// The last records that were sent. Outlives sessions.
#[derive(Debug, Default)]
pub struct Sent(Mutex<Ring>);

#[derive(Debug, Default)]
struct Ring {
    events: VecDeque<Event>,
    /// How many there ever were.
    count: u64,
}

impl Sent {
    /// The backend has these.
    pub fn note(&self, events: impl IntoIterator<Item = Event>) {
        let mut ring = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for event in events {
            ring.events.push_back(event);
            ring.count += 1;
        }
        let surplus = ring.events.len().saturating_sub(SENT);
        ring.events.drain(..surplus);
    }

    /// Those after so many, and how many there are then; from the first if the agent was restarted since.
    fn after(&self, place: u64) -> (Vec<Event>, u64) {
        let ring = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let place = if place > ring.count { 0 } else { place };
        let oldest = ring.count - ring.events.len() as u64;
        let skipped = usize::try_from(place.saturating_sub(oldest)).unwrap_or(usize::MAX);
        let events: Vec<Event> = ring.events.iter().skip(skipped).take(PAGE).cloned().collect();
        let next = place.max(oldest) + events.len() as u64;
        (events, next)
    }
}

/// The records beyond a place that this reader may see: sent ones, then those that wait.
pub async fn page(
    sent: &Sent,
    spooler: Option<Spooler>,
    reader: &Reader,
    after: RecordPlace,
) -> anyhow::Result<RecordsPage> {
    let (events, sent) = sent.after(after.sent);
    let mut next = RecordPlace { sent, waiting: after.waiting };
    let mut found: Vec<Listed> =
        events.into_iter().map(|event| Listed { state: RecordState::Sent, event }).collect();
    if let Some(spooler) = spooler.filter(|_| found.len() < PAGE) {
        let (from, room) = (after.waiting, PAGE - found.len());
        let waiting = spooler.run(move |spool| spool.list(from, room)).await??;
        next.waiting = waiting.last().map_or(from, |(index, _)| index + 1);
        found.extend(waiting.into_iter().map(|(_, event)| Listed { state: RecordState::Waiting, event }));
    }
    let more = found.len() == PAGE;
    found.retain(|listed| reader.sees(&listed.event));
    Ok(RecordsPage { records: found, next, more })
}

#[cfg(test)]
mod tests {
    use toktra_protocol::event::{Blocked, Dropped};
    use toktra_protocol::local::{Answer, FRAME_LIMIT, encode};
    use toktra_protocol::{BlockReason, Minute, NameSource};

    use super::*;

    fn event(sequence: u64, account: Option<&str>) -> Event {
        let blocked = Blocked {
            provider: "\"".repeat(256),
            service: "\"".repeat(256),
            host: "\"".repeat(256),
            name_source: NameSource::Sni,
            user_account: account.map(str::to_owned),
            application: Some("\"".repeat(256)),
            reason: BlockReason::Budget,
            cut: true,
        };
        Event { sequence, minute: Minute(1), body: EventBody::Blocked(blocked) }
    }

    #[tokio::test]
    async fn the_last_thousand_are_remembered_and_paged_within_a_frame() {
        let sent = Sent::default();
        sent.note((1..=1500).map(|sequence| event(sequence, None)));
        let (mut after, mut seen) = (RecordPlace::default(), Vec::new());
        loop {
            let page = page(&sent, None, &Reader::All, after).await.unwrap();
            assert!(encode(&Answer::Records(page.clone())).unwrap().len() < FRAME_LIMIT);
            seen.extend(page.records.iter().map(|listed| listed.event.sequence));
            after = page.next;
            if !page.more {
                break;
            }
        }
        assert_eq!(seen, (501..=1500).collect::<Vec<_>>());
        sent.note([event(1501, None)]);
        let news = page(&sent, None, &Reader::All, after).await.unwrap();
        assert_eq!(news.records.len(), 1);
        let beyond = RecordPlace { sent: u64::MAX, waiting: 0 };
        assert!(page(&sent, None, &Reader::All, beyond).await.unwrap().more, "a restarted agent starts over");
    }

    #[tokio::test]
    async fn nobody_but_root_sees_the_records_of_others() {
        let sent = Sent::default();
        let dropped = EventBody::Dropped(Dropped { events: 1, place: "spool".into() });
        let nobodys = Event { sequence: 4, minute: Minute(1), body: dropped };
        sent.note([event(1, Some("ada")), event(2, Some("bob")), event(3, None), nobodys]);
        let sees = async |reader: &Reader| -> Vec<u64> {
            let page = page(&sent, None, reader, RecordPlace::default()).await.unwrap();
            page.records.iter().map(|listed| listed.event.sequence).collect()
        };
        assert_eq!(sees(&Reader::All).await, [1, 2, 3, 4]);
        assert_eq!(sees(&Reader::Account("ada".into())).await, [1, 3, 4]);
    }
}
