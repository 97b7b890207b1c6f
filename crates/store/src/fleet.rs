//! An organisation's devices as the console lists and counts them. Every statement is scoped to
//! one organisation, and nothing here writes.

use std::collections::HashMap;

use sqlx::{FromRow, SqliteConnection};
use toktra_protocol::UnixSeconds;

use crate::book::{Book, Hold};
use crate::{Store, StoreError};

/// Most devices on one page of the list.
pub const DEVICES_PER_PAGE: i64 = 100;

/// How many devices there are, and what they do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromRow)]
pub struct Fleet {
    /// Devices that ever enrolled.
    pub devices: i64,
    /// Of these, the revoked.
    pub revoked: i64,
    /// Of these, the ones seen since a given time.
    pub seen: i64,
    /// Of these, the ones with a lock or a block in force.
    #[sqlx(skip)]
    pub held: i64,
}

/// One device as the list shows it.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct Device {
    /// UUID.
    pub id: String,
    /// As the device said at enrolment.
    pub hostname: String,
    /// Operating system.
    pub platform: String,
    /// Version of the agent.
    pub agent_version: String,
    /// Department's name.
    pub department: Option<String>,
    /// User's address.
    pub user: Option<String>,
    /// `enrolled`, `revoked`.
    pub state: String,
    /// Unix seconds.
    pub enrolled_at: i64,
    /// Unix seconds.
    pub last_seen_at: Option<i64>,
    /// End of the newest certificate, Unix seconds.
    pub certificate_until: Option<i64>,
    /// Highest sequence number up to which every event is stored.
    pub acknowledged_sequence: i64,
    /// The newest directive.
    pub directive_version: i64,
    /// The directive that the device says it applies.
    pub directive_applied: Option<i64>,
    /// The device's own lock is in force when some.
    pub lock_message: Option<String>,
    /// The lock of the device's user is in force when some.
    pub user_lock_message: Option<String>,
    /// What its directive says of locks and blocks.
    #[sqlx(skip)]
    pub hold: Hold,
    /// What is to be looked into: `cloned_hardware`, `superseded_certificate`.
    pub flag: Option<String>,
}

/// Counts the devices; `since` is in Unix seconds.
pub async fn fleet(
    store: &Store,
    organisation_id: &str,
    since: i64,
    now: UnixSeconds,
) -> Result<Fleet, StoreError> {
    let mut transaction = store.reporter().begin().await?;
    let counts: Fleet = sqlx::query_as(
        "SELECT COUNT(*) AS devices,
                COUNT(CASE WHEN state = 'revoked' THEN 1 END) AS revoked,
                COUNT(CASE WHEN last_seen_at >= $2 THEN 1 END) AS seen
         FROM devices WHERE organisation_id = $1",
    )
    .bind(organisation_id)
    .bind(since)
    .fetch_one(&mut *transaction)
    .await?;
    let held = holds(&mut transaction, organisation_id, now).await?.len();
    Ok(Fleet { held: i64::try_from(held).unwrap_or(i64::MAX), ..counts })
}

/// One page of the devices by name, page 0 first.
pub async fn devices(
    store: &Store,
    organisation_id: &str,
    page: i64,
    now: UnixSeconds,
) -> Result<Vec<Device>, StoreError> {
    let mut transaction = store.reporter().begin().await?;
    let mut listed: Vec<Device> = sqlx::query_as(
        "SELECT d.id, d.hostname, d.platform, d.agent_version, g.name AS department, p.email AS \"user\",
                d.state, d.enrolled_at, d.last_seen_at,
                (SELECT MAX(c.not_after) FROM certificates c WHERE c.device_id = d.id) AS certificate_until,
                d.acknowledged_sequence, d.directive_version, d.directive_applied,
                d.lock_message, p.lock_message AS user_lock_message, d.flag
         FROM devices d
         LEFT JOIN departments g ON g.id = d.department_id AND g.organisation_id = d.organisation_id
         LEFT JOIN users p ON p.id = d.user_id AND p.organisation_id = d.organisation_id
         WHERE d.organisation_id = $1
         ORDER BY d.hostname, d.id LIMIT $2 OFFSET $3",
    )
    .bind(organisation_id)
    .bind(DEVICES_PER_PAGE)
    .bind(page.max(0).saturating_mul(DEVICES_PER_PAGE))
    .fetch_all(&mut *transaction)
    .await?;
    let mut holds = holds(&mut transaction, organisation_id, now).await?;
    for device in &mut listed {
        device.hold = holds.remove(&device.id).unwrap_or_default();
    }
    Ok(listed)
}

