//! An extension that sends again what was not acknowledged.

use std::collections::VecDeque;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use toktra_protocol::event::Blocked;
use toktra_protocol::local::{self, Frames, FromExtension, Record, Seed, ToExtension};
use toktra_protocol::personal::local::{PersonalEstimate, PersonalMode, PersonalRecord, PersonalUsage};
use toktra_protocol::{BlockReason, Estimate, EventBody, Minute, NameSource, Usage};
use uuid::Uuid;

use super::{PATIENCE, now};

/// An extension's side of the socket.
pub struct Extension {
    pub run: Uuid,
    pub unacknowledged: VecDeque<Record>,
    pub made: u64,
    pub personal: VecDeque<PersonalRecord>,
    pub personal_made: u64,
    /// What the last seed said of personal mode.
    pub mode: Option<PersonalMode>,
    /// The minute of what is made.
    pub minute: Minute,
    link: Option<(UnixStream, Frames)>,
}

impl Extension {
    pub fn new() -> Self {
        Self {
            run: Uuid::new_v4(),
            unacknowledged: VecDeque::new(),
            made: 0,
            personal: VecDeque::new(),
            personal_made: 0,
            mode: None,
            minute: now().minute(),
            link: None,
        }
    }

    /// Makes records, to be sent.
    pub fn make(&mut self, count: u64) {
        for _ in 0..count {
            self.made += 1;
            let body = EventBody::Blocked(Blocked {
                provider: "openai".into(),
                service: "openai-api".into(),
                host: self.made.to_string(),
                name_source: NameSource::Sni,
                user_account: None,
                application: Some("curl".into()),
                reason: BlockReason::Budget,
                cut: false,
            });
            self.unacknowledged.push_back(Record { number: self.made, minute: self.minute, body });
        }
    }

    /// Makes a record of usage that spent so many tokens, to be sent.
    pub fn spend(&mut self, tokens: u64) {
        self.made += 1;
        let estimate = |point| Estimate { low: point, point, high: point };
        let body = EventBody::Usage(Usage {
            provider: "openai".into(),
            service: "openai-api".into(),
            host: "api.openai.com".into(),
            name_source: NameSource::Sni,
            user_account: None,
            application: Some("curl".into()),
            exchanges: 1,
            bytes_out: 100,
            bytes_in: 100,
            bytes_handshake: 100,
            duration_s: 1,
            streaming: false,
            partial: false,
            tokens_in: estimate(tokens / 2),
            tokens_out: estimate(tokens - tokens / 2),
            calibration: "test".into(),
        });
        self.unacknowledged.push_back(Record { number: self.made, minute: self.minute, body });
    }

    /// Makes personal records that spent so many tokens each, to be sent.
    pub fn spend_personally(&mut self, count: u64, tokens: u64) {
        for _ in 0..count {
            self.personal_made += 1;
            let estimate = |point| PersonalEstimate { low: 0, point, high: point * 3 };
            let usage = PersonalUsage {
                provider: "openai".into(),
                service: "openai-api".into(),
                host: format!("personal-{}.openai.com", self.personal_made),
                application: Some("curl".into()),
                exchanges: 1,
                bytes_out: 100,
                bytes_in: 100,
                bytes_handshake: 100,
                duration_s: 1,
                streaming: false,
                partial: false,
                tokens_in: estimate(tokens / 2),
                tokens_out: estimate(tokens - tokens / 2),
                calibration: "test".into(),
            };
            let number = self.personal_made;
            self.personal.push_back(PersonalRecord { number, minute: self.minute, lost: 0, usage });
        }
    }

    pub fn hello(version: u32, run: Uuid) -> Vec<u8> {
        local::encode(&FromExtension::Hello { version, run, extension_version: toktra_agent::VERSION.into() })
            .unwrap()
    }

    /// Connects, however long the agent takes to listen; gives the seed.
    pub fn connect(&mut self, socket: &Path) -> Seed {
        let start = Instant::now();
        loop {
            assert!(start.elapsed() < PATIENCE, "the agent never listened");
            let Ok(mut stream) = UnixStream::connect(socket) else {
                thread::yield_now();
                continue;
            };
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            if stream.write_all(&Self::hello(local::VERSION, self.run)).is_err() {
                continue;
            }
            self.link = Some((stream, Frames::default()));
            if let Some(ToExtension::Seed(seed)) = self.hear() {
                self.forget(seed.acknowledged);
                self.forget_personal(seed.personal_acknowledged);
                return seed;
            }
        }
    }

    fn forget(&mut self, number: u64) {
        self.unacknowledged.retain(|record| record.number > number);
    }

    fn forget_personal(&mut self, number: u64) {
        self.personal.retain(|record| record.number > number);
    }

    fn say(&mut self, message: &FromExtension) -> bool {
        let frame = local::encode(message).unwrap();
        self.link.as_mut().is_some_and(|(stream, _)| stream.write_all(&frame).is_ok())
    }

    /// Sends everything that is not acknowledged; false if the agent has gone.
    pub fn send(&mut self) -> bool {
        let frames = self.unacknowledged.iter().cloned();
        let frames = frames.flat_map(|record| local::encode(&FromExtension::Record(record)).unwrap());
        let personal = self.personal.iter().cloned();
        let personal = personal.flat_map(|record| local::encode(&FromExtension::Personal(record)).unwrap());
        let bytes: Vec<u8> = frames.chain(personal).collect();
        self.link.as_mut().unwrap().0.write_all(&bytes).is_ok()
    }

    /// The next message; `None` if the agent has gone. A seed is in force at once.
    pub fn hear(&mut self) -> Option<ToExtension> {
        let message = self.read()?;
        if let ToExtension::Seed(seed) = &message {
            self.mode.clone_from(&seed.personal);
            let mode = self.mode.clone();
            self.say(&FromExtension::PersonalInForce { mode });
        }
        Some(message)
    }

    fn read(&mut self) -> Option<ToExtension> {
        let (stream, frames) = self.link.as_mut()?;
        let mut buffer = [0; 4096];
        loop {
            if let Some(message) = frames.take().unwrap() {
                return Some(message);
            }
            match stream.read(&mut buffer) {
                Ok(read) if read > 0 => frames.push(&buffer[..read]),
                _ => return None,
            }
        }
    }

    /// Takes up what there is to hear within a moment.
    pub fn listen(&mut self) {
        if let Some((stream, _)) = &self.link {
            stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        }
        while self.hear().is_some() {}
        if let Some((stream, _)) = &self.link {
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
        }
    }

    /// Waits until everything is acknowledged; false if the agent has gone.
    pub fn settle(&mut self) -> bool {
        while !self.unacknowledged.is_empty() || !self.personal.is_empty() {
            match self.hear() {
                Some(ToExtension::Acknowledged { number }) => self.forget(number),
                Some(ToExtension::PersonalAcknowledged { number }) => self.forget_personal(number),
                Some(ToExtension::Seed(_)) => {}
                None => return false,
            }
        }
        true
    }

    /// Makes records and has them stored.
    pub fn deliver(&mut self, count: u64) {
        self.make(count);
        assert!(self.send() && self.settle());
    }

    /// Waits for a seed.
    pub fn hear_seed(&mut self, is_it: impl Fn(&Seed) -> bool) -> Seed {
        loop {
            match self.hear() {
                Some(ToExtension::Seed(seed)) if is_it(&seed) => return seed,
                Some(_) => {}
                None => panic!("the agent has gone"),
            }
        }
    }
}
