//! A calendar month, `2026-11`. Which instants are in it, the organisation's time zone says; the
//! backend is asked, a device is told.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A calendar month of the years 2000 to 9999. Ordered by time; as text always seven characters, so
/// that texts have the same order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Month {
    year: u16,
    number: u8,
}

/// A text is not a month.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("write a month as `2026-11`, of the years 2000 to 9999")]
pub struct MonthError;

impl Month {
    /// The first that there is.
    pub const FIRST: Self = Self { year: 2000, number: 1 };

    /// The month of a year; January is 1.
    pub fn new(year: u16, number: u8) -> Result<Self, MonthError> {
        let is_month = (2000..=9999).contains(&year) && (1..=12).contains(&number);
        if is_month { Ok(Self { year, number }) } else { Err(MonthError) }
    }

    /// Its year.
    pub fn year(self) -> u16 {
        self.year
    }

    /// Its number in the year; January is 1.
    pub fn number(self) -> u8 {
        self.number
    }

    /// So many months later, or before if negative. `None` beyond the years that there are.
    pub fn plus(self, months: i32) -> Option<Self> {
        let at = (i32::from(self.year) * 12 + i32::from(self.number) - 1).checked_add(months)?;
        let (year, number) = (at.div_euclid(12), at.rem_euclid(12) + 1);
        Self::new(year.try_into().ok()?, number.try_into().ok()?).ok()
    }
}

impl FromStr for Month {
    type Err = MonthError;

    fn from_str(text: &str) -> Result<Self, MonthError> {
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        match text.split_once('-') {
            Some((year, number))
                if year.len() == 4 && number.len() == 2 && digits(year) && digits(number) =>
            {
                Self::new(year.parse().map_err(|_| MonthError)?, number.parse().map_err(|_| MonthError)?)
            }
            _ => Err(MonthError),
        }
    }
}

impl TryFrom<String> for Month {
    type Error = MonthError;

    fn try_from(text: String) -> Result<Self, MonthError> {
        text.parse()
    }
}

impl From<Month> for String {
    fn from(month: Month) -> Self {
        month.to_string()
    }
}

impl fmt::Display for Month {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}", self.year, self.number)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn months_are_read_strictly() {
        assert_eq!("2026-11".parse(), Month::new(2026, 11));
        for text in [
            "",
            "2026",
            "2026-1",
            "2026-011",
            "2026-00",
            "2026-13",
            "1999-12",
            "26-11",
            "+026-11",
            "2026-+1",
            " 2026-11",
            "２026-11",
        ] {
            assert_eq!(text.parse::<Month>(), Err(MonthError), "{text:?}");
        }
    }

    #[test]
    fn years_turn_and_end() {
        let month = |text: &str| text.parse::<Month>().unwrap();
        assert_eq!(month("2026-12").plus(1), Some(month("2027-01")));
        assert_eq!(month("2026-01").plus(-1), Some(month("2025-12")));
        assert_eq!(month("2026-11").plus(-13), Some(month("2025-10")));
        assert_eq!(month("9999-12").plus(1), None);
        assert_eq!(month("2000-01").plus(-1), None);
        assert_eq!(month("2000-01").plus(i32::MAX), None);
    }

    proptest! {
        #[test]
        fn what_is_printed_parses_to_the_same_and_has_the_same_order(
            a in (2000u16..=9999, 1u8..=12), b in (2000u16..=9999, 1u8..=12),
        ) {
            let (a, b) = (Month::new(a.0, a.1).unwrap(), Month::new(b.0, b.1).unwrap());
            prop_assert_eq!(a.to_string().parse(), Ok(a));
            prop_assert_eq!(a.cmp(&b), a.to_string().cmp(&b.to_string()));
        }
    }
}
