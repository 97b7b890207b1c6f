//! Who works in the organisation, and on which machines.

use toktra_protocol::DeviceId;

use super::Plan;
use super::random::Random;

/// A department as it is planned.
pub(super) struct Unit {
    pub(super) name: &'static str,
    /// Its place among the departments before it.
    pub(super) parent: Option<usize>,
    /// Of a hundred people.
    weight: u64,
    /// What one of it uses, in percent of what a developer does.
    pub(super) appetite: u64,
    /// Of a hundred uses, those by a program and not in a browser.
    pub(super) programs: u64,
}

/// Two departments within another, and two beside it.
pub(super) const DEPARTMENTS: [Unit; 5] = [
    Unit { name: "Engineering", parent: None, weight: 16, appetite: 80, programs: 70 },
    Unit { name: "Platform", parent: Some(0), weight: 24, appetite: 110, programs: 90 },
    Unit { name: "Research", parent: Some(0), weight: 14, appetite: 140, programs: 80 },
    Unit { name: "Marketing", parent: None, weight: 22, appetite: 40, programs: 10 },
    Unit { name: "Customer Support", parent: None, weight: 24, appetite: 25, programs: 15 },
];
/// Where machines without a person are.
const PLATFORM: usize = 1;

pub(super) const ENGINEERING: usize = 0;
pub(super) const RESEARCH: usize = 2;
pub(super) const MARKETING: usize = 3;
pub(super) const SUPPORT: usize = 4;

const FIRST: [&str; 25] = [
    "ada", "alan", "amina", "anika", "barbara", "carlos", "chen", "dorothy", "edsger", "elif", "frances",
    "grace", "hedy", "ivan", "joan", "kenji", "leila", "linus", "margaret", "mei", "noor", "olga", "priya",
    "radia", "sofia",
];
const LAST: [&str; 24] = [
    "almeida",
    "bauer",
    "chandra",
    "dubois",
    "eriksen",
    "fischer",
    "garcia",
    "haddad",
    "ito",
    "jansen",
    "kowalski",
    "lindqvist",
    "moreau",
    "novak",
    "okafor",
    "petrov",
    "quist",
    "rossi",
    "sato",
    "tanaka",
    "umar",
    "varga",
    "weber",
    "yilmaz",
];

/// A person.
pub(super) struct Person {
    pub(super) email: String,
    pub(super) department: usize,
}

/// A device.
pub(super) struct Machine {
    pub(super) id: DeviceId,
    pub(super) index: u64,
    pub(super) hostname: String,
    pub(super) platform: &'static str,
    pub(super) agent_version: &'static str,
    pub(super) department: usize,
    /// Whose it is; none of a machine that builds.
    pub(super) person: Option<usize>,
    /// The account that works on it.
    pub(super) account: String,
    /// What its person uses, in percent of what the department's mostly do.
    pub(super) appetite: u64,
    /// How long its certificate still holds at the end, in days.
    pub(super) certificate_days: u64,
}

/// The whole organisation.
pub(super) struct House {
    pub(super) seed: u64,
    pub(super) people: Vec<Person>,
    pub(super) machines: Vec<Machine>,
}

impl House {
    pub(super) fn new(plan: &Plan) -> Self {
        let people: Vec<Person> = (0..plan.people).map(|index| person(plan.seed, index)).collect();
        let machines = (0..plan.devices).map(|index| machine(plan.seed, index, &people)).collect();
        Self { seed: plan.seed, people, machines }
    }

    /// People and devices.
    pub(super) fn total(&self) -> u32 {
        u32::try_from(self.people.len() + self.machines.len()).unwrap_or(u32::MAX)
    }

    /// The device that was reported lost.
    pub(super) fn locked(&self) -> Option<&Machine> {
        self.machines.get(7)
    }

    /// The device that nothing was heard of lately.
    pub(super) fn silent(&self) -> Option<&Machine> {
        self.machines.get(11)
    }
}

