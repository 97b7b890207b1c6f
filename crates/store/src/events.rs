//! The raw events, read back, and the proof that the ledger equals them: what an
//! administrator exports, and what a test of crashes ends with. Nothing here writes.

use serde::Serialize;
use sqlx::FromRow;

use crate::{Store, StoreError};

/// Most events of one page.
pub const EVENTS_PER_PAGE: i64 = 10_000;

/// An event as it is stored; fields that its kind has no use for are `None`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, FromRow)]
pub struct EventRow {
    /// The device's identifier.
    pub device_id: String,
    /// Its number within the device.
    pub sequence: i64,
    /// The minute in which it was made, Unix minutes.
    pub minute: i64,
    /// `usage`, `blocked` or `dropped`.
    pub kind: String,
    /// Provider's identifier.
    pub provider: Option<String>,
    /// Service's identifier.
    pub service: Option<String>,
    /// The server name.
    pub host: Option<String>,
    /// Where that name came from.
    pub name_source: Option<String>,
    /// The local user account.
    pub user_account: Option<String>,
    /// The application's name.
    pub application: Option<String>,
    /// Requests with their replies.
    pub exchanges: Option<i64>,
    /// Payload bytes that left, handshake apart.
    pub bytes_out: Option<i64>,
    /// Payload bytes that came, handshake apart.
    pub bytes_in: Option<i64>,
    /// Bytes of the handshake.
    pub bytes_handshake: Option<i64>,
    /// Whole seconds with traffic.
    pub duration_s: Option<i64>,
    /// 1 where the replies looked like a token stream.
    pub streaming: Option<i64>,
    /// 1 where the connection was older than the capture.
    pub partial: Option<i64>,
    /// Tokens sent: lower bound.
    pub tokens_in_low: Option<i64>,
    /// Tokens sent: best guess.
    pub tokens_in_point: Option<i64>,
    /// Tokens sent: upper bound.
    pub tokens_in_high: Option<i64>,
    /// Tokens received: lower bound.
    pub tokens_out_low: Option<i64>,
    /// Tokens received: best guess.
    pub tokens_out_point: Option<i64>,
    /// Tokens received: upper bound.
    pub tokens_out_high: Option<i64>,
    /// Identifier of the calibration.
    pub calibration: Option<String>,
    /// Why an attempt was blocked, or where events were dropped.
    pub reason: Option<String>,
    /// 1 where an open connection was cut.
    pub cut: Option<i64>,
    /// How many events a limit forced out.
    pub dropped: Option<i64>,
}

/// A device's events beyond the number `after`, in order, at most [`EVENTS_PER_PAGE`].
pub async fn of_device(store: &Store, device_id: &str, after: i64) -> Result<Vec<EventRow>, StoreError> {
    let rows = sqlx::query_as(
        "SELECT device_id, sequence, minute, kind, provider, service, host, name_source, user_account,
            application, exchanges, bytes_out, bytes_in, bytes_handshake, duration_s, streaming, partial,
            tokens_in_low, tokens_in_point, tokens_in_high, tokens_out_low, tokens_out_point,
            tokens_out_high, calibration, reason, cut, dropped
         FROM events WHERE device_id = $1 AND sequence > $2 ORDER BY sequence LIMIT $3",
    )
    .bind(device_id)
    .bind(after)
    .bind(EVENTS_PER_PAGE)
    .fetch_all(store.reader())
    .await?;
    Ok(rows)
}

/// Where the ledger stands with one device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, FromRow)]
pub struct Balance {
    /// The device's identifier.
    pub device_id: String,
    /// The highest number that was acknowledged.
    pub acknowledged: i64,
    /// Events stored.
    pub events: i64,
    /// Events that were stored and have passed their time of keeping; what follows counts them too.
    pub pruned: i64,
    /// Lowest number stored; 0 if none.
    pub first: i64,
    /// Highest number that was ever stored; 0 if none.
    pub last: i64,
    /// Of the events, those that the ledger books.
    pub bookable: i64,
    /// Events that the hourly sums say they hold.
    pub booked: i64,
    /// Payload bytes, both directions, of the events.
    pub event_bytes: i64,
    /// Payload bytes, both directions, of the hourly sums.
    pub booked_bytes: i64,
    /// Exchanges of the events.
    pub event_exchanges: i64,
    /// Exchanges of the hourly sums.
    pub booked_exchanges: i64,
}

impl Balance {
    /// Every acknowledged event is stored once and booked once, and nothing else is.
    pub fn is_even(&self) -> bool {
        // Numbers are unique, so that as many as the highest are all of them.
        let contiguous = self.events + self.pruned == self.acknowledged
            && self.last == self.acknowledged
            && (self.pruned > 0 || self.first == i64::from(self.events > 0));
        contiguous
            && self.bookable == self.booked
            && self.event_bytes == self.booked_bytes
            && self.event_exchanges == self.booked_exchanges
    }
}

/// The balance of every device, in the order of their identifiers.
pub async fn balances(store: &Store) -> Result<Vec<Balance>, StoreError> {
    // Bytes are added as doubles, exact up to 2^53: what one hostile device claims must not make
    // the sum overflow, which would be an error. All are cast because PostgreSQL's are NUMERIC.
    let rows = sqlx::query_as(
        "SELECT devices.id AS device_id, acknowledged_sequence AS acknowledged,
            COALESCE(raw.events, 0) AS events, COALESCE(pruned.events, 0) AS pruned,
            COALESCE(raw.first, 0) AS first,
            CASE WHEN COALESCE(raw.last, 0) > COALESCE(pruned.last_sequence, 0) THEN raw.last
                ELSE COALESCE(pruned.last_sequence, 0) END AS last,
            COALESCE(raw.bookable, 0) + COALESCE(pruned.bookable, 0) AS bookable,
            COALESCE(hourly.events, 0) AS booked,
            CAST(COALESCE(raw.bytes, 0) + COALESCE(pruned.bytes, 0) AS BIGINT) AS event_bytes,
            COALESCE(hourly.bytes, 0) AS booked_bytes,
            COALESCE(raw.exchanges, 0) + COALESCE(pruned.exchanges, 0) AS event_exchanges,
            COALESCE(hourly.exchanges, 0) AS booked_exchanges
         FROM devices
         LEFT JOIN pruned_events pruned ON pruned.device_id = devices.id
         LEFT JOIN (
            SELECT device_id, COUNT(*) AS events, MIN(sequence) AS first, MAX(sequence) AS last,
                CAST(SUM(CASE WHEN kind = 'dropped' THEN 0 ELSE 1 END) AS BIGINT) AS bookable,
                SUM(CAST(COALESCE(bytes_out, 0) AS DOUBLE PRECISION) + COALESCE(bytes_in, 0)) AS bytes,
                CAST(SUM(COALESCE(exchanges, 0)) AS BIGINT) AS exchanges
            FROM events GROUP BY device_id
         ) raw ON raw.device_id = devices.id
         LEFT JOIN (
            SELECT device_id, CAST(SUM(events) AS BIGINT) AS events,
                CAST(SUM(CAST(bytes_out AS DOUBLE PRECISION) + bytes_in) AS BIGINT) AS bytes,
                CAST(SUM(exchanges) AS BIGINT) AS exchanges
            FROM usage_hourly GROUP BY device_id
         ) hourly ON hourly.device_id = devices.id
         ORDER BY devices.id",
    )
    .fetch_all(store.reader())
    .await?;
    Ok(rows)
}
