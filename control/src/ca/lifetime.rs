//! How long a certificate is valid.
//!
//! Pure: the clock's reading is an argument.

use std::time::{Duration, SystemTime};

/// How far `notBefore` lies in the past, so that a node whose clock is a little behind accepts a
/// fresh certificate. It is not counted in the life that was asked for.
pub const BACKDATED: Duration = Duration::from_secs(60);

/// The bounds on a workload certificate's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetimes {
    shortest: Duration,
    default: Duration,
    longest: Duration,
}

impl Lifetimes {
    /// Bounds in order.
    ///
    /// # Errors
    /// When they are not in order, or the shortest is no time at all.
    pub fn new(shortest: Duration, default: Duration, longest: Duration) -> Result<Self, BadLifetimes> {
        if shortest.is_zero() || shortest > default || default > longest {
            return Err(BadLifetimes { shortest, default, longest });
        }
        Ok(Self { shortest, default, longest })
    }

    /// The life that is given to who asks for `requested` seconds (0 or less: the default), by an
    /// issuer that is itself valid until `issuer_not_after`.
    ///
    /// # Errors
    /// When the issuer is about to expire.
    pub(super) fn validity(
        &self,
        requested: i64,
        issuer_not_after: SystemTime,
        now: SystemTime,
    ) -> Result<Validity, IssuerExpires> {
        let asked = u64::try_from(requested).ok().filter(|seconds| *seconds > 0).map(Duration::from_secs);
        let life = asked.unwrap_or(self.default).clamp(self.shortest, self.longest);
        let not_after = (now + life).min(issuer_not_after);
        if not_after <= now {
            return Err(IssuerExpires);
        }
        Ok(Validity { not_before: now - BACKDATED, not_after })
    }
}

impl Default for Lifetimes {
    /// A day unless asked otherwise, a minute at least, a day at most.
    fn default() -> Self {
        let day = Duration::from_secs(24 * 3600);
        Self { shortest: Duration::from_secs(60), default: day, longest: day }
    }
}

/// From when to when a certificate is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Validity {
    pub(super) not_before: SystemTime,
    pub(super) not_after: SystemTime,
}

/// The configured bounds contradict each other.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "certificate lifetimes must satisfy 0 < shortest ({shortest:?}) <= default ({default:?}) <= longest ({longest:?})"
)]
pub struct BadLifetimes {
    /// The shortest.
    pub shortest: Duration,
    /// The default.
    pub default: Duration,
    /// The longest.
    pub longest: Duration,
}

/// Nothing can be issued any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the issuing certificate has expired: replace it")]
pub struct IssuerExpires;

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn a_life_is_what_was_asked_within_bounds() {
        let now = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let seconds = Duration::from_secs;
        let bounds = Lifetimes::new(seconds(60), seconds(3600), seconds(7200)).unwrap();
        let rows = [
            ("as asked", 1800, 100_000, Ok(1800)),
            ("nothing asked: the default", 0, 100_000, Ok(3600)),
            ("less than nothing: the default", -5, 100_000, Ok(3600)),
            ("too short", 1, 100_000, Ok(60)),
            ("too long", i64::MAX, 100_000, Ok(7200)),
            ("not beyond the issuer", 1800, 90, Ok(90)),
            ("not beyond the issuer, even under the shortest", 1800, 5, Ok(5)),
            ("the issuer has expired", 1800, 0, Err(IssuerExpires)),
        ];
        for (name, asked, issuer_left, expected) in rows {
            let validity = bounds.validity(asked, now + seconds(issuer_left), now);
            assert_eq!(
                validity.map(|validity| validity.not_after),
                expected.map(|life| now + seconds(life)),
                "{name}"
            );
            if let Ok(validity) = validity {
                assert_eq!(validity.not_before, now - BACKDATED);
            }
        }
    }

    #[test]
    fn bounds_out_of_order_are_refused() {
        let seconds = Duration::from_secs;
        for (shortest, default, longest) in [(0, 1, 2), (3, 2, 4), (1, 5, 4)] {
            assert!(Lifetimes::new(seconds(shortest), seconds(default), seconds(longest)).is_err());
        }
        let Lifetimes { shortest, default, longest } = Lifetimes::default();
        assert_eq!(Lifetimes::new(shortest, default, longest), Ok(Lifetimes::default()));
    }
}
