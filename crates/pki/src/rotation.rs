//! Rotating a CA in steps that can be undone until the last ([`crate::rotation::Step`]).
//!
//! ```text
//! devices  prepare ─ trust ─ issue ─ retire        the intermediate that issues devices
//! server   prepare ─ issue ─ retire                the CA of the hosts' certificates
//! root     prepare ─ distribute ─ switch ─ retire  the next root, certified by the old one
//! ```
//!
//! A step first works everything out, which is all that a dry run does; then it writes new files,
//! then replaces the state, which is the moment it takes effect, and only then removes what is no
//! longer needed. A crash in between leaves files that nothing names. Steps exclude one another
//! by a lock on the authority's directory. Nothing is down meanwhile: a running server notices the
//! new state and goes on with it.
//!
//! The root's key is needed by `prepare` (the old one) and by `root switch` (the next one).

use std::path::{Path, PathBuf};

use rcgen::{CertificateParams, Issuer, PKCS_ECDSA_P256_SHA256};
use rustls::pki_types::CertificateDer;
use toktra_protocol::{ToktraDomain, UnixSeconds};
use zeroize::Zeroizing;

use crate::authority::{roots_pem, subject_of};
use crate::files::{
    ONLINE, ensure_directory, failed, read_certificate, read_text, remove, replace, write_new,
};
use crate::keys::{CaKey, KeyOpener, encrypt, is_encrypted, new_key};
use crate::passphrase::{Passphrase, PassphraseError, PassphraseFile};
use crate::profile::{self, Subject, end_of, key_id, key_of};
use crate::state::{Ca, Next, NextRoot, Rotation, State, UnderRoot, following};
pub use crate::state::{Line, Phase, Step, StepError};
use crate::{Authority, AuthorityError};

/// Why a step was not taken. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum RotationError {
    /// It is not its turn.
    #[error(transparent)]
    Step(#[from] StepError),
    /// The authority did not do it.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// The root's key is not where it was looked for.
    #[error(
        "the root's key is not in `{}`: this step needs it for a moment; bring it back from where it is \
         kept, and name its directory with --root", .0.display()
    )]
    RootKey(PathBuf),
    /// The root's key is encrypted.
    #[error(
        "the root's key is encrypted; give its passphrase with --root-passphrase-file FILE (`-`: standard input)"
    )]
    RootPassphrase,
}

impl From<PassphraseError> for RotationError {
    fn from(error: PassphraseError) -> Self {
        Self::Authority(error.into())
    }
}

/// What steps are taken with.
#[derive(Debug)]
pub struct Ceremony<'a> {
    /// The data directory.
    pub data: &'a Path,
    /// Under which a server CA may name hosts.
    pub domain: &'a ToktraDomain,
    /// Of the keys that the server needs.
    pub passphrase: &'a PassphraseFile,
    /// Where the key of the root is that this step signs with.
    pub root_directory: &'a Path,
    /// Its passphrase.
    pub root_passphrase: Option<&'a PassphraseFile>,
    /// Where `root prepare` puts the next root's key.
    pub next_root_directory: &'a Path,
    /// Encrypts it.
    pub next_root_passphrase: &'a Passphrase,
}

/// Which device certificates would be worth nothing after a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dependants {
    /// None.
    None,
    /// Those of this intermediate (its key identifier).
    OfIssuer(String),
    /// Those of devices that were not told of this root (its key identifier) with theirs.
    NotToldOf(String),
}

/// Which device certificates hang on what the step drops; the caller counts them.
pub fn dependants(data: &Path, line: Line, step: Step) -> Result<Dependants, RotationError> {
    let online = data.join(ONLINE);
    let state = State::read(&online)?;
    state.check(line, step)?;
    let id = |file: &str| subject_of(&online.join(file)).map(|subject| subject.id());
    Ok(match (line, step, state.phase(line), state.next_ca(line)) {
        (Line::Devices, Step::Retire, _, _) => Dependants::OfIssuer(id(&state.devices.certificate)?),
        (Line::Devices, Step::Rollback, Some(Phase::Announced), Some(next)) => {
            Dependants::OfIssuer(id(&next.certificate)?)
        }
        (Line::Root, Step::Retire, _, _) => match state.next_root() {
            Some(next) => Dependants::NotToldOf(id(&next.certificate)?),
            None => Dependants::None,
        },
        _ => Dependants::None,
    })
}

