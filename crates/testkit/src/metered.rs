//! The one question that the demo and most tests ask: what became of this client's traffic?
//! One side is what the simulator's sockets counted, the other what the backend's database has.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};

use crate::installation::{Event, Installation};
use crate::lab::NO_PROVIDER;
use crate::process::{output, pause, until};
use crate::tally::{Connection, Transport};

/// Bounds a failure, not a success.
const LIMIT: Duration = Duration::from_secs(30);
/// What may be on its way to a client that leaves without waiting: a few small packets.
pub const IN_FLIGHT_BYTES: u64 = 200;
/// Time for an event too many to come.
const SETTLE: Duration = Duration::from_millis(500);

/// What became of a client's traffic.
#[derive(Debug)]
pub struct Metered {
    /// What the client printed.
    pub output: String,
    /// What the simulator counted, without connections of no provider.
    pub connections: Vec<Connection>,
    /// What the backend has.
    pub events: Vec<Event>,
}

impl Metered {
    /// Bytes that the simulator counted.
    pub fn bytes(&self) -> u64 {
        self.connections.iter().map(Connection::bytes).sum()
    }

    /// Bytes that the backend has.
    pub fn event_bytes(&self) -> u64 {
        self.events.iter().map(Event::bytes).sum()
    }
}

impl Installation {
    /// Runs a client to its end, waits until the backend has as many bytes as the simulator,
    /// and then looks again, so that an event that came twice would show.
    pub fn meter(&mut self, client: &mut Command) -> anyhow::Result<Metered> {
        self.meter_where(client, 0, |one| one.transport != Transport::Proxy)
    }

    /// The same for a client that leaves without waiting for what is on its way to it, as
    /// browsers do: of the simulator's bytes, up to [`IN_FLIGHT_BYTES`] may have reached nobody.
    pub fn meter_leaving(&mut self, client: &mut Command) -> anyhow::Result<Metered> {
        self.meter_where(client, IN_FLIGHT_BYTES, |one| one.transport != Transport::Proxy)
    }

    /// The same for a client behind the proxy: what counts is what passed between those two.
    pub fn meter_at_proxy(&mut self, client: &mut Command) -> anyhow::Result<Metered> {
        self.meter_where(client, 0, |one| one.transport == Transport::Proxy)
    }

    fn meter_where(
        &mut self,
        client: &mut Command,
        slack: u64,
        counts: impl Fn(&Connection) -> bool,
    ) -> anyhow::Result<Metered> {
        let before = self.lab.connections().len();
        let output = output(client)?;
        let mut connections = self.closed_since(before)?;
        connections.retain(counts);
        let bytes = connections.iter().map(Connection::bytes).sum::<u64>().saturating_sub(slack);
        Ok(Metered { output, events: self.events_of(bytes)?, connections })
    }

    /// Connections after the first `before`, once all are closed, without those of no provider.
    pub fn closed_since(&self, before: usize) -> anyhow::Result<Vec<Connection>> {
        let mut all = until("the connections to close", LIMIT, || {
            let all = self.lab.connections().split_off(before);
            Ok(all.iter().all(|one| one.closed).then_some(all))
        })?;
        all.retain(|one| one.server_name.as_deref() != Some(NO_PROVIDER));
        Ok(all)
    }

    /// The events that came since the last look, once they hold as many bytes.
    pub fn events_of(&mut self, bytes: u64) -> anyhow::Result<Vec<Event>> {
        self.events_until(|events| events.iter().map(Event::bytes).sum::<u64>() >= bytes)
            .with_context(|| format!("the simulator counted {bytes} bytes"))
    }

    /// The events that came since the last look, once they are `enough`.
    pub fn events_until(&mut self, enough: impl Fn(&[Event]) -> bool) -> anyhow::Result<Vec<Event>> {
        let (mut last, mut flushed) = (Vec::new(), Ok(()));
        until("the events to reach the backend", LIMIT, || {
            flushed = self.flush();
            last = self.events(self.seen)?;
            Ok(enough(&last).then_some(()))
        })
        .with_context(|| format!("the backend has {last:#?}; the last flush: {flushed:?}"))?;
        pause(SETTLE);
        self.flush()?;
        let again = self.events(self.seen)?;
        ensure!(again == last, "more came after all was there: {last:#?}, then {again:#?}");
        self.seen = last.last().map_or(self.seen, |event| event.sequence);
        Ok(last)
    }
}
