//! Writes the first inputs of the fuzz target `csr` into `fuzz/corpus`; to be run when the format of
//! requests changes: `cargo run -p toktra-pki --example fuzz_seeds`.

use std::error::Error;
use std::fs;
use std::path::Path;

use rcgen::{
    CertificateParams, CustomExtension, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
    PKCS_ECDSA_P384_SHA384, PKCS_ED25519, SignatureAlgorithm,
};

fn main() -> Result<(), Box<dyn Error>> {
    let plain = request(&PKCS_ED25519, &[])?;
    let mut forged = plain.clone();
    forged.iter_mut().last().into_iter().for_each(|byte| *byte ^= 1);
    let seeds = [
        ("p256", request(&PKCS_ECDSA_P256_SHA256, &[])?),
        ("p384", request(&PKCS_ECDSA_P384_SHA384, &[])?),
        ("with_names", request(&PKCS_ED25519, &["api.acme.example", "*.acme.example"])?),
        ("for_a_ca", for_a_ca()?),
        ("cut", plain[..plain.len() / 2].to_vec()),
        ("followed", [&plain[..], &plain].concat()),
        ("endless_length", vec![0x30, 0x84, 0xff, 0xff, 0xff, 0xff]),
        ("nested", [0x30, 0x80].repeat(256)),
        ("forged", forged),
        ("ed25519", plain),
    ];
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/csr");
    fs::create_dir_all(&corpus)?;
    for (name, seed) in seeds {
        fs::write(corpus.join(name), seed)?;
    }
    Ok(())
}

fn request(algorithm: &'static SignatureAlgorithm, names: &[&str]) -> Result<Vec<u8>, rcgen::Error> {
    let key = KeyPair::generate_for(algorithm)?;
    let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
    Ok(CertificateParams::new(names)?.serialize_request(&key)?.der().to_vec())
}

/// Asks to become a CA: `BasicConstraints { cA: TRUE }`.
fn for_a_ca() -> Result<Vec<u8>, rcgen::Error> {
    let key = KeyPair::generate_for(&PKCS_ED25519)?;
    let mut params = CertificateParams::default();
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.custom_extensions =
        vec![CustomExtension::from_oid_content(&[2, 5, 29, 19], vec![0x30, 3, 1, 1, 0xff])];
    Ok(params.serialize_request(&key)?.der().to_vec())
}