impl Ceremony<'_> {
    /// Takes a step and says what was done, a sentence each.
    pub fn take(&self, line: Line, step: Step, now: UnixSeconds) -> Result<Vec<String>, RotationError> {
        let online = self.online();
        let lock = std::fs::File::open(&online).map_err(failed(&online))?;
        lock.lock().map_err(failed(&online))?;
        let outcome = self.work_out(line, step, now)?;
        for directory in &outcome.directories {
            ensure_directory(directory)?;
        }
        for file in &outcome.files {
            let write = if file.is_secret { write_new } else { replace };
            write(&file.path, if file.is_secret { 0o600 } else { 0o644 }, file.content.as_bytes())?;
        }
        outcome.state.write(&online)?;
        let roots = roots_pem(&online, &outcome.state)?;
        let bundle = Authority::root_certificate_file(self.data);
        if read_text(&bundle).ok().as_ref() != Some(&roots) {
            replace(&bundle, 0o644, roots.as_bytes())?;
        }
        for path in &outcome.removals {
            remove(path)?;
        }
        Ok(outcome.said)
    }

    /// Says what a step would do. Checks everything that the step needs, changes nothing.
    pub fn rehearse(&self, line: Line, step: Step, now: UnixSeconds) -> Result<Vec<String>, RotationError> {
        Ok(self.work_out(line, step, now)?.said)
    }

    fn work_out(&self, line: Line, step: Step, now: UnixSeconds) -> Result<Outcome, RotationError> {
        let state = State::read(&self.online())?;
        state.check(line, step)?;
        let outcome = Outcome::from(state);
        match (step, line) {
            (Step::Prepare, Line::Root) => self.prepare_root(outcome, now),
            (Step::Prepare, _) => self.prepare_ca(outcome, line, now),
            (Step::Switch, _) => self.switch(outcome, now),
            (Step::Retire, _) => Ok(self.retire(outcome, line)),
            (Step::Rollback, _) => Ok(self.roll_back(outcome, line, now)),
            (Step::Trust | Step::Issue | Step::Distribute, _) => Ok(advance(outcome, line, step, now)),
        }
    }

    fn prepare_ca(&self, mut out: Outcome, line: Line, now: UnixSeconds) -> Result<Outcome, RotationError> {
        let passphrase = self.passphrase_of_keys(&out.state)?;
        let (root, end) = self.root(&out.state.root)?;
        let key = new_key(&PKCS_ECDSA_P256_SHA256)?;
        let params = match line {
            Line::Server => {
                profile::server_ca(&Subject::new("Toktra Server CA", &*key), self.domain, now, end)?
            }
            _ => profile::device_ca(&Subject::new("Toktra Intermediate CA", &*key), now, end)?,
        };
        let certificate = params.signed_by(&*key, &root).map_err(AuthorityError::from)?;
        let stem = format!("{}-{}", line.name(), short(&key_id(&*key)));
        let ca = Ca { key: format!("{stem}.key"), certificate: format!("{stem}.pem") };
        out.write_key(self.online().join(&ca.key), encrypt(&key, &passphrase)?);
        out.write_certificate(self.online().join(&ca.certificate), certificate.pem());
        out.say(format!("Makes {} (`authority/{stem}.*`), which nothing uses yet.", quoted(&params)));
        out.state.rotation = Some(Rotation { line, phase: Phase::Prepared, since: now, next: Next::Ca(ca) });
        Ok(out)
    }

    fn prepare_root(&self, mut out: Outcome, now: UnixSeconds) -> Result<Outcome, RotationError> {
        let (old, end) = self.root(&out.state.root)?;
        let key = new_key(&PKCS_ECDSA_P256_SHA256)?;
        let subject = Subject::new("Toktra Root CA", &*key);
        let params = profile::root(&subject, now, UnixSeconds(u64::MAX))?;
        let certificate = params.self_signed(&*key).map_err(AuthorityError::from)?;
        let cross =
            profile::root(&subject, now, end)?.signed_by(&*key, &old).map_err(AuthorityError::from)?;
        let id = key_id(&*key);
        let next = NextRoot {
            certificate: format!("root-{}.pem", short(&id)),
            cross: format!("cross-{}.pem", short(&id)),
            under_it: None,
        };
        let key_path = self.next_root_directory.join(format!("root-{}.key", short(&id)));
        out.say(format!("Makes {}; its key goes to `{}`.", quoted(&params), key_path.display()));
        out.say(
            "The old root certifies it. Nothing uses it yet; take the key offline until `switch`.".into(),
        );
        out.directories.push(self.next_root_directory.to_owned());
        out.write_key(key_path, encrypt(&key, self.next_root_passphrase)?);
        out.write_certificate(self.online().join(&next.certificate), certificate.pem());
        out.write_certificate(self.online().join(&next.cross), cross.pem());
        out.state.rotation =
            Some(Rotation { line: Line::Root, phase: Phase::Prepared, since: now, next: Next::Root(next) });
        Ok(out)
    }

    fn switch(&self, mut out: Outcome, now: UnixSeconds) -> Result<Outcome, RotationError> {
        let Some(next) = out.state.next_root().cloned() else {
            return Err(StepError::NotBegun { line: Line::Root.name() }.into());
        };
        let (root, end) = self.root(&next.certificate)?;
        let root_id = key_id(root.key());
        let (devices, server) = (out.state.devices.clone(), out.state.server.clone());
        let mut under = |line: Line, ca: &Ca| -> Result<String, RotationError> {
            let old = read_certificate(&self.online().join(&ca.certificate))?;
            let key = key_of(&old)?;
            let subject = Subject::of(&old).ok_or(AuthorityError::Key)?;
            let params = match line {
                Line::Server => profile::server_ca(&subject, self.domain, now, end)?,
                _ => profile::device_ca(&subject, now, end)?,
            };
            let certificate = params.signed_by(&key, &root).map_err(AuthorityError::from)?;
            let file = format!("{}-{}-{}.pem", line.name(), short(&key_id(&key)), short(&root_id));
            out.write_certificate(self.online().join(&file), certificate.pem());
            Ok(file)
        };
        let (devices, server) = (under(Line::Devices, &devices)?, under(Line::Server, &server)?);
        out.say("Puts both CAs, with the keys that they have, under the next root.".into());
        out.say("Chains carry its cross certificate, so that the old root leads to them too.".into());
        if let Some(Rotation { phase, since, next: Next::Root(next), .. }) = &mut out.state.rotation {
            (*phase, *since) = (Phase::Active, now);
            next.under_it = Some(UnderRoot { devices, server });
        }
        Ok(out)
    }

    fn retire(&self, mut out: Outcome, line: Line) -> Outcome {
        let Some(rotation) = out.state.rotation.take() else { return out };
        match rotation.next {
            Next::Ca(next) => {
                let current =
                    if line == Line::Server { &mut out.state.server } else { &mut out.state.devices };
                let old = std::mem::replace(current, next);
                out.removals.push(self.online().join(&old.key));
                out.say(format!("Drops the old CA and deletes its key (`authority/{}`).", old.key));
            }
            Next::Root(next) => {
                if let Some(under) = next.under_it {
                    out.state.devices.certificate = under.devices;
                    out.state.server.certificate = under.server;
                }
                out.state.root = next.certificate;
                out.say("Drops the old root: `root.pem` and chains lead to the next one only.".into());
                out.say("Destroy the old root's key where you keep it; nothing needs it any more.".into());
            }
        }
        out.say("This cannot be rolled back.".into());
        out
    }

    fn roll_back(&self, mut out: Outcome, line: Line, now: UnixSeconds) -> Outcome {
        let Some(mut rotation) = out.state.rotation.take() else { return out };
        let undone = rotation.phase;
        let Some(phase) = State::before(line, undone) else {
            match &rotation.next {
                Next::Ca(ca) => {
                    out.removals.extend([&ca.key, &ca.certificate].map(|f| self.online().join(f)))
                }
                Next::Root(root) => {
                    out.removals.extend([&root.certificate, &root.cross].map(|f| self.online().join(f)));
                    let key =
                        self.next_root_directory.join(Path::new(&root.certificate).with_extension("key"));
                    out.removals.push(key);
                }
            }
            out.say("Gives the rotation up and deletes what was prepared.".into());
            if line == Line::Root {
                out.say("If you took the next root's key elsewhere, destroy it there.".into());
            }
            return out;
        };
        (rotation.phase, rotation.since) = (phase, now);
        if let Next::Root(root) = &mut rotation.next {
            root.under_it = None;
        }
        out.say(format!("Goes back to {}.", phase.name()));
        let devices_follow =
            matches!((line, undone), (Line::Devices, Phase::Active) | (Line::Root, Phase::Announced));
        if devices_follow {
            out.renew_all(now);
        }
        out.state.rotation = Some(rotation);
        out
    }

    /// The passphrase of the keys that the server needs, proved on one of them.
    fn passphrase_of_keys(&self, state: &State) -> Result<Passphrase, RotationError> {
        let passphrase = self.passphrase.read()?;
        let path = self.online().join(&state.devices.key);
        KeyOpener::with(passphrase.clone()).open(&path)?;
        Ok(passphrase)
    }

    /// The root of this certificate with its key, and when it ends.
    fn root(&self, certificate: &str) -> Result<(Issuer<'static, CaKey>, UnixSeconds), RotationError> {
        let path = self.online().join(certificate);
        let certificate = read_certificate(&path)?;
        let end = end_of(&certificate).ok_or_else(|| AuthorityError::CertificateFile(path.clone()))?;
        let key_path = self.root_key_file(&certificate)?;
        let key = match self.root_passphrase {
            Some(file) => KeyOpener::new(file).open(&key_path)?,
            None if is_encrypted(&Zeroizing::new(read_text(&key_path)?)) => {
                return Err(RotationError::RootPassphrase);
            }
            None => KeyOpener::new(self.passphrase).open(&key_path)?,
        };
        if key_id(&key.key) != key_id(&key_of(&certificate)?) {
            return Err(AuthorityError::OtherKey { key: key_path, certificate: path }.into());
        }
        let issuer =
            Issuer::from_ca_cert_der(&certificate, CaKey::new(key.key)).map_err(AuthorityError::from)?;
        Ok((issuer, end))
    }

    fn root_key_file(&self, certificate: &CertificateDer<'_>) -> Result<PathBuf, RotationError> {
        let own_name = format!("root-{}.key", short(&key_id(&key_of(certificate)?)));
        let places = [own_name.as_str(), "root.key"].map(|name| self.root_directory.join(name));
        let found = places.into_iter().find(|path| path.exists());
        found.ok_or_else(|| RotationError::RootKey(self.root_directory.to_owned()))
    }

    fn online(&self) -> PathBuf {
        self.data.join(ONLINE)
    }
}

