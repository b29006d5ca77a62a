//! `v1` Pod, as far as it is used.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde::Deserialize;
use serde::de::Deserializer;

use super::meta::Meta;
use super::values::{Protocol, TargetPort, null_is_default};

/// A pod.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Pod {
    /// Metadata.
    pub metadata: Meta,
    /// What was asked for.
    #[serde(default)]
    pub spec: PodSpec,
    /// What is.
    #[serde(default)]
    pub status: PodStatus,
}

/// `spec` of a pod.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodSpec {
    /// The node it is scheduled to; empty while it is not.
    #[serde(deserialize_with = "null_is_default")]
    pub node_name: String,
    /// Whose identity it has; empty means `default`.
    #[serde(deserialize_with = "null_is_default")]
    pub service_account_name: String,
    /// Whether it shares its node's network.
    #[serde(deserialize_with = "null_is_default")]
    pub host_network: bool,
    /// Containers.
    #[serde(deserialize_with = "null_is_default")]
    pub containers: Vec<Container>,
    /// Init containers; one that restarts always is a sidecar and may serve ports.
    #[serde(deserialize_with = "null_is_default")]
    pub init_containers: Vec<Container>,
}

/// A container, as far as its ports and those who call them go.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Container {
    /// Ports it names.
    #[serde(deserialize_with = "null_is_default")]
    pub ports: Vec<ContainerPort>,
    /// `Always` makes an init container a sidecar.
    pub restart_policy: Option<String>,
    /// Whether it is to be restarted.
    pub liveness_probe: Option<Handler>,
    /// Whether it may take traffic.
    pub readiness_probe: Option<Handler>,
    /// Whether it has started.
    pub startup_probe: Option<Handler>,
    /// What is called when it starts and before it ends.
    #[serde(deserialize_with = "null_is_default")]
    pub lifecycle: Lifecycle,
}

/// What the kubelet calls when a container starts and before it ends.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Lifecycle {
    /// After its start.
    pub post_start: Option<Handler>,
    /// Before its end.
    pub pre_stop: Option<Handler>,
}

/// How the kubelet calls a container: at most one of them is given.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Handler {
    /// By HTTP.
    pub http_get: Option<Call>,
    /// By opening a connection.
    pub tcp_socket: Option<Call>,
    /// By gRPC's health protocol.
    pub grpc: Option<Call>,
}

/// Where the kubelet connects to.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Call {
    /// A host other than the pod.
    #[serde(default, deserialize_with = "null_is_default")]
    pub host: String,
    /// The port.
    pub port: TargetPort,
}

/// A named port of a container.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerPort {
    /// The name that `targetPort` may use.
    #[serde(default)]
    pub name: Option<String>,
    /// The port.
    pub container_port: u16,
    /// The transport protocol.
    #[serde(default)]
    pub protocol: Protocol,
}

/// `status` of a pod.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodStatus {
    /// `Pending`, `Running`, `Succeeded`, `Failed` or `Unknown`.
    pub phase: Option<String>,
    /// The first address.
    #[serde(rename = "podIP")]
    pub pod_ip: Option<IpAddr>,
    /// All addresses.
    #[serde(rename = "podIPs", deserialize_with = "null_is_default")]
    pub pod_ips: Vec<PodIp>,
    /// Of the conditions, `Ready`, if it is reported.
    #[serde(deserialize_with = "only_ready")]
    pub conditions: Vec<PodCondition>,
}

/// One address of a pod.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct PodIp {
    /// The address.
    pub ip: IpAddr,
}

/// One condition of a pod.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct PodCondition {
    /// Which condition.
    #[serde(rename = "type")]
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
}

/// The others change more often and mean nothing here.
fn only_ready<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<PodCondition>, D::Error> {
    let mut conditions: Vec<PodCondition> = null_is_default(deserializer)?;
    conditions.retain(|condition| condition.kind == READY);
    Ok(conditions)
}

const READY: &str = "Ready";

/// What marks the API server's image of a static pod, and the UID that its kubelet knows it by.
const MIRROR_ANNOTATION: &str = "kubernetes.io/config.mirror";
const CONFIG_HASH_ANNOTATION: &str = "kubernetes.io/config.hash";

impl Pod {
    /// The UID by which the node knows the pod: it is in the name of the pod's cgroup.
    ///
    /// A static pod is known there by a hash of its file, while the API server gave its image a UID
    /// of its own. Whoever may create pods may write the annotations; but a hash has no dashes, so
    /// that it never names a pod which the API server gave its UID, and a mirror pod names no
    /// service account (an API server admits none that does).
    pub fn uid_on_node(&self) -> &str {
        let is_mirror = self.metadata.annotation(MIRROR_ANNOTATION).is_some()
            && self.spec.service_account_name.is_empty();
        match self.metadata.annotation(CONFIG_HASH_ANNOTATION) {
            Some(hash) if is_mirror && is_config_hash(hash) => hash,
            Some(_) | None => &self.metadata.uid,
        }
    }

