//! Certificate signing requests (PKCS#10, RFC 2986) from devices that nobody trusts yet.
//! A [`VerifiedCsr`] can only be made by verification, and holds only a public key:
//! whatever names or extensions a request asks for are not even kept.

use rcgen::{PublicKeyData, SignatureAlgorithm, SubjectPublicKeyInfo};
use ring::signature::{ECDSA_P256_SHA256_ASN1, ED25519, UnparsedPublicKey, VerificationAlgorithm};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;

use crate::profile::hexadecimal;

/// Largest request, in bytes of DER. Ours have some 150.
pub const CSR_LIMIT: usize = 4096;

const OID_ED25519: &str = "1.3.101.112";
const OID_EC_PUBLIC_KEY: &str = "1.2.840.10045.2.1";
const OID_P256: &str = "1.2.840.10045.3.1.7";
const OID_ECDSA_SHA256: &str = "1.2.840.10045.4.3.2";

/// A public key whose owner has proved to hold the private one.
#[derive(Debug)]
pub struct VerifiedCsr {
    key: SubjectPublicKeyInfo,
}

/// Why a request is not acceptable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CsrError {
    /// More than [`CSR_LIMIT`] bytes.
    #[error("the request exceeds {CSR_LIMIT} bytes")]
    TooLarge,
    /// Not the DER of a request.
    #[error("the request is not the DER of a PKCS#10 certification request")]
    Malformed,
    /// Something follows the request.
    #[error("bytes follow the request")]
    TrailingBytes,
    /// The key or the signature is of another kind.
    #[error("the request's key is neither Ed25519 nor ECDSA on P-256 with SHA-256")]
    Algorithm,
    /// The signature does not verify with the request's own key.
    #[error("the request's signature does not verify")]
    Signature,
}

impl VerifiedCsr {
    /// Reads exactly one request and checks its signature.
    pub fn from_der(der: &[u8]) -> Result<Self, CsrError> {
        if der.len() > CSR_LIMIT {
            return Err(CsrError::TooLarge);
        }
        let (rest, csr) = X509CertificationRequest::from_der(der).map_err(|_| CsrError::Malformed)?;
        if !rest.is_empty() {
            return Err(CsrError::TrailingBytes);
        }
        let algorithm = algorithm(&csr)?;
        let info = &csr.certification_request_info;
        let key = info.subject_pki.subject_public_key.as_ref();
        let (unused_bits, signature) = (csr.signature_value.unused_bits, csr.signature_value.as_ref());
        if unused_bits != 0 || info.subject_pki.subject_public_key.unused_bits != 0 {
            return Err(CsrError::Malformed);
        }
        UnparsedPublicKey::new(algorithm, key)
            .verify(info.raw, signature)
            .map_err(|_| CsrError::Signature)?;
        let key = SubjectPublicKeyInfo::from_der(info.subject_pki.raw).map_err(|_| CsrError::Algorithm)?;
        Ok(Self { key })
    }

    /// By what a key is known: SHA-256 of its SubjectPublicKeyInfo, hexadecimal.
    pub fn key_id(&self) -> String {
        let info = self.key.subject_public_key_info();
        hexadecimal(ring::digest::digest(&ring::digest::SHA256, &info).as_ref())
    }
}

impl PublicKeyData for VerifiedCsr {
    fn der_bytes(&self) -> &[u8] {
        self.key.der_bytes()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.key.algorithm()
    }
}

/// The algorithm by which to verify, where the key's kind and the signature's agree.
fn algorithm(csr: &X509CertificationRequest<'_>) -> Result<&'static dyn VerificationAlgorithm, CsrError> {
    let key = &csr.certification_request_info.subject_pki.algorithm;
    let curve = || key.parameters.as_ref().and_then(|any| any.as_oid().ok()).map(|oid| oid.to_id_string());
    let signature = csr.signature_algorithm.algorithm.to_id_string();
    match (key.algorithm.to_id_string().as_str(), signature.as_str()) {
        (OID_ED25519, OID_ED25519) => Ok(&ED25519),
        (OID_EC_PUBLIC_KEY, OID_ECDSA_SHA256) if curve().as_deref() == Some(OID_P256) => {
            Ok(&ECDSA_P256_SHA256_ASN1)
        }
        _ => Err(CsrError::Algorithm),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519};

    use super::*;

    fn request(algorithm: &'static SignatureAlgorithm) -> Vec<u8> {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let params = CertificateParams::new(vec!["evil.example".to_owned()]).unwrap();
        params.serialize_request(&key).unwrap().der().to_vec()
    }

    #[test]
    fn ed25519_and_p256_requests_are_taken() {
        assert!(VerifiedCsr::from_der(&request(&PKCS_ED25519)).is_ok());
        assert!(VerifiedCsr::from_der(&request(&PKCS_ECDSA_P256_SHA256)).is_ok());
    }

    #[test]
    fn other_keys_are_refused() {
        let result = VerifiedCsr::from_der(&request(&PKCS_ECDSA_P384_SHA384));
        assert_eq!(result.unwrap_err(), CsrError::Algorithm);
    }

    #[test]
    fn bytes_after_the_request_are_refused() {
        let mut der = request(&PKCS_ED25519);
        der.push(0);
        assert_eq!(VerifiedCsr::from_der(&der).unwrap_err(), CsrError::TrailingBytes);
    }

    #[test]
    fn no_flipped_bit_passes_with_another_key_or_signature() {
        let der = request(&PKCS_ED25519);
        let good = VerifiedCsr::from_der(&der).unwrap().der_bytes().to_vec();
        for position in 0..der.len() * 8 {
            let mut bad = der.clone();
            bad[position / 8] ^= 1 << (position % 8);
            if let Ok(csr) = VerifiedCsr::from_der(&bad) {
                assert_eq!(csr.der_bytes(), good, "bit {position} changed the key unnoticed");
            }
        }
    }

    #[test]
    fn no_prefix_of_a_request_passes() {
        let der = request(&PKCS_ED25519);
        for length in 0..der.len() {
            assert!(VerifiedCsr::from_der(&der[..length]).is_err());
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = VerifiedCsr::from_der(&bytes);
        }

        #[test]
        fn no_damaged_request_makes_it_panic(
            damage in proptest::collection::vec((any::<usize>(), any::<u8>()), 1..8)
        ) {
            let mut der = request(&PKCS_ED25519);
            for (position, value) in damage {
                let length = der.len();
                der[position % length] = value;
            }
            let _ = VerifiedCsr::from_der(&der);
        }
    }
}
