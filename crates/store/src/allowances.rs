//! What each person may use personally, as of a moment: the part of the budget book that a directive's
//! `perks` are made of, and what decides how much a month leaves to the next.
//!
//! Invariants: tiers, enrolments and bonuses of a month are what was set up to its end; a later change
//! does not reach back. What rolls over comes from the month before alone, and from what that month
//! itself allowed, so that it never compounds.

use std::collections::HashMap;
use std::sync::Arc;

use sqlx::{FromRow, Sqlite, SqliteConnection, Transaction};
use toktra_protocol::UnixSeconds;
use toktra_protocol::personal::{Month, Perks};

use crate::StoreError;
use crate::period::Zone;
use crate::perks::TierTerms;
use crate::terms::Terms;

/// How long after its end a month takes totals: devices that were away.
pub const OPEN_AFTER_S: u64 = 7 * 24 * 60 * 60;

/// The oldest month that takes totals; those before it are over for good.
pub fn open_since(zone: &Zone, now: UnixSeconds) -> Month {
    zone.month(UnixSeconds(now.0.saturating_sub(OPEN_AFTER_S)))
}

/// What everyone may use who is enrolled.
#[derive(Clone, Debug, Default)]
pub(crate) struct Allowances {
    organisations: HashMap<String, OfOrganisation>,
}

#[derive(Clone, Debug)]
struct OfOrganisation {
    month: Month,
    month_end: UnixSeconds,
    open_since: Month,
    current: HashMap<String, Allowance>,
    before: HashMap<String, Allowance>,
    people: HashMap<Arc<str>, usize>,
}

/// What a person may use in a month.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// The tier's identifier.
    pub tier_id: Arc<str>,
    /// The tier's name.
    pub tier: Arc<str>,
    /// What the tier allows.
    pub terms: TierTerms,
    /// Tokens that the month has besides, the person's and the tier's.
    pub bonus_tokens: u64,
}

impl Allowance {
    /// What the month leaves to the next one if so much of it was used.
    pub fn left_over(&self, used: u64) -> u64 {
        let granted = self.terms.monthly_tokens.saturating_add(self.bonus_tokens);
        granted.saturating_sub(used).min(self.terms.rollover_tokens)
    }
}

/// Where a person stands who is enrolled.
#[derive(Clone, Copy, Debug)]
pub struct Standing<'a> {
    /// The organisation's month.
    pub month: Month,
    /// When it ends.
    pub month_end: UnixSeconds,
    /// The oldest month that takes totals.
    pub open_since: Month,
    /// What they may use in it.
    pub allowance: &'a Allowance,
    /// What they could use in the month before, if they were enrolled.
    pub before: Option<&'a Allowance>,
    /// How many people are enrolled in their tier.
    pub people: usize,
}

impl Standing<'_> {
    /// What the directive says of it.
    pub fn perks(&self) -> Perks {
        Perks {
            tier: self.allowance.tier.to_string(),
            month: self.month,
            month_end: self.month_end,
            monthly_tokens: self.allowance.terms.monthly_tokens,
            bonus_tokens: self.allowance.bonus_tokens,
            rollover_tokens: self.allowance.terms.rollover_tokens,
        }
    }
}

impl Allowances {
    /// Reads them all, in the caller's transaction.
    pub(crate) async fn read(
        connection: &mut SqliteConnection,
        terms: &Terms,
        now: UnixSeconds,
    ) -> Result<Self, StoreError> {
        let mut organisations = HashMap::new();
        for organisation in with_tiers(connection).await? {
            let zone = terms.zone(&organisation);
            let month = zone.month(now);
            let current = of_month(connection, &organisation, month).await?;
            let before = match month.plus(-1) {
                Some(before) => of_month(connection, &organisation, before).await?,
                None => HashMap::new(),
            };
            let mut people = HashMap::new();
            for allowance in current.values() {
                *people.entry(Arc::clone(&allowance.tier_id)).or_default() += 1;
            }
            let (month_end, open_since) = (zone.month_end(month), open_since(zone, now));
            let all = OfOrganisation { month, month_end, open_since, current, before, people };
            organisations.insert(organisation, all);
        }
        Ok(Self { organisations })
    }

    /// When the next month begins somewhere.
    pub(crate) fn next_turn(&self) -> Option<UnixSeconds> {
        self.organisations.values().map(|one| one.month_end).min()
    }

    pub(crate) fn of(&self, organisation: &str, user: &str) -> Option<Standing<'_>> {
        let all = self.organisations.get(organisation)?;
        let allowance = all.current.get(user)?;
        Some(Standing {
            month: all.month,
            month_end: all.month_end,
            open_since: all.open_since,
            allowance,
            before: all.before.get(user),
            people: all.people.get(&allowance.tier_id).copied().unwrap_or_default(),
        })
    }
}

/// A tier as of a month.
pub(crate) struct TierRow {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) is_removed: bool,
    pub(crate) terms: TierTerms,
}

/// The bonuses of a month.
pub(crate) struct Bonuses(HashMap<(String, String), u64>);

impl Bonuses {
    pub(crate) fn of_tier(&self, id: &str) -> u64 {
        self.of("tier", id)
    }

    pub(crate) fn of_user(&self, id: &str) -> u64 {
        self.of("user", id)
    }

    fn of(&self, scope: &str, id: &str) -> u64 {
        self.0.get(&(scope.to_owned(), id.to_owned())).copied().unwrap_or_default()
    }
}

