//! When a certificate is renewed, and when a failed attempt is repeated.
//!
//! Pure: time and chance are arguments. Waiting and fetching are `manager`'s.
//!
//! ```text
//!             issued                    failed (RetryAt, backing off)
//!   Missing ----------> Held ----+      +-----+
//!      ^  |               ^      |      |     |
//!      |  +--- failed     +------+------+<----+
//!      |      (RetryAt)    issued (RenewAt)
//!      +------------------ failed after the certificate has expired
//! ```

use std::time::{Duration, SystemTime};

use rand::Rng;

/// Where in a certificate's life it is renewed: half, spread so that certificates issued together
/// are not renewed together.
const RENEW_AT: std::ops::Range<f64> = 0.45..0.55;
/// The shortest distance between a certificate and its renewal, whatever a CA answers.
const RENEW_MIN: Duration = Duration::from_secs(1);

/// The pause after a first failure; it doubles with each further one.
const BACKOFF_FIRST: Duration = Duration::from_secs(1);
/// The longest pause while a valid certificate is held, as in Istio's agent.
const BACKOFF_MAX: Duration = Duration::from_secs(150);
/// The longest pause while none is held. Shorter, because such a workload serves nobody: it should
/// not wait for minutes after the CA is back.
const BACKOFF_MAX_MISSING: Duration = Duration::from_secs(15);
/// How far a pause may differ from its nominal length.
const BACKOFF_SPREAD: std::ops::Range<f64> = 0.8..1.2;
/// A pause takes at most this part of what is left of the held certificate, so that one of a
/// minute is tried several times before it expires.
const BACKOFF_PART_OF_REMAINDER: u32 = 4;
/// The doubling stops here: 2^8 s is beyond every maximum.
const DOUBLINGS: u32 = 8;

/// What to do next for an identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// The certificate is good; replace it at this time.
    RenewAt(SystemTime),
    /// The last attempt failed; try again at this time.
    RetryAt(SystemTime),
}

impl Next {
    /// The time itself.
    pub fn at(self) -> SystemTime {
        match self {
            Self::RenewAt(at) | Self::RetryAt(at) => at,
        }
    }
}

/// The renewal state of one identity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Schedule {
    held_until: Option<SystemTime>,
    failures: u32,
}

impl Schedule {
    /// A certificate is held whose life began at `from` and ends at `not_after`.
    ///
    /// For a fresh one `from` is the moment it arrived, not its `notBefore`, which CAs set into the
    /// past: half of a minute that is backdated by a minute would be over at once.
    pub fn issued(
        from: SystemTime,
        not_after: SystemTime,
        now: SystemTime,
        rng: &mut impl Rng,
    ) -> (Self, Next) {
        let life = not_after.duration_since(from).unwrap_or_default();
        let renew = from + life.mul_f64(rng.random_range(RENEW_AT));
        let next = Next::RenewAt(renew.max(now + RENEW_MIN));
        (Self { held_until: Some(not_after), failures: 0 }, next)
    }

    /// An attempt failed.
    pub fn failed(self, now: SystemTime, rng: &mut impl Rng) -> (Self, Next) {
        let remaining =
            self.held_until.and_then(|until| until.duration_since(now).ok()).filter(|left| !left.is_zero());
        let limit = match remaining {
            Some(left) => BACKOFF_MAX.min(left / BACKOFF_PART_OF_REMAINDER).max(BACKOFF_FIRST),
            None => BACKOFF_MAX_MISSING,
        };
        let nominal = (BACKOFF_FIRST * 2_u32.pow(self.failures.min(DOUBLINGS))).min(limit);
        let pause = nominal.mul_f64(rng.random_range(BACKOFF_SPREAD));
        let held_until = remaining.and(self.held_until);
        (Self { held_until, failures: self.failures.saturating_add(1) }, Next::RetryAt(now + pause))
    }
}

#[cfg(test)]
mod tests;
