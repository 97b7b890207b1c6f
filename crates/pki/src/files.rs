//! The authority on disk: keys with mode 0600, certificates as PEM, in directories with mode
//! 0700. A file is made and never overwritten; what may change is replaced whole by a rename.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use crate::AuthorityError;

/// The directory of what the server needs.
pub(crate) const ONLINE: &str = "authority";
/// The directory of the root's key, to be taken offline.
pub(crate) const OFFLINE: &str = "root";
/// Largest file that is read, in bytes.
const FILE_LIMIT: u64 = 256 * 1024;

pub(crate) fn make_directory(path: &Path) -> Result<(), AuthorityError> {
    let made = DirBuilder::new().mode(0o700).create(path);
    made.map_err(failed(path))
}

/// The directory, made where there is none.
pub(crate) fn ensure_directory(path: &Path) -> Result<(), AuthorityError> {
    if path.is_dir() { Ok(()) } else { make_directory(path) }
}

pub(crate) fn write_certificate(path: &Path, pem: &str) -> Result<(), AuthorityError> {
    write_new(path, 0o644, pem.as_bytes())
}

pub(crate) fn read_text(path: &Path) -> Result<String, AuthorityError> {
    let read = || {
        use std::io::Read as _;
        let mut text = String::new();
        File::open(path)?.take(FILE_LIMIT).read_to_string(&mut text)?;
        Ok(text)
    };
    read().map_err(failed(path))
}

pub(crate) fn read_certificate(path: &Path) -> Result<CertificateDer<'static>, AuthorityError> {
    CertificateDer::from_pem_slice(read_text(path)?.as_bytes())
        .map_err(|_| AuthorityError::CertificateFile(path.to_owned()))
}

pub(crate) fn write_new(path: &Path, mode: u32, content: &[u8]) -> Result<(), AuthorityError> {
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
        file.write_all(content)?;
        file.sync_all()
    };
    write().map_err(failed(path))
}

/// Puts a new file in the place of the old one, if any: whoever reads sees one or the other.
pub(crate) fn replace(path: &Path, mode: u32, content: &[u8]) -> Result<(), AuthorityError> {
    let directory = path.parent().unwrap_or(Path::new("."));
    let write = || {
        let mut file = tempfile::NamedTempFile::new_in(directory)?;
        file.write_all(content)?;
        file.as_file().set_permissions(Permissions::from_mode(mode))?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        File::open(directory)?.sync_all()
    };
    write().map_err(failed(path))
}

/// Removes a file; that it is gone already is no error.
pub(crate) fn remove(path: &Path) -> Result<(), AuthorityError> {
    match std::fs::remove_file(path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => Err(failed(path)(source)),
        _ => Ok(()),
    }
}

pub(crate) fn failed(path: &Path) -> impl FnOnce(std::io::Error) -> AuthorityError {
    let path: PathBuf = path.to_owned();
    move |source| AuthorityError::File { path, source }
}
