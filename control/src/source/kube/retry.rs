//! How long to leave an API server alone after it failed. Pure.

use std::time::Duration;

use rand::Rng;

/// After the first failure.
const SHORTEST: Duration = Duration::from_millis(200);

/// After many: an API server that comes back is noticed about this late.
const LONGEST: Duration = Duration::from_secs(10);

/// What an API server may ask for at most.
const LONGEST_ASKED: Duration = Duration::from_secs(60);

/// Failures in a row.
#[derive(Debug, Default)]
pub(super) struct Retry {
    failures: u32,
}

impl Retry {
    /// The wait after one more failure: twice the one before, half of it by chance, so that those
    /// that failed together do not come back together. `asked` is what the API server asked for.
    pub(super) fn after_failure(&mut self, asked: Option<Duration>, rng: &mut impl Rng) -> Duration {
        let doubled = SHORTEST.saturating_mul(1 << self.failures.min(16));
        self.failures += 1;
        let wait = doubled.min(LONGEST).mul_f64(rng.random_range(0.5..=1.0));
        let asked = asked.unwrap_or_default().min(LONGEST_ASKED).mul_f64(rng.random_range(1.0..=1.25));
        wait.max(asked)
    }

    /// It worked.
    pub(super) fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// How often it failed in a row.
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    #[test]
    fn waits_grow_to_a_bound_and_follow_what_is_asked_for() {
        let mut rng = StdRng::seed_from_u64(1);
        let mut retry = Retry::default();
        for failure in 0..40 {
            let wait = retry.after_failure(None, &mut rng);
            let full = SHORTEST.saturating_mul(1 << failure.min(16)).min(LONGEST);
            assert!(wait <= full && wait >= full / 2, "{failure}: {wait:?} of {full:?}");
        }
        let asked = Duration::from_secs(20);
        let wait = retry.after_failure(Some(asked), &mut rng);
        assert!(wait >= asked && wait <= asked * 5 / 4, "{wait:?}");
        assert!(retry.after_failure(Some(Duration::MAX), &mut rng) <= LONGEST_ASKED * 5 / 4);
        retry.succeeded();
        assert!(retry.after_failure(None, &mut rng) <= SHORTEST);
    }
}
