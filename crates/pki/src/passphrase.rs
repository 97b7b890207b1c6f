//! The passphrase that CA keys are encrypted under. It lives outside the data directory, so that
//! a copy of the directory, a backup or a stolen disk image alone can sign nothing.
//!
//! It is read when a key is opened and not kept. A [`Passphrase`] is zeroised when dropped and
//! prints nothing.

use std::fmt::{self, Write as _};
use std::fs::{File, OpenOptions};
use std::io::{Read, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

/// Fewest bytes of a passphrase that an administrator chose.
pub const PASSPHRASE_MINIMUM: usize = 16;
/// Most bytes of a passphrase.
const PASSPHRASE_LIMIT: u64 = 1024;

/// What CA keys are encrypted under.
#[derive(Clone)]
pub struct Passphrase(Zeroizing<String>);

impl Passphrase {
    /// 256 random bits, hexadecimal.
    pub fn generate() -> Result<Self, PassphraseError> {
        let mut bytes = Zeroizing::new([0; 32]);
        getrandom::fill(&mut *bytes).map_err(|_| PassphraseError::Randomness)?;
        let mut text = Zeroizing::new(String::with_capacity(64));
        for byte in bytes.iter() {
            let _ = write!(text, "{byte:02x}");
        }
        Ok(Self(text))
    }

    /// Reads one line, for example from standard input.
    pub fn read(source: impl Read) -> Result<Self, PassphraseError> {
        let mut text = Zeroizing::new(String::with_capacity(PASSPHRASE_LIMIT as usize + 2));
        source.take(PASSPHRASE_LIMIT + 1).read_to_string(&mut text).map_err(PassphraseError::Unreadable)?;
        let line = text.trim_end_matches(['\r', '\n']);
        let fits = (PASSPHRASE_MINIMUM..=PASSPHRASE_LIMIT as usize).contains(&line.len());
        if !fits || line.contains('\n') {
            return Err(PassphraseError::Unfit);
        }
        Ok(Self(Zeroizing::new(line.to_owned())))
    }

    /// The passphrase itself, to encrypt with or to be shown once.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Passphrase").finish_non_exhaustive()
    }
}

