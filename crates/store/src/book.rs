//! The budget book: everything that a device's directive says of budgets, flags, perks and locks of
//! persons, as of one moment of the database, so that ten thousand directives need no query each.
//!
//! Invariants: spend and each device's acknowledged number are of one snapshot, so that a device
//! which adds what it recorded beyond that number counts nothing twice and misses nothing.

use std::collections::{BTreeMap, HashMap};

use sqlx::{FromRow, SqliteConnection};
use toktra_protocol::budget::{BUDGETS_LIMIT, Budget, Period};
use toktra_protocol::directive::{FF_BUDGET_HARD_CAPS, FF_TOKEN_PERKS};
use toktra_protocol::{Block, BlockReason, DeviceId, Lock, UnixSeconds};

use crate::allowances::{self, Allowances, Standing};
use crate::budgets::{self, BudgetRow, period_name};
use crate::devices::Device;
use crate::exemptions::{self, Granted};
use crate::period::Days;
use crate::spend::Spent;
use crate::terms::Terms;
use crate::{Store, StoreError, alerts, devices, flags, locks, note_change};

/// A snapshot.
#[derive(Clone, Debug)]
pub struct Book {
    terms: Terms,
    taken_at: UnixSeconds,
    standings: HashMap<String, Budget>,
    granted: HashMap<String, Vec<Granted>>,
    flags: HashMap<String, BTreeMap<String, bool>>,
    locks: HashMap<String, String>,
    allowances: Allowances,
    devices: HashMap<DeviceId, Seen>,
    next_turn: Option<UnixSeconds>,
}

/// A device as of the snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Spend counts its events up to this number.
    pub acknowledged: u64,
    /// The snapshot has what a directive of this version says.
    pub directive_version: i64,
}

impl Seen {
    fn new(number: i64, directive_version: i64) -> Result<Self, StoreError> {
        let acknowledged = number.try_into();
        let acknowledged = acknowledged.map_err(|_| StoreError::Corrupt("devices.acknowledged_sequence"))?;
        Ok(Self { acknowledged, directive_version })
    }
}

/// What keeps a device from providers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hold {
    /// Its own lock, or else its user's.
    pub lock: Option<Lock>,
    /// A passed cap's block, or an administrator's.
    pub block: Option<Block>,
}

impl Book {
    /// Takes one.
    pub async fn read(store: &Store, now: UnixSeconds) -> Result<Self, StoreError> {
        let mut transaction = store.reader().begin().await?;
        let seen = seen(&mut transaction).await?;
        Self::read_in(&mut transaction, seen, now).await
    }

    /// Takes one, and the devices' rows of the same moment.
    pub async fn read_with_devices(
        store: &Store,
        now: UnixSeconds,
    ) -> Result<(Self, Vec<Device>), StoreError> {
        let mut transaction = store.reader().begin().await?;
        Self::read_with_devices_in(&mut transaction, now).await
    }

    /// The same in the caller's transaction.
    pub(crate) async fn read_with_devices_in(
        connection: &mut SqliteConnection,
        now: UnixSeconds,
    ) -> Result<(Self, Vec<Device>), StoreError> {
        let devices = devices::all_in(connection).await?;
        let seen = devices.iter().map(|device| {
            let seen = Seen::new(device.acknowledged_sequence, device.directive_version)?;
            Ok((device.device_id()?, seen))
        });
        let seen = seen.collect::<Result<_, StoreError>>()?;
        Ok((Self::read_in(connection, seen, now).await?, devices))
    }

    async fn read_in(
        connection: &mut SqliteConnection,
        devices: HashMap<DeviceId, Seen>,
        now: UnixSeconds,
    ) -> Result<Self, StoreError> {
        let terms = Terms::read(connection).await?;
        let standings = standings(connection, &terms, now).await?;
        let mut granted: HashMap<_, Vec<_>> = HashMap::new();
        for exemption in exemptions::in_force(connection, now).await? {
            granted.entry(exemption.budget_id.clone()).or_default().push(exemption);
        }
        let ends = granted.values().flatten().filter_map(|granted| u64::try_from(granted.until).ok());
        let turns = standings.values().map(|standing| standing.period_end).chain(ends.map(UnixSeconds));
        let allowances = Allowances::read(connection, &terms, now).await?;
        let next_turn = turns.chain(allowances.next_turn()).min();
        Ok(Self {
            taken_at: now,
            granted,
            flags: flags::all(connection).await?,
            locks: locks::all(connection).await?,
            allowances,
            devices,
            next_turn,
            standings,
            terms,
        })
    }

    /// When it was taken.
    pub fn taken_at(&self) -> UnixSeconds {
        self.taken_at
    }

    /// The change counter of that moment.
    pub fn counter(&self) -> Option<i64> {
        self.terms.counter()
    }

