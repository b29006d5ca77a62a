//! Whether a pod is in the mesh.

use crate::objects::Pod;
use crate::objects::meta::StringMap;

/// The label of Namespaces and Pods that opts in or out.
const DATAPLANE_MODE: &str = "istio.io/dataplane-mode";

/// Whether a pod is in the mesh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Enrolment {
    /// Its traffic is captured, and it is reached through HBONE.
    Enrolled,
    /// Nobody asked for it.
    NotAsked,
    /// It shares its node's network: capturing it would capture the node.
    HostNetwork,
    /// Another mesh already handles its traffic.
    OtherMesh {
        /// The annotation that says so.
        annotation: &'static str,
    },
}

/// Decides from the labels of the pod and of its namespace; the pod's own come first.
pub(super) fn of(pod: &Pod, namespace: Option<&StringMap>) -> Enrolment {
    let is_asked = match pod.metadata.label(DATAPLANE_MODE) {
        Some(mode) => mode == "ambient",
        None => namespace.is_some_and(is_asked),
    };
    if !is_asked {
        return Enrolment::NotAsked;
    }
    if pod.spec.host_network {
        return Enrolment::HostNetwork;
    }
    let other =
        OTHER_MESHES.into_iter().find(|annotation| pod.metadata.annotations.contains_key(*annotation));
    other.map_or(Enrolment::Enrolled, |annotation| Enrolment::OtherMesh { annotation })
}

/// Whether the labels of a namespace ask for its pods to be in the mesh.
pub(super) fn is_asked(namespace: &StringMap) -> bool {
    namespace.get(DATAPLANE_MODE).is_some_and(|mode| mode == "ambient")
}

/// Annotations that Istio's injector and Istio's CNI agent leave on a pod they handle.
const OTHER_MESHES: [&str; 2] = ["sidecar.istio.io/status", "ambient.istio.io/redirection"];
