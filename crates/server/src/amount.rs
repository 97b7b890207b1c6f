//! Amounts as an administrator types and reads them, on a command line or in the console: tokens, or
//! dollars that become micro-dollars exactly. Never a floating-point number.

use toktra_protocol::budget::Unit;
use toktra_store::budgets::AMOUNT_LIMIT;

const MICROS: u64 = 1_000_000;
/// Digits behind the point.
const DECIMALS: usize = 6;

/// Reads tokens: digits, which underscores may part.
pub fn tokens(text: &str) -> Result<u64, String> {
    let hint = || {
        format!(
            "`{text}` is not a number of tokens such as 20000000 or 20_000_000, of at most {AMOUNT_LIMIT}"
        )
    };
    whole(&text.replace('_', "")).filter(|&tokens| tokens <= AMOUNT_LIMIT).ok_or_else(hint)
}

/// Digits without what people group them by in a form; a comma never parts the cents.
pub fn ungrouped(text: &str) -> String {
    text.replace([',', ' ', '\u{202f}', '\u{a0}'], "")
}

/// Reads dollars into micro-dollars, exactly.
pub fn dollars(text: &str) -> Result<u64, String> {
    let hint = || {
        let limit = AMOUNT_LIMIT / MICROS;
        format!("`{text}` is not an amount in dollars such as 500 or 12.50, of at most {limit} dollars")
    };
    let (whole_part, decimals) = text.split_once('.').unwrap_or((text, "0"));
    if !(1..=DECIMALS).contains(&decimals.len()) {
        return Err(hint());
    }
    let micros = || {
        let dollars = whole(&whole_part.replace('_', ""))?;
        let micros = whole(&format!("{decimals:0<DECIMALS$}"))?;
        dollars.checked_mul(MICROS)?.checked_add(micros).filter(|&micros| micros <= AMOUNT_LIMIT)
    };
    micros().ok_or_else(hint)
}

/// Reads digits and nothing else, not even a sign.
fn whole(digits: &str) -> Option<u64> {
    let only_digits = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    only_digits.then(|| digits.parse().ok())?
}

/// An amount with its unit.
pub fn text(amount: u64, unit: Unit) -> String {
    match unit {
        Unit::Tokens => format!("{} tokens", grouped(amount)),
        Unit::Micros => {
            let decimals = format!("{:0DECIMALS$}", amount % MICROS);
            let (cents, rest) = decimals.split_at(2);
            format!("${}.{cents}{}", grouped(amount / MICROS), rest.trim_end_matches('0'))
        }
    }
}

/// An amount as an administrator types it, which reads back to the same.
pub fn typed(amount: u64, unit: Unit) -> String {
    let said = text(amount, unit);
    said.trim_start_matches('$').trim_end_matches(" tokens").to_owned()
}

/// Why an amount looks like one of another unit, if it does.
pub fn doubt(unit: Unit, amount: u64) -> Option<String> {
    let said = text(amount, unit);
    match unit {
        Unit::Tokens if amount < 10_000 => {
            Some(format!("{said} is less than one long conversation; was it meant in thousands or dollars?"))
        }
        Unit::Tokens if amount > 10_000_000_000_000 => {
            Some(format!("{said} is more than the largest organisations use; was it meant in micro-dollars?"))
        }
        Unit::Micros if amount < 10_000 => {
            Some(format!("{said} is less than a cent; amounts are whole dollars, not millions of them"))
        }
        Unit::Micros if amount > 100_000_000_000_000 => {
            Some(format!("{said} is a great deal; amounts are dollars, neither cents nor micro-dollars"))
        }
        _ => None,
    }
}

fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dollars_are_read_exactly_and_nothing_else_is() {
        for (text, micros) in [
            ("500", 500_000_000),
            ("500.00", 500_000_000),
            ("0.1", 100_000),
            ("0.000001", 1),
            ("1_000.25", 1_000_250_000),
            // 2^53 + 1 micro-dollars would be beyond; this has no exact double as dollars.
            ("1125899906.842623", 1_125_899_906_842_623),
        ] {
            assert_eq!(dollars(text), Ok(micros), "{text}");
        }
        for bad in
            ["", ".", ".5", "5.", "-5", "+5", "1e3", "5,00", "0.0000001", "$5", "1.2.3", "9999999999", "५"]
        {
            assert!(dollars(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn tokens_are_whole_numbers() {
        assert_eq!(tokens("20_000_000"), Ok(20_000_000));
        for bad in ["", "_", "1.5", "-1", "20M", "1e6", "99999999999999999999"] {
            assert!(tokens(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_amount_shows_its_unit() {
        assert_eq!(text(20_000_000, Unit::Tokens), "20,000,000 tokens");
        assert_eq!(text(500_000_000, Unit::Micros), "$500.00");
        assert_eq!(text(1_234_567_891_234, Unit::Micros), "$1,234,567.891234");
        assert_eq!(text(7, Unit::Micros), "$0.000007");
    }

    #[test]
    fn an_amount_that_looks_like_one_of_another_unit_is_doubted() {
        let dollar = 1_000_000;
        assert_eq!(doubt(Unit::Micros, 500 * dollar), None);
        assert_eq!(doubt(Unit::Tokens, 20_000_000), None);
        // Typed per million where the whole was meant, and the other way round.
        assert!(doubt(Unit::Micros, 500).is_some());
        assert!(doubt(Unit::Micros, 500_000_000 * dollar).is_some());
        assert!(doubt(Unit::Tokens, 20).is_some());
        assert!(doubt(Unit::Tokens, 20_000_000 * dollar).is_some());
    }
}