/// How many enrolled devices were not heard of since then, in Unix seconds.
pub async fn silent(store: &Store, organisation_id: &str, since: i64) -> Result<i64, StoreError> {
    Ok(sqlx::query_scalar(
        "SELECT COUNT(*) FROM devices WHERE organisation_id = $1 AND state = 'enrolled'
            AND COALESCE(last_seen_at, enrolled_at) < $2",
    )
    .bind(organisation_id)
    .bind(since)
    .fetch_one(store.reporter())
    .await?)
}

/// The identifiers of the devices with this host name, or of the one with this identifier.
pub async fn named(store: &Store, organisation_id: &str, name: &str) -> Result<Vec<String>, StoreError> {
    Ok(sqlx::query_scalar(
        "SELECT id FROM devices WHERE organisation_id = $1 AND (hostname = $2 OR id = $2)
         ORDER BY id LIMIT 100",
    )
    .bind(organisation_id)
    .bind(name)
    .fetch_all(store.reporter())
    .await?)
}

/// Which devices are held, by what their directives are made from.
async fn holds(
    connection: &mut SqliteConnection,
    organisation_id: &str,
    now: UnixSeconds,
) -> Result<HashMap<String, Hold>, StoreError> {
    let (book, devices) = Book::read_with_devices_in(connection, now).await?;
    let held = devices
        .into_iter()
        .filter(|device| device.organisation_id == organisation_id && !device.is_revoked());
    let held = held.map(|device| (book.hold(&device, now), device.id));
    Ok(held.filter(|(hold, _)| *hold != Hold::default()).map(|(hold, id)| (id, hold)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::house::House;

    const NOW: UnixSeconds = UnixSeconds(1_800_000_000);

    const D1: &str = "00000000-0000-0000-0000-0000000000d1";

    /// Its devices have identifiers as devices have.
    async fn house() -> House {
        let house = crate::house::house().await;
        house.write("UPDATE devices SET id = '00000000-0000-0000-0000-0000000000' || id", &[]).await;
        house
    }

    #[tokio::test]
    async fn no_list_shows_a_device_of_another_organisation() {
        let house = house().await;
        let listed = devices(&house.store, "o1", 0, NOW).await.expect("list");
        assert_eq!(listed.iter().map(|device| device.id.as_str()).collect::<Vec<_>>(), [D1]);
        assert_eq!(fleet(&house.store, "o1", 0, NOW).await.expect("fleet").devices, 1);
        assert_eq!(fleet(&house.store, "nobody", 0, NOW).await.expect("fleet"), Fleet::default());
    }

    #[tokio::test]
    async fn a_device_shows_its_newest_certificate_and_its_holds() {
        let house = house().await;
        for (serial, until) in [("01", "10"), ("02", "30"), ("03", "20")] {
            house
                .write(
                    "INSERT INTO certificates (serial, device_id, issuer, not_before, not_after, der) VALUES ($1, $3, 'i', 0, CAST($2 AS BIGINT), '')",
                    &[serial, until, D1],
                )
                .await;
        }
        house
            .write("UPDATE devices SET block_reason = 'budget', last_seen_at = 50 WHERE id = $1", &[D1])
            .await;
        let device = &devices(&house.store, "o1", 0, NOW).await.expect("list")[0];
        assert_eq!(device.certificate_until, Some(30));
        assert_eq!(device.department.as_deref(), Some("Dept g1"));
        assert_eq!(device.user, None);
        let fleet = fleet(&house.store, "o1", 50, NOW).await.expect("fleet");
        assert_eq!(fleet, Fleet { devices: 1, revoked: 0, seen: 1, held: 1 });
    }
}
