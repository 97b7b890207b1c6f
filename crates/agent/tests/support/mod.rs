//! A small backend that keeps to the protocol and does what a test tells it to, and an
//! extension that sends again what was not acknowledged.
#![allow(dead_code, unused_imports, reason = "each test binary uses a part")]

mod authority;

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio_rustls::TlsAcceptor;
use toktra_agent::clock::{Clock, Moved};
use toktra_agent::daemon::{self, Places};
use toktra_protocol::budget::ExemptionRequest;
use toktra_protocol::directive::FF_BUDGET_HARD_CAPS;
use toktra_protocol::enrol::{EnrolRequest, EnrolResponse, RenewRequest, RenewResponse, ServerTime};
use toktra_protocol::event::Blocked;
use toktra_protocol::local::{self, Frames, FromExtension, Record, Seed, Status, ToExtension};
use toktra_protocol::problem::MEDIA_TYPE;
use toktra_protocol::{
    Ack, Batch, Block, BlockReason, Budget, Code, DeviceId, Directive, Estimate, Event, EventBody, Lock,
    Minute, NameSource, Problem, SignedDirective, UnixSeconds, Usage,
};
use uuid::Uuid;

use authority::Register;
pub use authority::{Authority, DAY};

pub const DEVICE: DeviceId = DeviceId::from_u128(7);
pub const TOKEN: &str = "the-one-time-token";
const PATIENCE: Duration = Duration::from_secs(60);

/// What the backend does with the next batch.
#[derive(Clone, Debug)]
pub enum Next {
    /// Refuses it.
    Refuse(Code),
    /// Stores it, and the answer is lost.
    Forget,
}

#[derive(Default)]
pub struct Books {
    pub stored: Vec<Event>,
    pub batches: Vec<usize>,
    pub next: VecDeque<Next>,
    /// Refuses any batch with more events.
    pub most: Option<usize>,
    /// Refuses a batch with an event for this host.
    pub poison: Option<String>,
    /// Refuses the device.
    pub revoked: bool,
    pub directive: u64,
    pub lock: Option<Lock>,
    pub block: Option<Block>,
    pub budgets: Vec<Budget>,
    pub hard_caps: bool,
    /// How long a directive is valid; 900 if it is left out.
    pub valid_s: Option<u64>,
    /// What polls get instead of a directive.
    pub nonsense: Option<&'static str>,
    /// Wishes for more that arrived.
    pub wishes: Vec<ExemptionRequest>,
    pub forged: bool,
    /// Polls are kept waiting, whatever there is to tell.
    pub slow: bool,
    /// Such a poll has waited.
    pub was_slow: bool,
    pub applied: Option<String>,
    pub token_used: bool,
    /// The backend's clock is that much later than the machine's.
    pub later_s: u64,
    /// Asks for a renewal of what began before this.
    pub renew_before: Option<UnixSeconds>,
    pub register: Register,
}

impl Books {
    fn keeps_waiting(&mut self, after: u64) -> bool {
        self.was_slow |= self.slow;
        self.slow || self.directive <= after && !self.revoked
    }
}

pub struct Backend {
    books: Mutex<Books>,
    changed: Condvar,
    news: watch::Sender<()>,
    authority: Mutex<(Arc<Authority>, Arc<ServerConfig>)>,
    signer: Ed25519KeyPair,
    port: u16,
}

