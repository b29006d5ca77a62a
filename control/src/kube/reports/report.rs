//! `ProxyReport`: the kind by which a replica of control reports on the proxies connected to it.
//!
//! Replicas number their generations each for itself, so a report speaks of content: of digests of what
//! was to be acknowledged, and of single policies by name and version. Nearly always every proxy has
//! everything, and only what is not so is listed; all lists have limits, and what is beyond them is
//! reported as not acknowledged.

use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the proxies connected to one replica of control have acknowledged. Written by control; kept
/// as long as the replica lives.
#[derive(Clone, Debug, Default, PartialEq, CustomResource, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "ambit.dev",
    version = "v1alpha1",
    kind = "ProxyReport",
    plural = "proxyreports",
    doc = "What the proxies connected to one replica of control have acknowledged. Written by control.",
    namespaced,
    label("app.kubernetes.io/part-of", "ambit")
)]
#[serde(rename_all = "camelCase")]
pub struct ProxyReportSpec {
    /// The version of this replica of control.
    pub version: String,
    /// When the replica last wrote this. One that is not renewed for a minute does not count.
    #[schemars(extend("format" = "date-time"))]
    pub renew_time: String,
    /// How many proxies are connected to this replica.
    #[schemars(with = "i32", range(min = 0))]
    pub connected: u32,
    /// How many of them have acknowledged every policy.
    #[schemars(with = "i32", range(min = 0))]
    pub in_sync: u32,
    /// How many of them have refused a policy.
    #[schemars(with = "i32", range(min = 0))]
    pub refusing: u32,
    /// What there is to acknowledge at layer 4, and how far that has come.
    pub policies: Policies,
    /// The same of what waypoints enforce.
    #[serde(default)]
    pub waypoint_policies: Policies,
    /// The proxies, at most 1,000 of them.
    #[serde(default)]
    pub proxies: Vec<ReportedProxy>,
}

/// How far the policies of one layer have come.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Policies {
    /// How many there are.
    #[schemars(with = "i32", range(min = 0))]
    pub total: u32,
    /// How many agents of nodes want every policy. Each of them has acknowledged each policy that is not
    /// listed in `exceptions`.
    #[schemars(with = "i32", range(min = 0))]
    pub want_everything: u32,
    /// How many instances of each waypoint want every policy that is for it, and have acknowledged each of these that
    /// is not listed in `exceptions`; at most 350 waypoints, each by its Service.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(with = "BTreeMap<String, i32>")]
    pub of_waypoints: BTreeMap<String, u32>,
    /// How many instances of other waypoints there are: none of them counts as having acknowledged anything.
    #[serde(default)]
    #[schemars(with = "i32", range(min = 0))]
    pub of_more_waypoints: u32,
    /// A digest of the names and versions of the policies, in 256 parts by name; base64.
    pub digests: String,
    /// The policies that not every proxy has acknowledged, at most 400 of them.
    #[serde(default)]
    pub exceptions: Vec<Exception>,
    /// The parts, one bit each, in which there are exceptions that are not listed; base64. Empty
    /// when all are.
    #[serde(default)]
    pub unlisted: String,
}

/// How far one policy has come.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Exception {
    /// `<namespace>/<name>`.
    pub name: String,
    /// The version, which depends on its content alone.
    pub version: String,
    /// How many proxies want it.
    #[schemars(with = "i32", range(min = 0))]
    pub wanted: u32,
    /// How many of them have it in force.
    #[schemars(with = "i32", range(min = 0))]
    pub acknowledged: u32,
    /// How many of them have refused it.
    #[schemars(with = "i32", range(min = 0))]
    pub refused: u32,
}

/// One proxy.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReportedProxy {
    /// The node that it serves.
    pub node: String,
    /// How it calls itself.
    pub id: String,
    /// How many policies it has not acknowledged, of both layers.
    #[schemars(with = "i32", range(min = 0))]
    pub lacking: u32,
    /// What it said when it refused a policy, while it does; of at most 50 proxies.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub refusal: String,
    /// Policies that it refuses, at most five of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<String>,
    /// What it says of itself that a person should know, at most two sentences; of at most 50 proxies.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
}
