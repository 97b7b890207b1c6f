//! The backend of a fleet: the server's own state, routes and database, the real authority, and a
//! clock that is set. What TLS would do at both ends is done here: a device is told from strangers
//! by its certificate, and the hosts show chains that devices judge by the roots they have.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, ensure};
use axum::Router;
use axum::body::Body;
use http_body_util::BodyExt as _;
use hyper::body::Bytes;
use hyper::{Request, StatusCode, header};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tempfile::TempDir;
use toktra_pki::rotation::{Ceremony, Dependants, Line, Step, dependants};
use toktra_pki::{Authority, Founding, Passphrase, PassphraseFile};
use toktra_protocol::{ToktraDomain, UnixSeconds};
use toktra_server::peer::{Peer, Who};
use toktra_server::{App, Clock, Config, SharedApp, routes};
use toktra_store::directory::{self, Organisation};
use toktra_store::{approvals, audit, devices, issuers, tokens};
use tower::ServiceExt as _;
use uuid::Uuid;
use webpki::{EndEntityCert, KeyUsage};

/// Whom the audit trail names for what the simulation's administrator does.
const ADMINISTRATOR: &str = "administrator";
/// Largest answer, in bytes.
const ANSWER_LIMIT: usize = 1024 * 1024;

/// Which of the hosts a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    /// Enrolment and time, without a certificate.
    Api,
    /// Device traffic.
    Ingest,
}

/// What the backend said.
#[derive(Clone, Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: StatusCode,
    /// `Retry-After`, in seconds.
    pub retry_after_s: Option<u64>,
    /// The body.
    pub body: Bytes,
}

/// What the backend thinks of a device.
#[derive(Clone, Debug)]
pub struct Standing {
    /// Whether it is enrolled, and not revoked.
    pub is_enrolled: bool,
    /// What it is flagged for.
    pub flag: Option<String>,
    /// Serial number of the newest certificate that it used.
    pub serial: Option<String>,
    /// The last of its events that is stored.
    pub acknowledged: u64,
}

/// A backend in virtual time.
pub struct Backend {
    place: TempDir,
    domain: ToktraDomain,
    passphrase: PassphraseFile,
    time: &'static AtomicU64,
    organisation: Organisation,
    running: Option<Running>,
    asked_at: Option<u64>,
    /// Counts the chains that the hosts have shown.
    generation: u64,
    believed: HashMap<(u64, Host, String), bool>,
}

struct Running {
    app: SharedApp,
    api: Router,
    ingest: Router,
    chains: HashMap<Host, Vec<CertificateDer<'static>>>,
}

impl Backend {
    /// Makes a backend in memory, which runs.
    pub async fn found(now: u64) -> anyhow::Result<Self> {
        // The database syncs every commit; a disk would be most of the run, and proves nothing here.
        let memory = PathBuf::from("/dev/shm");
        let place = if memory.is_dir() { tempfile::tempdir_in(memory)? } else { tempfile::tempdir()? };
        let domain: ToktraDomain = "toktra.localhost".parse()?;
        let (data, at) = (place.path().join("data"), UnixSeconds(now));
        let passphrase = PassphraseFile::Own(place.path().join("passphrase"));
        std::fs::create_dir(&data)?;
        let founding = Founding {
            domain: &domain,
            passphrase: &passphrase.read_or_make()?.0,
            root_passphrase: &Self::root_passphrase()?,
            root_directory: &place.path().join("root"),
        };
        Authority::create(&data, &founding, at)?;
        Config { domain: domain.clone() }.write(&data)?;
        let time: &'static AtomicU64 = Box::leak(Box::new(AtomicU64::new(now)));
        let app = App::open(&data, &passphrase, Clock::Set(time)).await?;
        let organisation = directory::create_organisation(&app.store, "Acme", ADMINISTRATOR, at).await?;
        let mut backend = Self {
            place,
            domain,
            passphrase,
            time,
            organisation,
            running: None,
            asked_at: None,
            generation: 0,
            believed: HashMap::new(),
        };
        backend.run(app)?;
        Ok(backend)
    }

    /// Sets the clock.
    pub fn set_time(&self, now: u64) {
        self.time.store(now, Ordering::Relaxed);
    }

    /// When a step was taken after which every device is to renew.
    pub fn asked_at(&self) -> Option<u64> {
        self.asked_at
    }

    /// Whether it runs.
    pub fn is_up(&self) -> bool {
        self.running.is_some()
    }

