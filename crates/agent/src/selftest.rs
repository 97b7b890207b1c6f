//! Notices an extension that is connected but sees nothing: on macOS a filter that is enabled and yet asked of
//! nothing, on Linux one on the wrong cgroup. When it has seen no connection for a while, the agent makes one
//! of its own, to the backend, which the extension must see.
//!
//! Invariants: nothing is concluded where nothing is to be seen (privacy hours, a backend on loopback or on a
//! port that is not watched, no network); what is seen once more ends what was said.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::Request;
use hyper::body::Bytes;
use tokio::sync::watch;
use toktra_protocol::ToktraDomain;
use toktra_protocol::domain::DEFAULT_PORT;
use toktra_protocol::enrol::TIME_PATH;

use crate::board::Board;
use crate::dial::Host;
use crate::tls::Tls;

/// How often it is looked.
const LOOK_EVERY: Duration = Duration::from_secs(15);
/// Without a connection for so long, one is made.
const SILENCE: Duration = Duration::from_secs(5 * 60);
/// So long the extension has to say that it has seen it.
const GRACE: Duration = Duration::from_secs(60);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Looks until the session ends. `ports` are those that are watched beside 443.
pub async fn run(domain: ToktraDomain, tls: watch::Receiver<Arc<Tls>>, ports: Vec<u16>, board: Arc<Board>) {
    let watched = domain.port() == DEFAULT_PORT || ports.contains(&domain.port());
    if domain.is_loopback() || !watched {
        return;
    }
    let mut sight = Sight::default();
    loop {
        board.clock.pause(LOOK_EVERY).await;
        let wants = sight.look(board.clock.elapsed(), board.flows_seen());
        if wants == Wants::Connection && connect(&domain, tls.clone()).await {
            sight.connected(board.clock.elapsed());
        }
        board.set_blind(sight.is_blind);
    }
}

/// Makes a connection of its own; whether there was one to be seen.
async fn connect(domain: &ToktraDomain, tls: watch::Receiver<Arc<Tls>>) -> bool {
    let request = Request::get(TIME_PATH).body(Full::new(Bytes::new()));
    match request {
        Ok(request) => Host::ingest(domain, tls).ask(request, ANSWER_TIMEOUT).await.is_ok(),
        Err(_) => false,
    }
}

/// What is known of the extension's sight. No clock of its own.
#[derive(Debug, Default)]
struct Sight {
    seen: Option<u64>,
    /// When that number was first heard.
    since: Duration,
    /// When a connection was made that has not been seen yet.
    connected: Option<Duration>,
    is_blind: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Wants {
    Nothing,
    Connection,
}

impl Sight {
    /// Connections that the extension has seen by now; `None` where it is not to see any.
    fn look(&mut self, elapsed: Duration, seen: Option<u64>) -> Wants {
        if seen.is_none() || seen != self.seen {
            *self = Self { seen, since: elapsed, ..Self::default() };
            return Wants::Nothing;
        }
        match self.connected {
            Some(at) if elapsed.saturating_sub(at) < GRACE => Wants::Nothing,
            Some(_) => {
                self.is_blind = true;
                self.connected = None;
                self.since = elapsed;
                Wants::Nothing
            }
            None if elapsed.saturating_sub(self.since) >= SILENCE => Wants::Connection,
            None => Wants::Nothing,
        }
    }

    fn connected(&mut self, elapsed: Duration) {
        self.connected = Some(elapsed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks every fifteen seconds up to a time; the last answer.
    fn until(sight: &mut Sight, from_s: u64, to_s: u64, seen: Option<u64>) -> Wants {
        let mut wants = Wants::Nothing;
        for at in (from_s..=to_s).step_by(15) {
            wants = sight.look(Duration::from_secs(at), seen);
        }
        wants
    }

    #[test]
    fn where_connections_are_seen_none_is_made() {
        let mut sight = Sight::default();
        for minute in 0..600 {
            assert_eq!(until(&mut sight, minute * 60, minute * 60 + 45, Some(minute)), Wants::Nothing);
        }
        assert!(!sight.is_blind);
    }

    #[test]
    fn a_connection_that_was_made_and_not_seen_shows_that_it_is_blind_and_the_next_one_seen_that_it_is_not() {
        let mut sight = Sight::default();
        assert_eq!(until(&mut sight, 0, 285, Some(7)), Wants::Nothing);
        assert_eq!(sight.look(Duration::from_secs(300), Some(7)), Wants::Connection);
        sight.connected(Duration::from_secs(301));
        until(&mut sight, 315, 345, Some(7));
        assert!(!sight.is_blind, "it has a minute to say so");
        until(&mut sight, 360, 375, Some(7));
        assert!(sight.is_blind);
        until(&mut sight, 390, 390, Some(8));
        assert!(!sight.is_blind);
    }

    #[test]
    fn a_connection_that_is_seen_says_nothing() {
        let mut sight = Sight::default();
        until(&mut sight, 0, 300, Some(7));
        sight.connected(Duration::from_secs(301));
        until(&mut sight, 315, 600, Some(8));
        assert!(!sight.is_blind);
    }

    #[test]
    fn without_an_extension_or_in_privacy_hours_nothing_is_concluded() {
        let mut sight = Sight::default();
        until(&mut sight, 0, 300, Some(7));
        sight.connected(Duration::from_secs(301));
        assert_eq!(until(&mut sight, 315, 6_000, None), Wants::Nothing);
        assert!(!sight.is_blind);
        assert_eq!(until(&mut sight, 6_015, 6_300, Some(7)), Wants::Nothing, "it begins anew");
    }

    #[test]
    fn while_the_backend_is_out_of_reach_nothing_is_concluded() {
        let mut sight = Sight::default();
        assert_eq!(until(&mut sight, 0, 6_000, Some(7)), Wants::Connection);
        assert!(!sight.is_blind);
    }
}
