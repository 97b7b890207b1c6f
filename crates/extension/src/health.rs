//! How the capture is doing, put together from what its parts count. Counts only, never a name.

use toktra_capture_linux::Counts;
use toktra_engine::LimitsHit;
use toktra_protocol::local::Health;

/// What the agent is told; `records_dropped` are those that found no room in the outbox.
pub fn health(degraded: &[String], counts: Counts, hit: LimitsHit, records_dropped: u64) -> Health {
    let mut degraded = degraded.to_vec();
    if counts.sockets_left > 0 {
        degraded.push(format!(
            "{} blocked connections could not be ended at once; their applications waited",
            counts.sockets_left
        ));
    }
    if counts.table_full > 0 {
        degraded
            .push(format!("{} connections passed unseen: the table of flows was full", counts.table_full));
    }
    Health {
        degraded,
        flows_seen: counts.flows_seen,
        flows_metered: counts.flows_metered,
        flows_blocked: counts.flows_blocked,
        hellos_lost: counts.events_lost,
        records_dropped,
        flows_unread: hit.undecided,
        flows_unattributed: hit.waiting,
        records_lost: hit.records,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_limit_that_was_hit_is_told() {
        let counts = Counts { events_lost: 1, table_full: 2, sockets_left: 3, ..Counts::default() };
        let hit = LimitsHit { undecided: 4, waiting: 5, records: 6 };
        let health = health(&["lost".to_owned()], counts, hit, 7);
        assert_eq!(health.degraded.len(), 3);
        assert_eq!((health.hellos_lost, health.records_dropped), (1, 7));
        assert_eq!((health.flows_unread, health.flows_unattributed, health.records_lost), (4, 5, 6));
    }
}
