//! Which models an organisation says it uses of a service, in thousandths. The name of the model
//! is inside the encryption, so without this a cost spans every model of the provider.
//!
//! Invariants: the shares of a service add up to [`WHOLE`], each is at least 1 and no model is
//! named twice. The ledger reads the mixes in the transaction that books: no cache that could be
//! old. What is booked keeps the cost it was booked with.

use std::collections::{BTreeSet, HashMap};

use sqlx::{Sqlite, Transaction};
use toktra_protocol::UnixSeconds;

use crate::audit::{Deed, record};
use crate::directory::Organisation;
use crate::{Store, StoreError};

/// What the shares of a service add up to.
pub const WHOLE: u32 = 1000;
/// Most models of one service.
pub const MODELS_LIMIT: usize = 64;
/// Longest name of a model or a service, in bytes.
pub const NAME_LIMIT: usize = 128;

/// A model and how much of a service's tokens it is said to take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// The provider's name for it, as in the catalogue.
    pub model: String,
    /// Thousandths of the tokens.
    pub permille: u32,
}

/// The shares of one service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mix {
    /// The service's identifier.
    pub service: String,
    /// By name of model.
    pub shares: Vec<Share>,
}

/// Why shares are not a mix, or were not stored.
#[derive(Debug, thiserror::Error)]
pub enum MixError {
    /// The shares do not add up.
    #[error("the shares add up to {0}, not to {WHOLE} thousandths")]
    Sum(u64),
    /// A share of nothing.
    #[error("`{0}` has a share of 0; leave it out")]
    Nothing(String),
    /// A model is named twice.
    #[error("`{0}` is named twice")]
    Twice(String),
    /// Too many models, or a name that is too long.
    #[error("a mix has 1 to {MODELS_LIMIT} models, and a name 1 to {NAME_LIMIT} bytes")]
    Size,
    /// It could not be stored.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Declares a service's mix in place of the one before.
pub async fn set(
    store: &Store,
    organisation: &Organisation,
    mix: &Mix,
    actor: &str,
    now: UnixSeconds,
) -> Result<(), MixError> {
    check(mix)?;
    let mut transaction = store.begin().await?;
    delete(&mut transaction, &organisation.id, &mix.service).await?;
    for share in &mix.shares {
        sqlx::query(
            "INSERT INTO price_mix (organisation_id, service, model, share_permille) VALUES ($1, $2, $3, $4)",
        )
        .bind(&organisation.id)
        .bind(&mix.service)
        .bind(&share.model)
        .bind(i64::from(share.permille))
        .execute(&mut *transaction)
        .await
        .map_err(StoreError::from)?;
    }
    let shares: Vec<_> =
        mix.shares.iter().map(|share| format!("{}={}", share.model, share.permille)).collect();
    let detail = shares.join(" ");
    let deed = Deed {
        organisation: Some(&organisation.id),
        actor,
        action: "price_mix_set",
        subject: &mix.service,
        detail: &detail,
    };
    record(&mut transaction, now, deed).await?;
    transaction.commit().await.map_err(StoreError::from)?;
    Ok(())
}

/// Withdraws a service's mix: its cost spans every model again.
pub async fn remove(
    store: &Store,
    organisation: &Organisation,
    service: &str,
    actor: &str,
    now: UnixSeconds,
) -> Result<(), StoreError> {
    let mut transaction = store.begin().await?;
    if delete(&mut transaction, &organisation.id, service).await? == 0 {
        return Err(StoreError::NotFound { kind: "price mix of service", name: service.into() });
    }
    let deed = Deed {
        organisation: Some(&organisation.id),
        actor,
        action: "price_mix_remove",
        subject: service,
        detail: "",
    };
    record(&mut transaction, now, deed).await?;
    transaction.commit().await?;
    Ok(())
}

/// The mixes of an organisation, by service.
pub async fn of_organisation(store: &Store, organisation: &str) -> Result<Vec<Mix>, StoreError> {
    let rows = sqlx::query_as(SELECT).bind(organisation).fetch_all(store.reader()).await?;
    mixes(rows)
}

/// The mixes of some organisations, as a transaction sees them.
#[derive(Debug, Default)]
pub(crate) struct Declared(HashMap<String, Vec<Mix>>);

impl Declared {
    pub(crate) async fn read(
        transaction: &mut Transaction<'static, Sqlite>,
        organisations: impl IntoIterator<Item = &str>,
    ) -> Result<Self, StoreError> {
        let mut declared = HashMap::new();
        for organisation in organisations.into_iter().collect::<BTreeSet<_>>() {
            let rows = sqlx::query_as(SELECT).bind(organisation).fetch_all(&mut **transaction).await?;
            declared.insert(organisation.to_owned(), mixes(rows)?);
        }
        Ok(Self(declared))
    }

    /// The shares of a service; none if none was declared.
    pub(crate) fn shares(&self, organisation: &str, service: &str) -> &[Share] {
        let mixes = self.0.get(organisation).map(Vec::as_slice).unwrap_or_default();
        let found = mixes.binary_search_by(|mix| mix.service.as_str().cmp(service));
        found.ok().and_then(|index| mixes.get(index)).map_or(&[], |mix| &mix.shares)
    }
}

fn check(mix: &Mix) -> Result<(), MixError> {
    let named = |name: &str| (1..=NAME_LIMIT).contains(&name.len());
    let fits = (1..=MODELS_LIMIT).contains(&mix.shares.len());
    if !fits || !named(&mix.service) || !mix.shares.iter().all(|share| named(&share.model)) {
        return Err(MixError::Size);
    }
    let mut seen = BTreeSet::new();
    for share in &mix.shares {
        if share.permille == 0 {
            return Err(MixError::Nothing(share.model.clone()));
        }
        if !seen.insert(&share.model) {
            return Err(MixError::Twice(share.model.clone()));
        }
    }
    match mix.shares.iter().map(|share| u64::from(share.permille)).sum() {
        sum if sum == u64::from(WHOLE) => Ok(()),
        sum => Err(MixError::Sum(sum)),
    }
}

async fn delete(
    transaction: &mut Transaction<'static, Sqlite>,
    organisation: &str,
    service: &str,
) -> Result<u64, StoreError> {
    let deleted = sqlx::query("DELETE FROM price_mix WHERE organisation_id = $1 AND service = $2")
        .bind(organisation)
        .bind(service)
        .execute(&mut **transaction)
        .await?;
    Ok(deleted.rows_affected())
}

const SELECT: &str = "SELECT service, model, share_permille FROM price_mix
    WHERE organisation_id = $1 ORDER BY service, model";

/// From rows in order of service.
fn mixes(rows: Vec<(String, String, i64)>) -> Result<Vec<Mix>, StoreError> {
    let mut mixes: Vec<Mix> = Vec::new();
    for (service, model, permille) in rows {
        let permille =
            u32::try_from(permille).map_err(|_| StoreError::Corrupt("price_mix.share_permille"))?;
        let share = Share { model, permille };
        match mixes.last_mut().filter(|mix| mix.service == service) {
            Some(mix) => mix.shares.push(share),
            None => mixes.push(Mix { service, shares: vec![share] }),
        }
    }
    Ok(mixes)
}
