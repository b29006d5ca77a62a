//! How far one policy has come at all replicas' proxies together. Pure.
//!
//! Another replica's proxies count as having acknowledged a policy only where its report shows the
//! same version of it: what cannot be compared has not been acknowledged.

use std::collections::HashMap;

use ambit_xds::resources::{Audience, Resource};

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
    of_waypoints: HashMap<String, u32>,
    of_more_waypoints: u32,
    digests: Digests,
    unlisted: Parts,
    exceptions: HashMap<String, Exception>,
}

impl ReportedPolicies {
    /// How many proxies want a policy for this audience, and have it if it is no exception.
    fn wanting(&self, audience: &Audience) -> u32 {
        self.want_everything
            + match audience {
                Audience::Everybody => self.of_waypoints.values().sum::<u32>(),
                Audience::Waypoints(names) => {
                    names.iter().filter_map(|name| self.of_waypoints.get(&name.to_string())).sum()
                }
            }
    }

    /// How many more may want it, of which nothing is known.
    fn unknown(&self, audience: &Audience) -> u32 {
        match audience {
            Audience::Everybody => self.of_more_waypoints,
            Audience::Waypoints(names) => {
                let unlisted = names.iter().filter(|name| !self.of_waypoints.contains_key(&name.to_string()));
                self.of_more_waypoints.min(u32::try_from(unlisted.count()).unwrap_or(u32::MAX))
            }
        }
    }

    fn of(policies: &Policies) -> Self {
        let named = |exception: &Exception| (exception.name.clone(), exception.clone());
        Self {
            want_everything: policies.want_everything,
            of_waypoints: policies.of_waypoints.clone().into_iter().collect(),
            of_more_waypoints: policies.of_more_waypoints,
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
        let everybody = of_layer.wanting(policy.audience);
        progress.wanted += exception
            .map_or_else(|| everybody + of_layer.unknown(policy.audience), |exception| exception.wanted);
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
                progress.acknowledged += everybody;
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
    audience: &'a Audience,
    part: usize,
    digests: &'a Digests,
}

/// How far a policy has come at the proxies of all replicas, if `digests` are those of the policies of its layer among
/// which it is.
pub fn progress<'a>(
    reports: impl IntoIterator<Item = &'a Reported>,
    layer: Layer,
    digests: &Digests,
    policy: &Resource,
) -> Progress {
    let (name, version, audience) = (policy.name(), policy.version(), policy.audience());
    let policy = Policy { layer, name, version, audience, part: part_of(name), digests };
    let mut progress = Progress { layer, ..Progress::default() };
    reports.into_iter().for_each(|report| report.add_to(&mut progress, &policy));
    progress
}

#[cfg(test)]
mod tests;
