//! Pod -> [`Workload`].

use std::collections::BTreeMap;
use std::net::IpAddr;

use ambit_mesh::address::ServiceName;
use ambit_mesh::identity::SpiffeId;
use ambit_mesh::policy::PolicyNames;
use ambit_mesh::service::PortMapping;
use ambit_mesh::workload::{
    Locality, NetworkMode, TunnelProtocol, Workload, WorkloadStatus, WorkloadType, WorkloadUid,
};

use super::enrolment::{self, Enrolment};
use super::peer_authentication::PeerAuthentications;
use super::view::{Named, View};
use super::{Notes, Reason, Settings, authorization, binding, waypoint};
use crate::objects::meta::OwnerReference;
use crate::objects::{Node, Pod};

/// What the translation of every pod reads.
#[derive(Debug)]
pub(super) struct Step<'a, 'b> {
    pub(super) view: &'b View<'a>,
    pub(super) peers: &'b PeerAuthentications<'a>,
    pub(super) settings: &'b Settings,
}

impl Step<'_, '_> {
    /// Translates a pod, of whose addresses `addresses` count for it. One that ended, or that has
    /// neither an address nor a node, is nothing to the mesh. A scheduled pod is published before it
    /// has an address: its node captures it at start. `requirement` is what its Services say of whether their
    /// endpoints take what came through a waypoint alone.
    pub(super) fn translate(
        &self,
        pod: &Named<'_, Pod>,
        addresses: Vec<IpAddr>,
        services: BTreeMap<ServiceName, Vec<PortMapping>>,
        requirement: Option<bool>,
        notes: &mut Notes,
    ) -> Option<Workload> {
        let Self { view, peers, settings } = self;
        let Named { key, object, .. } = pod;
        let has_lost_its_address = addresses.is_empty() && !object.addresses().is_empty();
        if object.is_finished() || (object.addresses().is_empty() && object.spec.node_name.is_empty()) {
            return None;
        }
        let identity = identity(pod, settings, notes)?;
        let is_enrolled = is_enrolled(pod, view, notes);
        let owner = Owner::of(pod);
        let uid = format!("{}//Pod/{}/{}", settings.cluster_id, pod.namespace(), pod.name());
        Some(Workload {
            uid: WorkloadUid(uid.into()),
            name: key.name.clone(),
            namespace: pod.namespace().into(),
            cluster_id: settings.cluster_id.clone(),
            network: settings.network.clone(),
            addresses,
            hostname: None,
            identity,
            tunnel_protocol: tunnel_protocol(is_enrolled),
            node: object.spec.node_name.as_str().into(),
            network_mode: network_mode(object),
            workload_type: owner.workload_type,
            canonical_name: canonical_name(object, &owner).into(),
            workload_name: owner.name.into(),
            canonical_revision: canonical_revision(object).into(),
            waypoint: waypoint::of_pod(pod, view).map(Box::new),
            waypoint_failure: waypoint::failure(pod.namespace(), &object.metadata, view),
            requires_waypoint: is_enrolled && waypoint::is_required(pod, requirement, view),
            network_gateway: None,
            application_tunnel: None,
            authorization_policies: policies(pod, view, peers),
            // Nobody could be connected with it.
            status: if has_lost_its_address { WorkloadStatus::Unhealthy } else { status(object) },
            locality: view
                .nodes
                .get(object.spec.node_name.as_str())
                .map(|node| locality(node))
                .unwrap_or_default(),
            capacity: 1,
            services: services.into_iter().collect(),
            pod: binding::of(pod, is_enrolled, settings, notes).map(Box::new),
        })
    }
}

fn identity(pod: &Named<'_, Pod>, settings: &Settings, notes: &mut Notes) -> Option<SpiffeId> {
    let account = pod.object.service_account();
    SpiffeId::new(settings.trust_domain.clone(), pod.namespace(), account)
        .inspect_err(|error| {
            notes.add(pod.key, Reason::NotTranslated, format!("the pod is unknown to the mesh: {error}"));
        })
        .ok()
}