    /// Whether the pod ended for good: it has no address any more, or not for long.
    pub fn is_finished(&self) -> bool {
        matches!(self.status.phase.as_deref(), Some("Succeeded" | "Failed"))
    }

    /// Whether its addresses are its own, and not its node's or another pod's by now.
    pub fn has_own_address(&self) -> bool {
        !self.spec.host_network && !self.is_finished()
    }

    /// Its addresses, first address first, each once.
    pub fn addresses(&self) -> Vec<IpAddr> {
        let mut addresses = Vec::new();
        for ip in self.status.pod_ip.into_iter().chain(self.status.pod_ips.iter().map(|pod_ip| pod_ip.ip)) {
            let ip = ip.to_canonical();
            if !addresses.contains(&ip) {
                addresses.push(ip);
            }
        }
        addresses
    }

    /// Whether it takes traffic. A pod written by hand, which no kubelet reports on, has no `Ready`
    /// condition: it counts as ready once it has an address.
    pub fn is_ready(&self) -> bool {
        let ready = self.status.conditions.iter().find(|condition| condition.kind == READY);
        self.metadata.deletion_timestamp.is_none()
            && ready.map_or(!self.addresses().is_empty(), |condition| condition.status == "True")
    }

    /// The service account whose identity it has.
    pub fn service_account(&self) -> &str {
        match self.spec.service_account_name.as_str() {
            "" => "default",
            name => name,
        }
    }

    /// The number of a TCP port that one of its containers names.
    pub fn named_port(&self, name: &str) -> Option<u16> {
        self.lasting_containers().find_map(|container| container.named_port(name))
    }

    /// The TCP ports of the pod that its node's kubelet calls.
    pub fn probe_ports(&self) -> BTreeSet<u16> {
        self.lasting_containers().flat_map(Container::probe_ports).collect()
    }

    /// The containers that run as long as the pod does.
    fn lasting_containers(&self) -> impl Iterator<Item = &Container> {
        let sidecars =
            self.spec.init_containers.iter().filter(|c| c.restart_policy.as_deref() == Some("Always"));
        self.spec.containers.iter().chain(sidecars)
    }
}

impl Container {
    fn named_port(&self, name: &str) -> Option<u16> {
        let is_named =
            |port: &&ContainerPort| port.name.as_deref() == Some(name) && port.protocol == Protocol::Tcp;
        self.ports.iter().find(is_named).map(|port| port.container_port)
    }

    fn probe_ports(&self) -> impl Iterator<Item = u16> {
        let Lifecycle { post_start, pre_stop } = &self.lifecycle;
        let handlers =
            [&self.liveness_probe, &self.readiness_probe, &self.startup_probe, post_start, pre_stop];
        let calls = handlers
            .into_iter()
            .flatten()
            .flat_map(|handler| [&handler.http_get, &handler.tcp_socket, &handler.grpc])
            .flatten();
        // A call to another host does not come to the pod.
        calls.filter(|call| call.host.is_empty()).filter_map(|call| match &call.port {
            TargetPort::Number(port) => Some(*port),
            TargetPort::Name(name) => self.named_port(name),
        })
    }
}

/// MD5 in hexadecimal digits, as a kubelet computes it.
fn is_config_hash(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|octet| octet.is_ascii_digit() || matches!(octet, b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_static_pod_goes_by_the_uid_of_its_kubelet() {
        let hash = "0123456789abcdef0123456789abcdef";
        let victim = "6e0c0a52-1c1b-4f0e-8f5a-2f6ff3f0b111";
        let rows = [
            ("an ordinary pod", json!({}), "", "u1"),
            ("a mirror", json!({MIRROR_ANNOTATION: hash, CONFIG_HASH_ANNOTATION: hash}), "", hash),
            ("a hash without the mark", json!({CONFIG_HASH_ANNOTATION: hash}), "", "u1"),
            ("a mark without a hash", json!({MIRROR_ANNOTATION: hash}), "", "u1"),
            (
                "another pod's UID for a hash",
                json!({MIRROR_ANNOTATION: victim, CONFIG_HASH_ANNOTATION: victim}),
                "",
                "u1",
            ),
            (
                "a service account of its own",
                json!({MIRROR_ANNOTATION: hash, CONFIG_HASH_ANNOTATION: hash}),
                "web",
                "u1",
            ),
        ];
        for (name, annotations, account, expected) in rows {
            let pod = json!({
                "metadata": {"uid": "u1", "annotations": annotations},
                "spec": {"nodeName": "n1", "serviceAccountName": account},
            });
            assert_eq!(Pod::deserialize(pod).unwrap().uid_on_node(), expected, "{name}");
        }
    }
}