    /// Stops it, as a service manager would.
    pub async fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            running.app.stop.send_replace(true);
            running.app.store.close().await;
        }
    }

    /// Starts it on what is on disk.
    pub async fn start(&mut self) -> anyhow::Result<()> {
        let app = App::open(&self.data(), &self.passphrase, Clock::Set(self.time)).await?;
        self.run(app)
    }

    /// Gives the hosts new certificates, which a running server does every week.
    pub fn renew_hosts(&mut self) -> anyhow::Result<()> {
        let domain = self.domain.clone();
        let now = self.now();
        if let Some(running) = &mut self.running {
            running.chains = chains(&running.app, &domain, now)?;
            self.generation += 1;
            self.believed.clear();
        }
        Ok(())
    }

    /// Sends a request to a host as whoever shows this certificate. `None` if nobody is there.
    pub async fn ask(
        &self,
        host: Host,
        certificate: Option<&CertificateDer<'static>>,
        mut request: Request<Body>,
    ) -> anyhow::Result<Option<Answer>> {
        let Some(running) = &self.running else { return Ok(None) };
        let who = Who::of(certificate.map(std::slice::from_ref), running.app.authority().trust());
        request.extensions_mut().insert(Peer { address: ([192, 0, 2, 1], 1).into(), who });
        let router = match host {
            Host::Api => running.api.clone(),
            Host::Ingest => running.ingest.clone(),
        };
        let response = router.oneshot(request).await?;
        let retry_after = response.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
        let retry_after_s = retry_after.and_then(|value| value.parse().ok());
        let status = response.status();
        let body = response.into_body().collect().await.context("an answer broke off")?.to_bytes();
        ensure!(body.len() <= ANSWER_LIMIT, "an answer of {} bytes", body.len());
        Ok(Some(Answer { status, retry_after_s, body }))
    }

    /// Whether a device with these roots would believe a host.
    pub fn is_believed(&mut self, host: Host, roots: &str) -> anyhow::Result<bool> {
        let Some(running) = &self.running else { return Ok(true) };
        let key = (self.generation, host, roots.to_owned());
        if let Some(&known) = self.believed.get(&key) {
            return Ok(known);
        }
        let name = match host {
            Host::Api => self.domain.api_host(),
            Host::Ingest => self.domain.ingest_host(),
        };
        let verdict = is_believed(&running.chains[&host], &name, roots, self.now());
        self.believed.insert(key, verdict);
        Ok(verdict)
    }

    fn run(&mut self, app: SharedApp) -> anyhow::Result<()> {
        let chains = chains(&app, &self.domain, self.now())?;
        let (api, ingest) = (routes::api(Arc::clone(&app)), routes::ingest(Arc::clone(&app), Router::new()));
        self.running = Some(Running { app, api, ingest, chains });
        self.generation += 1;
        self.believed.clear();
        Ok(())
    }

    fn now(&self) -> UnixSeconds {
        UnixSeconds(self.time.load(Ordering::Relaxed))
    }

    fn data(&self) -> PathBuf {
        self.place.path().join("data")
    }

    fn app(&self) -> anyhow::Result<&SharedApp> {
        self.running.as_ref().map(|running| &running.app).context("the backend is down")
    }

    fn root_passphrase() -> anyhow::Result<Passphrase> {
        Ok(Passphrase::read(&b"a root's own passphrase"[..])?)
    }
}

/// What an administrator does.
impl Backend {
    /// The roots that new devices are given, PEM.
    pub fn roots(&self) -> anyhow::Result<String> {
        Ok(std::fs::read_to_string(Authority::root_certificate_file(&self.data()))?)
    }

    /// A one-time token, good for so long.
    pub async fn token(&self, valid_s: u64) -> anyhow::Result<String> {
        self.make_token(tokens::Use::Once, valid_s).await
    }

    /// A token for so many devices, each of which must be approved.
    pub async fn reusable_token(&self, devices: u32, valid_s: u64) -> anyhow::Result<String> {
        self.make_token(tokens::Use::Reusable { devices }, valid_s).await
    }

    async fn make_token(&self, uses: tokens::Use, valid_s: u64) -> anyhow::Result<String> {
        let token = Uuid::new_v4().simple().to_string();
        let digest = ring::digest::digest(&ring::digest::SHA256, token.as_bytes());
        let hash: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        let grant = tokens::Grant { organisation: &self.organisation, department: None, user: None };
        let until = self.now().plus(valid_s);
        tokens::create(&self.app()?.store, &hash, (grant, uses, "fleet"), until, ADMINISTRATOR, self.now())
            .await?;
        Ok(token)
    }

