//! Replays the committed corpus of the fuzz target `csr`, which `seeds_are_written` makes and fuzzing extends.
#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

#[path = "../../../fuzz/csr_body.rs"]
mod csr_body;

use std::fs;
use std::path::PathBuf;

use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519};
use toktra_pki::VerifiedCsr;

fn corpus() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/csr")
}

#[test]
fn the_corpus_of_csr_passes_and_holds_requests_of_both_outcomes() {
    let (mut taken, mut refused) = (0, 0);
    for entry in fs::read_dir(corpus()).unwrap() {
        let input = fs::read(entry.unwrap().path()).unwrap();
        csr_body::csr(&input);
        if VerifiedCsr::from_der(&input).is_ok() { taken += 1 } else { refused += 1 }
    }
    assert!(taken > 0 && refused > 0, "{taken} taken, {refused} refused");
}

#[test]
#[ignore = "writes into fuzz/corpus; run by hand when the format of requests changes"]
fn seeds_are_written() {
    let request = |algorithm, names: &[&str]| {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
        CertificateParams::new(names).unwrap().serialize_request(&key).unwrap().der().to_vec()
    };
    let plain = request(&PKCS_ED25519, &[]);
    let mut forged = plain.clone();
    *forged.last_mut().unwrap() ^= 1;
    let seeds = [
        ("p256", request(&PKCS_ECDSA_P256_SHA256, &[])),
        ("p384", request(&PKCS_ECDSA_P384_SHA384, &[])),
        ("with_names", request(&PKCS_ED25519, &["api.acme.example", "*.acme.example"])),
        ("cut", plain[..plain.len() / 2].to_vec()),
        ("followed", [&plain[..], &plain].concat()),
        ("endless_length", vec![0x30, 0x84, 0xff, 0xff, 0xff, 0xff]),
        ("nested", [0x30, 0x80].repeat(256)),
        ("forged", forged),
        ("ed25519", plain),
    ];
    fs::create_dir_all(corpus()).unwrap();
    for (name, seed) in seeds {
        fs::write(corpus().join(name), seed).unwrap();
    }
}
