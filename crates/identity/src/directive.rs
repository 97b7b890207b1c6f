//! Directives: checked against the key pinned at enrolment, and never an older one.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::signature::{ED25519, UnparsedPublicKey};
use toktra_protocol::directive::PAYLOAD_LIMIT;
use toktra_protocol::{DeviceId, Directive, SignedDirective};

/// The public key that directives are signed with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectiveKey([u8; 32]);

/// Why a directive is not applied.
#[derive(Debug, thiserror::Error)]
pub enum DirectiveError {
    /// The payload is too long.
    #[error("the directive exceeds {PAYLOAD_LIMIT} bytes")]
    TooLarge,
    /// The signature is not the pinned key's.
    #[error("the directive is not signed by the key that was pinned at enrolment")]
    Signature,
    /// Signed, but not a directive that this version reads.
    #[error("the directive cannot be read; is the agent too old for the backend?")]
    Malformed(#[source] serde_json::Error),
    /// Signed, but for another device.
    #[error("the directive is for another device")]
    OtherDevice,
    /// Signed, but older than what is in force.
    #[error("the directive has version {offered}, older than {applied} which is in force")]
    Older {
        /// Its version.
        offered: u64,
        /// The version in force.
        applied: u64,
    },
}

impl DirectiveKey {
    /// Reads the raw key, in base64.
    pub fn from_base64(text: &str) -> Option<Self> {
        Some(Self(STANDARD.decode(text).ok()?.try_into().ok()?))
    }

    /// The document, if the key signed it for this device.
    pub fn verify(&self, signed: &SignedDirective, device: DeviceId) -> Result<Directive, DirectiveError> {
        if signed.payload.len() > PAYLOAD_LIMIT {
            return Err(DirectiveError::TooLarge);
        }
        let signature = STANDARD.decode(&signed.signature).map_err(|_| DirectiveError::Signature)?;
        UnparsedPublicKey::new(&ED25519, self.0)
            .verify(&signed.signed_bytes(), &signature)
            .map_err(|_| DirectiveError::Signature)?;
        let directive = signed.document().map_err(DirectiveError::Malformed)?;
        if directive.device == device { Ok(directive) } else { Err(DirectiveError::OtherDevice) }
    }

    /// The document, if it also may follow on `current`: a higher version, or the same one
    /// issued later (its validity was extended).
    pub fn accept(
        &self,
        signed: &SignedDirective,
        device: DeviceId,
        current: Option<&Directive>,
    ) -> Result<Directive, DirectiveError> {
        let offered = self.verify(signed, device)?;
        let order = |directive: &Directive| (directive.version, directive.issued_at);
        match current {
            Some(current) if order(&offered) < order(current) => {
                Err(DirectiveError::Older { offered: offered.version, applied: current.version })
            }
            _ => Ok(offered),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use ring::rand::SystemRandom;
    use ring::signature::{Ed25519KeyPair, KeyPair};
    use toktra_protocol::UnixSeconds;

    use super::*;

    const DEVICE: DeviceId = DeviceId::from_u128(7);

    fn directive(version: u64, issued_at: u64) -> Directive {
        Directive {
            version,
            device: DEVICE,
            issued_at: UnixSeconds(issued_at),
            valid_until: UnixSeconds(issued_at + 60),
            lock: None,
            block: None,
            flags: BTreeMap::new(),
            budgets: Vec::new(),
            counted: 0,
            renew_before: None,
            perks: None,
        }
    }

    struct Signer(Ed25519KeyPair);

    impl Signer {
        fn new() -> Self {
            let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
            Self(Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap())
        }

        fn key(&self) -> DirectiveKey {
            DirectiveKey::from_base64(&STANDARD.encode(self.0.public_key())).unwrap()
        }

        fn sign(&self, directive: &Directive) -> SignedDirective {
            let payload = serde_json::to_string(directive).unwrap();
            let mut signed = SignedDirective { payload, signature: String::new() };
            signed.signature = STANDARD.encode(self.0.sign(&signed.signed_bytes()));
            signed
        }
    }

    #[test]
    fn what_the_pinned_key_signed_is_accepted_and_nothing_else() {
        let (signer, other) = (Signer::new(), Signer::new());
        let signed = signer.sign(&directive(1, 10));
        assert_eq!(signer.key().verify(&signed, DEVICE).unwrap(), directive(1, 10));
        assert!(matches!(other.key().verify(&signed, DEVICE), Err(DirectiveError::Signature)));
        let forged = SignedDirective { payload: signed.payload.replace("10", "11"), ..signed.clone() };
        assert!(matches!(signer.key().verify(&forged, DEVICE), Err(DirectiveError::Signature)));
        let stranger = DeviceId::from_u128(8);
        assert!(matches!(signer.key().verify(&signed, stranger), Err(DirectiveError::OtherDevice)));
    }

    #[test]
    fn a_signature_over_the_payload_alone_is_refused() {
        let signer = Signer::new();
        let payload = serde_json::to_string(&directive(1, 10)).unwrap();
        let signature = STANDARD.encode(signer.0.sign(payload.as_bytes()));
        let signed = SignedDirective { payload, signature };
        assert!(matches!(signer.key().verify(&signed, DEVICE), Err(DirectiveError::Signature)));
    }

    #[test]
    fn versions_never_go_back_and_the_same_one_may_be_issued_again() {
        let signer = Signer::new();
        let accept = |version, issued_at| {
            let current = directive(5, 100);
            signer.key().accept(&signer.sign(&directive(version, issued_at)), DEVICE, Some(&current))
        };
        assert!(accept(6, 50).is_ok());
        assert!(accept(5, 101).is_ok());
        assert!(matches!(accept(5, 99), Err(DirectiveError::Older { .. })));
        assert!(matches!(accept(4, 500), Err(DirectiveError::Older { offered: 4, applied: 5 })));
    }
}
