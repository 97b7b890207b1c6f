//! Making the authority, opening it, and issuing with it.
//!
//! ```text
//! DIR/root/root.key          take offline; needed only to renew what follows
//! DIR/root.pem               give to agents and browsers
//! DIR/authority/devices.{pem,key}     Toktra Intermediate CA
//! DIR/authority/server.{pem,key}      Toktra Server CA
//! DIR/authority/directive.key         signs directives
//! ```

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose, NameConstraints, PKCS_ECDSA_P256_SHA256,
    PKCS_ED25519, PublicKeyData, SanType, SerialNumber, SigningKey,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use toktra_protocol::{DeviceId, ToktraDomain, UnixSeconds};
use uuid::Uuid;
use x509_parser::prelude::{FromDer as _, X509Certificate};
use zeroize::Zeroizing;

use crate::files::{
    OFFLINE, ONLINE, make_directory, read_certificate, read_key, write_certificate, write_key,
};
use crate::{DeviceTrust, DirectiveSigner, VerifiedCsr};

const DAY_S: u64 = 24 * 60 * 60;
const ROOT_DAYS: u64 = 3653;
const INTERMEDIATE_DAYS: u64 = 730;
const DEVICE_DAYS: u64 = 90;
const SERVER_DAYS: u64 = 90;
/// Laptops' clocks drift.
const BACKDATED_S: u64 = 5 * 60;

/// What signs certificates: a key in memory today, a KMS or HSM behind the same trait.
pub trait Signer: SigningKey + Send + Sync {}

impl<S: SigningKey + Send + Sync> Signer for S {}

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
    /// Leaf and intermediate, PEM, leaf first.
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
    /// Leaf and server CA, leaf first.
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
    devices: IssuingCa,
    servers: IssuingCa,
    directive: DirectiveSigner,
    trust: DeviceTrust,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

impl Authority {
    /// Makes a new authority under `data`. Refuses where there is one.
    pub fn create(data: &Path, domain: &ToktraDomain, now: UnixSeconds) -> Result<(), AuthorityError> {
        let (online, offline) = (data.join(ONLINE), data.join(OFFLINE));
        make_directory(&online)?;
        make_directory(&offline)?;

        let root_key = new_key(&PKCS_ECDSA_P256_SHA256)?;
        let root_params = ca_params("Toktra Root CA", None, now, ROOT_DAYS)?;
        let root = root_params.self_signed(&*root_key)?;
        let root_issuer = Issuer::from_params(&root_params, &*root_key);
        write_key(offline.join("root.key"), &root_key)?;
        write_certificate(Self::root_certificate_file(data), &root.pem())?;

        let devices = ca_params("Toktra Intermediate CA", Some(0), now, INTERMEDIATE_DAYS)?;
        write_ca(&online, "devices", &devices, &root_issuer)?;
        let mut servers = ca_params("Toktra Server CA", Some(0), now, INTERMEDIATE_DAYS)?;
        servers.name_constraints = Some(NameConstraints {
            permitted_subtrees: vec![GeneralSubtree::DnsName(domain.host().to_owned())],
            excluded_subtrees: Vec::new(),
        });
        write_ca(&online, "server", &servers, &root_issuer)?;
        write_key(online.join("directive.key"), &*new_key(&PKCS_ED25519)?)
    }

    /// Opens the authority under `data`. The root's key is not needed.
    pub fn open(data: &Path) -> Result<Self, AuthorityError> {
        let online = data.join(ONLINE);
        let devices = IssuingCa::open(&online, "devices")?;
        let servers = IssuingCa::open(&online, "server")?;
        let directive =
            DirectiveSigner::from_pkcs8(read_key(online.join("directive.key"))?.serialized_der())?;
        let trust = DeviceTrust::new(&devices.certificate).map_err(AuthorityError::Anchor)?;
        Ok(Self { devices, servers, directive, trust })
    }

    /// The file of the root's certificate, to give to agents and browsers.
    pub fn root_certificate_file(data: &Path) -> PathBuf {
        data.join("root.pem")
    }

    /// The directory of the root's key, to be taken offline.
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
        let (not_before, not_after) = validity(now, DEVICE_DAYS);
        let serial = serial()?;
        let mut params = leaf_params("Toktra Device", &serial, not_before, not_after);
        params.subject_alt_names = vec![SanType::URI(device_uri(organisation, device).try_into()?)];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = self.devices.sign(&params, csr)?;
        Ok(DeviceCertificate {
            chain_pem: certificate.pem() + &self.devices.pem,
            der: certificate.into(),
            serial: hexadecimal(serial.as_ref()),
            issuer: self.devices.id.clone(),
            not_before,
            not_after,
        })
    }

    /// Issues a certificate with a new P-256 key for one host name under the domain.
    pub fn issue_server(&self, host: &str, now: UnixSeconds) -> Result<ServerCertificate, AuthorityError> {
        let key = new_key(&PKCS_ECDSA_P256_SHA256)?;
        let (not_before, not_after) = validity(now, SERVER_DAYS);
        let mut params = leaf_params("Toktra Server", &serial()?, not_before, not_after);
        params.subject_alt_names = vec![SanType::DnsName(host.try_into()?)];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = self.servers.sign(&params, &*key)?;
        Ok(ServerCertificate {
            chain: vec![certificate.into(), self.servers.certificate.clone()],
            key: PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
            not_after,
        })
    }

    /// Key identifier of the intermediate that issues devices, hexadecimal.
    pub fn issuer_id(&self) -> &str {
        &self.devices.id
    }

    /// When the first of the two CAs expires; nothing that it issued is trusted after that.
    pub fn expires_at(&self) -> UnixSeconds {
        self.devices.not_after.min(self.servers.not_after)
    }

    /// Signs directives.
    pub fn directive(&self) -> &DirectiveSigner {
        &self.directive
    }

    /// Tells devices from strangers.
    pub fn trust(&self) -> &DeviceTrust {
        &self.trust
    }
}

