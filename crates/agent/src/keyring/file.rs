//! A file that only the user may read: `toktra/personal.key` in the user's configuration directory (XDG
//! Base Directory Specification). Replaced as a whole; not read when others could have read it.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use zeroize::Zeroizing;

use super::{Keyring, KeyringError};

/// Far more than a phrase takes, in bytes.
const LIMIT: u64 = 4096;

/// The file.
#[derive(Clone, Debug)]
pub struct KeyFile(PathBuf);

impl KeyFile {
    /// In the user's configuration directory; none for one who has no home.
    pub fn of_user() -> Option<Self> {
        let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let directory =
            absolute("XDG_CONFIG_HOME").or_else(|| absolute("HOME").map(|home| home.join(".config")));
        Some(Self(directory?.join("toktra/personal.key")))
    }

    /// This one.
    pub fn new(path: PathBuf) -> Self {
        Self(path)
    }

    fn failed(&self, reason: impl ToString) -> KeyringError {
        KeyringError::Failed { place: self.place(), reason: reason.to_string() }
    }

    fn read(&self) -> io::Result<Option<Zeroizing<String>>> {
        let mut file = match OpenOptions::new().read(true).custom_flags(flags()).open(&self.0) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let metadata = file.metadata()?;
        let refused = |words: String| Err(io::Error::other(words));
        if !metadata.is_file() || metadata.len() > LIMIT {
            return refused("it is no file of ours; move it away".to_owned());
        }
        let me = rustix::process::geteuid().as_raw();
        if metadata.uid() != me || metadata.mode() & 0o077 != 0 {
            return refused(format!(
                "others may have read it; find out who, then run `chmod 0600 {}`, or opt out and in again for a new key",
                self.0.display()
            ));
        }
        let mut text = Zeroizing::new(String::with_capacity(LIMIT as usize));
        file.read_to_string(&mut text)?;
        Ok(Some(text))
    }

    fn write(&self, phrase: &str) -> io::Result<()> {
        let directory = self.0.parent().unwrap_or(Path::new("."));
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        // It has mode 0600 from the start.
        let mut file = tempfile::Builder::new().prefix(".new-").tempfile_in(directory)?;
        writeln!(file, "{phrase}")?;
        file.as_file().sync_all()?;
        file.persist(&self.0).map_err(|error| error.error)?;
        File::open(directory)?.sync_all()
    }
}

/// Not through a link, and not to wait for the writer of a pipe.
fn flags() -> i32 {
    (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32
}

impl Keyring for KeyFile {
    fn place(&self) -> String {
        self.0.display().to_string()
    }

    fn phrase(&self) -> Result<Option<Zeroizing<String>>, KeyringError> {
        self.read().map_err(|error| self.failed(error))
    }

    fn keep(&self, phrase: &str) -> Result<(), KeyringError> {
        self.write(phrase).map_err(|error| self.failed(error))
    }

    fn remove(&self) -> Result<(), KeyringError> {
        match std::fs::remove_file(&self.0) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(self.failed(error)),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::keyring::Session;
    use toktra_vault::UserKey;

    fn file(directory: &tempfile::TempDir) -> KeyFile {
        KeyFile::new(directory.path().join("toktra/personal.key"))
    }

    #[test]
    fn a_key_is_kept_for_its_user_alone_and_removed() {
        let directory = tempfile::tempdir().unwrap();
        let session = Session::of(vec![Box::new(file(&directory))]);
        assert!(session.load().unwrap().is_none());
        let key = UserKey::new(Zeroizing::new([5; 32]));
        session.keep(&key).unwrap();
        assert_eq!(session.load().unwrap().unwrap().0.recipient(), key.recipient());
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&file(&directory).0), 0o600);
        assert_eq!(mode(file(&directory).0.parent().unwrap()), 0o700);
        session.remove().unwrap();
        session.remove().unwrap();
        assert!(session.load().unwrap().is_none());
    }

    #[test]
    fn what_others_may_have_read_and_what_is_no_key_is_refused_and_left() {
        let directory = tempfile::tempdir().unwrap();
        let file = file(&directory);
        file.keep("abandon abandon art").unwrap();
        let session = Session::of(vec![Box::new(file.clone())]);
        let error = session.load().unwrap_err().to_string();
        assert!(error.contains("these are 3") && error.contains("left as it is"), "{error}");
        std::fs::set_permissions(&file.0, std::fs::Permissions::from_mode(0o640)).unwrap();
        let error = session.load().unwrap_err().to_string();
        assert!(error.contains("chmod 0600"), "{error}");
        assert_eq!(std::fs::read_to_string(&file.0).unwrap(), "abandon abandon art\n");
        std::fs::remove_file(&file.0).unwrap();
        std::os::unix::fs::symlink("/etc/hostname", &file.0).unwrap();
        assert!(session.load().is_err());
    }
}
