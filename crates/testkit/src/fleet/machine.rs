//! A laptop of the fleet: a lid, a clock that may be wrong, a network that loses things, and an
//! agent that lives by the real [`Life`], with real keys, requests and certificates on the real
//! store. What the agent keeps in memory is lost with a restart; what is in the store is not.

use std::time::Duration;

use anyhow::Context as _;
use axum::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::{Request, StatusCode, header};
use rustls::pki_types::CertificateDer;
use serde::de::DeserializeOwned;
use toktra_identity::life::{Facts, Keep, Life, Outcome, Step, Term};
use toktra_identity::{Application, Credential, DeviceKey, MemoryStore, Store as _};
use toktra_protocol::enrol::{
    self, DeviceDescription, EnrolRequest, EnrolResponse, RenewRequest, RenewResponse, ServerTime,
};
use toktra_protocol::event::Dropped;
use toktra_protocol::local::IdentityPhase;
use toktra_protocol::{
    Ack, Batch, Code, DeviceId, Event, EventBody, Problem, SignedDirective, UnixSeconds, codec,
};
use x509_parser::prelude::{FromDer as _, X509Certificate};
use zeroize::Zeroizing;

use super::backend::{Backend, Host};
use super::dice::Dice;
use super::tally::Tally;
use super::{DAY, Fault, HOUR, MINUTE, Plan};

/// A renewal that was asked for comes within this time.
const HEED: u64 = 2 * HOUR + 5 * MINUTE;

/// What the network does while a lid is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Network {
    /// One request in a hundred is lost, and one answer.
    Good,
    /// Four requests in ten are lost, and three answers in ten.
    Bad,
    /// Nothing gets through.
    None,
}

