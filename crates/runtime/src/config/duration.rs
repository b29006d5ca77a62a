//! Durations as people write them: `24h`, `90s`, `500ms`, `1h30m`.

use std::time::Duration;

/// Units from large to small, in milliseconds.
const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Reads a duration: one or more whole numbers, each with its unit (`d`, `h`, `m`, `s`, `ms`).
/// A number without a unit is refused, since nobody remembers which one was meant.
///
/// # Errors
/// When the text has another form, or the sum does not fit.
pub fn parse_duration(text: &str) -> Result<Duration, InvalidDuration> {
    let invalid = || InvalidDuration { text: text.into() };
    let mut rest = text.trim();
    let mut total_ms = 0_u64;
    if rest.is_empty() {
        return Err(invalid());
    }
    while !rest.is_empty() {
        let (number, after) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len()));
        let (unit, after) =
            after.split_at(after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len()));
        let (_, unit_ms) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(invalid)?;
        let value_ms =
            number.parse::<u64>().ok().and_then(|n| n.checked_mul(*unit_ms)).ok_or_else(invalid)?;
        total_ms = total_ms.checked_add(value_ms).ok_or_else(invalid)?;
        rest = after;
    }
    Ok(Duration::from_millis(total_ms))
}

/// Writes a duration as [`parse_duration`] reads it; what is shorter than a millisecond is cut off.
pub(super) fn format_duration(duration: Duration) -> String {
    let mut rest_ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if rest_ms == 0 {
        return "0s".into();
    }
    let mut text = String::new();
    for (unit, unit_ms) in UNITS {
        let count = rest_ms / unit_ms;
        rest_ms %= unit_ms;
        if count > 0 {
            text.push_str(&count.to_string());
            text.push_str(unit);
        }
    }
    text
}

/// A text is not a duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a duration: write a number and its unit, such as 24h, 90s, 1h30m or 500ms")]
pub struct InvalidDuration {
    /// What was read.
    pub text: String,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_are_read_with_their_units() {
        for (text, ms) in [
            ("24h", 86_400_000),
            ("90s", 90_000),
            ("500ms", 500),
            ("1h30m", 5_400_000),
            ("2d", 172_800_000),
            ("0s", 0),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
    }

    #[test]
    fn other_forms_are_refused() {
        for text in ["", "5", "s", "-5s", "1.5h", "5 s", "5x", "99999999999999999999s", "999999999999999999d"]
        {
            assert!(parse_duration(text).is_err(), "{text:?} was accepted");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(ms in 0..u64::MAX / 2) {
            let duration = Duration::from_millis(ms);
            prop_assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
        }

        #[test]
        fn no_text_panics(text in ".{0,20}") {
            let _read = parse_duration(&text);
        }
    }
}
