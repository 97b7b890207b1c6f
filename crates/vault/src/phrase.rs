//! The recovery phrase: the key as 24 English words with a checksum (BIP-39). The form in which a
//! person writes the key down, and in which it is kept, so that damage to it is noticed.

use std::fmt;

use bip39::{Error, Language, Mnemonic};
use zeroize::{Zeroize as _, Zeroizing};

use crate::UserKey;

/// How many words a phrase has.
pub const WORDS: usize = 24;
/// Longest text that is read, in bytes: the words have eight letters at most, and somebody may have put
/// much room between them.
const LIMIT: usize = 1024;

/// Why words are no phrase. In words for the user.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
pub enum PhraseError {
    /// Too few or too many words.
    #[error("a recovery phrase has {WORDS} words, and these are {0}")]
    Count(usize),
    /// Far too much.
    #[error("a recovery phrase has {WORDS} words, and this is something else")]
    TooLong,
    /// A word that is not in the list.
    #[error("word {place} is none of a recovery phrase{}", suggestion(.near))]
    Word {
        /// Which, from 1.
        place: usize,
        /// The word of the list that begins alike.
        near: Option<&'static str>,
    },
    /// The checksum does not match.
    #[error(
        "each of the {WORDS} words may stand in a recovery phrase, but not all of them in this order: one is another one, or two have changed places"
    )]
    Checksum,
}

fn suggestion(near: &Option<&str>) -> String {
    near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default()
}

impl fmt::Debug for PhraseError {
    /// As [`Display`](fmt::Display).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl UserKey {
    /// Reads a phrase: words between any white space, in letters of either case.
    pub fn from_phrase(text: &str) -> Result<Self, PhraseError> {
        if text.len() > LIMIT {
            return Err(PhraseError::TooLong);
        }
        let text = Zeroizing::new(text.to_ascii_lowercase());
        let count = text.split_whitespace().count();
        if count != WORDS {
            return Err(PhraseError::Count(count));
        }
        let mnemonic =
            Mnemonic::parse_in_normalized(Language::English, &text).map_err(|error| match error {
                Error::UnknownWord(index) => PhraseError::Word {
                    place: index + 1,
                    near: text.split_whitespace().nth(index).and_then(begins_alike),
                },
                _ => PhraseError::Checksum,
            })?;
        let (mut bytes, _) = mnemonic.to_entropy_array();
        let mut entropy = Zeroizing::new([0; 32]);
        entropy.copy_from_slice(&bytes[..32]);
        bytes.zeroize();
        Ok(Self::new(entropy))
    }

    /// The phrase, its words between single spaces.
    pub fn phrase(&self) -> Zeroizing<String> {
        #[allow(clippy::expect_used, reason = "32 bytes are the entropy of 24 words")]
        let mnemonic = Mnemonic::from_entropy(self.entropy()).expect("32 bytes");
        let mut phrase = Zeroizing::new(String::with_capacity(LIMIT));
        for word in mnemonic.words() {
            if !phrase.is_empty() {
                phrase.push(' ');
            }
            phrase.push_str(word);
        }
        phrase
    }
}

/// Four letters tell every word of the list from the others.
fn begins_alike(word: &str) -> Option<&'static str> {
    Language::English.words_by_prefix_iter(word.get(..4)?).next()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(entropy: [u8; 32]) -> UserKey {
        UserKey::new(Zeroizing::new(entropy))
    }

    #[test]
    fn phrases_are_those_of_bip_39() {
        // The reference's own test vectors.
        for (byte, word, last) in [(0, "abandon", "art"), (0xff, "zoo", "vote")] {
            let words = [vec![word; 23], vec![last]].concat().join(" ");
            assert_eq!(*key([byte; 32]).phrase(), words);
        }
    }

    #[test]
    fn a_mistake_says_which_word() {
        let phrase = key([0; 32]).phrase();
        let said = |text: &str| UserKey::from_phrase(text).unwrap_err().to_string();
        assert_eq!(
            said(&phrase.replacen("abandon", "abandom", 7)),
            "word 1 is none of a recovery phrase; did you mean `abandon`?"
        );
        let mut words: Vec<&str> = phrase.split(' ').collect();
        words[6] = "qqq";
        assert_eq!(said(&words.join(" ")), "word 7 is none of a recovery phrase");
        words[6] = "ability";
        assert!(said(&words.join(" ")).contains("not all of them in this order"));
        assert!(said("").ends_with("these are 0") && said(&phrase[8..]).ends_with("these are 23"));
        assert!(said(&"x ".repeat(1000)).ends_with("something else"));
    }

    proptest! {
        #[test]
        fn a_phrase_gives_its_key_however_it_is_written(entropy: [u8; 32]) {
            let key = key(entropy);
            let written = key.phrase().replace(' ', " \n\t").to_uppercase();
            for text in [key.phrase().as_str(), &written] {
                let found = UserKey::from_phrase(text).unwrap();
                prop_assert_eq!(found.entropy(), &entropy);
            }
        }

        #[test]
        fn another_word_in_any_place_is_noticed_or_gives_another_key(entropy: [u8; 32], place in 0..WORDS, other in 0..2048_usize) {
            let key = key(entropy);
            let phrase = key.phrase();
            let mut words: Vec<&str> = phrase.split(' ').collect();
            let other = Language::English.word_list()[other];
            prop_assume!(words[place] != other);
            words[place] = other;
            match UserKey::from_phrase(&words.join(" ")) {
                Ok(found) => prop_assert_ne!(found.entropy(), &entropy),
                Err(error) => prop_assert_eq!(error, PhraseError::Checksum),
            }
        }

        #[test]
        fn no_text_makes_it_panic(text in "(\\PC{0,9} ){0,30}") {
            let _ = UserKey::from_phrase(&text);
        }
    }
}