impl Backend {
    pub fn start() -> Arc<Self> {
        let authority = Arc::new(Authority::new());
        let tls = authority.tls(now());
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&ring::rand::SystemRandom::new()).unwrap();
        let backend = Arc::new(Self {
            books: Mutex::default(),
            changed: Condvar::new(),
            news: watch::Sender::new(()),
            authority: Mutex::new((authority, tls)),
            signer: Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap(),
            port: listener.local_addr().unwrap().port(),
        });
        let serving = Arc::clone(&backend);
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(serve(serving, listener));
        });
        backend
    }

    /// From now on this root certifies devices and the backend itself.
    pub fn use_root(&self, authority: Authority) {
        let tls = authority.tls(self.now());
        *self.authority.lock().unwrap() = (Arc::new(authority), tls);
    }

    fn authority(&self) -> Arc<Authority> {
        Arc::clone(&self.authority.lock().unwrap().0)
    }

    fn now(&self) -> UnixSeconds {
        now().plus(self.books().later_s)
    }

    pub fn domain(&self) -> String {
        format!("toktra.localhost:{}", self.port)
    }

    pub fn ca_pem(&self) -> String {
        self.authority().pem.clone()
    }

    pub fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap()
    }

    fn note_held(&self) {
        self.books().register.held = true;
        self.changed.notify_all();
    }

    pub fn change(&self, act: impl FnOnce(&mut Books)) {
        act(&mut self.books());
        self.changed.notify_all();
        self.news.send_replace(());
    }

    /// Waits for something to be true of the books.
    pub fn until(&self, what: &str, is_true: impl Fn(&Books) -> bool) {
        let wait = self.changed.wait_timeout_while(self.books(), PATIENCE, |books| !is_true(books));
        assert!(!wait.unwrap().1.timed_out(), "never: {what}");
    }

    /// Hosts of the stored events, in order, and how many were reported as dropped.
    pub fn arrived(&self) -> (Vec<String>, u64) {
        let (mut hosts, mut dropped) = (Vec::new(), 0);
        for event in &self.books().stored {
            match &event.body {
                EventBody::Blocked(blocked) => hosts.push(blocked.host.clone()),
                EventBody::Dropped(lost) => dropped += lost.events,
                EventBody::Usage(_) => {}
            }
        }
        (hosts, dropped)
    }

    /// `None`: the answer is lost.
    fn enrol(&self, body: &[u8]) -> Option<Result<Vec<u8>, Problem>> {
        let request: EnrolRequest = serde_json::from_slice(body).unwrap();
        if request.token != TOKEN {
            return Some(Err(Problem::new(Code::TokenUnknown, "No such token.")));
        }
        let (now, authority) = (self.now(), self.authority());
        let mut books = self.books();
        if let Some(code) = books.register.refuse {
            return Some(Err(Problem::new(code, "As the test says.")));
        }
        let Books { register, token_used, .. } = &mut *books;
        let certified = register.certify(&authority, &request.csr, now, false, || {
            match std::mem::replace(token_used, true) {
                false => Ok(()),
                true => Err(Problem::new(Code::TokenUsed, "It was used.")),
            }
        });
        drop(books);
        self.changed.notify_all();
        certified.map(|certified| {
            let response = EnrolResponse {
                device: DEVICE,
                organisation: "Acme".into(),
                department: Some("Research".into()),
                certificate_chain: certified?,
                directive_key: STANDARD.encode(self.signer.public_key()),
                roots: authority.pem.clone(),
                server_time: now,
            };
            Ok(serde_json::to_vec(&response).unwrap())
        })
    }

    /// `None`: the answer is lost.
    fn renew(&self, body: &[u8], expired: bool) -> Option<Result<Vec<u8>, Problem>> {
        let request: RenewRequest = serde_json::from_slice(body).unwrap();
        let (now, authority) = (self.now(), self.authority());
        let mut books = self.books();
        if let Some(code) = books.register.refuse_renewal {
            return Some(Err(Problem::new(code, "As the test says.")));
        }
        let certified = books.register.certify(&authority, &request.csr, now, expired, || Ok(()));
        let roots = books.register.roots.clone().unwrap_or_else(|| authority.pem.clone());
        drop(books);
        self.changed.notify_all();
        certified.map(|certified| {
            let response = RenewResponse {
                certificate_chain: certified?,
                organisation: "Acme".into(),
                department: Some("Research".into()),
                roots,
                server_time: now,
            };
            Ok(serde_json::to_vec(&response).unwrap())
        })
    }

    /// `None`: the answer is lost.
    fn book(&self, body: &[u8]) -> Option<Result<Vec<u8>, Problem>> {
        let batch = Batch::decode(body).unwrap();
        let mut books = self.books();
        if books.revoked {
            return Some(Err(Problem::new(Code::Revoked, "Ask an administrator.")));
        }
        let next = books.next.pop_front();
        if let Some(Next::Refuse(code)) = next {
            return Some(Err(Problem::new(code, "As the test says.")));
        }
        books.batches.push(batch.events.len());
        if books.most.is_some_and(|most| batch.events.len() > most) {
            return Some(Err(Problem::new(Code::TooLarge, "Too many.")));
        }
        let poison = books.poison.clone();
        let is_poison =
            |event: &Event| matches!(&event.body, EventBody::Blocked(b) if Some(&b.host) == poison.as_ref());
        if batch.events.iter().any(is_poison) {
            return Some(Err(Problem::new(Code::BadEvent, "One of them.")));
        }
        let have = books.stored.len() as u64;
        if batch.events[0].sequence > have + 1 {
            return Some(Err(Problem::new(Code::BatchOrder, "A gap.").with_acknowledged(have)));
        }
        for event in batch.events {
            match books.stored.get(event.sequence as usize - 1) {
                Some(before) => assert_eq!(before, &event, "a number changed its meaning"),
                None => books.stored.push(event),
            }
        }
        let ack = Ack { acknowledged: books.stored.len() as u64 };
        drop(books);
        self.changed.notify_all();
        match next {
            Some(Next::Forget) => None,
            _ => Some(Ok(serde_json::to_vec(&ack).unwrap())),
        }
    }

    fn directive(&self) -> Vec<u8> {
        let now = self.now();
        let books = self.books();
        let directive = Directive {
            version: books.directive,
            device: DEVICE,
            issued_at: now,
            valid_until: now.plus(books.valid_s.unwrap_or(900)),
            lock: books.lock.clone(),
            block: books.block.clone(),
            flags: BTreeMap::from([(FF_BUDGET_HARD_CAPS.to_owned(), books.hard_caps)]),
            budgets: books.budgets.clone(),
            counted: books.stored.len() as u64,
            renew_before: books.renew_before,
            perks: None,
        };
        let payload = serde_json::to_string(&directive).unwrap();
        let mut signed = SignedDirective { payload, signature: String::new() };
        signed.signature = STANDARD.encode(self.signer.sign(&signed.signed_bytes()));
        if books.forged {
            signed.payload = signed.payload.replace("null", "{\"message\":\"forged\"}");
        }
        serde_json::to_vec(&signed).unwrap()
    }
}

