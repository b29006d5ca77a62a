//! Which of several candidates takes a connection: by chance for one that is made, each in turn for
//! whoever asks where it might go.

use rand::Rng;

use super::endpoint::Chosen;
use crate::balance;

/// Picks one of several candidates.
pub(super) trait Picker {
    /// One of them; `None` when none may be picked.
    fn pick<'c, 'a>(&mut self, candidates: &'c [Chosen<'a>]) -> Option<&'c Chosen<'a>>;
}

/// By chance, with capacity as weight.
pub(super) struct ByChance<'r, R: ?Sized>(pub(super) &'r mut R);

impl<R: Rng + ?Sized> Picker for ByChance<'_, R> {
    fn pick<'c, 'a>(&mut self, candidates: &'c [Chosen<'a>]) -> Option<&'c Chosen<'a>> {
        balance::pick(candidates, |candidate| candidate.workload.capacity, self.0)
    }
}

/// The one at a position.
#[derive(Default)]
pub(super) struct InTurn {
    at: usize,
    /// How many there were.
    seen: usize,
}

impl InTurn {
    /// Every decision that `decide` comes to, one for each candidate.
    ///
    /// # Errors
    /// When it comes to none.
    pub(super) fn every<T, E>(mut decide: impl FnMut(&mut Self) -> Result<T, E>) -> Result<Vec<T>, E> {
        let mut turn = Self::default();
        let mut all = vec![decide(&mut turn)?];
        for at in 1..turn.seen {
            all.push(decide(&mut Self { at, seen: 0 })?);
        }
        Ok(all)
    }
}

impl Picker for InTurn {
    fn pick<'c, 'a>(&mut self, candidates: &'c [Chosen<'a>]) -> Option<&'c Chosen<'a>> {
        // What has no capacity was left out before.
        self.seen = candidates.len();
        candidates.get(self.at)
    }
}