/// What a device's certificate says it is (SPIFFE-ID, the organisation as trust domain).
pub(crate) fn device_uri(organisation: Uuid, device: DeviceId) -> String {
    format!("spiffe://{organisation}/device/{device}")
}

pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

struct IssuingCa {
    issuer: Issuer<'static, CaKey>,
    certificate: CertificateDer<'static>,
    pem: String,
    id: String,
    not_after: UnixSeconds,
}

impl IssuingCa {
    fn open(directory: &Path, name: &str) -> Result<Self, AuthorityError> {
        let path = directory.join(format!("{name}.pem"));
        let certificate = read_certificate(path.clone())?;
        let key = FileKey(read_key(directory.join(format!("{name}.key")))?);
        let id = hexadecimal(&CertificateParams::default().key_identifier(&key));
        let pem = pem(&certificate);
        let issuer = Issuer::from_ca_cert_der(&certificate, CaKey(Box::new(key)))?;
        let not_after = end_of(&certificate).ok_or(AuthorityError::CertificateFile(path))?;
        Ok(Self { issuer, certificate, pem, id, not_after })
    }

    fn sign(
        &self,
        params: &CertificateParams,
        key: &impl PublicKeyData,
    ) -> Result<Certificate, AuthorityError> {
        Ok(params.signed_by(key, &self.issuer)?)
    }
}

/// The key that an issuer signs with, wherever it lives.
struct CaKey(Box<dyn Signer>);

impl PublicKeyData for CaKey {
    fn der_bytes(&self) -> &[u8] {
        self.0.der_bytes()
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        self.0.algorithm()
    }
}

impl SigningKey for CaKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.0.sign(message)
    }
}

/// A key from a file, zeroised when dropped.
struct FileKey(Zeroizing<KeyPair>);

impl PublicKeyData for FileKey {
    fn der_bytes(&self) -> &[u8] {
        self.0.der_bytes()
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        PublicKeyData::algorithm(&*self.0)
    }
}

impl SigningKey for FileKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.0.sign(message)
    }
}

fn write_ca(
    directory: &Path,
    name: &str,
    params: &CertificateParams,
    root: &Issuer<'_, &KeyPair>,
) -> Result<(), AuthorityError> {
    let key = new_key(&PKCS_ECDSA_P256_SHA256)?;
    let certificate = params.signed_by(&*key, root)?;
    write_key(directory.join(format!("{name}.key")), &key)?;
    write_certificate(directory.join(format!("{name}.pem")), &certificate.pem())
}

fn new_key(algorithm: &'static rcgen::SignatureAlgorithm) -> Result<Zeroizing<KeyPair>, AuthorityError> {
    Ok(Zeroizing::new(KeyPair::generate_for(algorithm)?))
}

fn ca_params(
    name: &str,
    path_length: Option<u8>,
    now: UnixSeconds,
    days: u64,
) -> Result<CertificateParams, AuthorityError> {
    let (not_before, not_after) = validity(now, days);
    let mut params = leaf_params(name, &serial()?, not_before, not_after);
    // The root may have one level of CAs below it, those none.
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(path_length.unwrap_or(1)));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

fn leaf_params(
    name: &str,
    serial: &SerialNumber,
    not_before: UnixSeconds,
    not_after: UnixSeconds,
) -> CertificateParams {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, name);
    let mut params = CertificateParams::default();
    params.not_before = epoch + Duration::from_secs(not_before.0);
    params.not_after = epoch + Duration::from_secs(not_after.0);
    params.serial_number = Some(serial.clone());
    params.distinguished_name = subject;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    params
}

fn validity(now: UnixSeconds, days: u64) -> (UnixSeconds, UnixSeconds) {
    (UnixSeconds(now.0.saturating_sub(BACKDATED_S)), now.plus(days * DAY_S))
}

/// 126 random bits below the bits 01: positive, and always 16 octets.
fn serial() -> Result<SerialNumber, AuthorityError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|_| AuthorityError::Randomness)?;
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

fn end_of(certificate: &CertificateDer<'_>) -> Option<UnixSeconds> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    u64::try_from(parsed.validity().not_after.timestamp()).ok().map(UnixSeconds)
}

fn pem(certificate: &CertificateDer<'_>) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(certificate);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in text.as_bytes().chunks(64) {
        pem.extend(line.iter().map(|&byte| char::from(byte)));
        pem.push('\n');
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}
