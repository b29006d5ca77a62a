//! What to say of what was read. Pure.

use k8s_openapi::api::core::v1::Node;

use super::{Finding, Verdict};
use crate::status::Overview;

/// The oldest Kubernetes whose tokens name the node of their pod without a feature gate.
const OLDEST_MINOR: u32 = 30;

/// The oldest kernel that the redirection is tested with.
const OLDEST_KERNEL: (u32, u32) = (5, 10);

/// What was read of a cluster.
#[derive(Debug)]
pub(super) struct Facts {
    /// Major and minor version of the API server.
    pub version: (String, String),
    /// All nodes.
    pub nodes: Vec<Node>,
    /// Names of all DaemonSets.
    pub daemon_sets: Vec<String>,
    /// Groups of the API.
    pub groups: Vec<String>,
    /// What installing takes and whoever asks may not do.
    pub forbidden: Vec<String>,
    /// How an installed mesh is.
    pub overview: Option<Overview>,
}

/// Everything worth saying.
pub(super) fn findings(facts: &Facts) -> Vec<Finding> {
    let mut findings =
        vec![kubernetes(facts), permissions(facts), nodes(facts), other_meshes(facts), kinds(facts)];
    match &facts.overview {
        None => {
            findings.push(finding("installation", Verdict::Warning, "Ambit is not installed: ambit install"))
        }
        Some(overview) => findings.extend(installation(overview)),
    }
    findings
}

fn finding(subject: &'static str, verdict: Verdict, message: impl Into<String>) -> Finding {
    Finding { subject, verdict, message: message.into() }
}

fn kubernetes(facts: &Facts) -> Finding {
    let (major, minor) = &facts.version;
    // Some distributions write `31+`.
    let number = minor.trim_end_matches(|c: char| !c.is_ascii_digit()).parse().unwrap_or(0);
    match major.as_str() == "1" && number < OLDEST_MINOR {
        false => finding("kubernetes", Verdict::Good, format!("version {major}.{minor}")),
        true => {
            let message = format!("version {major}.{minor}: 1.{OLDEST_MINOR} or newer is needed");
            finding("kubernetes", Verdict::Bad, message)
        }
    }
}

fn permissions(facts: &Facts) -> Finding {
    match facts.forbidden.as_slice() {
        [] => finding("permissions", Verdict::Good, "you may install"),
        forbidden => {
            let message = format!("you may not {}: ask an administrator to install", forbidden.join(", "));
            finding("permissions", Verdict::Bad, message)
        }
    }
}

fn nodes(facts: &Facts) -> Finding {
    let mut others = Vec::new();
    let mut old = Vec::new();
    for node in &facts.nodes {
        let name = node.metadata.name.clone().unwrap_or_default();
        let Some(info) = node.status.as_ref().and_then(|status| status.node_info.as_ref()) else { continue };
        if info.operating_system != "linux" {
            others.push(name);
        } else if kernel(&info.kernel_version).is_some_and(|version| version < OLDEST_KERNEL) {
            old.push(format!("{name} ({})", info.kernel_version));
        }
    }
    if !old.is_empty() {
        let (major, minor) = OLDEST_KERNEL;
        let message = format!("kernels older than {major}.{minor}: {}", old.join(", "));
        return finding("nodes", Verdict::Bad, message);
    }
    match others.as_slice() {
        [] => finding("nodes", Verdict::Good, format!("{} nodes can run the agent", facts.nodes.len())),
        others => {
            let message = format!("pods on {} cannot be in the mesh: not Linux", others.join(", "));
            finding("nodes", Verdict::Warning, message)
        }
    }
}

