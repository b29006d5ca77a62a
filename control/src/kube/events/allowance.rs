//! How much each node may have told. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use metrics::counter;

/// So many different sentences of one node are told within [`WINDOW`].
const SENTENCES: usize = 10;

/// As long as an API server keeps an Event, unless configured otherwise.
const WINDOW: Duration = Duration::from_secs(3600);

/// What was taken from each node. Those that say nothing are forgotten when their time is over.
#[derive(Debug, Default)]
pub(super) struct Allowances(BTreeMap<Arc<str>, Taken>);

#[derive(Debug)]
struct Taken {
    since: Instant,
    sentences: BTreeSet<Arc<str>>,
}

impl Allowances {
    /// Leaves out what is beyond: a node whose agent says something else each second does not drown the others.
    pub(super) fn of(
        &mut self,
        mut problems: Vec<(Arc<str>, Vec<Arc<str>>)>,
        now: Instant,
    ) -> Vec<(Arc<str>, Vec<Arc<str>>)> {
        self.0.retain(|_, taken| now.saturating_duration_since(taken.since) < WINDOW);
        for (node, sentences) in &mut problems {
            let taken = self.0.entry(Arc::clone(node));
            let taken = taken.or_insert_with(|| Taken { since: now, sentences: BTreeSet::new() });
            sentences.retain(|sentence| {
                let is_allowed = taken.sentences.contains(sentence) || taken.sentences.len() < SENTENCES;
                if is_allowed {
                    taken.sentences.insert(Arc::clone(sentence));
                } else {
                    counter!("ambit_control_events_total", "result" => "suppressed").increment(1);
                }
                is_allowed
            });
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_never_repeats_itself_is_heard_for_a_while_and_others_always() {
        let mut allowances = Allowances::default();
        let start = Instant::now();
        let mut told = 0;
        for second in 0..100 {
            let chatter = ("a".into(), vec![format!("problem {second}").into()]);
            let other = ("b".into(), vec!["the chain is broken".into()]);
            let allowed = allowances.of(vec![chatter, other], start + Duration::from_secs(second));
            told += allowed[0].1.len();
            assert_eq!(allowed[1].1.len(), 1, "b says one thing");
        }
        assert_eq!(told, SENTENCES);
        let later = allowances.of(vec![("a".into(), vec!["at last".into()])], start + WINDOW);
        assert_eq!(later[0].1.len(), 1);
    }
}
