//! Replays the committed corpus of the messages' fuzz targets, which `examples/fuzz_seeds.rs`
//! makes and fuzzing extends.
#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

#[path = "../../../fuzz/protocol_bodies.rs"]
mod protocol_bodies;

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
fn the_corpus_of_batch_passes() {
    replay("batch", protocol_bodies::batch);
}

#[test]
fn the_corpus_of_frames_passes() {
    replay("frames", protocol_bodies::frames);
}

#[test]
fn the_corpus_of_personal_passes() {
    replay("personal", protocol_bodies::personal);
}

#[test]
fn the_corpus_of_directive_passes() {
    replay("directive", protocol_bodies::directive);
}
