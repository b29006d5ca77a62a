//! When to put the plugin back into the chain, and when to give way. Pure.
//!
//! A network plugin that is upgraded writes its configuration once. One that watches it and insists on
//! its own text would be fought forever, with the node's network changing under both.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// So many repairs within [`WINDOW`] are a fight.
const LIMIT: usize = 5;

/// See [`LIMIT`].
const WINDOW: Duration = Duration::from_secs(60);

/// How long the other one has its way before it is tried again.
const TRUCE: Duration = Duration::from_secs(600);

/// What was repaired lately.
#[derive(Clone, Debug, Default)]
pub(super) struct Repairs {
    recent: VecDeque<Instant>,
    truce_until: Option<Instant>,
}

/// What to do about a chain without the plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Permission {
    /// Put it back.
    Repair,
    /// Another program insists on its own text: leave it, from now on.
    GiveWay {
        /// Until when.
        until: Instant,
    },
    /// Leave it still.
    Wait {
        /// Until when.
        until: Instant,
    },
}

impl Repairs {
    /// The plugin is not in the chain, where it was before. What is permitted counts as done.
    pub(super) fn ask(&mut self, now: Instant) -> Permission {
        if let Some(until) = self.truce_until {
            if now < until {
                return Permission::Wait { until };
            }
            self.truce_until = None;
            self.recent.clear();
        }
        self.recent.retain(|then| now.saturating_duration_since(*then) < WINDOW);
        if self.recent.len() >= LIMIT {
            let until = now + TRUCE;
            self.truce_until = Some(until);
            return Permission::GiveWay { until };
        }
        self.recent.push_back(now);
        Permission::Repair
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn an_upgrade_is_repaired_and_a_fight_is_not() {
        let start = Instant::now();
        let mut repairs = Repairs::default();
        for upgrade in 0..20 {
            assert_eq!(repairs.ask(start + upgrade * WINDOW / 4), Permission::Repair, "now and then");
        }
        let fight = start + 10 * WINDOW;
        for round in 0..5 {
            assert_eq!(repairs.ask(fight + round * SECOND), Permission::Repair);
        }
        let until = fight + 5 * SECOND + TRUCE;
        assert_eq!(repairs.ask(fight + 5 * SECOND), Permission::GiveWay { until });
        assert_eq!(repairs.ask(until - SECOND), Permission::Wait { until });
        assert_eq!(repairs.ask(until), Permission::Repair, "it is tried again");
    }
}
