//! Feature flags of an organisation. A flag that was never set is off.

use std::collections::{BTreeMap, HashMap};

use sqlx::SqliteConnection;
use toktra_protocol::UnixSeconds;
use toktra_protocol::budget::Scope;
use toktra_protocol::directive::{FF_BUDGET_HARD_CAPS, FF_TOKEN_PERKS};

use crate::audit::{Deed, record};
use crate::directory::Organisation;
use crate::spend::ScopeKey;
use crate::{Store, StoreError, budgets, note_change};

/// The flags that there are.
pub const KNOWN: [&str; 2] = [FF_BUDGET_HARD_CAPS, FF_TOKEN_PERKS];

/// Sets one of [`KNOWN`] and tells every device of the organisation.
pub async fn set(
    store: &Store,
    organisation: &Organisation,
    name: &str,
    on: bool,
    actor: &str,
    now: UnixSeconds,
) -> Result<(), StoreError> {
    if !KNOWN.contains(&name) {
        return Err(StoreError::NotFound { kind: "flag", name: name.into() });
    }
    let mut transaction = store.begin().await?;
    sqlx::query(
        "INSERT INTO flags (organisation_id, name, value) VALUES ($1, $2, $3)
         ON CONFLICT (organisation_id, name) DO UPDATE SET value = excluded.value",
    )
    .bind(&organisation.id)
    .bind(name)
    .bind(i64::from(on))
    .execute(&mut *transaction)
    .await?;
    let action = if on { "flag_on" } else { "flag_off" };
    let deed = Deed { organisation: Some(&organisation.id), actor, action, subject: name, detail: "" };
    record(&mut transaction, now, deed).await?;
    let id = organisation.id.as_str();
    let everyone = ScopeKey { organisation: id.into(), scope: Scope::Organisation, id: id.into() };
    budgets::grow(&mut transaction, &everyone).await?;
    note_change(&mut transaction).await?;
    transaction.commit().await?;
    Ok(())
}

/// Every known flag of an organisation.
pub async fn of_organisation(
    store: &Store,
    organisation: &Organisation,
) -> Result<BTreeMap<String, bool>, StoreError> {
    let mut connection = store.reader().acquire().await?;
    let mut flags = all(&mut connection).await?.remove(&organisation.id).unwrap_or_default();
    for name in KNOWN {
        flags.entry(name.into()).or_default();
    }
    Ok(flags)
}

/// What was set, by organisation.
pub(crate) async fn all(
    connection: &mut SqliteConnection,
) -> Result<HashMap<String, BTreeMap<String, bool>>, StoreError> {
    let rows: Vec<(String, String, i64)> =
        sqlx::query_as("SELECT organisation_id, name, value FROM flags").fetch_all(connection).await?;
    let mut flags: HashMap<_, BTreeMap<_, _>> = HashMap::new();
    for (organisation, name, value) in rows {
        flags.entry(organisation).or_default().insert(name, value != 0);
    }
    Ok(flags)
}
