//! What a status says, from what was read. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use serde::Serialize;

use super::MODE_LABEL;
use super::report::Reports;
use super::samples::Samples;
use crate::table::table;

/// What was read.
pub struct Facts<'a> {
    /// All namespaces.
    pub namespaces: &'a [Namespace],
    /// All nodes.
    pub nodes: &'a [Node],
    /// All pods.
    pub pods: &'a [Pod],
    /// The mesh's own pods.
    pub own: &'a [Pod],
    /// Metrics by agent's pod.
    pub samples: &'a BTreeMap<String, Samples>,
    /// What the replicas of control report.
    pub reports: &'a Reports,
    /// Since 1970.
    pub now: Duration,
}

/// How things are.
#[derive(Debug, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Overview {
    /// Replicas of control that are ready, and all.
    pub control_ready: usize,
    /// All replicas of control.
    pub control: usize,
    /// Namespaces with pods in the mesh.
    pub enrolled: Vec<Enrolled>,
    /// Every node.
    pub agents: Vec<Agent>,
}

/// A namespace with pods in the mesh.
#[derive(Debug, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Enrolled {
    /// Its name.
    pub namespace: String,
    /// Running pods that labels put into the mesh.
    pub pods: usize,
    /// Running pods that do not take part.
    pub outside: usize,
}

/// The agent of a node.
#[derive(Debug, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Agent {
    /// The node.
    pub node: String,
    /// The agent's pod; `None` where there is none.
    pub pod: Option<String>,
    /// Whether it is ready.
    pub ready: bool,
    /// Its version, where it answers.
    pub version: Option<String>,
    /// The replica of control that it is connected to.
    pub control: Option<String>,
    /// Whether it has acknowledged everything.
    pub in_sync: Option<bool>,
    /// Pods that it has captured.
    pub captured: Option<u64>,
    /// Pods that it should capture and has not.
    pub pending: Option<u64>,
    /// Seconds until the first of its certificates expires.
    pub certificate_expires_in: Option<u64>,
    /// What it says that a person should know.
    pub problems: Vec<String>,
}

impl Overview {
    /// Puts what was read together.
    pub fn new(facts: &Facts<'_>) -> Self {
        let control: Vec<_> = facts.own.iter().filter(|pod| program(pod) == Some("control")).collect();
        Self {
            control_ready: control.iter().filter(|pod| is_ready(pod)).count(),
            control: control.len(),
            enrolled: enrolled(facts),
            agents: facts.nodes.iter().map(|node| Agent::of(node, facts)).collect(),
        }
    }
}

/// Whether a pod of ours is an agent.
pub(super) fn is_agent(pod: &Pod) -> bool {
    program(pod) == Some("ztunnel")
}

