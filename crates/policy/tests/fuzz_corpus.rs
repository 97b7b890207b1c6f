//! Replays the committed corpus of the fuzz target of privacy windows.
#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

#[path = "../../../fuzz/windows_body.rs"]
mod windows_body;

use std::fs;
use std::path::Path;

#[test]
fn the_corpus_of_windows_passes() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/windows");
    let mut count = 0;
    for entry in fs::read_dir(corpus).unwrap() {
        windows_body::windows(&fs::read(entry.unwrap().path()).unwrap());
        count += 1;
    }
    assert!(count > 0, "fuzz/corpus/windows is empty");
}
