//! Handles of the label sets that a thread has used lately, so that the next connection of the same
//! pair takes no lock and builds no labels.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::RandomState;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{ConnectionLabels, Series};

/// Label sets that one thread keeps. A pair of workloads is one or two; beyond that the least recently
/// used one is fetched anew.
const MAX_SETS: usize = 512;

/// A label set that was not used for this long is given up, so that its series can expire. It is looked
/// for when a connection is counted: a thread without connections keeps what it has, which `MAX_SETS`
/// bounds.
const KEEP: Duration = Duration::from_secs(60);

thread_local! {
    static CACHE: RefCell<Cache> = RefCell::new(Cache::new(Instant::now()));
}

/// The handles of these labels.
pub(super) fn series(labels: &ConnectionLabels<'_>) -> Arc<Series> {
    CACHE.with_borrow_mut(|cache| cache.series(labels, Instant::now()))
}

struct Cache {
    seed: RandomState,
    /// By fingerprint of their labels, which the series keep.
    sets: HashMap<u64, Entry>,
    swept: Instant,
}

struct Entry {
    series: Arc<Series>,
    used: Instant,
}

impl Cache {
    fn new(now: Instant) -> Self {
        Self { seed: RandomState::new(), sets: HashMap::new(), swept: now }
    }

    fn series(&mut self, labels: &ConnectionLabels<'_>, now: Instant) -> Arc<Series> {
        let fingerprint = labels.fingerprint(&self.seed);
        self.sweep(now);
        if let Some(entry) = self.sets.get_mut(&fingerprint) {
            entry.used = now;
            return Arc::clone(&entry.series);
        }
        self.make_room();
        let series = Arc::new(Series::new(labels));
        self.sets.insert(fingerprint, Entry { series: Arc::clone(&series), used: now });
        series
    }

    fn sweep(&mut self, now: Instant) {
        if now.duration_since(self.swept) >= KEEP {
            self.swept = now;
            self.sets.retain(|_, entry| now.duration_since(entry.used) < KEEP);
        }
    }

    fn make_room(&mut self) {
        if self.sets.len() < MAX_SETS {
            return;
        }
        let oldest =
            self.sets.iter().min_by_key(|(_, entry)| entry.used).map(|(&fingerprint, _)| fingerprint);
        if let Some(fingerprint) = oldest {
            self.sets.remove(&fingerprint);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{labels, workload};
    use super::*;

    fn cache() -> (Cache, Instant) {
        let now = Instant::now();
        (Cache::new(now), now)
    }

    #[test]
    fn a_repeated_pair_shares_its_handles() {
        let (mut cache, now) = cache();
        let (cart, stock) = (workload("cart"), workload("stock"));
        let first = cache.series(&labels(&cart, &stock), now);
        assert!(Arc::ptr_eq(&first, &cache.series(&labels(&cart, &stock), now)));
        assert!(!Arc::ptr_eq(&first, &cache.series(&labels(&stock, &cart), now)));
    }

    #[test]
    fn the_least_recently_used_set_makes_room() {
        let (mut cache, start) = cache();
        let stock = workload("stock");
        let first = workload("first");
        let kept = cache.series(&labels(&first, &stock), start);
        for n in 0..MAX_SETS {
            let now = start + Duration::from_millis(n as u64);
            let other = workload(&format!("client-{n}"));
            cache.series(&labels(&other, &stock), now);
            assert!(Arc::ptr_eq(&kept, &cache.series(&labels(&first, &stock), now)));
        }
        assert_eq!(cache.sets.len(), MAX_SETS);
    }

    #[test]
    fn sets_out_of_use_are_given_up() {
        let (mut cache, start) = cache();
        let (cart, stock) = (workload("cart"), workload("stock"));
        let first = Arc::downgrade(&cache.series(&labels(&cart, &stock), start));
        cache.series(&labels(&stock, &cart), start + KEEP);
        assert!(first.upgrade().is_none());
    }

    #[test]
    fn different_labels_have_different_handles() {
        let (mut cache, now) = cache();
        let (mut one, mut two) = (workload("a"), workload("a"));
        (one.workload_name, one.canonical_name) = ("x".into(), "yz".into());
        (two.workload_name, two.canonical_name) = ("xy".into(), "z".into());
        let (mut region, mut zone) = (workload("a"), workload("a"));
        region.locality.region = "r".into();
        zone.locality.zone = Arc::clone(&region.locality.region);
        let both = labels(&one, &one);
        let anonymous = ConnectionLabels { source_identity: None, ..both };
        for labels in [labels(&one, &two), labels(&two, &one), labels(&one, &region), labels(&one, &zone)] {
            cache.series(&labels, now);
        }
        cache.series(&both, now);
        cache.series(&anonymous, now);
        assert_eq!(cache.sets.len(), 6);
    }

    #[test]
    fn a_name_that_takes_the_place_of_another_in_memory_is_not_taken_for_it() {
        let (mut cache, now) = cache();
        let stock = workload("stock");
        for name in ["one", "two", "six"] {
            let mut cart = workload("cart");
            cart.workload_name = name.into();
            let series = cache.series(&labels(&cart, &stock), now);
            assert_eq!(series.labels[1].value(), name);
        }
    }
}
