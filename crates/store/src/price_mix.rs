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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

    use toktra_protocol::{Batch, DeviceId, Estimate, Event, EventBody, Minute, NameSource, Usage};

    use super::*;
    use crate::Ledger;
    use crate::house::{House, house};
    use crate::ledger::{Cost, Tariff};

    const NOW: UnixSeconds = UnixSeconds(1_800_000_000);

    /// Costs as many micro-dollars as the first share has thousandths.
    struct FirstShare;

    impl Tariff for FirstShare {
        fn cost(&self, mix: &[Share], _: &str, _: UnixSeconds, _: Estimate, _: Estimate) -> Option<Cost> {
            let micros = mix.first().map_or(7, |share| share.permille.into());
            Some(Cost { low_micros: micros, point_micros: micros, high_micros: micros })
        }
    }

    async fn device(house: &House, organisation: &str) -> DeviceId {
        let device = DeviceId::new_v4();
        house
            .write(
                "INSERT INTO devices (id, organisation_id, hostname, platform, agent_version, state,
                                      enrolled_at, acknowledged_sequence, directive_version)
                 VALUES ($2, $1, 'h', 'linux', '0.1.0', 'enrolled', 0, 0, 1)",
                &[organisation, &device.to_string()],
            )
            .await;
        device
    }

    fn batch(sequence: u64, service: &str) -> Batch {
        let usage = Usage {
            provider: "openai".into(),
            service: service.into(),
            host: "api.openai.com".into(),
            name_source: NameSource::Sni,
            user_account: None,
            application: None,
            exchanges: 1,
            bytes_out: 1,
            bytes_in: 1,
            bytes_handshake: 0,
            duration_s: 0,
            streaming: false,
            partial: false,
            tokens_in: Estimate { low: 1, point: 1, high: 1 },
            tokens_out: Estimate::default(),
            calibration: "c".into(),
        };
        let event = Event { sequence, minute: Minute(30_000_000 + sequence), body: EventBody::Usage(usage) };
        Batch { events: vec![event] }
    }

    fn organisation(id: &str) -> Organisation {
        Organisation { id: id.into(), name: id.into(), created_at: 0 }
    }

    fn mix(shares: &[(&str, u32)]) -> Mix {
        let share = |&(model, permille): &(&str, u32)| Share { model: model.into(), permille };
        Mix { service: "openai-api".into(), shares: shares.iter().map(share).collect() }
    }

    async fn spent(house: &House, organisation: &str) -> i64 {
        sqlx::query_scalar("SELECT SUM(cost_point_micros) FROM usage_hourly WHERE organisation_id = $1")
            .bind(organisation)
            .fetch_one(house.store.reader())
            .await
            .unwrap()
    }

    #[tokio::test]
    async fn the_ledger_prices_by_the_organisations_own_mix_of_the_service_from_the_next_batch_on() {
        let house = house().await;
        let (one, two) = (device(&house, "o1").await, device(&house, "o2").await);
        let (ledger, _) = Ledger::start(house.store.clone(), Box::new(FirstShare), || NOW);
        set(&house.store, &organisation("o1"), &mix(&[("a", 600), ("b", 400)]), "test", NOW).await.unwrap();
        ledger.book(one, batch(1, "openai-api")).await.unwrap();
        ledger.book(one, batch(2, "anthropic-api")).await.unwrap();
        ledger.book(two, batch(1, "openai-api")).await.unwrap();
        assert_eq!((spent(&house, "o1").await, spent(&house, "o2").await), (607, 7));
        set(&house.store, &organisation("o1"), &mix(&[("b", 1000)]), "test", NOW).await.unwrap();
        ledger.book(one, batch(3, "openai-api")).await.unwrap();
        assert_eq!(spent(&house, "o1").await, 1607);
        remove(&house.store, &organisation("o1"), "openai-api", "test", NOW).await.unwrap();
        ledger.book(one, batch(4, "openai-api")).await.unwrap();
        assert_eq!(spent(&house, "o1").await, 1614);
    }

    #[tokio::test]
    async fn shares_that_are_no_mix_are_refused_and_leave_the_one_before() {
        let house = house().await;
        let o1 = organisation("o1");
        let good = mix(&[("a", 600), ("b", 400)]);
        set(&house.store, &o1, &good, "test", NOW).await.unwrap();
        let many: Vec<_> = (0..=MODELS_LIMIT).map(|index| index.to_string()).collect();
        let many: Vec<_> = many.iter().map(|name| (name.as_str(), 1)).collect();
        let long = "x".repeat(NAME_LIMIT + 1);
        for shares in [
            &[][..],
            &[("a", 999)],
            &[("a", 1000), ("b", 0)],
            &[("a", 500), ("a", 500)],
            &[("", 1000)],
            &[("a", u32::MAX), ("b", u32::MAX)],
            &[(&long, 1000)],
            &many,
        ] {
            assert!(set(&house.store, &o1, &mix(shares), "test", NOW).await.is_err(), "{shares:?}");
        }
        assert_eq!(of_organisation(&house.store, "o1").await.unwrap(), [good]);
        assert_eq!(of_organisation(&house.store, "o2").await.unwrap(), []);
    }
}
