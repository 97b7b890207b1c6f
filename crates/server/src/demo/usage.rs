//! What a machine records in a day: in working hours, seldom at the weekend, more from month to month.

use toktra_catalog::Catalog;
use toktra_protocol::event::Blocked;
use toktra_protocol::{BlockReason, Estimate, EventBody, Minute, NameSource, Usage};
use toktra_store::period::Day;

use super::people::{DEPARTMENTS, House, Machine, SUPPORT};
use super::random::Random;
use super::{Calendar, SILENT_DAYS};

/// How a service is used.
struct Habit {
    service: &'static str,
    host: &'static str,
    application: &'static str,
    /// By a program, or in a browser.
    by_program: bool,
    weight: u64,
    /// Tokens of a request and of its reply, mostly.
    tokens: (u64, u64),
}

const HABITS: [Habit; 11] = [
    program("anthropic-api", "api.anthropic.com", "claude", 34, (14_000, 900)),
    program("openai-api", "api.openai.com", "codex", 16, (9_000, 800)),
    program("openai-api", "api.openai.com", "python3", 12, (1_500, 400)),
    program("github-copilot", "api.githubcopilot.com", "code", 20, (3_000, 250)),
    program("cursor", "api2.cursor.sh", "cursor", 10, (6_000, 500)),
    program("mistral-api", "api.mistral.ai", "node", 5, (1_200, 300)),
    browser("chatgpt", "chatgpt.com", "chrome", 40, (700, 600)),
    browser("claude", "claude.ai", "chrome", 24, (1_100, 700)),
    browser("gemini", "gemini.google.com", "chrome", 14, (500, 500)),
    browser("perplexity", "www.perplexity.ai", "firefox", 8, (300, 450)),
    browser("chatgpt", "chatgpt.com", "chatgpt", 6, (800, 650)),
];

const fn program(
    service: &'static str,
    host: &'static str,
    application: &'static str,
    weight: u64,
    tokens: (u64, u64),
) -> Habit {
    Habit { service, host, application, by_program: true, weight, tokens }
}

const fn browser(
    service: &'static str,
    host: &'static str,
    application: &'static str,
    weight: u64,
    tokens: (u64, u64),
) -> Habit {
    Habit { service, host, application, by_program: false, weight, tokens }
}

/// How busy each hour of the day is.
const HOURS: [u64; 24] = [0, 0, 0, 0, 0, 0, 1, 4, 10, 18, 20, 18, 9, 14, 19, 18, 16, 12, 6, 3, 2, 2, 1, 0];

/// What a machine records on a day, in the order of time; nothing that is later than the end.
pub(super) fn of_day(
    house: &House,
    machine: &Machine,
    calendar: &Calendar,
    day: Day,
) -> Vec<(Minute, EventBody)> {
    let is_silent = house.silent().is_some_and(|silent| silent.id == machine.id);
    if is_silent && day.0 > calendar.last.0 - SILENT_DAYS {
        return Vec::new();
    }
    let mut random = Random::of(&[house.seed, 3, machine.index, day.0.cast_unsigned()]);
    let department = &DEPARTMENTS[machine.department];
    // 1970-01-01 was a Thursday.
    let weekend = matches!((day.0 + 4).rem_euclid(7), 0 | 6);
    let works = machine.person.is_none() || random.chance(if weekend { 70 } else { 900 });
    if !works {
        return Vec::new();
    }
    let passed = (day.0 - calendar.first.0).cast_unsigned();
    let growth = 70 + 30 * passed / (calendar.last.0 - calendar.first.0 + 1).cast_unsigned().max(1);
    let most = (department.appetite * machine.appetite / 100).clamp(8, 500) / 4;
    let uses = 1 + (most / 2 + random.below(most + 1)) * growth / 100;
    let start = calendar.zone.start(day).minute().0;
    let hours: Vec<usize> = (0..HOURS.len()).collect();
    let mut records: Vec<(Minute, EventBody)> = (0..uses.min(120))
        .filter_map(|_| {
            let hour = *random.pick(&hours, |&hour| HOURS[hour])?;
            let minute = Minute(start + hour as u64 * 60 + random.below(60));
            Some((minute, record(&mut random, machine)?))
        })
        .collect();
    if machine.department == SUPPORT && day == calendar.last {
        records.extend(records.first().cloned().and_then(|(minute, body)| Some((minute, blocked(body)?))));
    }
    records.retain(|(minute, _)| minute.start() <= calendar.end);
    records.sort_by_key(|(minute, _)| *minute);
    records
}

fn record(random: &mut Random, machine: &Machine) -> Option<EventBody> {
    let programs = if machine.person.is_none() { 100 } else { DEPARTMENTS[machine.department].programs };
    let by_program = random.below(100) < programs;
    let habit =
        random.pick(&HABITS, |habit| if habit.by_program == by_program { habit.weight } else { 0 })?;
    let catalog = Catalog::builtin();
    let service = catalog.service(habit.service)?;
    let exchanges = 1 + random.below(if by_program { 12 } else { 5 });
    let around = |random: &mut Random, usual: u64| usual * exchanges * (40 + random.below(160)) / 100;
    let (sent, received) = (around(random, habit.tokens.0), around(random, habit.tokens.1));
    let calibration = catalog.calibration(service).map_or("demo", |calibration| calibration.id.as_str());
    Some(EventBody::Usage(Usage {
        provider: catalog.provider(service).id.clone(),
        service: service.id.clone(),
        host: habit.host.to_owned(),
        name_source: NameSource::Sni,
        user_account: Some(machine.account.clone()),
        application: Some(habit.application.to_owned()),
        exchanges: u32::try_from(exchanges).unwrap_or(1),
        bytes_out: sent * 4 + 900 * exchanges,
        bytes_in: received * 210 + 700 * exchanges,
        bytes_handshake: 4_800,
        duration_s: u32::try_from(4 + random.below(50)).unwrap_or(4),
        streaming: true,
        partial: false,
        tokens_in: estimate(sent, 22),
        tokens_out: estimate(received, 9),
        calibration: calibration.to_owned(),
    }))
}

/// An estimate that is off by at most so many percent.
fn estimate(point: u64, percent: u64) -> Estimate {
    Estimate { low: point * (100 - percent) / 100, point, high: point * (100 + percent) / 100 }
}

/// The same connection, had it been refused for the budget.
fn blocked(body: EventBody) -> Option<EventBody> {
    let EventBody::Usage(usage) = body else { return None };
    Some(EventBody::Blocked(Blocked {
        provider: usage.provider,
        service: usage.service,
        host: usage.host,
        name_source: usage.name_source,
        user_account: usage.user_account,
        application: usage.application,
        reason: BlockReason::Budget,
        cut: false,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_habit_is_a_service_of_the_catalogue_at_a_host_of_its() {
        for habit in &HABITS {
            let found = Catalog::builtin().lookup(habit.host).map(|service| service.id.as_str());
            assert_eq!(found, Some(habit.service), "{}", habit.host);
        }
    }
}
