//! A year in the life of a fleet, in virtual time: laptops that sleep for hours or months, whose
//! clocks are wrong and whose network loses requests and answers, against the real server code,
//! which restarts and whose intermediate and root are rotated meanwhile.
//!
//! What is real: [`toktra_identity::life::Life`] and its store on the device; keys, requests and
//! certificates; the server's routes, authority and database. What is not: sockets and TLS, whose
//! part [`backend`] plays, and time. One event is handled at a time, in the order of virtual time,
//! and all chance comes from the seed, so that a year can be lived again.
//!
//! [`Year::complaints`] is what must be empty. A [`Fault`] breaks something on purpose: a checker
//! that never complains checks nothing.

mod backend;
mod dice;
mod machine;
mod tally;

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use toktra_pki::rotation::{Line, Step};
use toktra_protocol::local::IdentityPhase;

pub use tally::Tally;

use backend::Backend;
use dice::Dice;
use machine::Machine;

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
/// No lid is closed for longer. A root or an intermediate is retired once nobody depends on it, and
/// a year has room for two such waits.
const LONGEST_SLEEP: u64 = 110 * DAY;
/// Every machine has its agent by then, but for the latecomers.
const ROLLOUT: u64 = 20 * DAY;
/// Machines that enrol in the minutes before the next intermediate issues.
const LATECOMERS: u64 = 3;
/// Every twentieth machine has a token that only lets it ask for approval.
const REUSABLE_EVERY: u64 = 20;
/// After the year all lids are open for so long.
const SETTLING: u64 = 2 * DAY;

/// What is broken on purpose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    #[default]
    None,
    /// Devices do not recover with a certificate that has expired.
    NoRecovery,
    /// All devices renew at the same age.
    NoJitter,
    /// Devices ask with another key after each loss.
    ForgottenKeys,
    /// The old intermediate is retired the day after the next one begins to issue.
    HastyIntermediate,
    /// The old root is retired the day after the switch.
    HastyRoot,
}

/// What is to be lived through.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Decides everything that is left to chance.
    pub seed: u64,
    /// Machines.
    pub machines: u64,
    /// Days before the settling.
    pub days: u64,
    /// Restarts of the backend.
    pub restarts: u64,
    /// What is broken.
    pub fault: Fault,
}

impl Plan {
    /// A year of so many machines.
    pub fn year(seed: u64, machines: u64) -> Self {
        Self { seed, machines, days: 365, restarts: 12, fault: Fault::None }
    }

    /// The same with something broken.
    pub fn with(self, fault: Fault) -> Self {
        Self { fault, ..self }
    }

    fn start(&self) -> u64 {
        // 2026-01-01T00:00:00Z.
        1_767_225_600
    }

