//! A believable organisation for trials, pictures and tests: departments, people, devices, and what they
//! used over some months. Everything goes in by the store's own doors, so that sums, budgets and alerts are
//! the ledger's, at the times at which they would have been noticed.
//!
//! Invariants: who there is and what they use follow from [`Plan`] alone: the same plan, the same ledger.
//! Nothing is written into a database in which somebody works already. No device of it can ever connect:
//! nobody has its key.

mod budgets;
mod people;
mod random;
mod usage;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, ensure};
use tokio::task::JoinSet;
use toktra_protocol::enrol::DeviceDescription;
use toktra_protocol::{Batch, Event, EventBody, Minute, UnixSeconds};
use toktra_store::directory::{self, Department, Organisation, User};
use toktra_store::enrolment::{self, Attempt, Grant, NewCertificate};
use toktra_store::period::{Day, Zone};
use toktra_store::{Ledger, Store, devices};

use crate::prices::CatalogPrices;
use people::{DEPARTMENTS, House};

/// Whom the audit trail names.
const ACTOR: &str = "demo-data";
/// Batches that wait for the ledger at once.
const BATCHES: usize = 500;
/// Most events of a batch, as from a device.
const EVENTS: usize = 500;
/// A device that is silent stopped so many days before the end.
const SILENT_DAYS: i64 = 9;

/// What is to be filled in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// What else follows from it is the same every time.
    pub seed: u64,
    /// The present of the organisation: nothing in it is later.
    pub end: UnixSeconds,
    /// Days up to the end, its own included.
    pub days: u16,
    /// People.
    pub people: u32,
    /// Devices; the first belong to one person each.
    pub devices: u32,
}

/// How far it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// So many of all people and devices are there.
    Enrolled(u32, u32),
    /// So many of all days are booked, with so many events.
    Booked(u16, u16, u64),
}

/// What was filled in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filled {
    /// Events in the ledger.
    pub events: u64,
}

/// Fills an organisation in which nothing is yet.
pub async fn fill(
    store: &Store,
    organisation: &Organisation,
    plan: &Plan,
    mut progress: impl FnMut(Progress),
) -> anyhow::Result<Filled> {
    ensure!((1..=3660).contains(&plan.days), "demo data spans 1 to 3660 days");
    ensure!((1..=100_000).contains(&plan.people), "demo data has 1 to 100,000 people");
    ensure!((1..=100_000).contains(&plan.devices), "demo data has 1 to 100,000 devices");
    refuse_what_is_in_use(store).await?;
    let zone = Zone::named(&directory::time_zone(store, organisation).await?).context("the time zone")?;
    let last = zone.day(plan.end);
    let first = Day(last.0 - i64::from(plan.days) + 1);
    ensure!(first.0 > 0, "so many days before the end there was no 1970 yet");
    let house = House::new(plan);
    let calendar = Calendar { zone, first, last, end: plan.end };
    let departments = departments(store, organisation, calendar.start()).await?;
    let users = users(store, organisation, &departments, &house, &calendar, &mut progress).await?;
    enrol(store, organisation, (&departments, &users), &house, &calendar, &mut progress).await?;
    let budgets = budgets::Sums::of(&house, &calendar);
    budgets::create(store, organisation, (&departments, &users), &budgets, calendar.start()).await?;
    budgets::declare(store, organisation, calendar.start()).await?;
    let events = book(store, &house, &calendar, &mut progress).await?;
    finish(store, organisation, &house, &calendar).await?;
    Ok(Filled { events })
}

/// Everything that the plan's devices record, for whoever wants to count it: the device's place in the
/// plan, and its events in order.
pub fn events(plan: &Plan, zone: &Zone) -> Vec<(usize, Vec<(Minute, EventBody)>)> {
    let last = zone.day(plan.end);
    let calendar =
        Calendar { zone: zone.clone(), first: Day(last.0 - i64::from(plan.days) + 1), last, end: plan.end };
    let house = House::new(plan);
    let all = house.machines.iter().enumerate().map(|(index, machine)| {
        let of_day = |day| usage::of_day(&house, machine, &calendar, day);
        (index, calendar.days().flat_map(of_day).collect())
    });
    all.collect()
}

/// The days that are filled.
struct Calendar {
    zone: Zone,
    first: Day,
    last: Day,
    end: UnixSeconds,
}

impl Calendar {
    fn start(&self) -> UnixSeconds {
        self.zone.start(self.first)
    }

    fn days(&self) -> impl Iterator<Item = Day> + use<> {
        (self.first.0..=self.last.0).map(Day)
    }

    /// The moment at which a day's events have come.
    fn evening(&self, day: Day) -> UnixSeconds {
        UnixSeconds(self.zone.start(Day(day.0 + 1)).0.saturating_sub(60)).min(self.end)
    }
}

async fn refuse_what_is_in_use(store: &Store) -> anyhow::Result<()> {
    let mut found = devices::all(store).await?.len();
    for organisation in directory::organisations(store).await? {
        found += directory::departments(store, &organisation.id).await?.len();
        found += directory::users(store, &organisation.id).await?.len();
    }
    ensure!(
        found == 0,
        "this database is in use: it has {found} departments, people and devices, and demo data would mix \
         with what they used. Make another data directory with `toktra-server init --data NEW …`, and fill \
         that with `toktra-server demo-data --data NEW`"
    );
    Ok(())
}