impl Machine {
    /// What a hash of it might be, told apart by a word.
    pub(super) fn hexadecimal(&self, word: &str) -> String {
        let mut parts = vec![self.id.as_u64_pair().0, self.id.as_u64_pair().1];
        parts.extend(word.bytes().map(u64::from));
        let mut random = Random::of(&parts);
        (0..4).map(|_| format!("{:016x}", random.next())).collect()
    }
}

fn person(seed: u64, index: u32) -> Person {
    let mut random = Random::of(&[seed, 1, index.into()]);
    let number = index as usize;
    let (first, last) = (FIRST[number % FIRST.len()], LAST[number % LAST.len()]);
    // After as many as there are names, numbers tell them apart.
    let again = number / (FIRST.len() * LAST.len());
    let suffix = if again == 0 { String::new() } else { (again + 1).to_string() };
    let places: Vec<_> = (0..DEPARTMENTS.len()).collect();
    let department = match number {
        // Every department has somebody.
        0..5 => number,
        _ => random.pick(&places, |&place| DEPARTMENTS[place].weight).copied().unwrap_or(ENGINEERING),
    };
    Person { email: format!("{first}.{last}{suffix}@acme.example"), department }
}

fn machine(seed: u64, index: u32, people: &[Person]) -> Machine {
    let mut random = Random::of(&[seed, 2, index.into()]);
    let number = index as usize;
    // Who has a second device is drawn; one machine in twelve beyond the first ones builds.
    let builds = number >= people.len() && random.chance(83);
    let person = match number {
        _ if builds => None,
        _ if number < people.len() => Some(number),
        _ => usize::try_from(random.below(people.len() as u64)).ok(),
    };
    let owner = person.and_then(|person| people.get(person));
    let department = owner.map_or(PLATFORM, |owner| owner.department);
    let develops = DEPARTMENTS[department].programs >= 50;
    let platform = if builds || random.chance(if develops { 450 } else { 100 }) { "linux" } else { "macos" };
    let account = owner.and_then(|owner| owner.email.split('.').next()).unwrap_or("builder").to_owned();
    let kind = match (platform, builds) {
        (_, true) => "runner",
        ("macos", _) => "macbook",
        _ => "thinkpad",
    };
    Machine {
        id: uuid::Builder::from_random_bytes(bytes(&mut random)).into_uuid(),
        index: index.into(),
        hostname: format!("{account}-{kind}-{number:03}"),
        platform,
        agent_version: if random.chance(850) { "0.1.0" } else { "0.0.9" },
        department,
        person,
        account,
        // A few use ten times what most do.
        appetite: match random.below(100) {
            0..4 => 600 + random.below(600),
            4..25 => 150 + random.below(200),
            _ => 20 + random.below(120),
        },
        certificate_days: if number == 3 { 4 } else { 20 + random.below(68) },
    }
}

fn bytes(random: &mut Random) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&random.next().to_be_bytes());
    bytes[8..].copy_from_slice(&random.next().to_be_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use toktra_protocol::UnixSeconds;

    use super::*;

    #[test]
    fn names_addresses_and_identifiers_are_there_once_however_many_there_are() {
        let plan = Plan { seed: 7, end: UnixSeconds(1_795_435_200), days: 1, people: 2000, devices: 3000 };
        let house = House::new(&plan);
        let emails: BTreeSet<_> = house.people.iter().map(|person| &person.email).collect();
        assert_eq!(emails.len(), 2000);
        let hosts: BTreeSet<_> =
            house.machines.iter().map(|machine| (&machine.hostname, machine.id)).collect();
        assert_eq!(hosts.len(), 3000);
        assert!(house.machines.iter().any(|machine| machine.person.is_none()));
        for department in 0..DEPARTMENTS.len() {
            assert!(house.machines.iter().any(|machine| machine.department == department));
        }
    }
}