    /// When the next period ends, the next exemption, or the month of somebody's perks.
    pub fn next_turn(&self) -> Option<UnixSeconds> {
        self.next_turn
    }

    /// The budgets that apply to a device, the one with least left first. A budget is hard here only
    /// if the organisation's flag is on.
    pub fn applying(&self, device: &Device) -> Vec<Budget> {
        let (department, user) = (device.department_id.as_deref(), device.user_id.as_deref());
        let hard_caps = self.flags(&device.organisation_id).get(FF_BUDGET_HARD_CAPS).copied();
        let rows = self.terms.applying(&device.organisation_id, department, user);
        let mut budgets: Vec<_> = rows
            .into_iter()
            .filter_map(|row| self.standings.get(&row.id).cloned())
            .map(|standing| Budget {
                hard: standing.hard && hard_caps.unwrap_or_default(),
                exempt_until: self.exempt_until(&standing.id, &device.id, user),
                ..standing
            })
            .collect();
        // Shares of the limit, without a division: a/b < c/d is ad < cb.
        budgets.sort_by(|a, b| {
            let left = |of: &Budget, other: &Budget| u128::from(of.remaining()) * u128::from(other.limit);
            left(a, b).cmp(&left(b, a)).then_with(|| a.id.cmp(&b.id))
        });
        budgets.truncate(BUDGETS_LIMIT);
        budgets
    }

    /// What holds a device: for its directive, and for whoever lists devices.
    pub fn hold(&self, device: &Device, now: UnixSeconds) -> Hold {
        self.hold_of(device, &self.applying(device), now)
    }

    /// The same where the budgets that apply are known already.
    pub fn hold_of(&self, device: &Device, budgets: &[Budget], now: UnixSeconds) -> Hold {
        let lock = device.lock_message.as_deref().or_else(|| self.lock_of(device));
        Hold {
            lock: lock.map(|message| Lock { message: message.to_owned() }),
            block: self.block(device, budgets, now),
        }
    }

    /// The block in force: of the caps that were passed, the one that ends last, unless an
    /// administrator blocked every provider without an end.
    fn block(&self, device: &Device, budgets: &[Budget], now: UnixSeconds) -> Option<Block> {
        let manual = device.block();
        if manual.as_ref().is_some_and(|block| block.providers.is_empty()) {
            return manual;
        }
        let exempt = |budget: &Budget| budget.exempt_until.is_some_and(|until| until > now);
        let passed = budgets
            .iter()
            .filter(|budget| budget.hard && budget.is_passed() && !exempt(budget) && budget.period_end > now)
            .max_by_key(|budget| budget.period_end);
        let Some(passed) = passed else { return manual };
        let message = match self.message(device, &passed.id) {
            Some(message) => message.to_owned(),
            None => {
                format!("The budget “{}” is used up. Ask for more, or wait for its next period.", passed.name)
            }
        };
        Some(Block {
            reason: BlockReason::Budget,
            message,
            providers: Vec::new(),
            until: Some(passed.period_end),
            budget: Some(passed.id.clone()),
        })
    }

    /// Where a budget stands, whatever the flag says; none if there is no such budget.
    pub fn standing(&self, budget: &str) -> Option<&Budget> {
        self.standings.get(budget)
    }

    /// The message that an administrator gave a budget.
    fn message(&self, device: &Device, budget: &str) -> Option<&str> {
        let (department, user) = (device.department_id.as_deref(), device.user_id.as_deref());
        let rows = self.terms.applying(&device.organisation_id, department, user);
        let row = rows.into_iter().find(|row| row.id == budget)?;
        Some(row.settings.message.as_str()).filter(|message| !message.is_empty())
    }

    /// The flags of an organisation that were ever set.
    pub fn flags(&self, organisation: &str) -> BTreeMap<String, bool> {
        self.flags.get(organisation).cloned().unwrap_or_default()
    }

    /// The lock of the device's user.
    pub fn lock_of(&self, device: &Device) -> Option<&str> {
        device.user_id.as_deref().and_then(|user| self.locks.get(user)).map(String::as_str)
    }

    /// Where the device's user stands with perks: enrolled, while the organisation has them on.
    pub fn perks(&self, device: &Device) -> Option<Standing<'_>> {
        let flags = self.flags.get(&device.organisation_id)?;
        let is_on = flags.get(FF_TOKEN_PERKS).copied().unwrap_or_default();
        let standing = self.allowances.of(&device.organisation_id, device.user_id.as_deref()?);
        standing.filter(|_| is_on)
    }

    /// The device as of this moment.
    pub fn seen(&self, device: DeviceId) -> Option<Seen> {
        self.devices.get(&device).copied()
    }

    fn exempt_until(&self, budget: &str, device: &str, user: Option<&str>) -> Option<UnixSeconds> {
        let granted = self.granted.get(budget)?.iter().filter(|granted| granted.covers(device, user));
        granted.filter_map(|granted| u64::try_from(granted.until).ok()).max().map(UnixSeconds)
    }
}

