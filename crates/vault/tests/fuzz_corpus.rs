//! Replays the committed corpus of the vault's fuzz targets, which `examples/fuzz_seeds.rs` makes and
//! fuzzing extends.
#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

#[path = "../../../fuzz/vault_bodies.rs"]
mod vault_bodies;

use std::fs;
use std::path::Path;

fn replay(target: &str, body: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    let mut count = 0;
    for entry in fs::read_dir(corpus).unwrap() {
        body(&fs::read(entry.unwrap().path()).unwrap());
        count += 1;
    }
    assert!(count > 0, "fuzz/corpus/{target} is empty");
}

#[test]
fn the_corpus_of_phrase_passes() {
    replay("phrase", vault_bodies::phrase);
}

#[test]
fn the_corpus_of_sealed_passes() {
    replay("sealed", vault_bodies::sealed);
}
