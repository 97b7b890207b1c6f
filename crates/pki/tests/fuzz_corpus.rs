//! Replays the committed corpus of the fuzz target `csr`, which `examples/fuzz_seeds.rs` makes and
//! fuzzing extends.
#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

#[path = "../../../fuzz/csr_body.rs"]
mod csr_body;

use std::fs;
use std::path::PathBuf;

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