/// Tells the devices for which a period, an exemption or the month of their perks ended after `since`
/// and up to `now`, where that changes what they may do.
pub async fn turn(store: &Store, since: UnixSeconds, now: UnixSeconds) -> Result<(), StoreError> {
    let mut transaction = store.begin().await?;
    let terms = Terms::read(&mut transaction).await?;
    let mut changed = false;
    for ended in exemptions::ended(&mut transaction, since, now).await? {
        exemptions::grow(&mut transaction, &ended).await?;
        changed = true;
    }
    for budget in terms.budgets() {
        let zone = terms.zone(&budget.scope.organisation);
        let start = budget.days(zone, now).start;
        if zone.start(start) <= since || !alerts::was_passed_before(&mut transaction, budget, start).await? {
            continue;
        }
        budgets::grow(&mut transaction, &budget.scope).await?;
        changed = true;
    }
    for organisation in allowances::with_tiers(&mut transaction).await? {
        let zone = terms.zone(&organisation);
        if zone.month(since) != zone.month(now) {
            allowances::grow_enrolled(&mut transaction, &organisation).await?;
            changed = true;
        }
    }
    if changed {
        note_change(&mut transaction).await?;
        transaction.commit().await?;
    }
    Ok(())
}

async fn seen(connection: &mut SqliteConnection) -> Result<HashMap<DeviceId, Seen>, StoreError> {
    let rows: Vec<(String, i64, i64)> =
        sqlx::query_as("SELECT id, acknowledged_sequence, directive_version FROM devices")
            .fetch_all(connection)
            .await?;
    rows.into_iter()
        .map(|(id, number, version)| {
            let id = id.parse().map_err(|_| StoreError::Corrupt("devices.id"))?;
            Ok((id, Seen::new(number, version)?))
        })
        .collect()
}

/// Where every budget stands, with one statement for each organisation and length of period.
async fn standings(
    connection: &mut SqliteConnection,
    terms: &Terms,
    now: UnixSeconds,
) -> Result<HashMap<String, Budget>, StoreError> {
    let mut groups: HashMap<_, Vec<&BudgetRow>> = HashMap::new();
    for budget in terms.budgets() {
        let key = (budget.scope.organisation.clone(), budget.settings.period);
        groups.entry(key).or_default().push(budget);
    }
    let mut standings = HashMap::new();
    for ((organisation, period), budgets) in groups {
        let zone = terms.zone(&organisation);
        let days = Days::of(period, zone.day(now));
        let spent = sums(connection, &organisation, period, days).await?;
        let before = match budgets.iter().any(|budget| budget.days_before(zone, now).is_some()) {
            true => sums(connection, &organisation, period, days.before(period)).await?,
            false => HashMap::new(),
        };
        let of = |sums: &HashMap<String, Spent>, id| sums.get(id).copied().unwrap_or_default();
        for budget in budgets {
            let before = budget.days_before(zone, now).map(|_| of(&before, &budget.id));
            let standing = budget.standing(zone, now, &of(&spent, &budget.id), before.as_ref());
            standings.insert(budget.id.clone(), standing);
        }
    }
    Ok(standings)
}

#[derive(FromRow)]
struct SumRow {
    budget_id: String,
    #[sqlx(flatten)]
    spent: Spent,
}

async fn sums(
    connection: &mut SqliteConnection,
    organisation: &str,
    period: Period,
    days: Days,
) -> Result<HashMap<String, Spent>, StoreError> {
    let rows: Vec<SumRow> = sqlx::query_as(
        "SELECT b.id AS budget_id, CAST(SUM(tokens_low) AS BIGINT) AS tokens_low,
            CAST(SUM(tokens_point) AS BIGINT) AS tokens_point,
            CAST(SUM(tokens_high) AS BIGINT) AS tokens_high,
            CAST(SUM(micros_low) AS BIGINT) AS micros_low,
            CAST(SUM(micros_point) AS BIGINT) AS micros_point,
            CAST(SUM(micros_high) AS BIGINT) AS micros_high,
            CAST(SUM(tokens_unpriced) AS BIGINT) AS tokens_unpriced
         FROM budgets b
         INNER JOIN spend_daily s ON s.organisation_id = b.organisation_id AND s.scope = b.scope
            AND s.scope_id = b.scope_id AND s.day >= $3 AND s.day < $4
         WHERE b.organisation_id = $1 AND b.period = $2 GROUP BY b.id",
    )
    .bind(organisation)
    .bind(period_name(period))
    .bind(days.start.0)
    .bind(days.end.0)
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(|row| (row.budget_id, row.spent)).collect())
}
