//! Token Perks as administrators set them: tiers, who is enrolled in which, and bonuses of a month. Who
//! uses personal mode and how much is not here, nor anywhere with a name; the vault is a database of
//! its own, and of it only sums over at least five people come here ([`keep_sums`]).
//!
//! Invariants: what is set holds from the organisation's month of that moment on, and changes no month
//! before it. Every change is a row of the audit trail and raises the version of the directives that it
//! changes. Administrators' deeds are audited, use never is.

use sqlx::{FromRow, Sqlite, Transaction};
use toktra_protocol::UnixSeconds;
use toktra_protocol::personal::Month;
use toktra_protocol::personal::wire::TOKENS_LIMIT;
use uuid::Uuid;

use crate::allowances;
use crate::audit::{Deed, record};
use crate::directory::{Organisation, User};
use crate::terms::Terms;
use crate::{Store, StoreError, column, note_change};

/// Longest name of a tier, in bytes.
pub const NAME_LIMIT: usize = 64;
/// How many months ahead a bonus may be given.
pub const BONUS_MONTHS: i32 = 12;

/// What a tier allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TierTerms {
    /// Tokens of every month; 1 to [`TOKENS_LIMIT`].
    pub monthly_tokens: u64,
    /// Most that a month may leave to the next; up to [`TOKENS_LIMIT`].
    pub rollover_tokens: u64,
}

/// A tier as of this month.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tier {
    /// UUID as text.
    pub id: String,
    /// Unique in its organisation.
    pub name: String,
    /// What it allows.
    pub terms: TierTerms,
    /// How many people are enrolled in it.
    pub enrolled: usize,
    /// Tokens that everyone in it has besides this month.
    pub bonus_tokens: u64,
}

/// Somebody who is enrolled. Says nothing of whether they use it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enrolled {
    /// Their address.
    pub email: String,
    /// The tier's name.
    pub tier: String,
    /// Tokens that they have besides this month, the tier's bonus apart.
    pub bonus_tokens: u64,
}

/// Who gets a bonus.
#[derive(Clone, Copy, Debug)]
pub enum Beneficiary<'a> {
    /// One person.
    User(&'a User),
    /// Everyone in a tier.
    Tier(&'a Tier),
}

/// A month's sum over at least five people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sum {
    /// The month.
    pub month: Month,
    /// The tier's identifier; `None`: of no tier by itself.
    pub tier_id: Option<String>,
    /// Whether it takes in every tier that has no sum of its own.
    pub others: bool,
    /// Tokens.
    pub tokens: u64,
}

/// A [`Sum`] with the tier's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedSum {
    /// The month.
    pub month: Month,
    /// Which people's.
    pub of: String,
    /// Tokens.
    pub tokens: u64,
}

/// Why a change of perks was not made.
#[derive(Debug, thiserror::Error)]
pub enum PerkError {
    /// The name is empty, long or cannot be printed.
    #[error("a tier's name has 1 to {NAME_LIMIT} bytes, none of them a control character")]
    Name,
    /// An amount is out of range.
    #[error("a month has 1 to {TOKENS_LIMIT} tokens; a bonus and what rolls over may be none")]
    Amount,
    /// Somebody is enrolled in the tier.
    #[error("{0} people are enrolled in the tier; enrol them in another or remove them first")]
    InUse(usize),
    /// The person is in no tier.
    #[error("the user is not enrolled")]
    NotEnrolled,
    /// The month has passed, or is too far away.
    #[error("a bonus is for this month or one of the next {BONUS_MONTHS}")]
    Month,
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for PerkError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

impl TierTerms {
    fn check(self) -> Result<Self, PerkError> {
        let fits = (1..=TOKENS_LIMIT).contains(&self.monthly_tokens) && self.rollover_tokens <= TOKENS_LIMIT;
        if fits { Ok(self) } else { Err(PerkError::Amount) }
    }

