//! The device's Ed25519 key (RFC 8032), kept as PKCS#8 (RFC 5958).

use std::fmt;
use std::sync::Arc;

use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair};
use rustls::pki_types::PrivatePkcs8KeyDer;
use zeroize::Zeroizing;

/// A private key. `Debug` prints nothing of it.
#[derive(Clone)]
pub struct DeviceKey {
    pkcs8: Zeroizing<Vec<u8>>,
}

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The system gave no randomness.
    #[error("the system's random number generator failed")]
    Randomness,
    /// The bytes are not an Ed25519 private key.
    #[error("the stored private key is damaged; enrol the device again with a new token")]
    Malformed,
    /// The request could not be written.
    #[error("the certificate signing request cannot be written")]
    Request(#[source] rcgen::Error),
}

impl DeviceKey {
    /// Makes a new key.
    pub fn generate() -> Result<Self, KeyError> {
        let document =
            Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|_| KeyError::Randomness)?;
        Ok(Self { pkcs8: Zeroizing::new(document.as_ref().to_vec()) })
    }

    /// Takes up a key from the store.
    pub fn from_pkcs8(pkcs8: Zeroizing<Vec<u8>>) -> Result<Self, KeyError> {
        let key = Self { pkcs8 };
        key.pair()?;
        Ok(key)
    }

    /// The raw public key, 32 bytes.
    pub fn public_key(&self) -> Result<Vec<u8>, KeyError> {
        Ok(self.pair()?.public_key().as_ref().to_vec())
    }

    /// A PKCS#10 request (RFC 2986), DER, that asks for nothing: every name is the backend's to give.
    pub fn certificate_signing_request(&self) -> Result<Vec<u8>, KeyError> {
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        let request = params.serialize_request(&Signer(self.pair()?)).map_err(KeyError::Request)?;
        Ok(request.der().to_vec())
    }

    /// The key as TLS uses it.
    pub(crate) fn tls_key(&self) -> Result<Arc<dyn rustls::sign::SigningKey>, KeyError> {
        let der = PrivatePkcs8KeyDer::from(self.pkcs8.as_slice());
        rustls::crypto::ring::sign::any_eddsa_type(&der).map_err(|_| KeyError::Malformed)
    }

    /// For the store only.
    pub(crate) fn pkcs8(&self) -> &[u8] {
        &self.pkcs8
    }

    fn pair(&self) -> Result<Ed25519KeyPair, KeyError> {
        // Both forms are accepted: with the public key (version 2) and without.
        Ed25519KeyPair::from_pkcs8_maybe_unchecked(&self.pkcs8).map_err(|_| KeyError::Malformed)
    }
}

impl fmt::Debug for DeviceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceKey").finish_non_exhaustive()
    }
}

/// Lets rcgen sign without a copy of the key.
struct Signer(Ed25519KeyPair);

impl rcgen::PublicKeyData for Signer {
    fn der_bytes(&self) -> &[u8] {
        self.0.public_key().as_ref()
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ED25519
    }
}

impl rcgen::SigningKey for Signer {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        Ok(self.0.sign(message).as_ref().to_vec())
    }
}

#[cfg(test)]
mod tests {
    use x509_parser::prelude::{FromDer, X509CertificationRequest};

    use super::*;

    #[test]
    fn a_request_asks_for_nothing_and_is_signed_by_its_key() {
        let key = DeviceKey::generate().unwrap();
        let der = key.certificate_signing_request().unwrap();
        let checked = rcgen::CertificateSigningRequestParams::from_der(&der.as_slice().into()).unwrap();
        assert_eq!(rcgen::PublicKeyData::der_bytes(&checked.public_key), key.public_key().unwrap());
        let (rest, request) = X509CertificationRequest::from_der(&der).unwrap();
        assert!(rest.is_empty());
        assert_eq!(request.certification_request_info.subject.iter().count(), 0);
        assert!(request.requested_extensions().is_none_or(|mut extensions| extensions.next().is_none()));
    }

    #[test]
    fn a_key_survives_the_store_and_damage_is_refused() {
        let key = DeviceKey::generate().unwrap();
        let again = DeviceKey::from_pkcs8(Zeroizing::new(key.pkcs8().to_vec())).unwrap();
        assert_eq!(key.public_key().unwrap(), again.public_key().unwrap());
        for length in 0..key.pkcs8().len() {
            assert!(DeviceKey::from_pkcs8(Zeroizing::new(key.pkcs8()[..length].to_vec())).is_err());
        }
    }

    #[test]
    fn debug_prints_nothing_of_the_key() {
        assert_eq!(format!("{:?}", DeviceKey::generate().unwrap()), "DeviceKey { .. }");
    }
}