/// What a step comes to.
struct Outcome {
    state: State,
    directories: Vec<PathBuf>,
    files: Vec<NewFile>,
    removals: Vec<PathBuf>,
    said: Vec<String>,
}

struct NewFile {
    path: PathBuf,
    content: Zeroizing<String>,
    is_secret: bool,
}

impl From<State> for Outcome {
    fn from(state: State) -> Self {
        Self { state, directories: Vec::new(), files: Vec::new(), removals: Vec::new(), said: Vec::new() }
    }
}

impl Outcome {
    fn say(&mut self, sentence: String) {
        self.said.push(sentence);
    }

    fn write_key(&mut self, path: PathBuf, content: Zeroizing<String>) {
        self.files.push(NewFile { path, content, is_secret: true });
    }

    fn write_certificate(&mut self, path: PathBuf, pem: String) {
        self.files.push(NewFile { path, content: Zeroizing::new(pem), is_secret: false });
    }

    fn renew_all(&mut self, now: UnixSeconds) {
        // Certificates begin before they were made.
        self.state.renew_before = Some(UnixSeconds(now.0.saturating_sub(profile::BACKDATED_S)));
        self.say("Devices renew their certificates as soon as they hear of it.".into());
    }
}

fn advance(mut out: Outcome, line: Line, step: Step, now: UnixSeconds) -> Outcome {
    let (Some(rotation), Some(reached)) = (&mut out.state.rotation, State::reached(line, step)) else {
        return out;
    };
    (rotation.phase, rotation.since) = (reached, now);
    match (line, step) {
        (Line::Devices, Step::Trust) => {
            out.say("Takes devices of the next intermediate too; the old one issues.".into());
        }
        (Line::Devices, _) => {
            out.say("The next intermediate issues; devices of the old one are taken too.".into());
            out.renew_all(now);
        }
        (Line::Server, _) => out.say("The hosts show certificates of the next server CA.".into()),
        (Line::Root, _) => {
            out.say(
                "`root.pem` and every answer to a device carry both roots. Give the file to browsers.".into(),
            );
            out.renew_all(now);
        }
    }
    out
}

