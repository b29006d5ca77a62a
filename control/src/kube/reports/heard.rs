//! Which reports of other replicas count. Pure.
//!
//! A report that has not changed for a minute is of a replica that is gone or cut off, whatever its
//! clock and ours say: what counts is how long we have not seen it change.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::merge::Reported;
use super::report::ProxyReportSpec;

/// How often a replica renews a report in which nothing else changes.
pub const RENEW_EVERY: Duration = Duration::from_secs(20);

/// For how long a report counts that is not renewed.
pub const COUNTS_FOR: Duration = Duration::from_secs(60);

/// The reports, by name.
#[derive(Debug, Default)]
pub struct Heard(BTreeMap<String, Entry>);

#[derive(Debug)]
struct Entry {
    owner: Option<String>,
    renew_time: String,
    changed_at: Instant,
    reported: Reported,
}

impl Heard {
    /// A report was read. `owner` is the UID of the pod it belongs to.
    pub fn put(&mut self, name: &str, owner: Option<&str>, report: &ProxyReportSpec, now: Instant) {
        let before = self.0.get(name).filter(|before| before.renew_time == report.renew_time);
        let entry = Entry {
            owner: owner.map(str::to_owned),
            renew_time: report.renew_time.clone(),
            changed_at: before.map_or(now, |before| before.changed_at),
            reported: Reported::of(report),
        };
        self.0.insert(name.to_owned(), entry);
    }

    /// A report is gone.
    pub fn remove(&mut self, name: &str) {
        self.0.remove(name);
    }

    /// Only these are there.
    pub fn retain(&mut self, is_there: impl Fn(&str) -> bool) {
        self.0.retain(|name, _| is_there(name));
    }

    /// The reports that count, but for that of one replica, which knows better itself. `is_gone`
    /// tells of a pod, by UID, that it is known to have ended.
    pub fn counting<'a>(
        &'a self,
        but: &'a str,
        is_gone: &'a dyn Fn(&str, &str) -> bool,
        now: Instant,
    ) -> impl Iterator<Item = &'a Reported> {
        let counts = move |(name, entry): &(&String, &Entry)| {
            let is_of_gone_pod = entry.owner.as_deref().is_some_and(|uid| is_gone(name, uid));
            **name != *but && !is_of_gone_pod && now < entry.changed_at + COUNTS_FOR
        };
        self.0.iter().filter(counts).map(|(_, entry)| &entry.reported)
    }

    /// When the next of those that count ceases to, if it is not renewed.
    pub fn next_expiry(&self, now: Instant) -> Option<Instant> {
        self.0.values().map(|entry| entry.changed_at + COUNTS_FOR).filter(|expiry| *expiry > now).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(renewed: &str) -> ProxyReportSpec {
        ProxyReportSpec { renew_time: renewed.to_owned(), ..ProxyReportSpec::default() }
    }

    #[test]
    fn a_report_counts_while_it_is_renewed() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let nobody = |_: &str, _: &str| false;
        let mut heard = Heard::default();
        heard.put("b", Some("uid-b"), &report("1"), start);
        heard.put("c", None, &report("1"), start);
        let counting = |heard: &Heard, now| heard.counting("a", &nobody, now).count();
        assert_eq!((counting(&heard, at(59)), counting(&heard, at(60))), (2, 0));
        assert_eq!(heard.next_expiry(start), Some(at(60)));

        // Seen again without being renewed, as after a new list: its time runs on.
        heard.put("b", Some("uid-b"), &report("1"), at(50));
        heard.put("c", None, &report("2"), at(50));
        assert_eq!(
            (counting(&heard, at(59)), counting(&heard, at(60)), counting(&heard, at(110))),
            (2, 1, 0)
        );
        assert_eq!(heard.next_expiry(at(60)), Some(at(110)));
    }

    #[test]
    fn our_own_and_those_of_pods_that_are_gone_do_not_count() {
        let start = Instant::now();
        let mut heard = Heard::default();
        for name in ["a", "b", "c"] {
            heard.put(name, Some("uid"), &report("1"), start);
        }
        assert_eq!(heard.counting("a", &|_, _| false, start).count(), 2);
        assert_eq!(heard.counting("a", &|name, uid| (name, uid) == ("b", "uid"), start).count(), 1);
        heard.remove("c");
        heard.retain(|name| name != "b");
        assert_eq!(heard.counting("", &|_, _| false, start).count(), 1);
    }
}
