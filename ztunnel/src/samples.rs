//! Small valid values for tests.

use ambit_mesh::address::Network;
use ambit_mesh::policy::PolicyName;
use ambit_mesh::workload::{
    CaptureExclusions, Locality, NetworkMode, PodBinding, TunnelProtocol, Workload, WorkloadStatus,
    WorkloadType, WorkloadUid,
};

/// A pod of n1 that names the policy `shop/selecting`.
pub(crate) fn workload(name: &str) -> Workload {
    let selecting = PolicyName { namespace: "shop".into(), name: "selecting".into() };
    Workload {
        uid: WorkloadUid(format!("Kubernetes//Pod/shop/{name}").into()),
        name: name.into(),
        namespace: "shop".into(),
        cluster_id: "Kubernetes".into(),
        network: Network("west".into()),
        addresses: vec!["10.0.0.7".parse().unwrap(), "fd00::7".parse().unwrap()],
        hostname: None,
        identity: format!("spiffe://cluster.local/ns/shop/sa/{name}").parse().unwrap(),
        tunnel_protocol: TunnelProtocol::Hbone,
        node: "n1".into(),
        network_mode: NetworkMode::Standard,
        workload_type: WorkloadType::Deployment,
        workload_name: name.into(),
        canonical_name: name.into(),
        canonical_revision: "v2".into(),
        waypoint: None,
        waypoint_failure: Default::default(),
        requires_waypoint: false,
        network_gateway: None,
        application_tunnel: None,
        authorization_policies: [selecting].into_iter().collect(),
        status: WorkloadStatus::Healthy,
        locality: Locality::default(),
        capacity: 1,
        services: Default::default(),
        pod: Some(Box::new(PodBinding {
            pod_uid: format!("uid-of-{name}").into(),
            network_namespace: Some(format!("/run/netns/{name}").into()),
            probe_ports: [8080].into(),
            exclusions: CaptureExclusions::default(),
        })),
    }
}
