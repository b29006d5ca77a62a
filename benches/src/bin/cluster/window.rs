//! What a list of requests says about an operation: how many failed, from when to when. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::Serialize;

use crate::outcome::{Failure, Kind};

/// One request, in milliseconds since the operation.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Seen {
    pub(crate) client: usize,
    pub(crate) began_ms: f64,
    pub(crate) ended_ms: f64,
    pub(crate) kind: Kind,
    pub(crate) failure: Option<Failure>,
    /// The pod that answered, or to which the connection had been.
    pub(crate) peer: Option<Arc<str>>,
}

/// Requests of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Count {
    pub(crate) requests: u64,
    pub(crate) failures: u64,
}

/// What failed while and after something was done.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Window {
    pub(crate) requests: u64,
    /// Without those of `ended_with_their_pod`.
    pub(crate) failures: u64,
    pub(crate) by_kind: BTreeMap<&'static str, Count>,
    pub(crate) by_cause: BTreeMap<&'static str, u64>,
    /// When the first request that failed began.
    pub(crate) first_failure_ms: Option<f64>,
    /// When the last failure was seen.
    pub(crate) last_failure_ms: Option<f64>,
    /// Between the two; 0 when nothing failed.
    pub(crate) window_ms: f64,
    /// Connections to pods that the operation itself ended: nobody can save those.
    pub(crate) ended_with_their_pod: u64,
    /// Connections that were open and broke, beside those.
    pub(crate) open_connections_lost: u64,
    /// Of those that succeeded.
    pub(crate) slowest_ms: f64,
    /// What failed in the time before the operation: how quiet the cluster was.
    pub(crate) failures_before: u64,
}

/// Counts the requests that ended after the operation.
///
/// `ended` names the pods that the operation ended.
pub(crate) fn window(seen: &[Seen], ended: &BTreeSet<String>) -> Window {
    let mut window = Window::default();
    for kind in Kind::ALL {
        window.by_kind.insert(kind.name(), Count::default());
    }
    for one in seen {
        if one.ended_ms < 0.0 {
            window.failures_before += u64::from(one.failure.is_some());
            continue;
        }
        window.requests += 1;
        let count = window.by_kind.entry(one.kind.name()).or_default();
        count.requests += 1;
        let Some(failure) = one.failure else {
            window.slowest_ms = window.slowest_ms.max(one.ended_ms - one.began_ms);
            continue;
        };
        if one.peer.as_ref().is_some_and(|peer| ended.contains(&**peer)) {
            window.ended_with_their_pod += 1;
            continue;
        }
        count.failures += 1;
        window.failures += 1;
        *window.by_cause.entry(failure.name()).or_default() += 1;
        window.open_connections_lost += u64::from(one.kind == Kind::Open && one.peer.is_some());
        window.first_failure_ms =
            Some(window.first_failure_ms.map_or(one.began_ms, |ms| ms.min(one.began_ms)));
        window.last_failure_ms = Some(window.last_failure_ms.map_or(one.ended_ms, |ms| ms.max(one.ended_ms)));
    }
    if let (Some(first), Some(last)) = (window.first_failure_ms, window.last_failure_ms) {
        window.window_ms = last - first;
    }
    window
}

/// What clients should get from some moment on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Answered,
    Refused,
}

/// Since when every client got the verdict, and for how long they did not agree.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Agreed {
    /// When the last request began that got another one; 0 if there was none after the operation.
    pub(crate) held_ms: f64,
    /// From the first request with the new verdict to the last one with the old.
    pub(crate) disagreed_ms: f64,
}

/// Tells when a verdict had reached everybody; none if it had not by `end_ms`, with `quiet_ms` to spare,
/// or if a client was never heard of after it.
pub(crate) fn agreed(seen: &[Seen], verdict: Verdict, end_ms: f64, quiet_ms: f64) -> Option<Agreed> {
    let has_it = |one: &&Seen| one.failure.is_some() == (verdict == Verdict::Refused);
    let after = || seen.iter().filter(|one| one.began_ms >= 0.0);
    let held_ms = after().filter(|one| !has_it(one)).map(|one| one.began_ms).fold(0.0, f64::max);
    let sources = |list: &mut dyn Iterator<Item = &Seen>| -> BTreeSet<(usize, Kind)> {
        list.map(|one| (one.client, one.kind)).collect()
    };
    let all = sources(&mut seen.iter());
    let told = sources(&mut after().filter(has_it).filter(|one| one.began_ms >= held_ms));
    if held_ms + quiet_ms > end_ms || told != all {
        return None;
    }
    let first = after().filter(has_it).map(|one| one.began_ms).fold(f64::INFINITY, f64::min);
    Some(Agreed { held_ms, disagreed_ms: (held_ms - first).max(0.0) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(client: usize, began_ms: f64, kind: Kind, failure: Option<Failure>, peer: Option<&str>) -> Seen {
        Seen { client, began_ms, ended_ms: began_ms + 5.0, kind, failure, peer: peer.map(Arc::from) }
    }

    #[test]
    fn a_window_is_from_the_first_failure_to_the_last() {
        let reset = Some(Failure::Reset);
        let list = [
            seen(0, -50.0, Kind::New, reset, None),
            seen(0, -2.0, Kind::New, None, Some("a")),
            seen(0, 10.0, Kind::New, reset, None),
            seen(1, 20.0, Kind::Kept, Some(Failure::TimedOut), Some("b")),
            seen(1, 30.0, Kind::Open, reset, Some("a")),
            seen(1, 40.0, Kind::Open, reset, None),
            seen(1, 90.0, Kind::Open, reset, Some("gone")),
        ];
        let window = window(&list, &BTreeSet::from(["gone".to_owned()]));
        assert_eq!((window.requests, window.failures, window.failures_before), (6, 4, 1));
        assert_eq!((window.first_failure_ms, window.last_failure_ms), (Some(10.0), Some(45.0)));
        assert_eq!(window.window_ms, 35.0);
        assert_eq!((window.ended_with_their_pod, window.open_connections_lost), (1, 1));
        assert_eq!(window.by_cause, BTreeMap::from([("reset", 3), ("timed-out", 1)]));
        assert_eq!(window.by_kind["open"], Count { requests: 3, failures: 2 });
        assert_eq!(window.slowest_ms, 5.0);
    }

    #[test]
    fn without_a_failure_there_is_no_window() {
        let window = window(&[seen(0, 1.0, Kind::New, None, None)], &BTreeSet::new());
        assert_eq!((window.failures, window.first_failure_ms, window.window_ms), (0, None, 0.0));
    }

    #[test]
    fn a_verdict_holds_when_the_last_client_got_it() {
        let denied = Some(Failure::Reset);
        let mut list = vec![
            seen(0, -10.0, Kind::New, None, None),
            seen(1, -10.0, Kind::New, None, None),
            seen(0, 50.0, Kind::New, denied, None),
            seen(1, 120.0, Kind::New, None, None),
            seen(0, 130.0, Kind::New, denied, None),
        ];
        assert_eq!(agreed(&list, Verdict::Refused, 5_000.0, 1_000.0), None, "client 1 was never refused");
        list.push(seen(1, 140.0, Kind::New, denied, None));
        let found = agreed(&list, Verdict::Refused, 5_000.0, 1_000.0);
        assert_eq!(found, Some(Agreed { held_ms: 120.0, disagreed_ms: 70.0 }));
        assert_eq!(agreed(&list, Verdict::Refused, 1_100.0, 1_000.0), None, "too short to tell");
        assert_eq!(agreed(&list, Verdict::Answered, 5_000.0, 1_000.0), None);
    }
}