fn program(pod: &Pod) -> Option<&str> {
    pod.metadata.labels.as_ref()?.get("app.kubernetes.io/name").map(String::as_str)
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    pod.metadata.deletion_timestamp.is_none()
        && conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// A pod's own label comes before that of its namespace.
fn enrolled(facts: &Facts<'_>) -> Vec<Enrolled> {
    let labelled: BTreeSet<&str> = facts
        .namespaces
        .iter()
        .filter(|namespace| mode(namespace.metadata.labels.as_ref()) == Some("ambient"))
        .filter_map(|namespace| namespace.metadata.name.as_deref())
        .collect();
    let mut counts: BTreeMap<&str, (usize, usize)> = labelled.iter().map(|name| (*name, (0, 0))).collect();
    for pod in facts.pods.iter().filter(|pod| is_running(pod)) {
        let Some(namespace) = pod.metadata.namespace.as_deref() else { continue };
        let of_namespace = labelled.contains(namespace).then_some("ambient");
        let is_asked = mode(pod.metadata.labels.as_ref()).or(of_namespace) == Some("ambient");
        let is_on_host = pod.spec.as_ref().is_some_and(|spec| spec.host_network == Some(true));
        match (is_asked && !is_on_host, counts.get_mut(namespace)) {
            (true, _) => counts.entry(namespace).or_default().0 += 1,
            (false, Some(count)) => count.1 += 1,
            (false, None) => {}
        }
    }
    counts
        .into_iter()
        .map(|(namespace, (pods, outside))| Enrolled { namespace: namespace.to_owned(), pods, outside })
        .collect()
}

fn mode(labels: Option<&BTreeMap<String, String>>) -> Option<&str> {
    labels?.get(MODE_LABEL).map(String::as_str)
}

fn is_running(pod: &Pod) -> bool {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running")
}

impl Agent {
    fn of(node: &Node, facts: &Facts<'_>) -> Self {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let is_here = |pod: &&Pod| pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) == Some(name);
        // Beside an agent that is on its way out there is its successor.
        let agents = facts.own.iter().filter(|pod| is_agent(pod)).filter(is_here);
        let pod = agents.max_by_key(|pod| (pod.metadata.deletion_timestamp.is_none(), is_ready(pod)));
        let pod_name = pod.and_then(|pod| pod.metadata.name.clone());
        let samples = pod_name.as_ref().and_then(|name| facts.samples.get(name));
        let count = |metric| samples.and_then(|samples| samples.value(metric)).map(|value| value as u64);
        let expiry = samples.and_then(|samples| samples.value("ambit_certificate_expiry_timestamp_seconds"));
        Self {
            node: name.to_owned(),
            ready: pod.is_some_and(is_ready),
            version: samples.and_then(|samples| samples.label("istio_build", "tag")).map(str::to_owned),
            control: facts.reports.replica_of(name).map(str::to_owned),
            in_sync: facts.reports.is_in_sync(name),
            captured: count("workload_manager_active_proxy_count"),
            pending: count("workload_manager_pending_proxy_count"),
            certificate_expires_in: expiry
                .filter(|expiry| *expiry > 0.0)
                .map(|expiry| (expiry - facts.now.as_secs_f64()).max(0.0) as u64),
            problems: facts.reports.problems_of(name).to_vec(),
            pod: pod_name,
        }
    }
}

impl fmt::Display for Overview {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "control: {} of {} replicas ready\n", self.control_ready, self.control)?;
        if self.enrolled.is_empty() {
            writeln!(f, "No namespace is in the mesh: kubectl label namespace NAME {MODE_LABEL}=ambient\n")?;
        } else {
            let row = |one: &Enrolled| [one.namespace.clone(), one.pods.to_string(), one.outside.to_string()];
            let rows: Vec<_> = self.enrolled.iter().map(row).collect();
            writeln!(f, "{}", table(["NAMESPACE", "PODS", "OUTSIDE"], &rows))?;
        }
        let head = ["NODE", "READY", "VERSION", "CONTROL", "IN SYNC", "CAPTURED", "PENDING", "CERTIFICATES"];
        let rows: Vec<_> = self.agents.iter().map(Agent::row).collect();
        write!(f, "{}", table(head, &rows))?;
        for agent in &self.agents {
            agent.problems.iter().try_for_each(|problem| writeln!(f, "\n{}: {problem}", agent.node))?;
        }
        Ok(())
    }
}

impl Agent {
    fn row(&self) -> [String; 8] {
        let yes = |yes: bool| if yes { "yes" } else { "no" }.to_owned();
        let known = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
        [
            self.node.clone(),
            if self.pod.is_some() { yes(self.ready) } else { "no agent".to_owned() },
            known(self.version.clone()),
            known(self.control.clone()),
            known(self.in_sync.map(yes)),
            known(self.captured.map(|count| count.to_string())),
            known(self.pending.map(|count| count.to_string())),
            known(self.certificate_expires_in.map(|seconds| format!("expire in {}", duration(seconds)))),
        ]
    }
}

fn duration(seconds: u64) -> String {
    match seconds {
        0 => "no time".to_owned(),
        1..=119 => format!("{seconds}s"),
        120..=7199 => format!("{}m", seconds / 60),
        _ => format!("{}h", seconds / 3600),
    }
}
