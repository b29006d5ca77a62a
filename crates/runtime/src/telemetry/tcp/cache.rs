//! Handles of the label sets that a thread has used lately, so that the next connection of the same
//! pair takes no lock and builds no labels.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{ConnectionLabels, Series};

/// Label sets that one thread keeps. A pair of workloads is one or two; beyond that the least recently
/// used one is fetched anew.
const MAX_SETS: usize = 512;

/// A label set that was not used for this long is given up when another is added, so that its series
/// can expire. A thread that sees no new label set keeps what it has, which `MAX_SETS` bounds.
const KEEP: Duration = Duration::from_secs(60);

thread_local! {
    static CACHE: RefCell<Cache> = RefCell::default();
}

/// The handles of these labels.
pub(super) fn series(labels: &ConnectionLabels<'_>) -> Arc<Series> {
    CACHE.with_borrow_mut(|cache| cache.series(labels, Instant::now()))
}

#[derive(Default)]
struct Cache {
    key: String,
    sets: HashMap<Box<str>, Entry>,
}

struct Entry {
    series: Arc<Series>,
    used: Instant,
}

impl Cache {
    fn series(&mut self, labels: &ConnectionLabels<'_>, now: Instant) -> Arc<Series> {
        self.key.clear();
        labels.write_key(&mut self.key);
        if let Some(entry) = self.sets.get_mut(self.key.as_str()) {
            entry.used = now;
            return Arc::clone(&entry.series);
        }
        self.make_room(now);
        let series = Arc::new(Series::new(labels));
        self.sets.insert(self.key.as_str().into(), Entry { series: Arc::clone(&series), used: now });
        series
    }

    fn make_room(&mut self, now: Instant) {
        self.sets.retain(|_, entry| now.duration_since(entry.used) < KEEP);
        if self.sets.len() < MAX_SETS {
            return;
        }
        let oldest = self.sets.iter().min_by_key(|(_, entry)| entry.used).map(|(key, _)| key.clone());
        if let Some(key) = oldest {
            self.sets.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{labels, workload};
    use super::*;

    #[test]
    fn a_repeated_pair_shares_its_handles() {
        let (mut cache, now) = (Cache::default(), Instant::now());
        let (cart, stock) = (workload("cart"), workload("stock"));
        let first = cache.series(&labels(&cart, &stock), now);
        assert!(Arc::ptr_eq(&first, &cache.series(&labels(&cart, &stock), now)));
        assert!(!Arc::ptr_eq(&first, &cache.series(&labels(&stock, &cart), now)));
    }

    #[test]
    fn the_least_recently_used_set_makes_room() {
        let (mut cache, start) = (Cache::default(), Instant::now());
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
        let (mut cache, start) = (Cache::default(), Instant::now());
        let (cart, stock) = (workload("cart"), workload("stock"));
        let first = Arc::downgrade(&cache.series(&labels(&cart, &stock), start));
        cache.series(&labels(&stock, &cart), start + KEEP);
        assert!(first.upgrade().is_none());
    }

    #[test]
    fn keys_of_different_labels_differ() {
        let (mut one, mut two) = (workload("a"), workload("a"));
        (one.workload_name, one.canonical_name) = ("x".into(), "yz".into());
        (two.workload_name, two.canonical_name) = ("xy".into(), "z".into());
        let key = |workload| {
            let mut key = String::new();
            labels(workload, workload).write_key(&mut key);
            key
        };
        assert_ne!(key(&one), key(&two));
        assert_eq!(key(&one), key(&one.clone()));
    }
}
