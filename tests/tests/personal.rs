//! Personal mode on the live kernel: a transfer in the middle of which it is switched is split between the two
//! ledgers, within one reading of the counters, and both together hold every byte; what it covers is in no
//! record of the organisation's, not even as an attempt. The agent is played by this test.

#![allow(clippy::panic, clippy::unwrap_used, reason = "test code")]

use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Child, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use toktra_protocol::local::{self, Frames, FromExtension, Record, Seed, ToExtension};
use toktra_protocol::personal::local::{PersonalMode, PersonalRecord};
use toktra_protocol::{Block, BlockReason, EventBody, UnixSeconds};
use toktra_testkit::lab::Lab;
use toktra_testkit::process::{Process, binary, until};
use toktra_tests::clients::{chat, curl};

const CHAT: &str = "https://api.openai.com/v1/chat/completions";
const OTHER: &str = "https://api.anthropic.com/";
/// Who runs this test, and so its clients.
const ACCOUNT: &str = "root";
/// Counters are read twice a second; the rest is for a machine that is busy.
const READING: Duration = Duration::from_secs(3);
/// What was sent before a moment and arrived after it.
const ON_ITS_WAY_BYTES: u64 = 4096;
const LIMIT: Duration = Duration::from_secs(120);
/// So much flows in each part of a transfer.
const PART_BYTES: u64 = 100_000;

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap()
}

fn mode(until: Option<UnixSeconds>, stopped: bool) -> Seed {
    Seed { personal: Some(PersonalMode { account: ACCOUNT.into(), until, stopped }), ..Seed::default() }
}

fn cap() -> Option<Block> {
    Some(Block {
        reason: BlockReason::Budget,
        message: "spent".into(),
        providers: Vec::new(),
        until: None,
        budget: None,
    })
}

/// An extension on a lab of its own, and its agent.
struct Device {
    // First, so that it stops before the lab goes.
    _extension: Process,
    listener: UnixListener,
    stream: UnixStream,
    frames: Frames,
    lab: Lab,
    corporate: Vec<Record>,
    personal: Vec<PersonalRecord>,
    in_force: Option<Option<PersonalMode>>,
    /// How much had passed, over time.
    course: Vec<(Duration, u64)>,
}

