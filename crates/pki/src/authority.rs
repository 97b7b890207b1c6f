//! Opening the authority and issuing with it.
//!
//! ```text
//! DIR/root.pem                the roots to believe: give to agents and browsers
//! DIR/root/root.key           take offline; only rotations need it
//! DIR/authority/state.json    what is in force (crate::state)
//! DIR/authority/root.pem      the root's certificate
//! DIR/authority/devices.{pem,key}     Toktra Intermediate CA
//! DIR/authority/server.{pem,key}      Toktra Server CA
//! DIR/authority/directive.key         signs directives
//! ```
//!
//! What rotations make lies beside these under names that end in the key's identifier. Keys are
//! encrypted ([`crate::PassphraseFile`]), opened once, and zeroised when dropped.

use std::fmt;
use std::path::{Path, PathBuf};

use rcgen::{Certificate, CertificateParams, Issuer, PKCS_ECDSA_P256_SHA256, PublicKeyData};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use toktra_protocol::{DeviceId, UnixSeconds};
use uuid::Uuid;

use crate::files::{OFFLINE, ONLINE, read_certificate, read_text};
use crate::keys::{CaKey, KeyOpener, new_key};
use crate::passphrase::{PassphraseError, PassphraseFile};
use crate::profile::{self, Subject, end_of, hexadecimal, key_id};
use crate::state::{Ca, Line, STATE, State};
use crate::{DeviceTrust, DirectiveSigner, VerifiedCsr};

/// Why the authority did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A file could not be read or made.
    #[error("`{}` could not be read or made", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file does not hold a key that we can use.
    #[error("`{}` does not hold a PKCS#8 private key in PEM", .0.display())]
    KeyFile(PathBuf),
    /// A file does not hold a certificate.
    #[error("`{}` does not hold a certificate in PEM", .0.display())]
    CertificateFile(PathBuf),
    /// There is no passphrase to open keys with.
    #[error("the CA keys are encrypted")]
    Passphrase(#[from] PassphraseError),
    /// The passphrase is not the key's.
    #[error(
        "the passphrase does not open `{}`; give the one that it was encrypted under (--passphrase-file, \
         or --root-passphrase-file for a root's key)", .0.display()
    )]
    WrongPassphrase(PathBuf),
    /// The key is not the certificate's.
    #[error("`{}` is not the key of `{}`", key.display(), certificate.display())]
    OtherKey {
        /// The key's file.
        key: PathBuf,
        /// The certificate's file.
        certificate: PathBuf,
    },
    /// The state cannot be read.
    #[error("`{}` does not say what is in force; put back the last good copy", path.display())]
    State {
        /// Its file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The state was written by a newer version.
    #[error("`{}` was written by a newer version of the server; run that one", .0.display())]
    StateFormat(PathBuf),
    /// The issuer's own certificate has expired.
    #[error("the issuing CA has expired; rotate it (`toktra-server ca status` shows which)")]
    Expired,
    /// A key could not be used.
    #[error("a key could not be used")]
    Key,
    /// A certificate could not be made or read.
    #[error("a certificate could not be made or read")]
    Certificate(#[from] rcgen::Error),
    /// The authority's own certificate cannot serve as a trust anchor.
    #[error("the intermediate's certificate cannot serve as a trust anchor")]
    Anchor(#[source] webpki::Error),
    /// The operating system gave no randomness.
    #[error("the operating system gave no randomness")]
    Randomness,
}

/// A certificate made for a device.
#[derive(Clone, Debug)]
pub struct DeviceCertificate {
    /// DER.
    pub der: CertificateDer<'static>,
    /// Leaf and intermediate, PEM, leaf first; while a root is rotated, its cross certificate too.
    pub chain_pem: String,
    /// Hexadecimal.
    pub serial: String,
    /// Key identifier of the intermediate that issued it, hexadecimal.
    pub issuer: String,
    /// Start of its validity.
    pub not_before: UnixSeconds,
    /// End of its validity.
    pub not_after: UnixSeconds,
}

/// A certificate for one of the backend's own hosts, with its key. `Debug` shows neither.
pub struct ServerCertificate {
    /// Leaf and server CA, leaf first; while a root is rotated, its cross certificate too.
    pub chain: Vec<CertificateDer<'static>>,
    /// The leaf's key.
    pub key: PrivateKeyDer<'static>,
    /// End of its validity.
    pub not_after: UnixSeconds,
}

impl fmt::Debug for ServerCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerCertificate").field("not_after", &self.not_after).finish_non_exhaustive()
    }
}

