//! Host patterns. A pattern is a list of labels: literal, or with one `*` that stands for
//! one or more characters of that label (never a dot); the leftmost label may be `**`, one or
//! more whole labels. Patterns are written in lower case.

use std::fmt;

/// A host pattern, for example `bedrock-runtime.*.amazonaws.com`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pattern {
    text: String,
}

/// Why a text is not a pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// Empty labels, upper case, or characters that no host name has.
    #[error("`{0}` has a label that is empty or not of a-z, 0-9, `-` and `_`")]
    Label(String),
    /// More than one `*` in a label, or `**` other than as the leftmost label.
    #[error("`{0}` may have one `*` a label, and `**` only as the leftmost label")]
    Wildcard(String),
    /// Fewer than two literal labels at the right: it would cover whole registries.
    #[error("`{0}` must end in at least two literal labels")]
    TooWide(String),
    /// Longer than a host name can be.
    #[error("`{0}` is longer than 253 bytes")]
    TooLong(String),
}

/// A label of a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Label<'a> {
    /// Exactly this.
    Literal(&'a str),
    /// This before and that after one or more characters.
    Partial { prefix: &'a str, suffix: &'a str },
    /// One or more whole labels; the leftmost only.
    Deep,
}

impl Pattern {
    /// Reads and checks a pattern.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let owned = || text.to_owned();
        if text.len() > 253 {
            return Err(PatternError::TooLong(owned()));
        }
        for (index, label) in text.split('.').enumerate() {
            let stars = label.bytes().filter(|&b| b == b'*').count();
            if stars > 1 && !(index == 0 && label == "**") {
                return Err(PatternError::Wildcard(owned()));
            }
            let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_*".contains(&b);
            if label.is_empty() || !label.bytes().all(allowed) {
                return Err(PatternError::Label(owned()));
            }
        }
        if text.rsplit('.').take(2).filter(|label| !label.contains('*')).count() < 2 {
            return Err(PatternError::TooWide(owned()));
        }
        Ok(Self { text: owned() })
    }

    /// As written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Its labels, rightmost first.
    pub(crate) fn labels(&self) -> impl Iterator<Item = Label<'_>> {
        self.text.rsplit('.').map(|label| match label.split_once('*') {
            None => Label::Literal(label),
            Some(("", "*")) => Label::Deep,
            Some((prefix, suffix)) => Label::Partial { prefix, suffix },
        })
    }
}

impl Label<'_> {
    /// Whether a lower-case label is covered.
    pub(crate) fn covers(self, label: &str) -> bool {
        match self {
            Self::Literal(literal) => literal == label,
            Self::Partial { prefix, suffix } => {
                label.len() > prefix.len() + suffix.len()
                    && label.starts_with(prefix)
                    && label.ends_with(suffix)
            }
            Self::Deep => true,
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_that_would_cover_a_registry_or_make_no_sense_are_refused() {
        for text in [
            "",
            "com",
            "*.com",
            "**.com",
            "*",
            "a.*",
            "a..b",
            "A.b.c",
            "a.**.b.c",
            "a*b*c.d.e",
            "a b.c.d",
            ".a.b",
        ] {
            assert!(Pattern::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_forms_of_the_catalogue_are_accepted() {
        for text in
            ["api.openai.com", "*.openai.azure.com", "*-aiplatform.googleapis.com", "**.cursor.sh", "poe.com"]
        {
            assert_eq!(Pattern::parse(text).unwrap().as_str(), text);
        }
    }
}
