//! How far one policy has come at all replicas' proxies together. Pure.
//!
//! Another replica's proxies count as having acknowledged a policy only where its report shows the
//! same version of it: what cannot be compared has not been acknowledged.

use std::collections::HashMap;

use super::digest::{Digests, Parts, part_of};
use super::layers::{Layer, Layers};
use super::report::{Exception, Policies, ProxyReportSpec};

/// How far a policy has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Whose policy it is.
    pub layer: Layer,
    /// How many proxies have this version in force.
    pub acknowledged: u32,
    /// How many want it.
    pub wanted: u32,
    /// How many have refused it.
    pub refused: u32,
    /// Who has, and what they said, as far as it was reported.
    pub refusals: Vec<String>,
}

/// One replica's report, ready to be asked.
#[derive(Debug)]
pub struct Reported {
    layers: Layers<ReportedPolicies>,
    /// By policy: node and words.
    refusals: HashMap<String, Vec<String>>,
}

/// What it says of the policies of one layer.
#[derive(Debug)]
struct ReportedPolicies {
    want_everything: u32,
    digests: Digests,
    unlisted: Parts,
    exceptions: HashMap<String, Exception>,
}

impl ReportedPolicies {
    fn of(policies: &Policies) -> Self {
        let named = |exception: &Exception| (exception.name.clone(), exception.clone());
        Self {
            want_everything: policies.want_everything,
            digests: Digests::from_text(&policies.digests),
            unlisted: Parts::from_text(&policies.unlisted),
            exceptions: policies.exceptions.iter().map(named).collect(),
        }
    }
}

impl Reported {
    /// Reads a report.
    pub fn of(report: &ProxyReportSpec) -> Self {
        let mut refusals: HashMap<String, Vec<String>> = HashMap::new();
        for proxy in &report.proxies {
            for name in &proxy.refused {
                refusals.entry(name.clone()).or_default().push(format!("{}: {}", proxy.node, proxy.refusal));
            }
        }
        let layers = Layers { four: &report.policies, seven: &report.waypoint_policies };
        Self { layers: layers.map(ReportedPolicies::of), refusals }
    }

    /// What this replica's proxies add to a policy's progress.
    fn add_to(&self, progress: &mut Progress, policy: &Policy<'_>) {
        let of_layer = self.layers.of(policy.layer);
        let exception = of_layer.exceptions.get(policy.name);
        progress.wanted += exception.map_or(of_layer.want_everything, |exception| exception.wanted);
        match exception {
            Some(exception) if exception.version == policy.version => {
                progress.acknowledged += exception.acknowledged;
                progress.refused += exception.refused;
                progress.refusals.extend(self.refusals.get(policy.name).into_iter().flatten().cloned());
            }
            // Another version, or one of those that did not fit.
            Some(_) => {}
            None if of_layer.unlisted.contains(policy.part) => {}
            None if of_layer.digests.agree(policy.digests, policy.part) => {
                progress.acknowledged += of_layer.want_everything;
            }
            None => {}
        }
    }
}

/// A policy as the replica that asks serves it.
struct Policy<'a> {
    layer: Layer,
    name: &'a str,
    version: &'a str,
    part: usize,
    digests: &'a Digests,
}

/// How far a policy in this version has come at the proxies of all replicas, if `digests` are those of
/// the policies of its layer among which it has this version.
pub fn progress<'a>(
    reports: impl IntoIterator<Item = &'a Reported>,
    layer: Layer,
    digests: &Digests,
    name: &str,
    version: &str,
) -> Progress {
    let policy = Policy { layer, name, version, part: part_of(name), digests };
    let mut progress = Progress { layer, ..Progress::default() };
    reports.into_iter().for_each(|report| report.add_to(&mut progress, &policy));
    progress
}

#[cfg(test)]
mod tests;