    /// Approves every device that waits; how many.
    pub async fn approve_all(&self) -> anyhow::Result<usize> {
        let store = &self.app()?.store;
        let waiting = approvals::waiting(store, &self.organisation.id, self.now()).await?;
        for request in &waiting {
            approvals::decide(store, None, &request.id, true, ADMINISTRATOR, self.now()).await?;
        }
        Ok(waiting.len())
    }

    /// Takes a step of a rotation as the commands do; a running server goes on with it.
    pub async fn rotate(&mut self, line: Line, step: Step) -> anyhow::Result<()> {
        let root_passphrase = PassphraseFile::Own(self.place.path().join("root-passphrase"));
        write_private(&self.place.path().join("root-passphrase"), Self::root_passphrase()?.reveal())?;
        let ceremony = Ceremony {
            data: &self.data(),
            domain: &self.domain,
            passphrase: &self.passphrase,
            root_directory: &self.place.path().join("root"),
            root_passphrase: Some(&root_passphrase),
            next_root_directory: &self.place.path().join("root"),
            next_root_passphrase: &Self::root_passphrase()?,
        };
        ceremony.rehearse(line, step, self.now())?;
        ceremony.take(line, step, self.now())?;
        let asked = self.app()?.authority().renew_before();
        self.app()?.reopen_authority().await?;
        if self.app()?.authority().renew_before() != asked {
            self.asked_at = Some(self.now().0);
        }
        self.renew_hosts()
    }

    /// How many devices a step would cut off, as its command tells before it is taken.
    pub async fn dependent(&self, line: Line, step: Step) -> anyhow::Result<u64> {
        let (store, now) = (&self.app()?.store, self.now());
        let hanging = match dependants(&self.data(), line, step)? {
            Dependants::None => issuers::Hanging::default(),
            Dependants::OfIssuer(issuer) => issuers::devices_of(store, &issuer, now).await?,
            Dependants::NotToldOf(root) => issuers::devices_not_told_of(store, &root, now).await?,
        };
        Ok((hanging.current + hanging.recoverable).try_into()?)
    }

    /// What the backend thinks of every device.
    pub async fn standings(&self) -> anyhow::Result<HashMap<Uuid, Standing>> {
        let rows = devices::all(&self.app()?.store).await?;
        let standing = |device: devices::Device| {
            let is_enrolled = !device.is_revoked();
            let acknowledged = u64::try_from(device.acknowledged_sequence)?;
            let (id, serial) = (device.device_id()?, device.certificate_serial);
            Ok((id, Standing { is_enrolled, flag: device.flag, serial, acknowledged }))
        };
        rows.into_iter().map(standing).collect()
    }

    /// How many rows the audit trail has, all of them in order.
    pub async fn audited(&self) -> anyhow::Result<i64> {
        let walk = audit::verify(&self.app()?.store, None).await?;
        ensure!(walk.fault.is_none(), "the audit trail: {:?}", walk.fault);
        Ok(walk.rows)
    }
}

fn chains(
    app: &App,
    domain: &ToktraDomain,
    now: UnixSeconds,
) -> anyhow::Result<HashMap<Host, Vec<CertificateDer<'static>>>> {
    let hosts = [(Host::Api, domain.api_host()), (Host::Ingest, domain.ingest_host())];
    let chain = |(host, name): (Host, String)| Ok((host, app.authority().issue_server(&name, now)?.chain));
    hosts.into_iter().map(chain).collect()
}

/// What a TLS client does with a server's chain (RFC 5280 path, RFC 6125 name).
fn is_believed(chain: &[CertificateDer<'_>], name: &str, roots: &str, now: UnixSeconds) -> bool {
    let roots: Vec<_> = CertificateDer::pem_slice_iter(roots.as_bytes()).filter_map(Result::ok).collect();
    let anchors: Vec<_> =
        roots.iter().filter_map(|root| webpki::anchor_from_trusted_cert(root).ok()).collect();
    let (Some((leaf, rest)), Ok(name)) = (chain.split_first(), ServerName::try_from(name)) else {
        return false;
    };
    let time = UnixTime::since_unix_epoch(std::time::Duration::from_secs(now.0));
    let algorithms = [webpki::ring::ECDSA_P256_SHA256];
    let Ok(leaf) = EndEntityCert::try_from(leaf) else { return false };
    leaf.verify_for_usage(&algorithms, &anchors, rest, time, KeyUsage::server_auth(), None, None).is_ok()
        && leaf.verify_is_valid_for_subject_name(&name).is_ok()
}

fn write_private(path: &std::path::Path, text: &str) -> anyhow::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut file =
        std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    Ok(file.write_all(text.as_bytes())?)
}