async fn departments(
    store: &Store,
    organisation: &Organisation,
    now: UnixSeconds,
) -> anyhow::Result<Vec<Department>> {
    let mut made: Vec<Department> = Vec::new();
    for department in &DEPARTMENTS {
        let parent = department.parent.and_then(|parent| made.get(parent));
        let name = department.name;
        made.push(directory::create_department_within(store, organisation, parent, name, ACTOR, now).await?);
    }
    Ok(made)
}

async fn users(
    store: &Store,
    organisation: &Organisation,
    departments: &[Department],
    house: &House,
    calendar: &Calendar,
    progress: &mut impl FnMut(Progress),
) -> anyhow::Result<Vec<User>> {
    let all = house.total();
    let mut made = Vec::with_capacity(house.people.len());
    for person in &house.people {
        let department = departments.get(person.department);
        let now = calendar.start();
        made.push(directory::create_user(store, organisation, department, &person.email, ACTOR, now).await?);
        if made.len().is_multiple_of(100) {
            progress(Progress::Enrolled(u32::try_from(made.len()).unwrap_or(u32::MAX), all));
        }
    }
    Ok(made)
}

async fn enrol(
    store: &Store,
    organisation: &Organisation,
    (departments, users): (&[Department], &[User]),
    house: &House,
    calendar: &Calendar,
    progress: &mut impl FnMut(Progress),
) -> anyhow::Result<()> {
    let (before, all) = (house.people.len(), house.total());
    for (index, machine) in house.machines.iter().enumerate() {
        let department = departments.get(machine.department);
        let user = machine.person.and_then(|person| users.get(person));
        let now = calendar.start();
        let token = machine.hexadecimal("token");
        let grant = Grant { organisation, department, user };
        enrolment::create_token(store, &token, grant, now.plus(3600), ACTOR, now).await?;
        let certificate = NewCertificate {
            serial: machine.hexadecimal("serial"),
            // Nobody's: rotations and revocation lists never come across it.
            issuer: "demo".to_owned(),
            root: "demo".to_owned(),
            not_before: now,
            not_after: calendar.end.plus(machine.certificate_days * 24 * 60 * 60),
            der: String::new(),
            chain_pem: String::new(),
            public_key: machine.hexadecimal("key"),
        };
        let description = DeviceDescription {
            hostname: machine.hostname.clone(),
            platform: machine.platform.to_owned(),
            agent_version: machine.agent_version.to_owned(),
            hardware: None,
        };
        let attempt = Attempt {
            token_hash: &token,
            public_key: &machine.hexadecimal("key"),
            description: &description,
            address: "192.0.2.1",
            device: machine.id,
        };
        enrolment::enrol(store, &attempt, now, |_, _| Ok(certificate)).await?;
        if (index + 1).is_multiple_of(100) {
            progress(Progress::Enrolled(u32::try_from(before + index + 1).unwrap_or(u32::MAX), all));
        }
    }
    Ok(())
}

/// Books day after day, each at its evening.
async fn book(
    store: &Store,
    house: &House,
    calendar: &Calendar,
    progress: &mut impl FnMut(Progress),
) -> anyhow::Result<u64> {
    let clock = Arc::new(AtomicU64::new(calendar.start().0));
    let now = Arc::clone(&clock);
    let (ledger, writer) = Ledger::start(store.clone(), Box::new(CatalogPrices), move || {
        UnixSeconds(now.load(Ordering::Relaxed))
    });
    let mut sequences = vec![0_u64; house.machines.len()];
    let (mut booked, mut events) = (0, 0);
    for day in calendar.days() {
        clock.store(calendar.evening(day).0, Ordering::Relaxed);
        for (machines, sequences) in house.machines.chunks(BATCHES).zip(sequences.chunks_mut(BATCHES)) {
            let mut batches = JoinSet::new();
            for (machine, sequence) in machines.iter().zip(sequences) {
                let batch = batch(usage::of_day(house, machine, calendar, day), sequence);
                events += batch.events.len() as u64;
                if !batch.events.is_empty() {
                    let (ledger, device) = (ledger.clone(), machine.id);
                    batches.spawn(async move { ledger.book(device, batch).await });
                }
            }
            while let Some(done) = batches.join_next().await {
                done??;
            }
        }
        booked += 1;
        progress(Progress::Booked(
            booked,
            u16::try_from(calendar.days().count()).unwrap_or(u16::MAX),
            events,
        ));
    }
    for device in devices::all(store).await? {
        let silent = house.silent().is_some_and(|machine| machine.id.to_string() == device.id);
        if !silent {
            let behind = i64::from(device.id.starts_with('0'));
            let applied = u64::try_from(device.directive_version - behind).ok();
            ledger.seen(device.device_id()?, applied.filter(|&version| version > 0));
        }
        tokio::task::yield_now().await;
    }
    drop(ledger);
    writer.await?;
    Ok(events)
}

fn batch(bodies: Vec<(Minute, EventBody)>, sequence: &mut u64) -> Batch {
    let number = |(minute, body)| {
        *sequence += 1;
        Event { sequence: *sequence, minute, body }
    };
    Batch { events: bodies.into_iter().take(EVENTS).map(number).collect() }
}

/// What an administrator has done lately.
async fn finish(
    store: &Store,
    organisation: &Organisation,
    house: &House,
    calendar: &Calendar,
) -> anyhow::Result<()> {
    if let Some(machine) = house.locked() {
        let message = "This laptop was reported lost. Call the service desk.";
        devices::set_lock(store, machine.id, Some(message), ACTOR, calendar.end).await?;
    }
    budgets::ask(store, organisation, house, calendar.end).await
}