fn short(id: &str) -> &str {
    &id[..8]
}

fn quoted(params: &CertificateParams) -> String {
    match params.distinguished_name.get(&rcgen::DnType::CommonName) {
        Some(rcgen::DnValue::Utf8String(name)) => format!("`{name}`"),
        _ => "a CA".to_owned(),
    }
}

/// What is in force, without a key being opened.
#[derive(Clone, Debug)]
pub struct Status {
    /// Roots, intermediates and server CAs, those that are used first in their kind.
    pub certificates: Vec<Standing>,
    /// The rotation under way: what, how far, since when, and the step that can follow.
    pub rotation: Option<(Line, Phase, UnixSeconds, Step)>,
    /// Device certificates that began before this are to be renewed now.
    pub renew_before: Option<UnixSeconds>,
    /// Key files that lie in the clear.
    pub plain_keys: Vec<PathBuf>,
}

/// A CA and what it does.
#[derive(Clone, Debug)]
pub struct Standing {
    /// Its kind.
    pub line: Line,
    /// What it does now.
    pub role: &'static str,
    /// Its name.
    pub name: String,
    /// Its key's identifier, hexadecimal.
    pub id: String,
    /// Until when it is valid.
    pub not_after: UnixSeconds,
}

impl Status {
    /// Reads what is in force.
    pub fn read(data: &Path) -> Result<Self, AuthorityError> {
        let online = data.join(ONLINE);
        let state = State::read(&online)?;
        let mut certificates = Vec::new();
        let mut add = |line, role, file: &str| -> Result<(), AuthorityError> {
            certificates.push(Standing::read(line, role, &online.join(file))?);
            Ok(())
        };
        add(Line::Root, "root", &state.root)?;
        if let Some(next) = state.next_root() {
            let given = state.roots().len() > 1;
            add(Line::Root, if given { "next, given to devices" } else { "next" }, &next.certificate)?;
        }
        let mut keys = vec!["directive.key".to_owned()];
        for line in [Line::Devices, Line::Server] {
            let in_use = state.in_use(line);
            for (position, ca) in in_use.iter().enumerate() {
                let rest = if line == Line::Server { "replaced" } else { "trusted" };
                add(line, if position == 0 { "issues" } else { rest }, &ca.certificate)?;
                keys.push(ca.key.clone());
            }
            if let Some(next) = state.next_ca(line).filter(|next| !in_use.contains(next)) {
                add(line, "next", &next.certificate)?;
                keys.push(next.key.clone());
            }
        }
        let mut plain_keys: Vec<PathBuf> = keys.iter().map(|key| online.join(key)).collect();
        plain_keys.retain(|path| read_text(path).is_ok_and(|text| !is_encrypted(&Zeroizing::new(text))));
        let rotation = state.rotation.as_ref().map(|rotation| {
            (rotation.line, rotation.phase, rotation.since, following(rotation.line, rotation.phase))
        });
        Ok(Self { certificates, rotation, renew_before: state.renew_before, plain_keys })
    }
}

impl Standing {
    fn read(line: Line, role: &'static str, path: &Path) -> Result<Self, AuthorityError> {
        let certificate = read_certificate(path)?;
        let unreadable = || AuthorityError::CertificateFile(path.to_owned());
        let subject = Subject::of(&certificate).ok_or_else(unreadable)?;
        Ok(Self {
            line,
            role,
            id: subject.id(),
            name: subject.name,
            not_after: end_of(&certificate).ok_or_else(unreadable)?,
        })
    }
}
