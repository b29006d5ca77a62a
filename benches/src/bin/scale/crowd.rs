//! A crowd of workloads: Kubernetes YAML of pods, and of the Services that they serve, as a cluster
//! of many teams has them.

use std::fmt::Write;

use ambit_tests::mesh::Mesh;
use anyhow::Result;

use crate::Settings;

/// Writes the crowd for control. None of its pods is on a node that has an agent.
///
/// # Errors
/// When a file cannot be written.
pub(crate) fn write(mesh: &Mesh, settings: &Settings, workloads: u32) -> Result<()> {
    for namespace in 0..settings.namespaces {
        mesh.ambient_namespace(&format!("team-{namespace}"))?;
    }
    for node in 0..workloads.div_ceil(PODS_ON_A_NODE) {
        mesh.configuration().node(&format!("worker-{node}"))?;
    }
    let in_one = workloads.div_ceil(settings.namespaces);
    for namespace in 0..settings.namespaces {
        let first = namespace * in_one;
        let pods: Vec<u32> = (first..(first + in_one).min(workloads)).collect();
        let mut services = String::new();
        for app in 0..in_one.div_ceil(PODS_OF_AN_APP) {
            service(&mut services, namespace, app);
        }
        mesh.apply(&format!("crowd-{namespace}-services.yaml"), &services)?;
        for (number, pods) in pods.chunks(settings.pods_in_a_file as usize).enumerate() {
            let mut yaml = String::new();
            pods.iter().for_each(|index| pod(&mut yaml, namespace, *index, index - first));
            mesh.apply(&format!("crowd-{namespace}-{number}.yaml"), &yaml)?;
        }
    }
    Ok(())
}

const PODS_ON_A_NODE: u32 = 100;
const PODS_OF_AN_APP: u32 = 10;

fn pod(yaml: &mut String, namespace: u32, index: u32, in_namespace: u32) {
    let app = in_namespace / PODS_OF_AN_APP;
    let (node, ip) = (index / PODS_ON_A_NODE, address(100, index));
    let name = format!("app-{app}-6d4cf56db6-{in_namespace:05}");
    // Writing to a String does not fail.
    let _ = write!(
        yaml,
        "---\napiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n  namespace: team-{namespace}\n  \
         uid: 5f0c1ad2-3f1b-4a4e-9d7e-{index:012}\n  labels:\n    app: app-{app}\n    version: v1\n    \
         pod-template-hash: 6d4cf56db6\n  ownerReferences:\n  - kind: ReplicaSet\n    \
         name: app-{app}-6d4cf56db6\n    controller: true\nspec:\n  nodeName: worker-{node}\n  \
         serviceAccountName: app-{app}\n  containers:\n  - name: app\n    image: registry.example/app:1\n    \
         ports:\n    - containerPort: 8080\nstatus:\n  phase: Running\n  podIP: {ip}\n  podIPs:\n  - ip: {ip}\n  \
         conditions:\n  - type: Ready\n    status: \"True\"\n"
    );
}

fn service(yaml: &mut String, namespace: u32, app: u32) {
    let ip = address(110, namespace * 100_000 / PODS_OF_AN_APP + app);
    let _ = write!(
        yaml,
        "---\napiVersion: v1\nkind: Service\nmetadata:\n  name: app-{app}\n  namespace: team-{namespace}\nspec:\n  \
         selector:\n    app: app-{app}\n  ports:\n  - name: http\n    port: 80\n    targetPort: 8080\n  \
         clusterIP: {ip}\n  clusterIPs:\n  - {ip}\n"
    );
}

fn address(first: u8, index: u32) -> std::net::Ipv4Addr {
    let [_, b, c, d] = index.to_be_bytes();
    std::net::Ipv4Addr::new(first, b, c, d)
}
