//! How fast requests may follow each other: so many at once, so many a second after. Pure.

use std::time::{Duration, Instant};

/// A bucket of permits that fills up again.
#[derive(Clone, Debug)]
pub(super) struct Pace {
    burst: u32,
    each: Duration,
    /// When the bucket would be full again if nothing is taken.
    full_at: Instant,
}

impl Pace {
    /// `burst` at once, and then `per_second` each second.
    pub(super) fn new(burst: u32, per_second: u32, now: Instant) -> Self {
        Self { burst, each: Duration::from_secs(1) / per_second.max(1), full_at: now }
    }

    /// Takes a permit; if there is none, says when there will be one.
    ///
    /// # Errors
    /// The moment at which to ask again.
    pub(super) fn take(&mut self, now: Instant) -> Result<(), Instant> {
        let full_at = self.full_at.max(now);
        let filled_by_then = full_at + self.each;
        let allowed = now + self.each * self.burst;
        if filled_by_then > allowed {
            return Err(now + (filled_by_then - allowed));
        }
        self.full_at = filled_by_then;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_and_then_so_many_a_second() {
        let start = Instant::now();
        let mut pace = Pace::new(5, 10, start);
        let mut now = start;
        let mut taken = 0;
        while now < start + Duration::from_secs(3) {
            match pace.take(now) {
                Ok(()) => taken += 1,
                Err(again) => {
                    assert!(again > now);
                    now = again;
                }
            }
        }
        assert_eq!(taken, 5 + 29);
        // After a pause there is a burst again, and no more than one.
        now += Duration::from_secs(3_600);
        assert_eq!((0..100).filter(|_| pace.take(now).is_ok()).count(), 5);
    }
}
