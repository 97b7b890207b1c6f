//! The sums by day are the sums of the events, after any history.
#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use sqlx::Row as _;
use support::{DAY_S, House, NOW, usage};
use toktra_protocol::event::{Blocked, Dropped};
use toktra_protocol::{Batch, BlockReason, DeviceId, Event, EventBody, Minute, UnixSeconds};
use toktra_store::directory::{self, Department, User};
use toktra_store::period::Zone;
use toktra_store::retention::{self, Settings};

/// Days that sums are kept here.
const KEPT_DAYS: u32 = 31;

#[derive(Clone, Debug)]
enum Step {
    /// A device books one event of so many hours before now (after, if negative), of a kind and a service.
    Book {
        device: usize,
        hours: i64,
        tokens: u64,
        kind: u8,
        service: u8,
    },
    /// The same batch comes again.
    Repeat {
        device: usize,
    },
    Move {
        device: usize,
        department: usize,
        user: usize,
    },
    Wait {
        hours: u64,
    },
    Sweep,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let device = 0_usize..3;
    let step = prop_oneof![
        6 => (device.clone(), -30_i64..1_200, 0_u64..10_000, 0_u8..4, 0_u8..3).prop_map(
            |(device, hours, tokens, kind, service)| Step::Book { device, hours, tokens, kind, service }
        ),
        1 => device.clone().prop_map(|device| Step::Repeat { device }),
        2 => (device, 0_usize..3, 0_usize..3)
            .prop_map(|(device, department, user)| Step::Move { device, department, user }),
        1 => (0_u64..400).prop_map(|hours| Step::Wait { hours }),
        1 => Just(Step::Sweep),
    ];
    prop::collection::vec(step, 1..40)
}

/// Department, user, device, provider, service, application.
type Key = [String; 6];
/// By day and key: blocked, exchanges, tokens sent (low, point, high), cost (point), unpriced.
type Sums = BTreeMap<(i64, Key), [i64; 7]>;

/// Identifier, department, user, and the events it has sent.
type Member = (DeviceId, Option<Department>, Option<User>, Vec<Event>);

struct Model {
    house: House,
    zone: Zone,
    devices: Vec<Member>,
    sums: Sums,
}

impl Model {
    async fn new() -> Self {
        let house = House::new().await;
        let zone = Zone::named("Europe/Berlin").unwrap();
        directory::set_time_zone(&house.store, &house.acme, &zone, "test", NOW).await.unwrap();
        let settings = Settings { events_days: 10, usage_days: KEPT_DAYS, ..Settings::default() };
        retention::set(&house.store, &house.acme, settings, "test", NOW).await.unwrap();
        let mut devices = Vec::new();
        for department in [&house.vision, &house.sales, &house.research] {
            let id = house.device(department, None).await;
            devices.push((id, Some(department.clone()), None, Vec::new()));
        }
        Self { house, zone, devices, sums: Sums::new() }
    }

    async fn take(&mut self, step: &Step) {
        let now = self.house.now();
        match *step {
            Step::Book { device, hours, tokens, kind, service } => {
                let at = UnixSeconds(now.0.checked_add_signed(-hours * 3600).unwrap());
                self.book(device, at.minute(), tokens, (kind, service)).await;
            }
            Step::Repeat { device } => {
                let (id, .., events) = &self.devices[device];
                if !events.is_empty() {
                    self.house.ledger.book(*id, Batch { events: events.clone() }).await.unwrap();
                }
            }
            Step::Move { device, department, user } => {
                let department =
                    [None, Some(&self.house.vision), Some(&self.house.sales)][department].cloned();
                let user = [None, Some(&self.house.ada), Some(&self.house.bob)][user].cloned();
                let id = self.devices[device].0;
                self.house.move_device(id, department.as_ref(), user.as_ref()).await;
                self.devices[device].1 = department;
                self.devices[device].2 = user;
            }
            Step::Wait { hours } => self.house.set_clock(now.plus(hours * 3600)),
            Step::Sweep => self.sweep().await,
        }
    }