/// What the running server holds: everything but the root's key.
pub struct Authority {
    /// The intermediates that are trusted; the first one issues.
    devices: Vec<IssuingCa>,
    servers: IssuingCa,
    directive: DirectiveSigner,
    trust: DeviceTrust,
    roots_pem: String,
    newest_root: String,
    renew_before: Option<UnixSeconds>,
    plain_keys: Vec<PathBuf>,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

impl Authority {
    /// Opens the authority under `data`. The root's key is not needed; the passphrase is only read
    /// where a key is encrypted.
    pub fn open(data: &Path, passphrase: &PassphraseFile) -> Result<Self, AuthorityError> {
        let online = data.join(ONLINE);
        let state = State::read(&online)?;
        let mut opening = Opening { online: &online, keys: KeyOpener::new(passphrase), plain: Vec::new() };
        let cross = state.cross().map(|file| read_certificate(&online.join(file))).transpose()?;
        let mut open = |line| -> Result<Vec<IssuingCa>, AuthorityError> {
            state.in_use(line).iter().map(|ca| opening.ca(ca, cross.as_ref())).collect()
        };
        let (devices, servers) = (open(Line::Devices)?, open(Line::Server)?);
        let directive = DirectiveSigner::from_pkcs8(opening.key("directive.key")?.0.serialized_der())?;
        let trusted = devices.iter().map(|ca| (ca.id.clone(), &ca.chain[0]));
        let trust = DeviceTrust::new(trusted).map_err(AuthorityError::Anchor)?;
        Ok(Self {
            servers: servers.into_iter().next().ok_or(AuthorityError::Key)?,
            devices,
            directive,
            trust,
            roots_pem: roots_pem(&online, &state)?,
            newest_root: newest_root(&online, &state)?,
            renew_before: state.renew_before,
            plain_keys: opening.plain,
        })
    }

    /// The file of the roots' certificates, to give to agents and browsers.
    pub fn root_certificate_file(data: &Path) -> PathBuf {
        data.join("root.pem")
    }

    /// The file that is replaced with every step of a rotation.
    pub fn state_file(data: &Path) -> PathBuf {
        data.join(ONLINE).join(STATE)
    }

    /// The directory of the root's key, unless it was made elsewhere; to be taken offline.
    pub fn offline_directory(data: &Path) -> PathBuf {
        data.join(OFFLINE)
    }

    /// Issues a device its certificate: 90 days, client authentication only, and no name
    /// but the device's own.
    pub fn issue_device(
        &self,
        csr: &VerifiedCsr,
        organisation: Uuid,
        device: DeviceId,
        now: UnixSeconds,
    ) -> Result<DeviceCertificate, AuthorityError> {
        let ca = self.issuing();
        let (params, validity) = profile::device(csr, organisation, device, now, ca.not_after)?;
        let certificate = ca.sign(&params, csr, now)?;
        let serial = params.serial_number.as_ref().ok_or(AuthorityError::Randomness)?;
        Ok(DeviceCertificate {
            chain_pem: certificate.pem() + &ca.chain_pem(),
            der: certificate.into(),
            serial: hexadecimal(serial.as_ref()),
            issuer: ca.id.clone(),
            not_before: validity.not_before,
            not_after: validity.not_after,
        })
    }

    /// Issues a certificate with a new P-256 key for one host name under the domain.
    pub fn issue_server(&self, host: &str, now: UnixSeconds) -> Result<ServerCertificate, AuthorityError> {
        let key = new_key(&PKCS_ECDSA_P256_SHA256)?;
        let (params, validity) = profile::host(&*key, host, now, self.servers.not_after)?;
        let certificate = self.servers.sign(&params, &*key, now)?;
        Ok(ServerCertificate {
            chain: std::iter::once(certificate.into()).chain(self.servers.chain.iter().cloned()).collect(),
            key: PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
            not_after: validity.not_after,
        })
    }

    /// Key identifier of the intermediate that issues devices, hexadecimal.
    pub fn issuer_id(&self) -> &str {
        &self.issuing().id
    }

    /// Key identifiers of every intermediate whose devices are taken.
    pub fn trusted_issuers(&self) -> impl Iterator<Item = &str> {
        self.devices.iter().map(|ca| ca.id.as_str())
    }

    /// The roots to believe, PEM: one, or the old and the new one while the root is rotated.
    pub fn roots_pem(&self) -> &str {
        &self.roots_pem
    }

    /// Key identifier of the newest of the roots to believe, hexadecimal.
    pub fn newest_root(&self) -> &str {
        &self.newest_root
    }

