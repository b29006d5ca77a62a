//! The report of this replica, from what its subscribers have acknowledged. Pure.

use std::collections::BTreeMap;

use ambit_xds::server::{Counts, Proxy, Standing};

use super::digest::{Digests, Parts, part_of};
use super::report::{Exception, Policies, ProxyReportSpec, ReportedProxy};

/// Limits of a report: with all lists full and every name of the longest it stays below 1 MiB, which
/// etcd takes with room to spare.
const PROXIES: usize = 1_000;
const EXCEPTIONS: usize = 1_000;
const REFUSALS: usize = 50;
const REFUSED_NAMES: usize = 5;
const REFUSAL_OCTETS: usize = 256;
const ID_OCTETS: usize = 128;

/// The report; `renew_time` is left to the one who writes it.
pub fn report(standing: &Standing, digests: &Digests, total: usize) -> ProxyReportSpec {
    let is_in_sync = |proxy: &&Proxy| proxy.lacking == 0;
    let is_refusing = |proxy: &&Proxy| !proxy.refused.is_empty();
    ProxyReportSpec {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        renew_time: String::new(),
        connected: number(standing.proxies.len()),
        in_sync: number(standing.proxies.iter().filter(is_in_sync).count()),
        refusing: number(standing.proxies.iter().filter(is_refusing).count()),
        policies: policies(standing, digests, total),
        proxies: proxies(standing),
    }
}

fn policies(standing: &Standing, digests: &Digests, total: usize) -> Policies {
    let (listed, beyond) = split(&standing.exceptions);
    let mut unlisted = Parts::default();
    beyond.iter().for_each(|(name, _)| unlisted.insert(part_of(name)));
    let exception = |(name, counts): &(&str, &Counts)| Exception {
        name: (*name).to_owned(),
        version: counts.version.to_string(),
        wanted: number(counts.wanted),
        acknowledged: number(counts.acknowledged),
        refused: number(counts.refused),
    };
    Policies {
        total: number(total),
        want_everything: number(standing.want_everything),
        digests: digests.to_text(),
        exceptions: listed.iter().map(exception).collect(),
        unlisted: unlisted.to_text(),
    }
}

type Named<'a> = (&'a str, &'a Counts);

/// What is refused comes first: it does not pass by itself.
fn split(exceptions: &BTreeMap<std::sync::Arc<str>, Counts>) -> (Vec<Named<'_>>, Vec<Named<'_>>) {
    let mut all: Vec<Named<'_>> = exceptions.iter().map(|(name, counts)| (&**name, counts)).collect();
    all.sort_by_key(|(_, counts)| counts.refused == 0);
    let beyond = all.split_off(all.len().min(EXCEPTIONS));
    (all, beyond)
}

fn proxies(standing: &Standing) -> Vec<ReportedProxy> {
    let mut words_left = REFUSALS;
    let mut reported = |proxy: &Proxy| {
        let has_words = proxy.refusal.is_some() && words_left > 0;
        words_left -= usize::from(has_words);
        let names = if has_words { REFUSED_NAMES } else { 0 };
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
        }
    };
    standing.proxies.iter().take(PROXIES).map(&mut reported).collect()
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
    use ambit_xds::resources::Collection;

    use super::*;

    fn digests() -> Digests {
        Digests::of(&Collection::default())
    }

    #[test]
    fn the_largest_report_fits() {
        let refused: Vec<std::sync::Arc<str>> =
            (0..20).map(|index| format!("{}/{index}{}", "n".repeat(63), "p".repeat(250)).into()).collect();
        let proxy = |index: usize| Proxy {
            node: format!("node-{index}.{}", "x".repeat(240)).into(),
            id: "i".repeat(10_000),
            lacking: 5_000,
            refusal: Some("\u{e9}".repeat(10_000)),
            refused: refused.clone(),
        };
        let counts =
            Counts { version: "0".repeat(32).into(), wanted: 2_000, acknowledged: 1, refused: 1_000 };
        let name = |index: usize| format!("{}/{index:04}{}", "n".repeat(63), "p".repeat(249)).into();
        let standing = Standing {
            proxies: (0..2_000).map(proxy).collect(),
            want_everything: 2_000,
            exceptions: (0..5_000).map(|index| (name(index), counts.clone())).collect(),
        };
        let report = report(&standing, &digests(), 5_000);
        let octets = serde_json::to_vec(&report).unwrap().len();
        assert!(octets < 1 << 20, "{octets} octets");
        assert_eq!((report.connected, report.proxies.len()), (2_000, PROXIES));
        let unlisted = Parts::from_text(&report.policies.unlisted);
        assert!((0..4_999).all(|index: usize| {
            let name: std::sync::Arc<str> = name(index);
            let is_listed = report.policies.exceptions.iter().any(|exception| exception.name == *name);
            is_listed || unlisted.contains(part_of(&name))
        }));
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
        };
        let standing =
            Standing { proxies: (0..500).map(proxy).collect(), want_everything: 500, ..Standing::default() };
        let report = report(&standing, &digests(), 5_000);
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
        let report = report(&standing, &digests(), 2_000);
        assert_eq!(report.policies.exceptions[0].name, "a/1999");
        assert_eq!(report.policies.exceptions.len(), EXCEPTIONS);
    }
}
