//! Making a new authority, encrypting the keys of an old one, and changing their passphrase.

use std::path::{Path, PathBuf};

use rcgen::{CertificateParams, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519};
use toktra_protocol::{ToktraDomain, UnixSeconds};
use zeroize::Zeroizing;

use crate::files::{
    OFFLINE, ONLINE, ensure_directory, make_directory, read_text, replace, write_certificate,
};
use crate::keys::{KeyOpener, encrypt, encrypt_file, is_encrypted, new_key, write_key};
use crate::passphrase::Passphrase;
use crate::profile::{self, Subject, end_of};
use crate::state::State;
use crate::{Authority, AuthorityError};

/// What a new authority is made with.
#[derive(Debug)]
pub struct Founding<'a> {
    /// Under which the server CA may name hosts.
    pub domain: &'a ToktraDomain,
    /// Encrypts the keys that the server needs.
    pub passphrase: &'a Passphrase,
    /// Encrypts the root's key.
    pub root_passphrase: &'a Passphrase,
    /// Where the root's key goes; made where it does not exist.
    pub root_directory: &'a Path,
}

impl Authority {
    /// Makes a new authority under `data`. Refuses where there is one.
    pub fn create(data: &Path, founding: &Founding<'_>, now: UnixSeconds) -> Result<(), AuthorityError> {
        let online = data.join(ONLINE);
        make_directory(&online)?;
        ensure_directory(founding.root_directory)?;

        let root_key = new_key(&PKCS_ECDSA_P256_SHA256)?;
        let root_params =
            profile::root(&Subject::new("Toktra Root CA", &*root_key), now, UnixSeconds(u64::MAX))?;
        let root = root_params.self_signed(&*root_key)?;
        let end = end_of(root.der()).ok_or(AuthorityError::Key)?;
        let issuer = Issuer::from_params(&root_params, &*root_key);
        write_key(&founding.root_directory.join("root.key"), &root_key, founding.root_passphrase)?;
        write_certificate(&online.join("root.pem"), &root.pem())?;
        write_certificate(&Self::root_certificate_file(data), &root.pem())?;

        let key = new_key(&PKCS_ECDSA_P256_SHA256)?;
        let params = profile::device_ca(&Subject::new("Toktra Intermediate CA", &*key), now, end)?;
        write_ca(&online, "devices", &key, &params, &issuer, founding.passphrase)?;
        let key = new_key(&PKCS_ECDSA_P256_SHA256)?;
        let subject = Subject::new("Toktra Server CA", &*key);
        let params = profile::server_ca(&subject, founding.domain, now, end)?;
        write_ca(&online, "server", &key, &params, &issuer, founding.passphrase)?;
        write_key(&online.join("directive.key"), &*new_key(&PKCS_ED25519)?, founding.passphrase)?;
        State::initial("root.pem").write(&online)
    }

    /// Whether any key that the server needs is encrypted, so that only the passphrase that there is
    /// will do.
    pub fn is_encrypted(data: &Path) -> Result<bool, AuthorityError> {
        for path in key_files(&data.join(ONLINE)) {
            if is_encrypted(&Zeroizing::new(read_text(&path)?)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Encrypts every key that the server needs under another passphrase, and says how many. Opens all
    /// of them before it changes one; one that has the new passphrase already is left as it is, so that
    /// a change that was interrupted goes on.
    pub fn change_passphrase(
        data: &Path,
        old: &Passphrase,
        new: &Passphrase,
    ) -> Result<usize, AuthorityError> {
        let (mut by_old, mut by_new) = (KeyOpener::with(old.clone()), KeyOpener::with(new.clone()));
        let mut changed = Vec::new();
        for path in key_files(&data.join(ONLINE)) {
            match by_new.open(&path) {
                Ok(opened) if !opened.is_plain => {}
                Ok(opened) => changed.push((path, encrypt(&opened.key.0, new)?)),
                Err(AuthorityError::WrongPassphrase(_)) => {
                    let key = by_old.open(&path)?.key;
                    changed.push((path, encrypt(&key.0, new)?));
                }
                Err(error) => return Err(error),
            }
        }
        for (path, key) in &changed {
            replace(path, 0o600, key.as_bytes())?;
        }
        Ok(changed.len())
    }

    /// Encrypts every key of the authority that lies in the clear, the root's with its own
    /// passphrase where it is here. Returns the files that were.
    pub fn encrypt(
        data: &Path,
        passphrase: &Passphrase,
        root_passphrase: &Passphrase,
    ) -> Result<Vec<PathBuf>, AuthorityError> {
        let mut encrypted = Vec::new();
        let online = key_files(&data.join(ONLINE));
        // One passphrase for all of them, also for those that were encrypted before.
        for path in &online {
            KeyOpener::with(passphrase.clone()).open(path)?;
        }
        let offline = key_files(&data.join(OFFLINE));
        for (paths, passphrase) in [(online, passphrase), (offline, root_passphrase)] {
            for path in paths {
                if encrypt_file(&path, passphrase)? {
                    encrypted.push(path);
                }
            }
        }
        Ok(encrypted)
    }
}

fn write_ca(
    online: &Path,
    name: &str,
    key: &KeyPair,
    params: &CertificateParams,
    root: &Issuer<'_, &KeyPair>,
    passphrase: &Passphrase,
) -> Result<(), AuthorityError> {
    let certificate = params.signed_by(key, root)?;
    write_key(&online.join(format!("{name}.key")), key, passphrase)?;
    write_certificate(&online.join(format!("{name}.pem")), &certificate.pem())
}

fn key_files(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let paths = entries.filter_map(Result::ok).map(|entry| entry.path());
    let mut keys: Vec<PathBuf> =
        paths.filter(|path| path.extension().is_some_and(|end| end == "key")).collect();
    keys.sort();
    keys
}
