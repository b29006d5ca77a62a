//! Says once that the API server does not do what is asked of it, and once that it does again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use metrics::gauge;

use super::request::Failure;
use crate::objects::KnownKind;

/// How following goes, for all kinds. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Health(Arc<Mutex<BTreeMap<KnownKind, Trouble>>>);

/// What is wrong with a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    /// It concerns all kinds alike.
    Away,
    /// Control may not read this kind.
    Forbidden,
}

/// What is worth a line in the log.
#[derive(Debug, PartialEq, Eq)]
enum News {
    Nothing,
    /// It fails, and it worked before.
    Fails,
    /// Control may not read a kind.
    Forbidden,
    /// Everything works again.
    Works,
}

impl Health {
    /// A kind cannot be followed at the moment.
    pub(super) fn fails(&self, kind: KnownKind, failure: &Failure) {
        let trouble = match failure.status() {
            // A watch that expired is an event of every day, and a kind that has gone is looked for.
            Some(404 | 410) => return,
            Some(401 | 403) => Trouble::Forbidden,
            Some(_) | None => Trouble::Away,
        };
        following(kind).set(0.0);
        match self.change(|troubles| note_trouble(troubles, kind, trouble)) {
            News::Fails => {
                let kind = kind.name();
                tracing::warn!(kind, error = %failure, "the API server cannot be followed: what it said last holds");
            }
            News::Forbidden => {
                let kind = kind.name();
                tracing::error!(
                    kind,
                    error = %failure,
                    "control may not list and watch this kind: check its ClusterRole"
                );
            }
            News::Nothing | News::Works => {
                tracing::debug!(kind = kind.name(), error = %failure, "still failing");
            }
        }
    }

    /// A kind is followed.
    pub(super) fn works(&self, kind: KnownKind) {
        following(kind).set(1.0);
        if self.change(|troubles| note_success(troubles, kind)) == News::Works {
            tracing::info!("the API server is followed again");
        }
    }

    /// A kind is not there to be followed.
    pub(super) fn is_not_served(&self, kind: KnownKind) {
        self.works(kind);
        following(kind).set(0.0);
    }

    fn change(&self, step: impl FnOnce(&mut BTreeMap<KnownKind, Trouble>) -> News) -> News {
        step(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn following(kind: KnownKind) -> metrics::Gauge {
    gauge!("ambit_control_watch_following", "kind" => kind.plural())
}

fn note_trouble(troubles: &mut BTreeMap<KnownKind, Trouble>, kind: KnownKind, trouble: Trouble) -> News {
    let was_away = troubles.values().any(|trouble| *trouble == Trouble::Away);
    let before = troubles.insert(kind, trouble);
    match trouble {
        Trouble::Forbidden if before != Some(Trouble::Forbidden) => News::Forbidden,
        Trouble::Away if !was_away => News::Fails,
        Trouble::Forbidden | Trouble::Away => News::Nothing,
    }
}

fn note_success(troubles: &mut BTreeMap<KnownKind, Trouble>, kind: KnownKind) -> News {
    let was_in_trouble = troubles.remove(&kind).is_some();
    if was_in_trouble && troubles.is_empty() { News::Works } else { News::Nothing }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_two_lines_in_the_log() {
        let mut troubles = BTreeMap::new();
        let (pod, node) = (KnownKind::Pod, KnownKind::Node);
        assert_eq!(note_success(&mut troubles, pod), News::Nothing, "it never failed");
        assert_eq!(note_trouble(&mut troubles, pod, Trouble::Away), News::Fails);
        assert_eq!(note_trouble(&mut troubles, node, Trouble::Away), News::Nothing);
        assert_eq!(note_trouble(&mut troubles, pod, Trouble::Away), News::Nothing);
        assert_eq!(note_success(&mut troubles, pod), News::Nothing, "another kind still fails");
        assert_eq!(note_success(&mut troubles, node), News::Works);
        assert_eq!(note_success(&mut troubles, node), News::Nothing);
    }

    #[test]
    fn each_kind_that_may_not_be_read_is_named_once() {
        let mut troubles = BTreeMap::new();
        for kind in [KnownKind::Pod, KnownKind::Node] {
            assert_eq!(note_trouble(&mut troubles, kind, Trouble::Forbidden), News::Forbidden);
            assert_eq!(note_trouble(&mut troubles, kind, Trouble::Forbidden), News::Nothing);
        }
    }
}