    /// Roots and what issues below them, PEM, for who verifies our certificates elsewhere.
    pub fn ca_pem(&self) -> String {
        let below = self.devices.iter().chain([&self.servers]).map(IssuingCa::chain_pem);
        self.roots_pem.clone() + &below.collect::<String>()
    }

    /// Device certificates that began before this are to be renewed now and not when their time
    /// comes. Set by rotations; for `Directive::renew_before`.
    pub fn renew_before(&self) -> Option<UnixSeconds> {
        self.renew_before
    }

    /// When the first of the CAs that issue expires; nothing that it issued is trusted after that.
    pub fn expires_at(&self) -> UnixSeconds {
        self.issuing().not_after.min(self.servers.not_after)
    }

    /// Key files that lie on disk in the clear; `toktra-server ca encrypt` encrypts them.
    pub fn plain_keys(&self) -> &[PathBuf] {
        &self.plain_keys
    }

    /// Signs directives.
    pub fn directive(&self) -> &DirectiveSigner {
        &self.directive
    }

    /// Tells devices from strangers.
    pub fn trust(&self) -> &DeviceTrust {
        &self.trust
    }

    pub(crate) fn intermediate(&self, id: &str) -> Option<&IssuingCa> {
        self.devices.iter().find(|ca| ca.id == id)
    }

    fn issuing(&self) -> &IssuingCa {
        // `State::in_use` is never empty.
        &self.devices[0]
    }
}

/// A CA that issues.
pub(crate) struct IssuingCa {
    pub(crate) issuer: Issuer<'static, CaKey>,
    /// Its certificate, and what leads to the old root.
    chain: Vec<CertificateDer<'static>>,
    id: String,
    pub(crate) key_identifier: Vec<u8>,
    not_after: UnixSeconds,
}

impl IssuingCa {
    fn sign(
        &self,
        params: &CertificateParams,
        key: &impl PublicKeyData,
        now: UnixSeconds,
    ) -> Result<Certificate, AuthorityError> {
        if self.not_after <= now {
            return Err(AuthorityError::Expired);
        }
        Ok(params.signed_by(key, &self.issuer)?)
    }

    fn chain_pem(&self) -> String {
        self.chain.iter().map(|certificate| profile::pem(certificate)).collect()
    }
}

/// The opening of an authority's files, which remembers what lay in the clear.
struct Opening<'a> {
    online: &'a Path,
    keys: KeyOpener<'a>,
    plain: Vec<PathBuf>,
}

impl Opening<'_> {
    fn ca(&mut self, ca: &Ca, cross: Option<&CertificateDer<'static>>) -> Result<IssuingCa, AuthorityError> {
        let path = self.online.join(&ca.certificate);
        let certificate = read_certificate(&path)?;
        let not_after = end_of(&certificate).ok_or_else(|| AuthorityError::CertificateFile(path.clone()))?;
        let subject =
            Subject::of(&certificate).ok_or_else(|| AuthorityError::CertificateFile(path.clone()))?;
        let key = self.key(&ca.key)?;
        if key_id(&profile::key_of(&certificate)?) != key_id(&key) {
            return Err(AuthorityError::OtherKey { key: self.online.join(&ca.key), certificate: path });
        }
        let issuer = Issuer::from_ca_cert_der(&certificate, CaKey::new(key))?;
        let chain = std::iter::once(certificate).chain(cross.cloned()).collect();
        Ok(IssuingCa { issuer, chain, id: subject.id(), key_identifier: subject.id, not_after })
    }

    fn key(&mut self, file: &str) -> Result<crate::keys::FileKey, AuthorityError> {
        let path = self.online.join(file);
        let opened = self.keys.open(&path)?;
        if opened.is_plain {
            self.plain.push(path);
        }
        Ok(opened.key)
    }
}

/// Whom the certificate in a file is about.
pub(crate) fn subject_of(path: &Path) -> Result<Subject, AuthorityError> {
    let subject = Subject::of(&read_certificate(path)?);
    subject.ok_or_else(|| AuthorityError::CertificateFile(path.to_owned()))
}

fn newest_root(online: &Path, state: &State) -> Result<String, AuthorityError> {
    // `State::roots` is never empty.
    let file = state.roots().pop().ok_or(AuthorityError::Key)?;
    Ok(subject_of(&online.join(file))?.id())
}

/// The roots of a state, PEM.
pub(crate) fn roots_pem(online: &Path, state: &State) -> Result<String, AuthorityError> {
    state.roots().iter().map(|file| read_text(&online.join(file))).collect()
}
