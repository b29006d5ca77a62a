//! `/config_dump`: what the agent knows, as JSON, without secrets. The top-level keys are those of
//! Istio's ztunnel, so that tools which read it find their way.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use ambit_identity::manager::CertificateStatus;
use ambit_mesh::policy::{Action, AuthorizationPolicy, PolicyScope};
use ambit_mesh::service::Service;
use ambit_mesh::snapshot::Snapshot;
use ambit_mesh::workload::{TunnelProtocol, Workload, WorkloadStatus};
use serde_json::{Value, json};

use crate::pods::PodStatus;

/// The whole dump.
pub fn config_dump(
    snapshot: Option<&Snapshot>,
    certificates: &[CertificateStatus],
    pods: &[PodStatus],
    config: &Value,
) -> Value {
    let workloads: Vec<Value> =
        snapshot.map(|snapshot| snapshot.workloads().map(workload).collect()).unwrap_or_default();
    let services: Vec<Value> = snapshot
        .map(|snapshot| snapshot.services().map(|item| service(snapshot, item)).collect())
        .unwrap_or_default();
    let policies: Vec<Value> =
        snapshot.map(|snapshot| snapshot.policies().map(policy).collect()).unwrap_or_default();
    json!({
        "synced": snapshot.is_some(),
        "workloads": workloads,
        "services": services,
        "policies": policies,
        "certificates": certificates.iter().map(certificate).collect::<Vec<_>>(),
        "workloadState": pods,
        "config": config,
        "version": env!("CARGO_PKG_VERSION"),
    })
}

fn workload(workload: &Arc<Workload>) -> Value {
    json!({
        "uid": workload.uid.to_string(),
        "name": &*workload.name,
        "namespace": &*workload.namespace,
        "workloadIps": workload.addresses,
        "node": &*workload.node,
        "network": workload.network.to_string(),
        "clusterId": &*workload.cluster_id,
        "identity": workload.identity.to_string(),
        "protocol": match workload.tunnel_protocol {
            TunnelProtocol::None => "TCP",
            TunnelProtocol::Hbone => "HBONE",
        },
        "status": match workload.status {
            WorkloadStatus::Healthy => "Healthy",
            WorkloadStatus::Unhealthy => "Unhealthy",
        },
        "canonicalName": &*workload.canonical_name,
        "canonicalRevision": &*workload.canonical_revision,
        "workloadName": &*workload.workload_name,
        "capacity": workload.capacity,
        "locality": {
            "region": &*workload.locality.region,
            "zone": &*workload.locality.zone,
            "subzone": &*workload.locality.subzone,
        },
        "authorizationPolicies": workload.authorization_policies.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "services": workload.services.keys().map(ToString::to_string).collect::<Vec<_>>(),
        "waypoint": workload.waypoint.as_ref().map(ToString::to_string),
    })
}

fn service(snapshot: &Snapshot, service: &Arc<Service>) -> Value {
    let endpoints = snapshot.endpoints(&service.name).iter().map(|endpoint| {
        json!({
            "workloadUid": endpoint.workload.uid.to_string(),
            "port": endpoint.ports.iter().map(|port| json!([port.service_port, port.target_port])).collect::<Vec<_>>(),
        })
    });
    json!({
        "name": &*service.short_name,
        "namespace": &*service.name.namespace,
        "hostname": &*service.name.hostname,
        "vips": service.addresses.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "ports": service.ports.iter().map(|port| json!([port.service_port, port.target_port])).collect::<Vec<_>>(),
        "endpoints": endpoints.collect::<Vec<_>>(),
        "subjectAltNames": service.subject_alt_names.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "waypoint": service.waypoint.as_ref().map(ToString::to_string),
    })
}

fn policy(policy: &Arc<AuthorizationPolicy>) -> Value {
    json!({
        "name": &*policy.name.name,
        "namespace": &*policy.name.namespace,
        "scope": match policy.scope {
            PolicyScope::Global => "Global",
            PolicyScope::Namespace => "Namespace",
            PolicyScope::WorkloadSelector => "WorkloadSelector",
        },
        "action": match policy.action {
            Action::Allow => "Allow",
            Action::Deny => "Deny",
        },
        "dryRun": policy.dry_run,
        "rules": policy.rules.iter().map(|rule| format!("{rule:?}")).collect::<Vec<_>>(),
    })
}

fn certificate(status: &CertificateStatus) -> Value {
    let seconds = |time: SystemTime| time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    json!({
        "identity": status.id.to_string(),
        "certificate": status.certificate.as_ref().map(|held| json!({
            "serial": held.serial,
            "generation": held.generation,
            "notBefore": seconds(held.not_before),
            "notAfter": seconds(held.not_after),
        })),
        "nextAttempt": status.next_attempt.map(seconds),
        "lastError": status.last_error,
    })
}