impl Network {
    /// Requests and answers that are lost, of a thousand each.
    fn losses(self) -> (u64, u64) {
        match self {
            Self::Good => (10, 10),
            Self::Bad => (400, 300),
            Self::None => (1000, 1000),
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Lid {
    Closed,
    Open { until: u64 },
}

/// What came of a request.
enum Reply<T> {
    Good(T),
    Refused { code: Code, retry_after: Option<Duration> },
    Lost,
}

/// A certificate in use.
struct Held {
    credential: Credential,
    leaf: CertificateDer<'static>,
    /// Of the certificate, but that its spread is the seed's.
    term: Term,
    serial: String,
    issued_at: u64,
}

/// A machine.
pub(super) struct Machine {
    dice: Dice,
    fault: Fault,
    // The machine itself.
    hostname: String,
    hardware: String,
    lid: Lid,
    network: Network,
    clock_is_off_by: i64,
    booted: u64,
    // On disk.
    disk: MemoryStore,
    acknowledged: u64,
    // The agent's memory.
    life: Life,
    held: Option<Held>,
    applied: Option<Application>,
    confirmed: bool,
    renew_before: Option<UnixSeconds>,
    asks_directive_at: Option<u64>,
    // What the observer remembers.
    online_since: Option<u64>,
    /// When the step was taken of which the newest directive tells.
    asked_at: Option<u64>,
    lost: Option<Vec<u8>>,
}

impl Machine {
    pub fn new(number: u64, plan: &Plan) -> Self {
        Self {
            dice: Dice::new(plan.seed, number + 1),
            fault: plan.fault,
            hostname: format!("laptop-{number}"),
            hardware: format!("{number:064x}"),
            lid: Lid::Closed,
            network: Network::Good,
            clock_is_off_by: 0,
            booted: plan.start(),
            disk: MemoryStore::default(),
            acknowledged: 0,
            life: Life::default(),
            held: None,
            applied: None,
            confirmed: false,
            renew_before: None,
            asks_directive_at: None,
            online_since: None,
            asked_at: None,
            lost: None,
        }
    }

    /// Gives the agent a token, as an installation would.
    pub fn install(&mut self, token: &str, roots: &str) -> anyhow::Result<()> {
        let application = Application {
            domain: "toktra.localhost".parse()?,
            ca: Some(roots.to_owned()),
            token: Zeroizing::new(token.to_owned()),
            key: DeviceKey::generate()?,
        };
        self.disk.save_application(&application)?;
        self.applied = Some(application);
        Ok(())
    }

    /// Lives on from `now`, and says when it wants to live on.
    pub async fn live(&mut self, now: u64, world: &mut Backend, tally: &mut Tally) -> anyhow::Result<u64> {
        match self.lid {
            Lid::Closed => self.open(now, world.asked_at(), tally)?,
            Lid::Open { until } if now >= until => return Ok(self.close(now, tally)),
            Lid::Open { .. } => {}
        }
        let Lid::Open { until } = self.lid else { return Ok(now + 1) };
        if self.asks_directive_at.is_some_and(|at| at <= now) {
            self.ask_directive(now, world, tally).await?;
        }
        let next = match self.life.next(&self.facts(now)) {
            Step::Wait(wait) => {
                if wait.as_secs() > HEED && self.is_asked() {
                    tally.unheeded(&self.hostname);
                }
                now + wait.as_secs().max(1)
            }
            Step::Stopped => {
                tally.stopped(&self.hostname);
                until
            }
            step => {
                self.take(step, now, world, tally).await?;
                now + 1
            }
        };
        tally.phase(self.life.phase(&self.facts(now)));
        Ok(next.min(self.asks_directive_at.unwrap_or(until)).max(now + 1).min(until))
    }

    /// The backend has another directive: a long poll returns.
    pub fn hear(&mut self, now: u64) -> bool {
        let hears = matches!(self.lid, Lid::Open { until } if until > now) && self.held.is_some();
        if hears {
            self.asks_directive_at = Some(now);
        }
        hears
    }

    /// Opens the lid on a good network until then.
    pub fn stay_awake(&mut self, now: u64, until: u64) {
        self.lid = Lid::Open { until };
        self.network = Network::Good;
        self.online_since = None;
        self.asks_directive_at = Some(now);
    }

    /// Whether the backend wants another certificate now.
    fn is_asked(&self) -> bool {
        let issued_at = self.held.as_ref().map(|held| held.issued_at);
        self.asked_at.zip(issued_at).is_some_and(|(asked_at, issued_at)| issued_at < asked_at)
    }

    pub fn phase(&self, now: u64) -> IdentityPhase {
        self.life.phase(&self.facts(now))
    }

    pub fn hostname(&self) -> &str {
        &self.hostname
    }

    pub fn device(&self) -> Option<DeviceId> {
        self.held.as_ref().map(|held| held.credential.enrolled().device)
    }

    /// The last of its events that the backend has, as far as it knows.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// Serial number of its certificate.
    pub fn serial(&self) -> Option<&str> {
        self.held.as_ref().map(|held| held.serial.as_str())
    }

    /// The roots that it believes.
    pub fn roots(&self) -> Option<&str> {
        self.held.as_ref().and_then(|held| held.credential.enrolled().ca.as_deref())
    }
}

/// The machine.
impl Machine {
    fn open(&mut self, now: u64, asked_at: Option<u64>, tally: &mut Tally) -> anyhow::Result<()> {
        tally.opened_lids += 1;
        self.lid = Lid::Open { until: now + self.dice.between_orders(2 * HOUR, 20 * DAY) };
        self.network = match self.dice.between(0, 100) {
            0..10 => Network::None,
            10..25 => Network::Bad,
            _ => Network::Good,
        };
        self.online_since = (self.network == Network::Good).then_some(now);
        if self.dice.in_thousand(50) {
            let by = self.dice.between_orders(2 * MINUTE, 3 * 365 * DAY) as i64;
            self.clock_is_off_by = if self.dice.in_thousand(500) { by } else { -by };
            tally.clock_steps += 1;
        } else if self.dice.in_thousand(300) {
            self.clock_is_off_by = 0;
        }
        if self.dice.in_thousand(150) {
            self.restart(now, tally)?;
        }
        // Most polls that have nothing to tell are left out. Each finds the backend's copy of the budgets
        // out of date, since virtual time jumps, and has it read anew, which in a year of seconds is rare.
        let is_due = self.asked_at != asked_at || self.dice.in_thousand(100);
        self.asks_directive_at = (self.held.is_some() && is_due).then_some(now);
        Ok(())
    }

    fn close(&mut self, now: u64, tally: &mut Tally) -> u64 {
        self.lid = Lid::Closed;
        let sleep = match self.dice.between(0, 100) {
            0..70 => self.dice.between(6 * HOUR, 16 * HOUR),
            70..90 => self.dice.between_orders(DAY, 14 * DAY),
            90..98 => self.dice.between_orders(14 * DAY, 60 * DAY),
            _ => self.dice.between_orders(60 * DAY, super::LONGEST_SLEEP),
        };
        tally.longest_sleep = tally.longest_sleep.max(sleep);
        now + sleep
    }

    /// The machine, and with it the agent, starts anew: what is not on disk is gone.
    fn restart(&mut self, now: u64, tally: &mut Tally) -> anyhow::Result<()> {
        tally.machine_restarts += 1;
        (self.booted, self.life, self.confirmed) = (now, Life::default(), false);
        self.applied = self.disk.application()?;
        match (self.disk.credential()?, &mut self.held) {
            (Some(credential), Some(held)) => held.credential = credential,
            (stored, held) => {
                anyhow::ensure!(stored.is_some() == held.is_some(), "the store lost a credential")
            }
        }
        Ok(())
    }

    fn facts(&self, now: u64) -> Facts {
        // Once the backend has confirmed the time, it runs on a clock that nobody sets.
        let time = if self.confirmed { now } else { now.saturating_add_signed(self.clock_is_off_by) };
        Facts {
            now: UnixSeconds(time),
            confirmed: self.confirmed,
            elapsed: Duration::from_secs(now - self.booted),
            term: self.held.as_ref().map(|held| held.term),
            applied: self.applied.is_some(),
            renew_before: self.renew_before,
        }
    }

    /// Sends a request through the network.
    async fn send<T: DeserializeOwned>(
        &mut self,
        (host, request): (Host, Request<Body>),
        world: &mut Backend,
        tally: &mut Tally,
    ) -> anyhow::Result<Reply<T>> {
        let (requests_lost, answers_lost) = self.network.losses();
        if self.dice.in_thousand(requests_lost) {
            return Ok(self.lose(None, tally));
        }
        let application = self.applied.as_ref().and_then(|application| application.ca.as_deref());
        let roots = self.roots().or(application).unwrap_or_default();
        if !world.is_believed(host, roots)? {
            tally.disbelieved += 1;
            return Ok(self.lose(None, tally));
        }
        let leaf = self.held.as_ref().filter(|_| host == Host::Ingest).map(|held| &held.leaf);
        let Some(answer) = world.ask(host, leaf, request).await? else {
            tally.backend_down += 1;
            return Ok(self.lose(None, tally));
        };
        tally.requests += 1;
        if self.dice.in_thousand(answers_lost) {
            return Ok(self.lose((answer.status == StatusCode::OK).then_some(&answer.body), tally));
        }
        if answer.status == StatusCode::OK {
            return Ok(Reply::Good(serde_json::from_slice(&answer.body).context("an answer")?));
        }
        let problem: Problem = serde_json::from_slice(&answer.body)
            .with_context(|| format!("{}: {}", answer.status, String::from_utf8_lossy(&answer.body)))?;
        tally.refused(problem.code);
        let retry_after = answer.retry_after_s.map(Duration::from_secs);
        Ok(Reply::Refused { code: problem.code, retry_after })
    }

    fn not_sent(&mut self, tally: &mut Tally) -> Outcome {
        self.lose::<()>(None, tally);
        Outcome::Failed
    }

    fn lose<T>(&mut self, answer: Option<&[u8]>, tally: &mut Tally) -> Reply<T> {
        tally.lost += 1;
        // A loss excuses the machine from being back within a minute.
        self.online_since = None;
        if let Some(chain) = answer.and_then(chain_in) {
            tally.certificates_lost += 1;
            self.lost = Some(chain);
        }
        Reply::Lost
    }
}

/// The agent.
impl Machine {
    async fn take(
        &mut self,
        step: Step,
        now: u64,
        world: &mut Backend,
        tally: &mut Tally,
    ) -> anyhow::Result<()> {
        let outcome = match step {
            // What cannot leave need not be made.
            _ if self.network == Network::None => self.not_sent(tally),
            Step::Enrol => self.enrol(now, world, tally).await?,
            Step::Recover if self.fault == Fault::NoRecovery => Outcome::Failed,
            Step::Renew | Step::Recover => self.renew(step, now, world, tally).await?,
            _ => self.ask_time(world, tally).await?,
        };
        let elapsed = Duration::from_secs(now - self.booted);
        match self.life.note(step, outcome, elapsed, self.dice.roll()) {
            Keep::All => {}
            Keep::NotTheKey => self.disk.forget_candidate()?,
            Keep::NotTheApplication => {
                self.disk.forget_application()?;
                self.applied = None;
            }
        }
        Ok(())
    }

    async fn ask_time(&mut self, world: &mut Backend, tally: &mut Tally) -> anyhow::Result<Outcome> {
        let request = Request::get(enrol::TIME_PATH).body(Body::empty())?;
        let reply = self.send::<ServerTime>((Host::Api, request), world, tally).await?;
        Ok(outcome(&reply, |_| self.confirmed = true))
    }

    async fn enrol(&mut self, now: u64, world: &mut Backend, tally: &mut Tally) -> anyhow::Result<Outcome> {
        let application = self.applied.clone().context("there is no application")?;
        let body = EnrolRequest {
            token: application.token.to_string(),
            csr: STANDARD.encode(application.key.certificate_signing_request()?),
            device: self.description(),
        };
        let request = post(enrol::PATH, &body)?;
        let reply = self.send::<EnrolResponse>((Host::Api, request), world, tally).await?;
        if let Reply::Good(response) = &reply {
            self.confirmed = true;
            let Application { key, domain, ca, .. } = application;
            let credential = Credential::new(key, domain, ca, response.clone(), UnixSeconds(now))?;
            self.disk.save_credential(&credential)?;
            self.applied = None;
            tally.enrolments += 1;
            self.hold(credential, now, tally)?;
        }
        Ok(outcome(&reply, |_| ()))
    }

    async fn renew(
        &mut self,
        step: Step,
        now: u64,
        world: &mut Backend,
        tally: &mut Tally,
    ) -> anyhow::Result<Outcome> {
        let held = self.held.as_ref().context("there is nothing to renew")?;
        let credential = held.credential.clone();
        if self.fault == Fault::ForgottenKeys {
            self.disk.forget_candidate()?;
        }
        let key = self.disk.candidate(&credential)?;
        let csr = STANDARD.encode(key.certificate_signing_request()?);
        let request = post(enrol::RENEW_PATH, &RenewRequest { csr, device: self.description() })?;
        let reply = self.send::<RenewResponse>((Host::Ingest, request), world, tally).await?;
        if let Reply::Good(response) = &reply {
            self.note_renewal(step, now, tally);
            let renewed = credential.renewed(key, response.clone())?;
            self.disk.save_renewed(&renewed)?;
            self.hold(renewed, now, tally)?;
        }
        Ok(outcome(&reply, |_| self.confirmed = true))
    }

    fn note_renewal(&self, step: Step, now: u64, tally: &mut Tally) {
        let Some(Held { term, .. }) = &self.held else { return };
        let due = term.renews_at(self.renew_before).0;
        let usual = due == term.renews_at(None).0;
        // Nobody can do what was asked for before it was.
        let due = if usual { due } else { due.max(self.asked_at.unwrap_or_default()) };
        if step == Step::Recover {
            tally.recoveries += 1;
            tally.longest_gap = tally.longest_gap.max(now.saturating_sub(term.until.0));
        } else {
            tally.renewals += 1;
            tally.asked_renewals += u64::from(!usual);
        }
        if usual && step == Step::Renew && now - due < HOUR {
            tally.renewed_on_time_at(now - term.from.0);
        }
        if let Some(online) = self.online_since {
            tally.delay(now - due.max(online).min(now));
        }
    }

    /// Goes on with a certificate.
    fn hold(&mut self, credential: Credential, now: u64, tally: &mut Tally) -> anyhow::Result<()> {
        let leaf = credential.certified_key()?.cert.first().context("an empty chain")?.clone();
        let (_, parsed) = X509Certificate::from_der(&leaf)?;
        let serial = hexadecimal(parsed.raw_serial());
        let issuer = authority_key(&parsed).context("no authority key identifier")?;
        tally.certificate(&issuer, credential.term().spread);
        if let Some(lost) = self.lost.take() {
            tally.given_again(lost == leaf.as_ref());
        }
        let spread = if self.fault == Fault::NoJitter { u64::MAX / 2 } else { self.dice.roll() };
        let term = Term { spread, ..credential.term() };
        self.asks_directive_at = Some(now);
        self.held = Some(Held { credential, leaf, term, serial, issued_at: now });
        Ok(())
    }

    /// What the long poll brings. It is also what uses a certificate first.
    async fn ask_directive(
        &mut self,
        now: u64,
        world: &mut Backend,
        tally: &mut Tally,
    ) -> anyhow::Result<()> {
        self.asks_directive_at = None;
        let Some(held) = self.held.as_ref().filter(|_| self.network != Network::None) else { return Ok(()) };
        if self.asked_at == world.asked_at() && !self.dice.in_thousand(200) {
            return self.report(now, world, tally).await;
        }
        let (key, device) = (held.credential.directive_key().clone(), held.credential.enrolled().device);
        let request = Request::get(codec::DIRECTIVE_PATH).body(Body::empty())?;
        let elapsed = Duration::from_secs(now - self.booted);
        match self.send::<SignedDirective>((Host::Ingest, request), world, tally).await? {
            Reply::Good(signed) => {
                let directive = key.verify(&signed, device)?;
                self.renew_before = directive.renew_before;
                self.asked_at = world.asked_at();
                self.confirmed = true;
                self.life.note_accepted();
            }
            Reply::Refused { code, .. } => self.life.note_refusal(code, elapsed, self.dice.roll()),
            Reply::Lost => self.asks_directive_at = Some(now + self.dice.between(30, 15 * MINUTE)),
        }
        Ok(())
    }

    /// Sends an event, again and again until it is acknowledged.
    async fn report(&mut self, now: u64, world: &mut Backend, tally: &mut Tally) -> anyhow::Result<()> {
        let body = EventBody::Dropped(Dropped { events: 1, place: "spool".into() });
        let event = Event { sequence: self.acknowledged + 1, minute: UnixSeconds(now).minute(), body };
        let request = post(codec::EVENTS_PATH, &Batch { events: vec![event] })?;
        match self.send::<Ack>((Host::Ingest, request), world, tally).await? {
            Reply::Good(ack) => {
                anyhow::ensure!(
                    ack.acknowledged == self.acknowledged + 1,
                    "acknowledged {}",
                    ack.acknowledged
                );
                self.acknowledged = ack.acknowledged;
                self.life.note_accepted();
            }
            Reply::Refused { code, .. } => {
                self.life.note_refusal(code, Duration::from_secs(now - self.booted), self.dice.roll());
            }
            Reply::Lost => self.asks_directive_at = Some(now + self.dice.between(30, 15 * MINUTE)),
        }
        Ok(())
    }

    fn description(&self) -> DeviceDescription {
        DeviceDescription {
            hostname: self.hostname.clone(),
            platform: "linux".into(),
            agent_version: "0.1.0".into(),
            hardware: Some(self.hardware.clone()),
        }
    }
}

fn outcome<T>(reply: &Reply<T>, mut done: impl FnMut(&T)) -> Outcome {
    match reply {
        Reply::Good(answer) => {
            done(answer);
            Outcome::Done
        }
        Reply::Refused { code, retry_after } => Outcome::Refused { code: *code, retry_after: *retry_after },
        Reply::Lost => Outcome::Failed,
    }
}

fn post(path: &str, body: &impl serde::Serialize) -> anyhow::Result<Request<Body>> {
    let request = Request::post(path).header(header::CONTENT_TYPE, "application/json");
    Ok(request.body(serde_json::to_vec(body)?.into())?)
}

/// The leaf of an answer that has a chain in it.
fn chain_in(answer: &[u8]) -> Option<Vec<u8>> {
    use rustls::pki_types::pem::PemObject as _;
    let json: serde_json::Value = serde_json::from_slice(answer).ok()?;
    let leaf = CertificateDer::from_pem_slice(json.get("certificate_chain")?.as_str()?.as_bytes()).ok()?;
    Some(leaf.to_vec())
}

fn authority_key(certificate: &X509Certificate<'_>) -> Option<String> {
    use x509_parser::extensions::ParsedExtension;
    certificate.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(identifier) => {
            identifier.key_identifier.as_ref().map(|identifier| hexadecimal(identifier.0))
        }
        _ => None,
    })
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