/// Why there is no passphrase.
#[derive(Debug, thiserror::Error)]
pub enum PassphraseError {
    /// There is no such file.
    #[error(
        "the passphrase file `{}` is missing; put it back from where you keep it, or name it with \
         --passphrase-file (without it the CA keys cannot be used)", .0.display()
    )]
    Missing(PathBuf),
    /// Others could read the file.
    #[error(
        "others than its owner may read or write `{0}` (mode {mode:03o}); run `chmod 600 {0}`, and if \
         others had access, think of a new passphrase", path.display()
    )]
    Permissions {
        /// Which.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The file could not be opened or made.
    #[error("the passphrase file `{}` cannot be used; check who owns it and its directory", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It could not be read.
    #[error("the passphrase could not be read")]
    Unreadable(#[source] std::io::Error),
    /// Empty, too short, too long, or more than a line.
    #[error("a passphrase is one line of {PASSPHRASE_MINIMUM} to {PASSPHRASE_LIMIT} bytes")]
    Unfit,
    /// The operating system gave no randomness.
    #[error("the operating system gave no randomness")]
    Randomness,
}

/// Where the passphrase is.
#[derive(Clone, Debug)]
pub enum PassphraseFile {
    /// A file of ours or the administrator's; nobody but its owner may have access.
    Own(PathBuf),
    /// A file that the service manager made for this process alone (systemd's `LoadCredential`).
    Credential(PathBuf),
    /// Standard input, which can be read once.
    StandardInput,
}

impl PassphraseFile {
    /// The file that was named (`-` is standard input), else the service manager's credential
    /// `passphrase`, else the data directory's sibling `DIR.passphrase`.
    pub fn choose(named: Option<&Path>, credentials: Option<&Path>, data: &Path) -> Self {
        let credential = credentials.map(|directory| directory.join("passphrase"));
        match (named, credential) {
            (Some(path), _) if path == Path::new("-") => Self::StandardInput,
            (Some(path), _) => Self::Own(path.to_owned()),
            (None, Some(path)) if path.exists() => Self::Credential(path),
            _ => Self::Own(Self::beside(data)),
        }
    }

    /// The data directory's sibling.
    pub fn beside(data: &Path) -> PathBuf {
        // `.` and `..` have no name to append to.
        let data = std::path::absolute(data).unwrap_or_else(|_| data.to_owned());
        let mut name = data.components().as_path().as_os_str().to_owned();
        name.push(".passphrase");
        PathBuf::from(name)
    }

    /// Reads it.
    pub fn read(&self) -> Result<Passphrase, PassphraseError> {
        match self {
            Self::StandardInput => Passphrase::read(std::io::stdin().lock()),
            Self::Credential(path) => Passphrase::read(open(path)?),
            Self::Own(path) => {
                let file = open(path)?;
                let metadata =
                    file.metadata().map_err(|source| PassphraseError::File { path: path.clone(), source })?;
                let mode = metadata.permissions().mode() & 0o777;
                if mode & 0o077 != 0 {
                    return Err(PassphraseError::Permissions { path: path.clone(), mode });
                }
                Passphrase::read(file)
            }
        }
    }

    /// Reads it, or makes it where there is none. Also says whether it was made.
    pub fn read_or_make(&self) -> Result<(Passphrase, bool), PassphraseError> {
        match (self.read(), self) {
            (Err(PassphraseError::Missing(path)), Self::Own(_)) => {
                let passphrase = Passphrase::generate()?;
                write(&path, &passphrase).map_err(|source| PassphraseError::File { path, source })?;
                Ok((passphrase, true))
            }
            (read, _) => read.map(|passphrase| (passphrase, false)),
        }
    }
}

fn open(path: &Path) -> Result<File, PassphraseError> {
    File::open(path).map_err(|source| match source.kind() {
        std::io::ErrorKind::NotFound => PassphraseError::Missing(path.to_owned()),
        _ => PassphraseError::File { path: path.to_owned(), source },
    })
}

fn write(path: &Path, passphrase: &Passphrase) -> std::io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(passphrase.reveal().as_bytes())?;
    file.write_all(b"\n")?;
    file.sync_all()?;
    let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty());
    File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_passphrase_is_made_once_beside_the_data_and_read_again() {
        let place = tempfile::tempdir().unwrap();
        let data = place.path().join("data");
        let file = PassphraseFile::choose(None, None, &data);
        assert!(
            matches!(file.read(), Err(PassphraseError::Missing(path)) if path.ends_with("data.passphrase"))
        );
        let (made, is_new) = file.read_or_make().unwrap();
        let (read, is_newer) = file.read_or_make().unwrap();
        assert!(is_new && !is_newer);
        assert_eq!(made.reveal(), read.reveal());
        assert_eq!(made.reveal().len(), 64);
        assert!(!format!("{made:?}").contains(made.reveal()));
    }

    #[test]
    fn a_passphrase_that_others_may_read_is_refused_with_what_to_do() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("open");
        std::fs::write(&path, "a long enough passphrase\n").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        let error = PassphraseFile::Own(path.clone()).read().unwrap_err().to_string();
        assert!(error.contains("640") && error.contains("chmod 600"), "{error}");
        // What systemd makes is readable through an access list, which shows as the group's.
        assert!(PassphraseFile::Credential(path).read().is_ok());
    }

    #[test]
    fn a_credential_of_the_service_manager_is_found_unless_another_file_is_named() {
        let place = tempfile::tempdir().unwrap();
        std::fs::write(place.path().join("passphrase"), "a long enough passphrase").unwrap();
        let data = Path::new("/var/lib/x");
        let found = PassphraseFile::choose(None, Some(place.path()), data);
        assert!(matches!(found, PassphraseFile::Credential(_)));
        let named = PassphraseFile::choose(Some(Path::new("/n")), Some(place.path()), data);
        assert!(matches!(named, PassphraseFile::Own(path) if path == Path::new("/n")));
        let neither = PassphraseFile::choose(None, Some(data), data);
        assert!(matches!(neither, PassphraseFile::Own(path) if path == Path::new("/var/lib/x.passphrase")));
    }

    #[test]
    fn only_one_line_of_some_length_is_a_passphrase() {
        for bad in ["", "short", "0123456789abcdef\nmore", &"x".repeat(1025)] {
            assert!(matches!(Passphrase::read(bad.as_bytes()), Err(PassphraseError::Unfit)), "{bad:?}");
        }
        assert_eq!(Passphrase::read(&b"0123456789abcdef\r\n"[..]).unwrap().reveal(), "0123456789abcdef");
    }
}