fn now() -> UnixSeconds {
    toktra_agent::clock::Clock::System.now()
}

async fn serve(backend: Arc<Backend>, listener: std::net::TcpListener) {
    let listener = TcpListener::from_std(listener).unwrap();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let tls = Arc::clone(&backend.authority.lock().unwrap().1);
        let (acceptor, backend) = (TlsAcceptor::from(tls), Arc::clone(&backend));
        tokio::spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let shown = stream.get_ref().1.peer_certificates().map(|chain| chain[0].clone().into_owned());
            let service = service_fn(|request| answer(Arc::clone(&backend), request, shown.clone()));
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

async fn answer(
    backend: Arc<Backend>,
    request: Request<Incoming>,
    shown: Option<CertificateDer<'static>>,
) -> Result<Response<Full<Bytes>>, Box<dyn std::error::Error + Send + Sync>> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let (path, now) = (parts.uri.path(), backend.now());
    let public = ["/v1/enroll", "/v1/time"].contains(&path);
    let judge = |renews| backend.books().register.judge(shown.as_ref(), now, renews);
    let outcome = match path {
        "/v1/enroll" => backend.enrol(&body).ok_or("the answer is lost")?,
        "/v1/time" => Ok(serde_json::to_vec(&ServerTime { server_time: now })?),
        "/v1/renew" if backend.books().revoked => Err(Problem::new(Code::Revoked, "Ask an administrator.")),
        "/v1/renew" => match judge(true) {
            Ok(()) => {
                let mut news = backend.news.subscribe();
                while backend.books().register.hold {
                    backend.note_held();
                    news.changed().await?;
                }
                let expired = backend.books().register.has_expired(shown.as_ref(), now);
                backend.renew(&body, expired).ok_or("the answer is lost")?
            }
            Err(code) => Err(Problem::new(code, "As its register says.")),
        },
        _ if !public && let Err(code) = judge(false) => Err(Problem::new(code, "As its register says.")),
        "/v1/events" => backend.book(&body).ok_or("the answer is lost")?,
        "/v1/directive" => {
            let query = parts.uri.query().unwrap_or_default().to_owned();
            let after = query.strip_prefix("after=").and_then(|rest| rest.split('&').next()?.parse().ok());
            let applied = query.split("applied=").nth(1).map(str::to_owned);
            backend.change(|books| books.applied = applied);
            let mut news = backend.news.subscribe();
            while backend.books().keeps_waiting(after.unwrap_or(0)) {
                backend.changed.notify_all();
                news.changed().await?;
            }
            let nonsense = backend.books().nonsense;
            if backend.books().revoked {
                Err(Problem::new(Code::Revoked, "Ask an administrator."))
            } else if let Some(nonsense) = nonsense {
                Ok(nonsense.into())
            } else {
                Ok(backend.directive())
            }
        }
        "/v1/exemptions" => {
            let wish = serde_json::from_slice(&body)?;
            backend.change(|books| books.wishes.push(wish));
            return Ok(Response::builder().status(204).body(Full::default())?);
        }
        path => panic!("asked for {path}"),
    };
    let date = httpdate::fmt_http_date(std::time::UNIX_EPOCH + Duration::from_secs(now.0));
    let response = Response::builder().header("date", date);
    let response = match outcome {
        Ok(body) => response.header("content-type", "application/json").body(Full::from(body)),
        Err(problem) => response
            .status(problem.status)
            .header("content-type", MEDIA_TYPE)
            .header("retry-after", "0")
            .body(Full::from(serde_json::to_vec(&problem).unwrap())),
    };
    Ok::<_, Infallible>(response.unwrap()).map_err(Into::into)
}