    fn words(self) -> String {
        format!("{} tokens a month, of which {} may roll over", self.monthly_tokens, self.rollover_tokens)
    }
}

/// Makes a tier, or one anew that was removed.
pub async fn add_tier(
    store: &Store,
    organisation: &Organisation,
    name: &str,
    terms: TierTerms,
    actor: &str,
    now: UnixSeconds,
) -> Result<(), PerkError> {
    if !(1..=NAME_LIMIT).contains(&name.len()) || name.chars().any(char::is_control) || name.trim() != name {
        return Err(PerkError::Name);
    }
    let terms = terms.check()?;
    let mut change = Change::begin(store, organisation, actor, now).await?;
    let known: Option<(String, i64)> =
        sqlx::query_as("SELECT id, removed FROM perk_tiers WHERE organisation_id = $1 AND name = $2")
            .bind(&organisation.id)
            .bind(name)
            .fetch_optional(&mut *change.transaction)
            .await?;
    let id = match known {
        Some((_, 0)) => return Err(StoreError::Exists { kind: "tier", name: name.into() }.into()),
        Some((id, _)) => id,
        None => Uuid::now_v7().to_string(),
    };
    sqlx::query(
        "INSERT INTO perk_tiers (id, organisation_id, name, removed) VALUES ($1, $2, $3, 0)
         ON CONFLICT (id) DO UPDATE SET removed = 0",
    )
    .bind(&id)
    .bind(&organisation.id)
    .bind(name)
    .execute(&mut *change.transaction)
    .await?;
    change.set_terms(&id, terms).await?;
    change.finish("perk_tier_add", name, &terms.words()).await
}

/// Changes what a tier allows, from this month on.
pub async fn set_tier(
    store: &Store,
    organisation: &Organisation,
    tier: &Tier,
    terms: TierTerms,
    actor: &str,
    now: UnixSeconds,
) -> Result<(), PerkError> {
    let terms = terms.check()?;
    let mut change = Change::begin(store, organisation, actor, now).await?;
    change.set_terms(&tier.id, terms).await?;
    allowances::grow_tier(&mut change.transaction, &tier.id).await?;
    change.finish("perk_tier_set", &tier.name, &terms.words()).await
}

/// Removes a tier in which nobody is enrolled.
pub async fn remove_tier(
    store: &Store,
    organisation: &Organisation,
    tier: &Tier,
    actor: &str,
    now: UnixSeconds,
) -> Result<(), PerkError> {
    let mut change = Change::begin(store, organisation, actor, now).await?;
    let enrolled = allowances::enrolments(&mut change.transaction, &organisation.id, change.month).await?;
    match enrolled.values().filter(|id| **id == tier.id).count() {
        0 => {}
        people => return Err(PerkError::InUse(people)),
    }
    sqlx::query("UPDATE perk_tiers SET removed = 1 WHERE id = $1")
        .bind(&tier.id)
        .execute(&mut *change.transaction)
        .await?;
    change.finish("perk_tier_remove", &tier.name, "").await
}

/// Enrols somebody in a tier, or moves them to it; this month counts as a whole.
pub async fn enrol(
    store: &Store,
    organisation: &Organisation,
    user: &User,
    tier: &Tier,
    actor: &str,
    now: UnixSeconds,
) -> Result<(), PerkError> {
    let mut change = Change::begin(store, organisation, actor, now).await?;
    change.set_enrolment(&user.id, Some(&tier.id)).await?;
    change.finish("perk_enrol", &user.email, &tier.name).await
}

/// Ends somebody's enrolment at once. What they had recorded stays theirs to list and to delete.
pub async fn remove(
    store: &Store,
    organisation: &Organisation,
    user: &User,
    actor: &str,
    now: UnixSeconds,
) -> Result<(), PerkError> {
    let mut change = Change::begin(store, organisation, actor, now).await?;
    let enrolled = allowances::enrolments(&mut change.transaction, &organisation.id, change.month).await?;
    if !enrolled.contains_key(&user.id) {
        return Err(PerkError::NotEnrolled);
    }
    change.set_enrolment(&user.id, None).await?;
    change.finish("perk_remove", &user.email, "").await
}

/// Gives tokens besides for a month, in place of what was given before; none takes it back.
pub async fn set_bonus(
    store: &Store,
    organisation: &Organisation,
    to: Beneficiary<'_>,
    (month, tokens): (Option<Month>, u64),
    actor: &str,
    now: UnixSeconds,
) -> Result<Month, PerkError> {
    if tokens > TOKENS_LIMIT {
        return Err(PerkError::Amount);
    }
    let mut change = Change::begin(store, organisation, actor, now).await?;
    let month = month.unwrap_or(change.month);
    let last = change.month.plus(BONUS_MONTHS).unwrap_or(change.month);
    if !(change.month..=last).contains(&month) {
        return Err(PerkError::Month);
    }
    let (scope, id, name) = match to {
        Beneficiary::User(user) => ("user", &user.id, &user.email),
        Beneficiary::Tier(tier) => ("tier", &tier.id, &tier.name),
    };
    let sql = match tokens {
        0 => {
            "DELETE FROM perk_bonuses WHERE organisation_id = $1 AND month = $2 AND scope = $3 AND scope_id = $4
                AND tokens <> $5"
        }
        _ => {
            "INSERT INTO perk_bonuses (organisation_id, month, scope, scope_id, tokens)
             VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT (organisation_id, month, scope, scope_id) DO UPDATE SET tokens = excluded.tokens"
        }
    };
    sqlx::query(sql)
        .bind(&organisation.id)
        .bind(month.to_string())
        .bind(scope)
        .bind(id)
        .bind(column(tokens))
        .execute(&mut *change.transaction)
        .await?;
    match to {
        Beneficiary::User(user) => allowances::grow_user(&mut change.transaction, &user.id).await?,
        Beneficiary::Tier(tier) => allowances::grow_tier(&mut change.transaction, &tier.id).await?,
    }
    change.finish("perk_bonus", name, &format!("{tokens} tokens in {month}")).await?;
    Ok(month)
}

/// The tiers of an organisation, by name.
pub async fn tiers(
    store: &Store,
    organisation: &Organisation,
    now: UnixSeconds,
) -> Result<Vec<Tier>, StoreError> {
    let mut transaction = store.reader().begin().await?;
    let month = this_month(&mut transaction, &organisation.id, now).await?;
    let tiers = allowances::tiers(&mut transaction, &organisation.id, month).await?;
    let enrolled = allowances::enrolments(&mut transaction, &organisation.id, month).await?;
    let bonuses = allowances::bonuses(&mut transaction, &organisation.id, month).await?;
    let mut tiers: Vec<_> = tiers
        .into_iter()
        .filter(|row| !row.is_removed)
        .map(|row| Tier {
            enrolled: enrolled.values().filter(|id| **id == row.id).count(),
            bonus_tokens: bonuses.of_tier(&row.id),
            id: row.id,
            name: row.name,
            terms: row.terms,
        })
        .collect();
    tiers.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(tiers)
}

/// The tier of this name.
pub async fn tier(
    store: &Store,
    organisation: &Organisation,
    name: &str,
    now: UnixSeconds,
) -> Result<Tier, StoreError> {
    let found = tiers(store, organisation, now).await?.into_iter().find(|tier| tier.name == name);
    found.ok_or_else(|| StoreError::NotFound { kind: "tier", name: name.into() })
}

/// Who is enrolled, by address.
pub async fn enrolled(
    store: &Store,
    organisation: &Organisation,
    now: UnixSeconds,
) -> Result<Vec<Enrolled>, StoreError> {
    let mut transaction = store.reader().begin().await?;
    let month = this_month(&mut transaction, &organisation.id, now).await?;
    let tiers = allowances::tiers(&mut transaction, &organisation.id, month).await?;
    let names: std::collections::HashMap<_, _> = tiers.into_iter().map(|tier| (tier.id, tier.name)).collect();
    let enrolled = allowances::enrolments(&mut transaction, &organisation.id, month).await?;
    let bonuses = allowances::bonuses(&mut transaction, &organisation.id, month).await?;
    let users: Vec<(String, String)> =
        sqlx::query_as("SELECT id, email FROM users WHERE organisation_id = $1 ORDER BY email")
            .bind(&organisation.id)
            .fetch_all(&mut *transaction)
            .await?;
    Ok(users
        .into_iter()
        .filter_map(|(id, email)| {
            let tier = names.get(enrolled.get(&id)?)?.clone();
            Some(Enrolled { email, tier, bonus_tokens: bonuses.of_user(&id) })
        })
        .collect())
}

/// Keeps the vault's sums of an organisation. Those that are known stay as they are.
pub async fn keep_sums(store: &Store, organisation: &str, sums: &[Sum]) -> Result<(), StoreError> {
    let mut transaction = store.begin().await?;
    for sum in sums {
        sqlx::query(
            "INSERT INTO perk_sums (organisation_id, month, tier_id, others, tokens)
             VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING",
        )
        .bind(organisation)
        .bind(sum.month.to_string())
        .bind(sum.tier_id.as_deref().unwrap_or_default())
        .bind(i64::from(sum.others))
        .bind(column(sum.tokens))
        .execute(&mut *transaction)
        .await?;
    }
    transaction.commit().await?;
    Ok(())
}

/// The sums of finished months, the newest first.
pub async fn sums(store: &Store, organisation: &Organisation) -> Result<Vec<NamedSum>, StoreError> {
    #[derive(FromRow)]
    struct Row {
        month: String,
        name: Option<String>,
        others: i64,
        tokens: i64,
    }
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT s.month, t.name, s.others, s.tokens FROM perk_sums s LEFT JOIN perk_tiers t ON t.id = s.tier_id
         WHERE s.organisation_id = $1 ORDER BY s.month DESC, s.others, t.name",
    )
    .bind(&organisation.id)
    .fetch_all(store.reader())
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(NamedSum {
                month: row.month.parse().map_err(|_| StoreError::Corrupt("perk_sums.month"))?,
                of: match (row.name, row.others != 0) {
                    (Some(name), false) => name,
                    (Some(name), true) => format!("{name} and all other tiers"),
                    (None, _) => "All other tiers".to_owned(),
                },
                tokens: u64::try_from(row.tokens).map_err(|_| StoreError::Corrupt("perk_sums.tokens"))?,
            })
        })
        .collect()
}

