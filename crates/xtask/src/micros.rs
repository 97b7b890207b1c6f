//! Dollars as decimal text to integer micro-dollars, exactly. No floating point: what is finer
//! than a micro-dollar is refused and never rounded.

/// Digits of a micro-dollar behind the point.
const PLACES: usize = 6;

/// Why a text is not an exact number of micro-dollars.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MicrosError {
    /// Not `digits` or `digits.digits`.
    #[error("is not a decimal number")]
    Form,
    /// Below nothing.
    #[error("is negative")]
    Negative,
    /// Finer than a micro-dollar.
    #[error("is finer than a micro-dollar per million tokens")]
    Inexact,
    /// Too large to hold.
    #[error("is too large")]
    Large,
}

/// `"1.25"` dollars are 1,250,000 micro-dollars.
pub fn micros(dollars: &str) -> Result<u64, MicrosError> {
    let (negative, digits) = match dollars.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, dollars),
    };
    let (whole, part) = digits.split_once('.').unwrap_or((digits, "0"));
    let plain = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !plain(whole) || !plain(part) {
        return Err(MicrosError::Form);
    }
    if negative {
        return Err(MicrosError::Negative);
    }
    let part = part.trim_end_matches('0');
    if part.len() > PLACES {
        return Err(MicrosError::Inexact);
    }
    format!("{whole}{part:0<PLACES$}").parse().map_err(|_| MicrosError::Large)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dollars_become_micro_dollars_exactly() {
        for (text, expected) in [
            ("0", 0),
            ("5", 5_000_000),
            ("1.25", 1_250_000),
            ("0.003625", 3_625),
            ("0.0037500000", 3_750),
            ("0.1", 100_000),
            ("007.5", 7_500_000),
        ] {
            assert_eq!(micros(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_not_exact_is_refused_and_not_rounded() {
        assert_eq!(micros("0.0000001"), Err(MicrosError::Inexact));
        assert_eq!(micros("0.14999999999999999"), Err(MicrosError::Inexact));
        assert_eq!(micros("-1"), Err(MicrosError::Negative));
        assert_eq!(micros("99999999999999999999"), Err(MicrosError::Large));
        for text in ["", ".", ".5", "1.", "1e-6", "1_000", "NaN", "1.2.3", "+1", "--1", " 1", "\u{661}"] {
            assert_eq!(micros(text), Err(MicrosError::Form), "{text}");
        }
    }
}
