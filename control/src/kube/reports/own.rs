//! The report of this replica, from what its subscribers have acknowledged. Pure.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use ambit_xds::server::{Counts, Proxy, Standing};

use super::digest::{Digests, Parts, part_of};
use super::layers::Layers;
use super::report::{Exception, Policies, ProxyReportSpec, ReportedProxy};

/// Limits of a report: with all lists full and every name of the longest it stays below 1 MiB, which
/// etcd takes with room to spare.
const PROXIES: usize = 1_000;
/// Of each layer.
const EXCEPTIONS: usize = 400;
/// Of each layer.
const WAYPOINTS: usize = 350;
const REFUSALS: usize = 50;
const REFUSED_NAMES: usize = 5;
const PROBLEMS: usize = 2;
const HEARD_OF_NODE: usize = 2;
const REFUSAL_OCTETS: usize = 256;
const ID_OCTETS: usize = 128;

/// What was seen of the policies of one layer.
#[derive(Clone, Debug)]
pub struct Observed {
    /// How far they have come.
    pub standing: Standing,
    /// Their digests.
    pub digests: Arc<Digests>,
    /// How many there are.
    pub total: usize,
}

/// The report; `renew_time` is left to the one who writes it.
pub fn report(observed: &Layers<Observed>) -> ProxyReportSpec {
    let known = together(observed.as_ref().map(|observed| &observed.standing));
    let is_in_sync = |proxy: &&Proxy| proxy.lacking == 0;
    let is_refusing = |proxy: &&Proxy| !proxy.refused.is_empty();
    ProxyReportSpec {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        renew_time: String::new(),
        connected: number(known.len()),
        in_sync: number(known.iter().filter(is_in_sync).count()),
        refusing: number(known.iter().filter(is_refusing).count()),
        policies: policies(&observed.four),
        waypoint_policies: policies(&observed.seven),
        proxies: proxies(&known),
    }
}

/// Each proxy once, with what it lacks and refuses of both layers.
fn together(standing: Layers<&Standing>) -> Vec<Proxy> {
    let mut known = standing.four.proxies.clone();
    let places: HashMap<(Arc<str>, String), usize> =
        known.iter().enumerate().map(|(at, proxy)| ((proxy.node.clone(), proxy.id.clone()), at)).collect();
    for proxy in &standing.seven.proxies {
        match places.get(&(proxy.node.clone(), proxy.id.clone())) {
            Some(&at) => {
                let before = &mut known[at];
                before.lacking += proxy.lacking;
                before.refusal = before.refusal.take().or_else(|| proxy.refusal.clone());
                before.refused.extend(proxy.refused.iter().cloned());
            }
            None => known.push(proxy.clone()),
        }
    }
    known
}

fn policies(observed: &Observed) -> Policies {
    let Observed { standing, digests, total } = observed;
    let (listed, beyond) = split(&standing.exceptions);
    let mut unlisted = Parts::default();
    beyond.iter().for_each(|(name, _)| unlisted.insert(part_of(name)));
    let of_waypoints = standing.of_waypoints.iter().take(WAYPOINTS);
    let of_more_waypoints: usize = standing.of_waypoints.values().skip(WAYPOINTS).sum();
    let exception = |(name, counts): &(&str, &Counts)| Exception {
        name: (*name).to_owned(),
        version: counts.version.to_string(),
        wanted: number(counts.wanted),
        acknowledged: number(counts.acknowledged),
        refused: number(counts.refused),
    };
    Policies {
        total: number(*total),
        want_everything: number(standing.want_everything),
        of_waypoints: of_waypoints.map(|(name, count)| (name.to_string(), number(*count))).collect(),
        of_more_waypoints: number(of_more_waypoints),
        digests: digests.to_text(),
        exceptions: listed.iter().map(exception).collect(),
        unlisted: unlisted.to_text(),
    }
}