async fn this_month(
    connection: &mut sqlx::SqliteConnection,
    organisation: &str,
    now: UnixSeconds,
) -> Result<Month, StoreError> {
    Ok(Terms::read(connection).await?.zone(organisation).month(now))
}

/// A change under way.
struct Change<'a> {
    transaction: Transaction<'static, Sqlite>,
    organisation: &'a Organisation,
    actor: &'a str,
    now: UnixSeconds,
    month: Month,
}

impl<'a> Change<'a> {
    async fn begin(
        store: &Store,
        organisation: &'a Organisation,
        actor: &'a str,
        now: UnixSeconds,
    ) -> Result<Self, PerkError> {
        let mut transaction = store.begin().await?;
        let month = this_month(&mut transaction, &organisation.id, now).await?;
        Ok(Self { transaction, organisation, actor, now, month })
    }

    async fn set_terms(&mut self, tier: &str, terms: TierTerms) -> Result<(), PerkError> {
        sqlx::query(
            "INSERT INTO perk_terms (tier_id, month, monthly_tokens, rollover_tokens) VALUES ($1, $2, $3, $4)
             ON CONFLICT (tier_id, month) DO UPDATE SET monthly_tokens = excluded.monthly_tokens,
                rollover_tokens = excluded.rollover_tokens",
        )
        .bind(tier)
        .bind(self.month.to_string())
        .bind(column(terms.monthly_tokens))
        .bind(column(terms.rollover_tokens))
        .execute(&mut *self.transaction)
        .await?;
        Ok(())
    }

    async fn set_enrolment(&mut self, user: &str, tier: Option<&str>) -> Result<(), PerkError> {
        sqlx::query(
            "INSERT INTO perk_enrolments (user_id, month, tier_id) VALUES ($1, $2, $3)
             ON CONFLICT (user_id, month) DO UPDATE SET tier_id = excluded.tier_id",
        )
        .bind(user)
        .bind(self.month.to_string())
        .bind(tier)
        .execute(&mut *self.transaction)
        .await?;
        Ok(allowances::grow_user(&mut self.transaction, user).await?)
    }

    async fn finish(mut self, action: &str, subject: &str, detail: &str) -> Result<(), PerkError> {
        let organisation = Some(self.organisation.id.as_str());
        let deed = Deed { organisation, actor: self.actor, action, subject, detail };
        record(&mut self.transaction, self.now, deed).await?;
        note_change(&mut self.transaction).await?;
        self.transaction.commit().await?;
        Ok(())
    }
}
