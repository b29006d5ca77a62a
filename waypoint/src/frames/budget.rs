//! An allowance that grows with time, and with what it is worth.

use std::time::Instant;

use super::Flood;

#[derive(Debug)]
pub(super) struct Budget {
    left: u32,
    most: u32,
    a_second: u32,
    since: Instant,
}

impl Budget {
    /// So many at once, and so many more a second.
    pub(super) fn new((most, a_second): (u32, u32), now: Instant) -> Self {
        Self { left: most, most, a_second, since: now }
    }

    pub(super) fn earn(&mut self, amount: u32) {
        self.left = self.left.saturating_add(amount).min(self.most);
    }

    pub(super) fn spend(&mut self, now: Instant, flood: Flood) -> Result<(), Flood> {
        if self.left == 0 {
            let seconds = now.saturating_duration_since(self.since).as_secs();
            self.since = now;
            let grown = u64::from(self.a_second).saturating_mul(seconds);
            self.earn(u32::try_from(grown).unwrap_or(u32::MAX));
        }
        self.left = self.left.checked_sub(1).ok_or(flood)?;
        Ok(())
    }
}
