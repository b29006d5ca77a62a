//! Durations as Istio's objects have them: `10s`, `0.5s`, `1h30m`, `250ms`.

use std::time::Duration;

use serde::Deserialize;

/// A duration: numbers, which may have a fraction, each with a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct IstioDuration(pub Duration);

/// From the longer to the shorter of those that begin alike, in nanoseconds.
const UNITS: [(&str, u64); 6] = [
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
];

impl TryFrom<String> for IstioDuration {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let invalid =
            || format!("invalid duration {text:?}: expected a number and a unit, such as 10s or 0.5s");
        parse(&text).map(|nanoseconds| Self(Duration::from_nanos(nanoseconds))).ok_or_else(invalid)
    }
}

fn parse(text: &str) -> Option<u64> {
    let mut total: u64 = 0;
    let mut rest = text;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let is_number = |c: char| c.is_ascii_digit() || c == '.';
        let end = rest.find(|c| !is_number(c))?;
        let (number, after) = rest.split_at(end);
        let (unit, nanoseconds) = UNITS.into_iter().find(|(unit, _)| after.starts_with(unit))?;
        rest = &after[unit.len()..];
        total = total.checked_add(scaled(number, nanoseconds)?)?;
    }
    Some(total)
}

/// `number` units of so many nanoseconds; what is below one is cut off.
fn scaled(number: &str, nanoseconds: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let whole: u64 = whole.parse().ok()?;
    let digits = fraction.len().min(9);
    let part: u64 =
        fraction.get(..digits).filter(|_| fraction.bytes().all(|b| b.is_ascii_digit()))?.parse().ok()?;
    let scale = 10_u64.checked_pow(u32::try_from(digits).ok()?)?;
    let fraction = u128::from(part) * u128::from(nanoseconds) / u128::from(scale);
    whole.checked_mul(nanoseconds)?.checked_add(u64::try_from(fraction).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_numbers_and_units() {
        for (text, milliseconds) in [
            ("10s", 10_000),
            ("0.5s", 500),
            ("1h30m", 5_400_000),
            ("250ms", 250),
            ("0s", 0),
            ("1.000000001s", 1_000),
            ("24h", 86_400_000),
        ] {
            let parsed = IstioDuration::try_from(text.to_owned()).unwrap().0;
            assert_eq!(parsed.as_millis(), milliseconds, "{text}");
        }
        for text in ["", "10", "s", "-1s", "1d", ".5s", "1.s", "1..5s", "9999999999999h", "1s "] {
            assert!(IstioDuration::try_from(text.to_owned()).is_err(), "{text}");
        }
    }
}