fn is_enrolled(pod: &Named<'_, Pod>, view: &View<'_>, notes: &mut Notes) -> bool {
    if waypoint::is_instance(pod, view) {
        return false;
    }
    match enrolment::of(pod.object, view.namespace_labels(pod.namespace())) {
        Enrolment::Enrolled => true,
        Enrolment::NotAsked => false,
        Enrolment::HostNetwork => {
            notes.add(pod.key, Reason::NoEffect, "a pod with hostNetwork cannot be in the mesh");
            false
        }
        Enrolment::OtherMesh { annotation } => {
            let message =
                format!("annotation {annotation} says that another mesh handles this pod: it is left alone");
            notes.add(pod.key, Reason::Conflict, message);
            false
        }
    }
}

fn tunnel_protocol(is_enrolled: bool) -> TunnelProtocol {
    if is_enrolled { TunnelProtocol::Hbone } else { TunnelProtocol::None }
}

fn network_mode(pod: &Pod) -> NetworkMode {
    if pod.spec.host_network { NetworkMode::HostNetwork } else { NetworkMode::Standard }
}

fn status(pod: &Pod) -> WorkloadStatus {
    if pod.is_ready() { WorkloadStatus::Healthy } else { WorkloadStatus::Unhealthy }
}

/// The policies that apply to the workload by name; those of its namespace and of the mesh are found
/// by their scope.
fn policies(pod: &Named<'_, Pod>, view: &View<'_>, peers: &PeerAuthentications<'_>) -> PolicyNames {
    let labels = &pod.object.metadata.labels;
    let mut policies = authorization::selecting(view, pod.namespace(), labels);
    policies.extend(peers.selecting(pod.namespace(), labels));
    policies.sort_unstable();
    policies.into()
}

/// The topology labels that cloud providers put on Nodes.
fn locality(node: &Node) -> Locality {
    let label = |name| node.metadata.label(name).unwrap_or_default().into();
    Locality {
        region: label("topology.kubernetes.io/region"),
        zone: label("topology.kubernetes.io/zone"),
        subzone: label("topology.istio.io/subzone"),
    }
}

struct Owner {
    workload_type: WorkloadType,
    name: String,
}

impl Owner {
    /// The object that a person created: a ReplicaSet stands for its Deployment, a Job that a
    /// CronJob made stands for that.
    fn of(pod: &Named<'_, Pod>) -> Self {
        let controller = pod.object.metadata.owner_references.iter().find(|owner| owner.controller);
        let Some(OwnerReference { kind, name, .. }) = controller else {
            return Self { workload_type: WorkloadType::Pod, name: pod.name().to_owned() };
        };
        let (workload_type, name) = match kind.as_str() {
            "ReplicaSet" => {
                let hash = pod.object.metadata.label("pod-template-hash").unwrap_or_default();
                let deployment = name.strip_suffix(hash).and_then(|name| name.strip_suffix('-'));
                (WorkloadType::Deployment, deployment.unwrap_or(name))
            }
            "Job" => match cron_job(name) {
                Some(cron_job) => (WorkloadType::CronJob, cron_job),
                None => (WorkloadType::Job, name.as_str()),
            },
            // A static pod is its node's.
            "Node" => (WorkloadType::Pod, pod.name()),
            "CronJob" => (WorkloadType::CronJob, name.as_str()),
            _ => (WorkloadType::Deployment, name.as_str()),
        };
        Self { workload_type, name: name.to_owned() }
    }
}

/// A CronJob names its Jobs `<name>-<scheduled time in minutes or seconds>`.
fn cron_job(job: &str) -> Option<&str> {
    let (name, time) = job.rsplit_once('-')?;
    let is_time = (8..=10).contains(&time.len()) && time.chars().all(|c| c.is_ascii_digit());
    is_time.then_some(name)
}

fn canonical_name(pod: &Pod, owner: &Owner) -> String {
    const LABELS: [&str; 3] = ["service.istio.io/canonical-name", "app.kubernetes.io/name", "app"];
    first_label(pod, &LABELS).unwrap_or(&owner.name).to_owned()
}

fn canonical_revision(pod: &Pod) -> String {
    const LABELS: [&str; 3] = ["service.istio.io/canonical-revision", "app.kubernetes.io/version", "version"];
    first_label(pod, &LABELS).unwrap_or("latest").to_owned()
}

fn first_label<'a>(pod: &'a Pod, names: &[&str]) -> Option<&'a str> {
    names.iter().find_map(|name| pod.metadata.label(name))
}
