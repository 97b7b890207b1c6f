//! Private keys on disk and in use: PKCS#8, encrypted (RFC 5958 `EncryptedPrivateKeyInfo`, PBES2
//! with scrypt and AES-256-CBC), which OpenSSL reads too.
//!
//! A key is decrypted once, when it is opened. It is zeroised when dropped, as is every copy
//! between file and key. A key of an older data directory may lie there in the clear; it works,
//! and is told of ([`Opened::is_plain`]).

use std::path::Path;

use pkcs8::der::Decode as _;
use pkcs8::der::pem::{LineEnding, PemLabel as _};
use pkcs8::pkcs5::{pbes2, scrypt};
use pkcs8::{EncryptedPrivateKeyInfo, PrivateKeyInfo, SecretDocument};
use rcgen::{KeyPair, PublicKeyData, SigningKey};
use zeroize::Zeroizing;

use crate::AuthorityError;
use crate::files::{read_text, replace, write_new};
use crate::passphrase::{Passphrase, PassphraseFile};

/// scrypt's cost: 2^14 blocks of 8 × 128 bytes, 16 MiB and some 40 ms a key. The passphrase that
/// we generate has 256 bits and needs no more; one that a person chose gains from it.
const SCRYPT_LOG_N: u8 = 14;
const SCRYPT_R: u32 = 8;
const SCRYPT_P: u32 = 1;
const SALT_BYTES: usize = 16;
const IV_BYTES: usize = 16;

/// What signs certificates: a key in memory today, a KMS or HSM behind the same trait.
pub trait Signer: SigningKey + Send + Sync {}

impl<S: SigningKey + Send + Sync> Signer for S {}

/// The key that an issuer signs with, wherever it lives.
pub(crate) struct CaKey(Box<dyn Signer>);

impl CaKey {
    pub(crate) fn new(signer: impl Signer + 'static) -> Self {
        Self(Box::new(signer))
    }
}

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
pub(crate) struct FileKey(pub(crate) Zeroizing<KeyPair>);

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

/// A key as it came from its file.
pub(crate) struct Opened {
    pub(crate) key: FileKey,
    /// Whether it lies on disk in the clear.
    pub(crate) is_plain: bool,
}

/// Opens key files; asks for the passphrase only when there is an encrypted one, and once.
pub(crate) struct KeyOpener<'a> {
    file: Option<&'a PassphraseFile>,
    passphrase: Option<Passphrase>,
}

impl<'a> KeyOpener<'a> {
    pub(crate) fn new(file: &'a PassphraseFile) -> Self {
        Self { file: Some(file), passphrase: None }
    }

    pub(crate) fn with(passphrase: Passphrase) -> Self {
        Self { file: None, passphrase: Some(passphrase) }
    }

    pub(crate) fn open(&mut self, path: &Path) -> Result<Opened, AuthorityError> {
        let text = Zeroizing::new(read_text(path)?);
        if !is_encrypted(&text) {
            return from_plain(path, &text).map(|key| Opened { key, is_plain: true });
        }
        let passphrase = match (self.passphrase.take(), self.file) {
            (Some(passphrase), _) => passphrase,
            (None, Some(file)) => file.read()?,
            (None, None) => return Err(AuthorityError::Key),
        };
        let opened = decrypt(path, &text, &passphrase);
        self.passphrase = Some(passphrase);
        opened.map(|key| Opened { key, is_plain: false })
    }
}

/// A new key.
pub(crate) fn new_key(
    algorithm: &'static rcgen::SignatureAlgorithm,
) -> Result<Zeroizing<KeyPair>, AuthorityError> {
    Ok(Zeroizing::new(KeyPair::generate_for(algorithm)?))
}

/// Writes a key, encrypted, to a new file of mode 0600.
pub(crate) fn write_key(path: &Path, key: &KeyPair, passphrase: &Passphrase) -> Result<(), AuthorityError> {
    write_new(path, 0o600, encrypt(key, passphrase)?.as_bytes())
}

/// Encrypts a key that lies in the clear, in place. False: it was encrypted already.
pub(crate) fn encrypt_file(path: &Path, passphrase: &Passphrase) -> Result<bool, AuthorityError> {
    let text = Zeroizing::new(read_text(path)?);
    if is_encrypted(&text) {
        return Ok(false);
    }
    let key = from_plain(path, &text)?;
    replace(path, 0o600, encrypt(&key.0, passphrase)?.as_bytes())?;
    Ok(true)
}

