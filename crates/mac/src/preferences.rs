//! Preferences as plain values. Which win when a key has several, the system says: what a profile forces,
//! then what was written.

use std::collections::BTreeMap;

/// The domain of our preferences.
pub const DOMAIN: &str = "com.toktra.agent";

/// A value.
#[derive(Clone, PartialEq)]
pub enum Value {
    /// A string.
    Text(String),
    /// A whole number.
    Whole(i64),
    /// An array.
    List(Vec<Value>),
    /// Anything else.
    Other,
}

/// A value, and who has set it.
#[derive(Clone, PartialEq)]
pub struct Preference {
    /// What.
    pub value: Value,
    /// A profile forces it.
    pub forced: bool,
}

/// All that are set. One of them is a secret, so that their `Debug` shows no value.
#[derive(Clone, Default, PartialEq)]
pub struct Preferences(BTreeMap<String, Preference>);

/// A preference is not what it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// Which.
    pub key: &'static str,
    /// What it should be, in words.
    pub expected: &'static str,
}

impl Preferences {
    /// Those of these keys that are set.
    pub fn new(set: impl IntoIterator<Item = (String, Preference)>) -> Self {
        Self(set.into_iter().collect())
    }

    /// Whether a profile forces any of them.
    pub fn are_managed(&self) -> bool {
        self.0.values().any(|preference| preference.forced)
    }

    /// Whether a profile forces this one.
    pub fn is_forced(&self, key: &str) -> bool {
        self.0.get(key).is_some_and(|preference| preference.forced)
    }

    /// A string; one that is empty counts as not set.
    pub fn text(&self, key: &'static str) -> Result<Option<&str>, Malformed> {
        match self.value(key) {
            None => Ok(None),
            Some(Value::Text(text)) => Ok(Some(text.trim()).filter(|text| !text.is_empty())),
            Some(_) => Err(Malformed { key, expected: "a string" }),
        }
    }

    /// A whole number; one that was written as a string is taken too, as `defaults write` does without `-int`.
    pub fn whole(&self, key: &'static str) -> Result<Option<i64>, Malformed> {
        let malformed = Malformed { key, expected: "a whole number" };
        self.value(key).map(|value| number(value).ok_or(malformed)).transpose()
    }

    /// An array of whole numbers.
    pub fn wholes(&self, key: &'static str) -> Result<Vec<i64>, Malformed> {
        let malformed = Malformed { key, expected: "an array of whole numbers" };
        match self.value(key) {
            None => Ok(Vec::new()),
            Some(Value::List(values)) => values.iter().map(number).collect::<Option<_>>().ok_or(malformed),
            Some(_) => Err(malformed),
        }
    }

    fn value(&self, key: &str) -> Option<&Value> {
        self.0.get(key).map(|preference| &preference.value)
    }
}

fn number(value: &Value) -> Option<i64> {
    match value {
        Value::Whole(number) => Some(*number),
        Value::Text(text) => text.trim().parse().ok(),
        Value::List(_) | Value::Other => None,
    }
}

impl std::fmt::Debug for Preferences {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the preference `{}` is not {}", self.key, self.expected)
    }
}

impl std::error::Error for Malformed {}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(key: &str, value: Value) -> Preferences {
        Preferences::new([(key.to_owned(), Preference { value, forced: false })])
    }

    #[test]
    fn a_value_of_another_kind_is_named_and_never_shown() {
        let preferences = set("Token", Value::Whole(7));
        let error = preferences.text("Token").unwrap_err().to_string();
        assert_eq!(error, "the preference `Token` is not a string");
        let secret = set("Token", Value::Text("secret".into()));
        assert_eq!(format!("{secret:?}"), "{\"Token\"}");
        assert_eq!(secret.whole("Token").unwrap_err().expected, "a whole number");
    }

    #[test]
    fn numbers_may_be_written_as_strings_and_empty_strings_are_not_set() {
        assert_eq!(set("N", Value::Text(" 8443 ".into())).whole("N"), Ok(Some(8443)));
        let list = Value::List(vec![Value::Whole(1), Value::Text("2".into())]);
        assert_eq!(set("N", list).wholes("N"), Ok(vec![1, 2]));
        assert!(set("N", Value::List(vec![Value::Other])).wholes("N").is_err());
        assert!(set("N", Value::Whole(1)).wholes("N").is_err());
        assert_eq!(set("T", Value::Text(" ".into())).text("T"), Ok(None));
        assert_eq!(Preferences::default().wholes("N"), Ok(vec![]));
    }

    #[test]
    fn one_forced_value_says_that_a_profile_manages_them() {
        let forced = |forced| Preference { value: Value::Whole(1), forced };
        let preferences = Preferences::new([("A".into(), forced(false)), ("B".into(), forced(true))]);
        assert!(preferences.are_managed() && preferences.is_forced("B") && !preferences.is_forced("A"));
        assert!(!Preferences::new([("A".into(), forced(false))]).are_managed());
    }
}