fn kernel(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

fn other_meshes(facts: &Facts) -> Finding {
    let found: Vec<_> = ["istio-cni-node", "linkerd-cni", "consul-cni"]
        .into_iter()
        .filter(|name| facts.daemon_sets.iter().any(|set| set == name))
        .collect();
    match found.as_slice() {
        [] => finding("other meshes", Verdict::Good, "none captures pods on the nodes"),
        found => {
            let message =
                format!("{}: a pod can be in one mesh only, see docs/coexistence.md", found.join(", "));
            finding("other meshes", Verdict::Warning, message)
        }
    }
}

fn kinds(facts: &Facts) -> Finding {
    let has = |group: &str| facts.groups.iter().any(|known| known == group);
    let absent: Vec<_> =
        ["security.istio.io", "gateway.networking.k8s.io"].into_iter().filter(|group| !has(group)).collect();
    match absent.as_slice() {
        [] => finding("policies", Verdict::Good, "the kinds of policies and routes are installed"),
        absent => {
            let message = format!(
                "{} not installed: mutual TLS works, such objects cannot be written (ambit install --crds FILE)",
                absent.join(" and ")
            );
            finding("policies", Verdict::Warning, message)
        }
    }
}

fn installation(overview: &Overview) -> Vec<Finding> {
    let mut findings = Vec::new();
    let (ready, all) = (overview.control_ready, overview.control);
    let verdict = match ready {
        0 => Verdict::Bad,
        _ if ready < all => Verdict::Warning,
        _ => Verdict::Good,
    };
    findings.push(finding("control", verdict, format!("{ready} of {all} replicas ready")));
    let unready: Vec<_> =
        overview.agents.iter().filter(|agent| !agent.ready).map(|agent| agent.node.as_str()).collect();
    findings.push(match unready.as_slice() {
        [] => finding("agents", Verdict::Good, format!("ready on all {} nodes", overview.agents.len())),
        unready => {
            let message = format!("not ready on {}: enrolled pods there are closed", unready.join(", "));
            finding("agents", Verdict::Bad, message)
        }
    });
    let behind: Vec<_> = overview
        .agents
        .iter()
        .filter(|agent| agent.in_sync == Some(false))
        .map(|agent| agent.node.as_str())
        .collect();
    if !behind.is_empty() {
        let message = format!("{} have not acknowledged the configuration", behind.join(", "));
        findings.push(finding("configuration", Verdict::Warning, message));
    }
    for agent in &overview.agents {
        let told = agent.problems.iter().map(|problem| format!("{}: {problem}", agent.node));
        findings.extend(told.map(|message| finding("agents", Verdict::Bad, message)));
    }
    let pending: u64 = overview.agents.iter().filter_map(|agent| agent.pending).sum();
    if pending > 0 {
        let message = format!("{pending} enrolled pods are not captured: see /config_dump of their agents");
        findings.push(finding("pods", Verdict::Bad, message));
    }
    let expiring = overview.agents.iter().filter_map(|agent| agent.certificate_expires_in).min();
    if let Some(seconds) = expiring.filter(|seconds| *seconds < 3600) {
        let message = format!("the first expires in {seconds} s: do agents reach control on port 15012?");
        findings.push(finding("certificates", Verdict::Bad, message));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::Agent;
    use serde_json::json;

    fn facts() -> Facts {
        let node = json!({"metadata": {"name": "a"}, "status": {"nodeInfo": {
            "operatingSystem": "linux", "kernelVersion": "6.1.0-18-amd64", "architecture": "", "bootID": "",
            "containerRuntimeVersion": "", "kubeProxyVersion": "", "kubeletVersion": "", "machineID": "",
            "osImage": "", "systemUUID": ""}}});
        Facts {
            version: ("1".to_owned(), "36".to_owned()),
            nodes: vec![serde_json::from_value(node).unwrap()],
            daemon_sets: Vec::new(),
            groups: vec!["security.istio.io".to_owned(), "gateway.networking.k8s.io".to_owned()],
            forbidden: Vec::new(),
            overview: None,
        }
    }

    fn verdict(facts: &Facts, subject: &str) -> Option<Verdict> {
        findings(facts).iter().find(|finding| finding.subject == subject).map(|finding| finding.verdict)
    }

    #[test]
    fn a_cluster_that_can_have_the_mesh_is_told_from_one_that_cannot() {
        let good = facts();
        assert!(findings(&good).iter().all(|finding| finding.verdict != Verdict::Bad));
        let old = Facts { version: ("1".to_owned(), "29+".to_owned()), ..facts() };
        assert_eq!(verdict(&old, "kubernetes"), Some(Verdict::Bad));
        let forbidden = Facts { forbidden: vec!["create namespaces".to_owned()], ..facts() };
        assert_eq!(verdict(&forbidden, "permissions"), Some(Verdict::Bad));
        let mut kernel = facts();
        let info = kernel.nodes[0].status.as_mut().unwrap().node_info.as_mut().unwrap();
        info.kernel_version = "5.4.0-150-generic".to_owned();
        assert_eq!(verdict(&kernel, "nodes"), Some(Verdict::Bad));
        let mesh = Facts { daemon_sets: vec!["istio-cni-node".to_owned()], ..facts() };
        assert_eq!(verdict(&mesh, "other meshes"), Some(Verdict::Warning));
    }

    #[test]
    fn an_installed_mesh_is_looked_into() {
        let agent = |ready, pending, expires| Agent {
            node: "a".to_owned(),
            pod: Some("ztunnel-x".to_owned()),
            ready,
            version: None,
            control: None,
            in_sync: Some(true),
            captured: Some(1),
            pending: Some(pending),
            certificate_expires_in: Some(expires),
            problems: Vec::new(),
        };
        let installed = |control_ready, agent| Facts {
            overview: Some(Overview { control_ready, control: 2, enrolled: Vec::new(), agents: vec![agent] }),
            ..facts()
        };
        let good = installed(2, agent(true, 0, 40_000));
        assert!(findings(&good).iter().all(|finding| finding.verdict == Verdict::Good));
        let troubled = Agent { problems: vec!["the chain is broken".to_owned()], ..agent(true, 0, 40_000) };
        let told = findings(&installed(2, troubled));
        assert!(
            told.iter().any(|one| one.verdict == Verdict::Bad && one.message == "a: the chain is broken")
        );
        for (subject, facts) in [
            ("control", installed(0, agent(true, 0, 40_000))),
            ("agents", installed(2, agent(false, 0, 40_000))),
            ("pods", installed(2, agent(true, 1, 40_000))),
            ("certificates", installed(2, agent(true, 0, 100))),
        ] {
            assert_eq!(verdict(&facts, subject), Some(Verdict::Bad), "{subject}");
        }
    }
}