/// Whether a key's PEM is of the encrypted form.
pub(crate) fn is_encrypted(pem: &str) -> bool {
    pem.contains("-----BEGIN ENCRYPTED PRIVATE KEY-----")
}

fn from_plain(path: &Path, pem: &str) -> Result<FileKey, AuthorityError> {
    let key = KeyPair::from_pem(pem).map_err(|_| AuthorityError::KeyFile(path.to_owned()))?;
    Ok(FileKey(Zeroizing::new(key)))
}

fn decrypt(path: &Path, pem: &str, passphrase: &Passphrase) -> Result<FileKey, AuthorityError> {
    let unreadable = || AuthorityError::KeyFile(path.to_owned());
    let (label, document) = SecretDocument::from_pem(pem.trim_end()).map_err(|_| unreadable())?;
    EncryptedPrivateKeyInfo::validate_pem_label(label).map_err(|_| unreadable())?;
    let encrypted = EncryptedPrivateKeyInfo::from_der(document.as_bytes()).map_err(|_| unreadable())?;
    // A wrong passphrase shows as bad padding or as no key.
    let wrong = || AuthorityError::WrongPassphrase(path.to_owned());
    let plain = encrypted.decrypt(passphrase.reveal()).map_err(|_| wrong())?;
    let key = KeyPair::try_from(plain.as_bytes()).map_err(|_| wrong())?;
    Ok(FileKey(Zeroizing::new(key)))
}

/// A key's encrypted form, PEM.
pub(crate) fn encrypt(key: &KeyPair, passphrase: &Passphrase) -> Result<Zeroizing<String>, AuthorityError> {
    let (mut salt, mut iv) = ([0; SALT_BYTES], [0; IV_BYTES]);
    getrandom::fill(&mut salt).map_err(|_| AuthorityError::Randomness)?;
    getrandom::fill(&mut iv).map_err(|_| AuthorityError::Randomness)?;
    let failed = |_| AuthorityError::Key;
    let cost = scrypt::Params::new(SCRYPT_LOG_N, SCRYPT_R, SCRYPT_P, 32).map_err(|_| AuthorityError::Key)?;
    let parameters =
        pbes2::Parameters::scrypt_aes256cbc(cost, &salt, &iv).map_err(|_| AuthorityError::Key)?;
    let plain = PrivateKeyInfo::from_der(key.serialized_der()).map_err(|_| AuthorityError::Key)?;
    let encrypted = plain.encrypt_with_params(parameters, passphrase.reveal()).map_err(failed)?;
    encrypted.to_pem(EncryptedPrivateKeyInfo::PEM_LABEL, LineEnding::LF).map_err(|_| AuthorityError::Key)
}

#[cfg(test)]
mod tests {
    use rcgen::{PKCS_ECDSA_P256_SHA256, PKCS_ED25519};

    use super::*;

    fn open_with(path: &Path, passphrase: &Passphrase) -> Result<FileKey, AuthorityError> {
        decrypt(path, &read_text(path)?, passphrase)
    }

    fn passphrase(text: &str) -> Passphrase {
        Passphrase::read(text.as_bytes()).unwrap()
    }

    #[test]
    fn a_key_opens_with_its_passphrase_and_with_no_other() {
        let place = tempfile::tempdir().unwrap();
        for (name, algorithm) in [("ed", &PKCS_ED25519), ("p256", &PKCS_ECDSA_P256_SHA256)] {
            let (path, key) = (place.path().join(name), new_key(algorithm).unwrap());
            write_key(&path, &key, &passphrase("the right passphrase")).unwrap();
            let text = std::fs::read_to_string(&path).unwrap();
            assert!(text.starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----\n"));
            let opened = open_with(&path, &passphrase("the right passphrase")).unwrap();
            assert_eq!(opened.der_bytes(), key.der_bytes());
            let refused = open_with(&path, &passphrase("some other passphrase"));
            assert!(matches!(refused, Err(AuthorityError::WrongPassphrase(_))));
        }
    }

    #[test]
    fn a_key_in_the_clear_is_encrypted_in_place_once() {
        let place = tempfile::tempdir().unwrap();
        let (path, key) = (place.path().join("old.key"), new_key(&PKCS_ECDSA_P256_SHA256).unwrap());
        std::fs::write(&path, key.serialize_pem()).unwrap();
        let secret = passphrase("the right passphrase");
        assert!(encrypt_file(&path, &secret).unwrap());
        assert!(!encrypt_file(&path, &secret).unwrap());
        assert_eq!(open_with(&path, &secret).unwrap().der_bytes(), key.der_bytes());
    }
}
