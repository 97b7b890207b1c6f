//! What the fuzz target `csr` does with its input. A test of `toktra-pki` replays the corpus through the same
//! function on the stable toolchain.

use toktra_pki::{CSR_LIMIT, VerifiedCsr};

/// Reads the input as a certificate signing request: what is taken is within the limit and is one object, whole.
pub fn csr(input: &[u8]) {
    if VerifiedCsr::from_der(input).is_err() {
        return;
    }
    assert!(input.len() <= CSR_LIMIT);
    assert!(VerifiedCsr::from_der(&input[..input.len() - 1]).is_err());
    assert!(VerifiedCsr::from_der(&[input, &[0]].concat()).is_err());
}