impl Device {
    fn start() -> Self {
        let lab = Lab::new().unwrap();
        let socket = lab.directory().join("extension.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let mut command = lab.service(&binary("toktra-extension").unwrap());
        command.arg("run").arg("--cgroup").arg(lab.client_cgroup()).arg("--socket").arg(&socket);
        let extension = Process::start("toktra-extension", &mut command, &lab.directory().join("logs"));
        let stream = listener.accept().unwrap().0;
        let mut device = Self {
            _extension: extension.unwrap(),
            listener,
            stream,
            frames: Frames::default(),
            lab,
            corporate: Vec::new(),
            personal: Vec::new(),
            in_force: None,
            course: Vec::new(),
        };
        device.stream.set_nonblocking(true).unwrap();
        device.seed(Seed::default());
        device
    }

    /// Takes in what the extension has said.
    fn hear(&mut self) {
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = self.stream.read(&mut buffer) {
            self.frames.push(&buffer[..length]);
        }
        while let Some(message) = self.frames.take().unwrap() {
            match message {
                FromExtension::Record(record) => self.corporate.push(record),
                FromExtension::Personal(record) => self.personal.push(record),
                FromExtension::PersonalInForce { mode } => self.in_force = Some(mode),
                FromExtension::Hello { .. } | FromExtension::Health(_) => {}
            }
        }
    }

    /// Seeds the extension, and waits until it says that the seed's personal mode is in force.
    fn seed(&mut self, seed: Seed) {
        let mode = seed.personal.clone();
        let seed = ToExtension::Seed(Seed { version: local::VERSION, ..seed });
        self.stream.write_all(&local::encode(&seed).unwrap()).unwrap();
        self.watch("the mode to be in force", |device| device.in_force == Some(mode.clone()));
    }

    /// Listens to the extension and looks at what passes, until something is so.
    fn watch(&mut self, what: &str, so: impl Fn(&Self) -> bool) {
        until(what, LIMIT, || {
            self.hear();
            self.course.push((now(), self.passed()));
            Ok(so(self).then_some(()))
        })
        .unwrap();
    }

    fn before(&self, moment: Duration) -> u64 {
        self.course.iter().take_while(|(at, _)| *at <= moment).last().map_or(0, |(_, bytes)| *bytes)
    }

    /// Closes the connection, and takes the next with this seed.
    fn meet_again(&mut self, seed: Seed) {
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
        self.stream = self.listener.accept().unwrap().0;
        self.stream.set_nonblocking(true).unwrap();
        (self.frames, self.in_force) = (Frames::default(), None);
        (self.corporate, self.personal) = (Vec::new(), Vec::new());
        self.seed(seed);
    }

    fn stream_chat(&self, tokens: u32) -> Child {
        let mut command = curl(&self.lab, &["-o", "/dev/null", "-d", &chat(tokens), CHAT]);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    fn passed(&self) -> u64 {
        self.lab.connections().iter().map(|one| one.bytes()).sum()
    }

    /// Waits until much more has passed.
    fn flow(&mut self) {
        let goal = self.passed() + PART_BYTES;
        self.watch("more to flow", |device| device.passed() >= goal);
    }

    /// What is in both ledgers, once that is all that passed.
    fn settle(&mut self) -> (u64, u64) {
        self.watch("the ledgers to hold all bytes", |device| {
            let recorded = corporate(&device.corporate) + personal(&device.personal);
            device.lab.connections().iter().all(|one| one.closed) && recorded >= device.passed()
        });
        let (of_all, own) = (corporate(&self.corporate), personal(&self.personal));
        assert_eq!(of_all + own, self.passed(), "{of_all} and {own}");
        (of_all, own)
    }
}

fn corporate(records: &[Record]) -> u64 {
    let bytes = |record: &Record| match &record.body {
        EventBody::Usage(usage) => usage.bytes_out + usage.bytes_in + usage.bytes_handshake,
        other => panic!("{other:?}"),
    };
    records.iter().map(bytes).sum()
}

fn personal(records: &[PersonalRecord]) -> u64 {
    records
        .iter()
        .map(|PersonalRecord { usage, .. }| usage.bytes_out + usage.bytes_in + usage.bytes_handshake)
        .sum()
}

#[test]
fn a_transfer_is_split_at_both_switches_and_both_ledgers_hold_all_of_it() {
    let mut device = Device::start();
    // It ends by itself, so that not a byte is on its way when counts are compared.
    let mut client = device.stream_chat(8_000);
    device.flow();
    let asked = now();
    device.seed(mode(None, false));
    let on = now();
    device.flow();
    // It ends by the device's own clock.
    let off = Duration::from_secs(now().as_secs() + 3);
    device.seed(mode(Some(UnixSeconds(off.as_secs())), false));
    device.watch("the mode to end", |_| now() > off + READING);
    device.flow();
    assert!(client.wait().unwrap().success());
    let (_, own) = device.settle();
    let least = device.before(off) - device.before(on) - ON_ITS_WAY_BYTES;
    let most = device.before(off + READING) - device.before(asked - READING) + ON_ITS_WAY_BYTES;
    assert!(least > PART_BYTES && (least..=most).contains(&own), "{least}..={most}: {own}");
    assert!(device.corporate.iter().all(|record| matches!(&record.body, EventBody::Usage(usage)
        if usage.host == "api.openai.com" && usage.application.as_deref() == Some("curl"))));
    assert!(device.personal.iter().all(|record| record.usage.host == "api.openai.com" && record.lost == 0));
    let numbers: Vec<u64> = device.personal.iter().map(|record| record.number).collect();
    assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>());

    // What the agent did not acknowledge comes again, whatever it acknowledged of the others.
    let acknowledged = device.corporate.last().unwrap().number;
    device.meet_again(Seed { acknowledged, personal_acknowledged: 1, ..Seed::default() });
    device.watch("the personal records to come again", |device| device.personal.len() >= numbers.len() - 1);
    assert_eq!(device.personal.first().map(|record| record.number), numbers.get(1).copied());
    assert!(device.corporate.is_empty(), "{:?}", device.corporate);
}

#[test]
fn what_it_covers_is_in_no_record_of_the_organisations_also_where_something_blocks_it() {
    let mut device = Device::start();
    let block_until = Some(UnixSeconds(u64::MAX));
    // Its own ledger, whatever the organisation has spent.
    device.seed(Seed { block: cap(), block_until, ..mode(None, false) });
    assert!(curl(&device.lab, &["-o", "/dev/null", OTHER]).status().unwrap().success());
    let (of_all, own) = device.settle();
    assert_eq!(of_all, 0);
    assert!(own > 1_000, "{own}");
    assert_eq!(device.personal[0].usage.host, "api.anthropic.com");

    // Its allowance is exhausted: refused, and an open one cut, without a word.
    let mut client = device.stream_chat(1_000_000);
    device.flow();
    device.seed(mode(None, true));
    assert!(!client.wait().unwrap().success());
    assert!(!curl(&device.lab, &["-o", "/dev/null", OTHER]).status().unwrap().success());
    // It is off, and the cap holds: from here on attempts are told.
    device.seed(Seed { block: cap(), block_until, ..Seed::default() });
    assert!(!curl(&device.lab, &["-o", "/dev/null", CHAT]).status().unwrap().success());
    device.watch("the attempt to be told", |device| !device.corporate.is_empty());
    let EventBody::Blocked(blocked) = &device.corporate[0].body else { panic!("{:?}", device.corporate) };
    assert_eq!(
        (blocked.host.as_str(), blocked.cut, device.corporate[0].number),
        ("api.openai.com", false, 1)
    );
    assert!(personal(&device.personal) > PART_BYTES);
}
