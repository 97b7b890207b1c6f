//! Which devices hang on an intermediate or a root: what a rotation asks before it drops one.
//!
//! A device hangs on a certificate that it may still use: within its time, or expired so lately
//! that it can renew with it. One that was revoked, or whose newer certificate was used, does not.

use toktra_protocol::UnixSeconds;

use crate::renewal::RECOVERABLE_S;
use crate::{Store, StoreError, column};

/// Devices that hang on something, by whether their certificate is within its time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hanging {
    /// With a certificate within its time.
    pub current: i64,
    /// With an expired one that they can still renew with.
    pub recoverable: i64,
}

/// Devices with a certificate of this intermediate.
pub async fn devices_of(store: &Store, issuer: &str, now: UnixSeconds) -> Result<Hanging, StoreError> {
    count(store, Some(issuer), None, now).await
}

/// Devices that were not told of this root (its key identifier) with their certificate.
pub async fn devices_not_told_of(store: &Store, root: &str, now: UnixSeconds) -> Result<Hanging, StoreError> {
    count(store, None, Some(root), now).await
}

async fn count(
    store: &Store,
    issuer: Option<&str>,
    root: Option<&str>,
    now: UnixSeconds,
) -> Result<Hanging, StoreError> {
    let (current, recoverable) = sqlx::query_as(
        "SELECT COALESCE(SUM(CASE WHEN last >= $1 THEN 1 ELSE 0 END), 0),
                COALESCE(SUM(CASE WHEN last < $1 THEN 1 ELSE 0 END), 0)
         FROM (SELECT MAX(c.not_after) AS last
               FROM certificates c JOIN devices d ON d.id = c.device_id
               WHERE c.superseded_at IS NULL AND c.revoked_at IS NULL AND d.state <> 'revoked'
                 AND c.not_after >= $2
                 AND ($3 IS NULL OR c.issuer = $3)
                 AND ($4 IS NULL OR COALESCE(c.root, '') <> $4)
               GROUP BY c.device_id) AS hanging",
    )
    .bind(column(now.0))
    .bind(column(now.0.saturating_sub(RECOVERABLE_S)))
    .bind(issuer)
    .bind(root)
    .fetch_one(store.reader())
    .await?;
    Ok(Hanging { current, recoverable })
}
