//! Replays the committed corpus of the fuzz targets, which `examples/fuzz_seeds.rs` makes and fuzzing extends.

use std::fs;
use std::path::PathBuf;

use crate::bodies;

fn corpus(target: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target)
}

fn replay(target: &str, body: fn(&[u8])) {
    let mut count = 0;
    for entry in fs::read_dir(corpus(target)).unwrap() {
        body(&fs::read(entry.unwrap().path()).unwrap());
        count += 1;
    }
    assert!(count > 0, "fuzz/corpus/{target} is empty");
}

#[test]
fn the_corpus_of_stream_passes() {
    replay("stream", bodies::stream);
}

#[test]
fn the_corpus_of_split_stream_passes() {
    replay("split_stream", bodies::split_stream);
}

#[test]
fn the_corpus_of_quic_flow_passes() {
    replay("quic_flow", bodies::quic_flow);
}