/// The agent in the test's own process, whose clocks the test moves. Ends when it is dropped.
pub struct Inside {
    clocks: &'static Mutex<Moved>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Inside {
    pub fn clock(&self) -> Clock {
        Clock::Moved(self.clocks)
    }

    /// The machine sleeps.
    pub fn sleep(&self, asleep: Duration) {
        self.clocks.lock().unwrap().slept += asleep;
    }

    /// Somebody sets the wall clock.
    pub fn set_clock(&self, ahead_s: i64) {
        self.clocks.lock().unwrap().ahead_s = ahead_s;
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A device: its directories, and the agent when it runs.
pub struct Device {
    pub directory: tempfile::TempDir,
    pub child: Option<Child>,
}

impl Device {
    /// With domain, authority and token in its configuration file.
    pub fn configured(backend: &Backend) -> Self {
        let device = Self::new();
        std::fs::write(device.path("ca.pem"), backend.ca_pem()).unwrap();
        let config =
            format!("domain = \"{}\"\nca = \"{}\"\n", backend.domain(), device.path("ca.pem").display());
        std::fs::write(device.path("agent.toml"), config + &format!("token = \"{TOKEN}\"\n")).unwrap();
        device
    }

    /// Enrolled, by way of the configuration file.
    pub fn enrolled(backend: &Backend) -> Self {
        let device = Self::configured(backend);
        let output = device.command(&["enroll"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        device
    }

    pub fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap(), child: None }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn agent(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_toktra-agent"));
        for (option, name) in [("--config", "agent.toml"), ("--state-dir", "state"), ("--run-dir", "run")] {
            command.arg(option).arg(self.path(name));
        }
        command
    }

    pub fn command(&self, arguments: &[&str]) -> Output {
        self.agent().args(arguments).output().unwrap()
    }

    pub fn start(&mut self) {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.path("log")).unwrap();
        self.child = Some(self.agent().arg("run").stdout(log).stderr(Stdio::inherit()).spawn().unwrap());
    }

    pub fn places(&self) -> Places {
        Places { config: self.path("agent.toml"), state: self.path("state"), run: self.path("run") }
    }

    pub fn start_inside(&self, ahead_s: i64) -> Inside {
        let clocks: &'static Mutex<Moved> = Box::leak(Box::default());
        clocks.lock().unwrap().ahead_s = ahead_s;
        let (stop, stopped) = oneshot::channel::<()>();
        let places = self.places();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let run = async {
                    // A process that another test is just starting may hold a copy of the last lock.
                    loop {
                        match daemon::run(&places, Clock::Moved(clocks)).await {
                            Err(error) if error.to_string().contains("another toktra-agent") => {
                                tokio::task::yield_now().await;
                            }
                            outcome => return outcome.unwrap(),
                        }
                    }
                };
                tokio::select! {
                    () = run => {}
                    _ = stopped => {}
                }
            });
        });
        Inside { clocks, stop: Some(stop), thread: Some(thread) }
    }

    /// kill -9.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    pub fn status(&self) -> Status {
        serde_json::from_slice(&self.command(&["status", "--json"]).stdout).unwrap()
    }

    pub fn until(&self, what: &str, is_true: impl Fn(&Status) -> bool) -> Status {
        let start = Instant::now();
        loop {
            let status = self.status();
            if is_true(&status) {
                return status;
            }
            assert!(start.elapsed() < PATIENCE, "never: {what}: {status:?}\n{}", self.log());
        }
    }

    pub fn socket(&self) -> PathBuf {
        self.path("run").join(local::EXTENSION_SOCKET)
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.kill();
    }
}

/// An extension's side of the socket.
pub struct Extension {
    pub run: Uuid,
    pub unacknowledged: VecDeque<Record>,
    pub made: u64,
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

    pub fn hello(version: u32, run: Uuid) -> Vec<u8> {
        local::encode(&FromExtension::Hello { version, run, extension_version: "0".into() }).unwrap()
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
                return seed;
            }
        }
    }

    fn forget(&mut self, number: u64) {
        self.unacknowledged.retain(|record| record.number > number);
    }

    /// Sends everything that is not acknowledged; false if the agent has gone.
    pub fn send(&mut self) -> bool {
        let frames = self.unacknowledged.iter().cloned();
        let bytes: Vec<u8> = frames.flat_map(|r| local::encode(&FromExtension::Record(r)).unwrap()).collect();
        self.link.as_mut().unwrap().0.write_all(&bytes).is_ok()
    }

    /// The next message; `None` if the agent has gone.
    pub fn hear(&mut self) -> Option<ToExtension> {
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

    /// Waits until everything is acknowledged; false if the agent has gone.
    pub fn settle(&mut self) -> bool {
        while !self.unacknowledged.is_empty() {
            match self.hear() {
                Some(ToExtension::Acknowledged { number }) => self.forget(number),
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
