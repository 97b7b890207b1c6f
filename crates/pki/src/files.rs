//! The authority on disk: keys as PKCS#8 PEM with mode 0600, certificates as PEM, in
//! directories with mode 0700. Nothing is ever overwritten.

use std::fs::{DirBuilder, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rcgen::KeyPair;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use zeroize::Zeroizing;

use crate::AuthorityError;

/// The directory of what the server needs.
pub(crate) const ONLINE: &str = "authority";
/// The directory of the root's key, to be taken offline.
pub(crate) const OFFLINE: &str = "root";

pub(crate) fn make_directory(path: &Path) -> Result<(), AuthorityError> {
    let made = DirBuilder::new().mode(0o700).create(path);
    made.map_err(|source| AuthorityError::File { path: path.to_owned(), source })
}

pub(crate) fn write_key(path: PathBuf, key: &KeyPair) -> Result<(), AuthorityError> {
    write_new(path, 0o600, Zeroizing::new(key.serialize_pem()).as_bytes())
}

pub(crate) fn write_certificate(path: PathBuf, pem: &str) -> Result<(), AuthorityError> {
    write_new(path, 0o644, pem.as_bytes())
}

pub(crate) fn read_key(path: PathBuf) -> Result<Zeroizing<KeyPair>, AuthorityError> {
    let pem = match std::fs::read_to_string(&path) {
        Ok(pem) => Zeroizing::new(pem),
        Err(source) => return Err(AuthorityError::File { path, source }),
    };
    KeyPair::from_pem(&pem).map(Zeroizing::new).map_err(|_| AuthorityError::KeyFile(path))
}

pub(crate) fn read_certificate(path: PathBuf) -> Result<CertificateDer<'static>, AuthorityError> {
    let pem = match std::fs::read(&path) {
        Ok(pem) => pem,
        Err(source) => return Err(AuthorityError::File { path, source }),
    };
    CertificateDer::from_pem_slice(&pem).map_err(|_| AuthorityError::CertificateFile(path))
}

fn write_new(path: PathBuf, mode: u32, content: &[u8]) -> Result<(), AuthorityError> {
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&path)?;
        file.write_all(content)?;
        file.sync_all()
    };
    write().map_err(|source| AuthorityError::File { path: path.clone(), source })
}