/// The organisations that ever had a tier.
pub(crate) async fn with_tiers(connection: &mut SqliteConnection) -> Result<Vec<String>, StoreError> {
    Ok(sqlx::query_scalar("SELECT DISTINCT organisation_id FROM perk_tiers").fetch_all(connection).await?)
}

async fn of_month(
    connection: &mut SqliteConnection,
    organisation: &str,
    month: Month,
) -> Result<HashMap<String, Allowance>, StoreError> {
    let bonuses = bonuses(connection, organisation, month).await?;
    let tiers: HashMap<_, _> = tiers(connection, organisation, month)
        .await?
        .into_iter()
        .map(|row| {
            let allowance = Allowance {
                bonus_tokens: bonuses.of_tier(&row.id),
                tier_id: Arc::from(row.id.as_str()),
                tier: row.name.into(),
                terms: row.terms,
            };
            (row.id, allowance)
        })
        .collect();
    let enrolled = enrolments(connection, organisation, month).await?;
    Ok(enrolled
        .into_iter()
        .filter_map(|(user, tier)| {
            let of_tier = tiers.get(&tier)?;
            let bonus_tokens = of_tier.bonus_tokens.saturating_add(bonuses.of_user(&user));
            Some((user, Allowance { bonus_tokens, ..of_tier.clone() }))
        })
        .collect())
}

/// The tiers of an organisation, removed ones too, with what they allowed as of a month.
pub(crate) async fn tiers(
    connection: &mut SqliteConnection,
    organisation: &str,
    month: Month,
) -> Result<Vec<TierRow>, StoreError> {
    #[derive(FromRow)]
    struct Row {
        id: String,
        name: String,
        removed: i64,
        monthly_tokens: i64,
        rollover_tokens: i64,
    }
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT t.id, t.name, t.removed, p.monthly_tokens, p.rollover_tokens FROM perk_tiers t
         INNER JOIN perk_terms p ON p.tier_id = t.id AND p.month = (
            SELECT MAX(q.month) FROM perk_terms q WHERE q.tier_id = t.id AND q.month <= $2)
         WHERE t.organisation_id = $1",
    )
    .bind(organisation)
    .bind(month.to_string())
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|row| {
            let tokens = |column| u64::try_from(column).map_err(|_| StoreError::Corrupt("perk_terms"));
            Ok(TierRow {
                terms: TierTerms {
                    monthly_tokens: tokens(row.monthly_tokens)?,
                    rollover_tokens: tokens(row.rollover_tokens)?,
                },
                id: row.id,
                name: row.name,
                is_removed: row.removed != 0,
            })
        })
        .collect()
}

/// Who was enrolled in which tier as of a month, by the user's identifier.
pub(crate) async fn enrolments(
    connection: &mut SqliteConnection,
    organisation: &str,
    month: Month,
) -> Result<HashMap<String, String>, StoreError> {
    let rows: Vec<(String, String)> = sqlx::query_as(
        "SELECT e.user_id, e.tier_id FROM perk_enrolments e
         INNER JOIN users u ON u.id = e.user_id AND u.organisation_id = $1
         WHERE e.tier_id IS NOT NULL AND e.month = (
            SELECT MAX(f.month) FROM perk_enrolments f WHERE f.user_id = e.user_id AND f.month <= $2)",
    )
    .bind(organisation)
    .bind(month.to_string())
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().collect())
}

/// The bonuses of a month.
pub(crate) async fn bonuses(
    connection: &mut SqliteConnection,
    organisation: &str,
    month: Month,
) -> Result<Bonuses, StoreError> {
    let rows: Vec<(String, String, i64)> = sqlx::query_as(
        "SELECT scope, scope_id, tokens FROM perk_bonuses WHERE organisation_id = $1 AND month = $2",
    )
    .bind(organisation)
    .bind(month.to_string())
    .fetch_all(connection)
    .await?;
    let bonuses = rows.into_iter().map(|(scope, id, tokens)| {
        let tokens = u64::try_from(tokens).map_err(|_| StoreError::Corrupt("perk_bonuses.tokens"))?;
        Ok(((scope, id), tokens))
    });
    Ok(Bonuses(bonuses.collect::<Result<_, StoreError>>()?))
}

/// Raises the version of a user's devices' directives.
pub(crate) async fn grow_user(
    transaction: &mut Transaction<'static, Sqlite>,
    user: &str,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE devices SET directive_version = directive_version + 1 WHERE user_id = $1")
        .bind(user)
        .execute(&mut **transaction)
        .await?;
    Ok(())
}

/// The same for everyone who was ever enrolled in a tier.
pub(crate) async fn grow_tier(
    transaction: &mut Transaction<'static, Sqlite>,
    tier: &str,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE devices SET directive_version = directive_version + 1
         WHERE user_id IN (SELECT user_id FROM perk_enrolments WHERE tier_id = $1)",
    )
    .bind(tier)
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

/// The same for everyone of an organisation who was ever enrolled.
pub(crate) async fn grow_enrolled(
    transaction: &mut Transaction<'static, Sqlite>,
    organisation: &str,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE devices SET directive_version = directive_version + 1
         WHERE organisation_id = $1 AND user_id IN (SELECT user_id FROM perk_enrolments)",
    )
    .bind(organisation)
    .execute(&mut **transaction)
    .await?;
    Ok(())
}