    async fn book(&mut self, device: usize, minute: Minute, tokens: u64, (kind, service): (u8, u8)) {
        let now = self.house.now();
        let (id, department, user, events) = &mut self.devices[device];
        let mut event = usage(events.len() as u64 + 1, minute, tokens);
        let service = ["openai-api", "free-service", "chatgpt"][usize::from(service)];
        if let EventBody::Usage(usage) = &mut event.body {
            usage.service = service.to_owned();
            usage.application = (kind == 1).then(|| "curl".to_owned());
        }
        let application = if kind == 1 { "curl" } else { "" };
        let point = i64::try_from(tokens).unwrap();
        let (cost, unpriced) = if service == "free-service" { (0, point) } else { (point * 3, 0) };
        let numbers = match kind {
            2 => {
                event.body = EventBody::Blocked(Blocked {
                    provider: "openai".into(),
                    service: service.into(),
                    host: "api.openai.com".into(),
                    name_source: toktra_protocol::NameSource::Sni,
                    user_account: None,
                    application: None,
                    reason: BlockReason::Budget,
                    cut: false,
                });
                Some([1, 0, 0, 0, 0, 0, 0])
            }
            3 => {
                event.body = EventBody::Dropped(Dropped { place: "spool".into(), events: 3 });
                None
            }
            _ => Some([0, 1, point / 2, point, point * 2, cost, unpriced]),
        };
        events.push(event.clone());
        self.house.ledger.book(*id, Batch { events: vec![event] }).await.unwrap();
        let Some(numbers) = numbers else { return };
        let name = |id: Option<&String>| id.cloned().unwrap_or_default();
        let key = [
            name(department.as_ref().map(|department| &department.id)),
            name(user.as_ref().map(|user| &user.id)),
            id.to_string(),
            "openai".to_owned(),
            service.to_owned(),
            application.to_owned(),
        ];
        let day = self.zone.day(minute.start().min(now)).0;
        let sums = self.sums.entry((day, key)).or_default();
        sums.iter_mut().zip(numbers).for_each(|(sum, number)| *sum += number);
    }

    async fn sweep(&self) {
        retention::sweep(&self.house.store, self.house.now(), Duration::ZERO).await.unwrap();
    }

    /// What is to be there now, told apart by these parts alone.
    fn expected(&self, parts: &[usize]) -> Sums {
        let first = i64::try_from((self.house.now().0 - u64::from(KEPT_DAYS) * DAY_S) / DAY_S).unwrap();
        let mut expected = Sums::new();
        for ((day, key), numbers) in self.sums.iter().filter(|((day, _), _)| *day >= first) {
            let mut short: Key = Default::default();
            parts.iter().for_each(|&part| short[part].clone_from(&key[part]));
            let sums = expected.entry((*day, short)).or_default();
            sums.iter_mut().zip(numbers).for_each(|(sum, number)| *sum += number);
        }
        expected
    }

    async fn stored(&self, table: &str, parts: &[usize]) -> Sums {
        let names = ["department_id", "user_id", "device_id", "provider", "service", "application"];
        let columns: Vec<_> = parts.iter().map(|&part| names[part]).collect();
        let sql = format!(
            "SELECT day, blocked, exchanges, tokens_in_low, tokens_in_point, tokens_in_high,
                cost_point_micros, tokens_unpriced, {} FROM {table}",
            columns.join(", ")
        );
        let rows = sqlx::query(sqlx::AssertSqlSafe(sql)).fetch_all(self.house.store.reader()).await.unwrap();
        let sums = rows.iter().map(|row| {
            let mut key: Key = Default::default();
            parts.iter().enumerate().for_each(|(at, &part)| key[part] = row.get(8 + at));
            ((row.get(0), key), std::array::from_fn(|at| row.get(1 + at)))
        });
        sums.collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 200, ..ProptestConfig::default() })]
    #[test]
    fn every_table_has_the_sums_of_the_events_after_any_history(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut model = Model::new().await;
            for step in &steps {
                model.take(step).await;
            }
            model.sweep().await;
            for (table, parts) in [
                ("usage_daily", &[0, 1, 2, 3, 4, 5][..]),
                ("usage_daily_by_service", &[0, 3, 4, 5]),
                ("usage_daily_by_device", &[0, 1, 2]),
            ] {
                prop_assert_eq!(model.stored(table, parts).await, model.expected(parts), "{}", table);
            }
            Ok(())
        })?;
    }
}
