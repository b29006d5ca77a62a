//! How long to wait before the next attempt to connect.

use std::time::Duration;

use rand::Rng;

/// The first delay. Istio's agents use the same bounds.
const SHORTEST: Duration = Duration::from_millis(10);

/// The delay that repeated failures lead to.
const LONGEST: Duration = Duration::from_secs(15);

/// Delays that double with each failure in a row.
///
/// Each is drawn from the upper half of its step, so that agents which lost the same server do
/// not come back in the same instant.
#[derive(Clone, Debug)]
pub struct Backoff {
    step: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { step: SHORTEST }
    }
}

impl Backoff {
    /// The delay after one more failure.
    pub fn after_failure(&mut self, rng: &mut impl Rng) -> Duration {
        let step = self.step;
        self.step = (step * 2).min(LONGEST);
        step.mul_f64(rng.random_range(0.5..=1.0))
    }

    /// Begins anew: the server has answered.
    pub fn reset(&mut self) {
        self.step = SHORTEST;
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::*;

    #[test]
    fn delays_double_up_to_the_longest_and_begin_anew() {
        let rng = &mut SmallRng::seed_from_u64(1);
        let mut backoff = Backoff::default();
        let mut expected = SHORTEST;
        for _ in 0..20 {
            let delay = backoff.after_failure(rng);
            assert!(delay >= expected / 2 && delay <= expected, "{delay:?} for a step of {expected:?}");
            expected = (expected * 2).min(LONGEST);
        }
        assert_eq!(expected, LONGEST);
        backoff.reset();
        assert!(backoff.after_failure(rng) <= SHORTEST);
    }
}