type Named<'a> = (&'a str, &'a Counts);

/// What is refused comes first: it does not pass by itself.
fn split(exceptions: &BTreeMap<Arc<str>, Counts>) -> (Vec<Named<'_>>, Vec<Named<'_>>) {
    let mut all: Vec<Named<'_>> = exceptions.iter().map(|(name, counts)| (&**name, counts)).collect();
    all.sort_by_key(|(_, counts)| counts.refused == 0);
    let beyond = all.split_off(all.len().min(EXCEPTIONS));
    (all, beyond)
}

fn proxies(known: &[Proxy]) -> Vec<ReportedProxy> {
    let (mut words_left, mut problems_left) = (REFUSALS, REFUSALS);
    // An agent and its successor: nobody takes the place of others.
    let mut heard = HashMap::<Arc<str>, usize>::new();
    let mut reported = |proxy: &Proxy| {
        let has_words = proxy.refusal.is_some() && words_left > 0;
        words_left -= usize::from(has_words);
        let names = if has_words { REFUSED_NAMES } else { 0 };
        let of_node = heard.entry(Arc::clone(&proxy.node)).or_default();
        let has_problems = !proxy.problems.is_empty() && problems_left > 0 && *of_node < HEARD_OF_NODE;
        *of_node += usize::from(has_problems);
        problems_left -= usize::from(has_problems);
        let problems = if has_problems { PROBLEMS } else { 0 };
        ReportedProxy {
            node: proxy.node.to_string(),
            id: cut(&proxy.id, ID_OCTETS).to_owned(),
            lacking: number(proxy.lacking),
            refusal: proxy
                .refusal
                .as_deref()
                .filter(|_| has_words)
                .map(|words| cut(words, REFUSAL_OCTETS).to_owned())
                .unwrap_or_default(),
            refused: proxy.refused.iter().take(names).map(ToString::to_string).collect(),
            problems: proxy
                .problems
                .iter()
                .take(problems)
                .map(|text| cut(text, REFUSAL_OCTETS).to_owned())
                .collect(),
        }
    };
    known.iter().take(PROXIES).map(&mut reported).collect()
}

fn cut(text: &str, octets: usize) -> &str {
    &text[..text.floor_char_boundary(octets)]
}