    fn end(&self) -> u64 {
        self.start() + self.days * DAY
    }
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Year {
    /// In numbers; prints as a table.
    pub tally: Tally,
    /// What should not have been, in words.
    pub complaints: Vec<String>,
}

/// Lives a plan.
pub async fn live(plan: &Plan) -> anyhow::Result<Year> {
    let mut fleet = Fleet::new(*plan).await?;
    fleet.run(plan.end()).await?;
    fleet.settle().await
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Turn {
    Machine(usize),
    Install(usize),
    Stop,
    Start,
    RenewHosts,
    Approve,
    Administer,
}

struct Fleet {
    plan: Plan,
    world: Backend,
    machines: Vec<Machine>,
    /// When each machine lives next; an event at any other time is out of date.
    next: Vec<u64>,
    queue: BinaryHeap<Reverse<(u64, u64, Turn)>>,
    queued: u64,
    /// The steps yet to be taken, the next one last, each with how long after the one before.
    rotations: Vec<(u64, Line, Step)>,
    rotated_at: u64,
    reusable: String,
    dice: Dice,
    tally: Tally,
}

impl Fleet {
    async fn new(plan: Plan) -> anyhow::Result<Self> {
        let world = Backend::found(plan.start()).await?;
        let reusable = world.reusable_token(u32::try_from(plan.machines)?, 365 * DAY).await?;
        let mut fleet = Self {
            plan,
            world,
            machines: (0..plan.machines).map(|number| Machine::new(number, &plan)).collect(),
            next: vec![0; usize::try_from(plan.machines)?],
            queue: BinaryHeap::new(),
            queued: 0,
            rotations: rotations(plan.fault),
            rotated_at: plan.start(),
            reusable,
            dice: Dice::new(plan.seed, 0),
            tally: Tally::default(),
        };
        fleet.plan_ahead();
        Ok(fleet)
    }

    fn plan_ahead(&mut self) {
        let (start, end) = (self.plan.start(), self.plan.end());
        let early = self.plan.machines.saturating_sub(LATECOMERS) as usize;
        for machine in 0..early {
            let at = start + self.dice.between(0, ROLLOUT);
            self.enqueue(at, Turn::Install(machine));
        }
        for _ in 0..self.plan.restarts {
            let at = self.dice.between(start + DAY, end - DAY);
            self.enqueue(at, Turn::Stop);
            let until = at + self.dice.between_orders(5, 20 * MINUTE);
            self.enqueue(until, Turn::Start);
        }
        for week in 1..=self.plan.days / 7 {
            self.enqueue(start + week * 7 * DAY, Turn::RenewHosts);
        }
        for day in 1..=self.plan.days {
            self.enqueue(start + day * DAY + 9 * HOUR, Turn::Administer);
            for hour in 0..24 {
                self.enqueue(start + day * DAY + hour * HOUR, Turn::Approve);
            }
        }
    }

    fn enqueue(&mut self, at: u64, turn: Turn) {
        self.queued += 1;
        self.queue.push(Reverse((at, self.queued, turn)));
    }

    async fn run(&mut self, end: u64) -> anyhow::Result<()> {
        while let Some(&Reverse((at, _, turn))) = self.queue.peek() {
            if at >= end {
                break;
            }
            self.queue.pop();
            self.world.set_time(at);
            self.take(turn, at).await?;
        }
        Ok(())
    }

    async fn take(&mut self, turn: Turn, now: u64) -> anyhow::Result<()> {
        match turn {
            Turn::Machine(machine) if self.next[machine] == now => {
                let next = self.machines[machine].live(now, &mut self.world, &mut self.tally).await?;
                self.wake_at(machine, next);
            }
            Turn::Machine(_) => {}
            Turn::Install(machine) => self.install(machine, now).await?,
            Turn::Stop => {
                self.world.stop().await;
                self.tally.server_restarts += 1;
            }
            Turn::Start if !self.world.is_up() => self.world.start().await?,
            Turn::Start => {}
            Turn::RenewHosts => self.world.renew_hosts()?,
            Turn::Approve if self.world.is_up() => {
                self.tally.approvals += self.world.approve_all().await? as u64;
            }
            Turn::Approve => {}
            Turn::Administer => self.administer(now).await?,
        }
        Ok(())
    }

    fn wake_at(&mut self, machine: usize, at: u64) {
        self.next[machine] = at;
        self.enqueue(at, Turn::Machine(machine));
    }

    async fn install(&mut self, machine: usize, now: u64) -> anyhow::Result<()> {
        if !self.world.is_up() {
            self.enqueue(now + HOUR, Turn::Install(machine));
            return Ok(());
        }
        let waits = (machine as u64).is_multiple_of(REUSABLE_EVERY);
        // A laptop may be closed for months before its first use.
        let token = if waits { self.reusable.clone() } else { self.world.token(300 * DAY).await? };
        self.machines[machine].install(&token, &self.world.roots()?)?;
        self.wake_at(machine, now);
        Ok(())
    }

    /// What an administrator does in the morning.
    async fn administer(&mut self, now: u64) -> anyhow::Result<()> {
        if !self.world.is_up() {
            self.enqueue(now + HOUR, Turn::Administer);
            return Ok(());
        }
        let Some(&(after, line, step)) = self.rotations.last() else { return Ok(()) };
        if now < self.rotated_at + after {
            return Ok(());
        }
        let dependent = self.world.dependent(line, step).await?;
        let is_hasty = matches!(
            (self.plan.fault, line),
            (Fault::HastyIntermediate, Line::Devices) | (Fault::HastyRoot, Line::Root)
        );
        if step == Step::Retire && dependent > 0 && !is_hasty {
            return Ok(());
        }
        if (line, step) == (Line::Devices, Step::Issue) {
            self.enrol_latecomers(now).await?;
        }
        self.world.rotate(line, step).await?;
        self.tally.rotated((now - self.plan.start()) / DAY, line, step, dependent);
        self.rotations.pop();
        self.rotated_at = now;
        // Directives changed: whoever is awake hears of it at once.
        for machine in 0..self.machines.len() {
            if self.machines[machine].hear(now) {
                let at = now + 1 + self.dice.between(0, MINUTE / 4);
                self.wake_at(machine, at);
            }
        }
        Ok(())
    }

    /// Some enrol in the last minutes of the old intermediate.
    async fn enrol_latecomers(&mut self, now: u64) -> anyhow::Result<()> {
        let all = self.machines.len();
        for machine in all - LATECOMERS.min(all as u64) as usize..all {
            let before = now - 2 * MINUTE;
            self.world.set_time(before);
            let token = self.world.token(300 * DAY).await?;
            self.machines[machine].install(&token, &self.world.roots()?)?;
            self.machines[machine].stay_awake(before, now + 5 * DAY);
            let next = self.machines[machine].live(before, &mut self.world, &mut self.tally).await?;
            self.wake_at(machine, next.max(now));
        }
        self.world.set_time(now);
        Ok(())
    }

    async fn settle(mut self) -> anyhow::Result<Year> {
        let (now, end) = (self.plan.end(), self.plan.end() + SETTLING);
        self.world.set_time(now);
        if !self.world.is_up() {
            self.world.start().await?;
        }
        self.world.renew_hosts()?;
        for machine in 0..self.machines.len() {
            self.machines[machine].stay_awake(now, end + 1);
            self.wake_at(machine, now);
        }
        self.run(end).await?;
        self.world.set_time(end);
        let mut complaints = self.tally.complaints();
        self.inspect(end, &mut complaints).await?;
        complaints.extend(
            self.rotations
                .iter()
                .rev()
                .map(|(_, line, step)| format!("the step `{} {}` was never taken", line.name(), step.name())),
        );
        Ok(Year { tally: self.tally, complaints })
    }

    /// Compares what the machines and the backend think.
    async fn inspect(&mut self, now: u64, complaints: &mut Vec<String>) -> anyhow::Result<()> {
        let standings = self.world.standings().await?;
        let newest = self.world.roots()?;
        for machine in &self.machines {
            let name = machine.hostname();
            let phase = machine.phase(now);
            self.tally.ended(phase);
            if phase != IdentityPhase::Enrolled {
                complaints.push(format!("{name} ends {phase:?}"));
            }
            let Some(standing) = machine.device().and_then(|device| standings.get(&device)) else {
                complaints.push(format!("the backend does not know {name}"));
                continue;
            };
            if !standing.is_enrolled {
                complaints.push(format!("{name} is not enrolled with the backend"));
            }
            if let Some(flag) = &standing.flag {
                complaints.push(format!("{name} is flagged as {flag}"));
            }
            // An answer of the last minutes may have been lost.
            if !(machine.acknowledged()..=machine.acknowledged() + 1).contains(&standing.acknowledged) {
                complaints.push(format!("{name} and the backend disagree on which events are stored"));
            }
            self.tally.events += standing.acknowledged;
            if standing.serial.as_deref() != machine.serial() {
                complaints.push(format!("{name} and the backend disagree on which certificate is in use"));
            }
            if machine.roots().map(str::trim) != Some(newest.trim()) {
                complaints.push(format!("{name} does not have the roots in force"));
            }
        }
        if standings.len() != self.machines.len() {
            complaints.push(format!("{} machines, but {} devices", self.machines.len(), standings.len()));
        }
        self.tally.audited = self.world.audited().await?;
        Ok(())
    }
}

/// The steps of all rotations, the first last, each with the least time after the one before.
fn rotations(fault: Fault) -> Vec<(u64, Line, Step)> {
    let wait = |hasty: Fault| if fault == hasty { DAY } else { 7 * DAY };
    let mut steps = vec![
        (ROLLOUT + 5 * DAY, Line::Devices, Step::Prepare),
        (DAY, Line::Devices, Step::Trust),
        // A change of mind, and again.
        (DAY, Line::Devices, Step::Rollback),
        (DAY, Line::Devices, Step::Trust),
        (3 * DAY, Line::Devices, Step::Issue),
        (wait(Fault::HastyIntermediate), Line::Devices, Step::Retire),
        (DAY, Line::Root, Step::Prepare),
        (DAY, Line::Root, Step::Distribute),
        (3 * DAY, Line::Root, Step::Switch),
        (wait(Fault::HastyRoot), Line::Root, Step::Retire),
        (DAY, Line::Server, Step::Prepare),
        (DAY, Line::Server, Step::Issue),
        (DAY, Line::Server, Step::Retire),
    ];
    steps.reverse();
    steps
}
