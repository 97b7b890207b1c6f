//! A small backend that keeps to the protocol and does what a test tells it to.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
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
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use toktra_protocol::budget::ExemptionRequest;
use toktra_protocol::directive::FF_BUDGET_HARD_CAPS;
use toktra_protocol::enrol::{EnrolRequest, EnrolResponse, RenewRequest, RenewResponse, ServerTime};
use toktra_protocol::personal::Perks;
use toktra_protocol::problem::MEDIA_TYPE;
use toktra_protocol::{
    Ack, Batch, Block, Budget, Code, Directive, Event, EventBody, Lock, Problem, SignedDirective, UnixSeconds,
};

use super::authority::{Authority, Register};
use super::vault::Vault;
use super::{DEVICE, PATIENCE, TOKEN, now};

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
    /// What the user of the device is offered.
    pub perks: Option<Perks>,
    pub vault: Vault,
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
            perks: books.perks.clone(),
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
        path if path.starts_with("/v1/vault/") => {
            let enrolled = backend.books().perks.is_some();
            let outcome = backend.books().vault.answer(path, &body, enrolled).ok_or("the answer is lost");
            backend.changed.notify_all();
            outcome?
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
