//! What the fuzz targets of the vault do with their input. The tests of `toktra-vault` replay the corpus
//! through the same functions on the stable toolchain.

use toktra_vault::{OpenError, UserKey, open, seal};
use zeroize::Zeroizing;

/// Reads the input as a recovery phrase; what is accepted is written as it was meant.
pub fn phrase(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Ok(key) = UserKey::from_phrase(text) {
        let words: Vec<String> = text.split_whitespace().map(str::to_ascii_lowercase).collect();
        assert_eq!(*key.phrase(), words.join(" "));
    }
}

/// Opens the input as a sealed record: nothing opens that was not sealed. Then seals it: it opens.
pub fn sealed(input: &[u8]) {
    let key = UserKey::new(Zeroizing::new([1; 32]));
    // Whoever made the corpus had the key, and sealed nothing but this.
    match open(&key, input) {
        Ok(content) => assert_eq!(content[..], *b"{\"host\":\"api.openai.com\"}"),
        Err(OpenError::Form | OpenError::OtherKey | OpenError::Damaged) => {}
    }
    if let Ok(sealed) = seal(&key.recipient(), input, Zeroizing::new([2; 32])) {
        assert_eq!(open(&key, &sealed).unwrap()[..], *input);
    }
}
