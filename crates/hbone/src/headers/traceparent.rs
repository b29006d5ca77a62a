//! The `traceparent` field of W3C Trace Context.

use std::fmt;
use std::str::FromStr;

use rand::Rng;

/// Which trace a connection belongs to, and which span of it: `00-<trace>-<span>-00`.
///
/// The flags are always written as 0: whether a trace is recorded is not decided here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TraceParent {
    trace_id: u128,
    span_id: u64,
}

impl TraceParent {
    /// A new trace.
    pub fn random(rng: &mut impl Rng) -> Self {
        Self { trace_id: rng.random_range(1..=u128::MAX), span_id: rng.random_range(1..=u64::MAX) }
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-00", self.trace_id, self.span_id)
    }
}

impl FromStr for TraceParent {
    type Err = InvalidTraceParent;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.splitn(5, '-');
        let mut part = |len| parts.next().filter(|part| is_lower_hex(part, len)).ok_or(InvalidTraceParent);
        let (version, trace, span, _flags) = (part(2)?, part(32)?, part(16)?, part(2)?);
        // Trace Context §4.3: version ff is invalid, version 00 ends after the flags, and what a later
        // version appends is to be ignored.
        if version == "ff" || (version == "00" && parts.next().is_some()) {
            return Err(InvalidTraceParent);
        }
        let trace_id = u128::from_str_radix(trace, 16).map_err(|_| InvalidTraceParent)?;
        let span_id = u64::from_str_radix(span, 16).map_err(|_| InvalidTraceParent)?;
        // Trace Context §3.2.2: "All bytes as zero" is an invalid value of either.
        if trace_id == 0 || span_id == 0 {
            return Err(InvalidTraceParent);
        }
        Ok(Self { trace_id, span_id })
    }
}

fn is_lower_hex(text: &str, len: usize) -> bool {
    text.len() == len && text.bytes().all(|octet| matches!(octet, b'0'..=b'9' | b'a'..=b'f'))
}

/// A text is not a `traceparent`. A receiver starts a new trace then, so the reason is of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not of the form <version>-<32 hex digits>-<16 hex digits>-<2 hex digits>, with ids other than 0")]
pub struct InvalidTraceParent;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::*;

    #[test]
    fn values_are_read_as_the_specification_says() {
        let (trace, span) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
        for (text, valid) in [
            (format!("00-{trace}-{span}-00"), true),
            (format!("00-{trace}-{span}-01"), true),
            (format!("cc-{trace}-{span}-00-what-comes-later"), true),
            (format!("00-{trace}-{span}-00-more"), false),
            (format!("ff-{trace}-{span}-00"), false),
            (format!("00-{}-{span}-00", "0".repeat(32)), false),
            (format!("00-{trace}-{}-00", "0".repeat(16)), false),
            (format!("00-{}-{span}-00", trace.to_uppercase()), false),
            (format!("00-{trace}-{span}"), false),
            (format!("00-{trace}-{span}-0"), false),
            (format!("00-+{}-{span}-00", &trace[1..]), false),
            (String::new(), false),
        ] {
            assert_eq!(text.parse::<TraceParent>().is_ok(), valid, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(seed: u64) {
            let parent = TraceParent::random(&mut SmallRng::seed_from_u64(seed));
            prop_assert_eq!(parent.to_string().parse(), Ok(parent));
        }

        #[test]
        fn no_value_panics(text in ".{0,60}") {
            let _parent = text.parse::<TraceParent>();
        }
    }
}