/// Counts here stay far below what fits.
fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use ambit_mesh::address::ServiceName;
    use ambit_xds::resources::Collection;

    use super::*;

    fn observed(standing: Standing, total: usize) -> Observed {
        Observed { standing, digests: Arc::new(Digests::of(&Collection::default())), total }
    }

    /// Of policies of layer 4 alone.
    fn report_of(standing: Standing, total: usize) -> ProxyReportSpec {
        report(&Layers { four: observed(standing, total), seven: observed(Standing::default(), 0) })
    }

    #[test]
    fn the_largest_report_fits() {
        let refused: Vec<Arc<str>> =
            (0..20).map(|index| format!("{}/{index}{}", "n".repeat(63), "p".repeat(250)).into()).collect();
        let proxy = |index: usize| Proxy {
            node: format!("node-{index}.{}", "x".repeat(240)).into(),
            id: "i".repeat(10_000),
            lacking: 5_000,
            refusal: Some("\u{e9}".repeat(10_000)),
            refused: refused.clone(),
            problems: vec!["\u{e9}".repeat(10_000).into(); 8],
        };
        let counts =
            Counts { version: "0".repeat(32).into(), wanted: 2_000, acknowledged: 1, refused: 1_000 };
        let name = |index: usize| format!("{}/{index:04}{}", "n".repeat(63), "p".repeat(249)).into();
        let waypoint = |index: usize| {
            let namespace = "n".repeat(63);
            let hostname = format!("{index:04}{}.{namespace}.svc.cluster.local", "s".repeat(59)).into();
            ServiceName { namespace: namespace.into(), hostname }
        };
        let standing = Standing {
            proxies: (0..2_000).map(proxy).collect(),
            want_everything: 2_000,
            of_waypoints: (0..2_000).map(|index| (waypoint(index), 2)).collect(),
            exceptions: (0..5_000).map(|index| (name(index), counts.clone())).collect(),
        };
        let report =
            report(&Layers { four: observed(standing.clone(), 5_000), seven: observed(standing, 5_000) });
        let octets = serde_json::to_vec(&report).unwrap().len();
        assert!(octets < 1 << 20, "{octets} octets");
        assert_eq!((report.connected, report.proxies.len()), (2_000, PROXIES));
        for policies in [&report.policies, &report.waypoint_policies] {
            let unlisted = Parts::from_text(&policies.unlisted);
            assert!((0..4_999).all(|index: usize| {
                let name: Arc<str> = name(index);
                let is_listed = policies.exceptions.iter().any(|exception| exception.name == *name);
                is_listed || unlisted.contains(part_of(&name))
            }));
        }
    }

    /// The size that the limits are made for.
    #[test]
    fn a_large_mesh_in_which_nobody_lacks_anything_is_small() {
        let proxy = |index: usize| Proxy {
            node: format!("ip-10-0-{}-{}.eu-west-1.compute.internal", index / 256, index % 256).into(),
            id: format!("ztunnel~10.0.0.1~ztunnel-{index}.ambit-system~ambit-system.svc.cluster.local"),
            lacking: 0,
            refusal: None,
            refused: Vec::new(),
            problems: Vec::new(),
        };
        let standing =
            Standing { proxies: (0..500).map(proxy).collect(), want_everything: 500, ..Standing::default() };
        let report = report_of(standing, 5_000);
        let octets = serde_json::to_vec(&report).unwrap().len();
        assert!(octets < 120_000, "{octets} octets");
        assert_eq!((report.in_sync, report.refusing, report.policies.exceptions.len()), (500, 0, 0));
    }

    #[test]
    fn what_is_refused_is_listed_first() {
        let counts = |refused| Counts { version: "v".into(), wanted: 3, acknowledged: 1, refused };
        let exceptions = (0..2_000)
            .map(|index| (format!("a/{index:04}").into(), counts(usize::from(index == 1_999))))
            .collect();
        let standing = Standing { exceptions, want_everything: 3, ..Standing::default() };
        let report = report_of(standing, 2_000);
        assert_eq!(report.policies.exceptions[0].name, "a/1999");
        assert_eq!(report.policies.exceptions.len(), EXCEPTIONS);
    }

    #[test]
    fn a_proxy_that_takes_policies_of_both_layers_is_reported_once() {
        let proxy = |id: &str, lacking, refused: &[&str]| Proxy {
            node: "n".into(),
            id: id.to_owned(),
            lacking,
            refusal: (!refused.is_empty()).then(|| "too large".to_owned()),
            refused: refused.iter().map(|name| (*name).into()).collect(),
            problems: Vec::new(),
        };
        let of = |proxies: Vec<Proxy>| observed(Standing { proxies, ..Standing::default() }, 0);
        let report = report(&Layers {
            four: of(vec![proxy("ztunnel~a", 0, &[]), proxy("waypoint~a", 1, &[])]),
            seven: of(vec![proxy("waypoint~a", 2, &["shop/p"]), proxy("waypoint~b", 0, &[])]),
        });
        let proxies: Vec<_> = report.proxies.iter().map(|proxy| (&*proxy.id, proxy.lacking)).collect();
        assert_eq!(proxies, [("ztunnel~a", 0), ("waypoint~a", 3), ("waypoint~b", 0)]);
        assert_eq!((report.connected, report.in_sync, report.refusing), (3, 2, 1));
        assert_eq!(
            (&*report.proxies[1].refusal, &report.proxies[1].refused[..]),
            ("too large", &["shop/p".to_owned()][..])
        );
    }
}
