//! Which pods serve which services, on which ports.
//!
//! Where a service has EndpointSlices they decide; otherwise its selector does. An address in a slice
//! that no pod has is a workload of its own, outside the cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ambit_mesh::address::ServiceName;
use ambit_mesh::identity::SpiffeId;
use ambit_mesh::service::PortMapping;
use ambit_mesh::workload::{
    Locality, NetworkMode, TunnelProtocol, Workload, WorkloadStatus, WorkloadType, WorkloadUid,
};

use super::view::{Named, PodsByAddress, View};
use super::{Settings, service, waypoint};
use crate::objects::endpoint_slice::{AddressType, Endpoint, EndpointSlice, TargetRef};
use crate::objects::selector::includes;
use crate::objects::service::ServicePort;
use crate::objects::values::{Protocol, TargetPort};
use crate::objects::{ObjectKey, Pod, Service};

/// The services of one workload, with their ports.
type Services = BTreeMap<ServiceName, Vec<PortMapping>>;

/// An endpoint that is no pod, and what it serves.
#[derive(Debug)]
struct Outside {
    workload: Workload,
    services: Services,
}

/// Which workload serves what.
#[derive(Debug, Default)]
pub(super) struct Endpoints<'a> {
    by_pod: BTreeMap<&'a ObjectKey, Services>,
    /// What Services that say it say of whether their endpoints take what came through a waypoint alone.
    requirements: BTreeMap<&'a ObjectKey, bool>,
    outside_the_cluster: BTreeMap<WorkloadUid, Outside>,
}

impl Endpoints<'_> {
    /// The services of a pod.
    pub(super) fn of_pod(&mut self, pod: &Named<'_, Pod>) -> Services {
        self.by_pod.remove(pod.key).unwrap_or_default()
    }

    /// Whether a pod takes what came through a waypoint alone, as its Services say: one that asks for it is enough.
    pub(super) fn requirement(&self, pod: &Named<'_, Pod>) -> Option<bool> {
        self.requirements.get(pod.key).copied()
    }

    /// The endpoints that are no pods.
    pub(super) fn take_outside(&mut self) -> impl Iterator<Item = Workload> + use<> {
        let outside = std::mem::take(&mut self.outside_the_cluster).into_values();
        outside.map(|Outside { workload, services }| Workload {
            services: services.into_iter().collect(),
            ..workload
        })
    }
}

/// Finds the endpoints of every service of some namespaces.
pub(super) fn find<'a>(
    view: &View<'a>,
    by_address: &PodsByAddress<'a>,
    namespaces: &BTreeSet<&str>,
    settings: &Settings,
) -> Endpoints<'a> {
    let mut finder = Finder { by_name: BTreeMap::new(), by_address, settings, found: Endpoints::default() };
    for (namespace, services) in view.services.iter().filter(|(name, _)| namespaces.contains(*name)) {
        let pods = view.pods.get(namespace).map_or(&[][..], Vec::as_slice);
        finder.by_name = pods.iter().map(|pod| (pod.place(), *pod)).collect();
        for service in services {
            match view.slices.get(&(*namespace, service.slices_name())) {
                Some(slices) => slices.iter().for_each(|slice| finder.add_slice(service, slice)),
                None => finder.add_selected(service, pods),
            }
        }
    }
    finder.found
}

/// Whether a slice has an address of a pod of another namespace.
pub(super) fn cross_namespaces(view: &View<'_>, by_address: &PodsByAddress<'_>) -> bool {
    view.slices.iter().any(|((namespace, _), slices)| {
        let is_foreign = |ip| by_address.pods.get(&ip).is_some_and(|pod| pod.namespace() != *namespace);
        slices.iter().flat_map(|slice| &slice.object.endpoints).flat_map(addresses).any(is_foreign)
    })
}

struct Finder<'a, 'b> {
    /// Of the namespace at hand.
    by_name: BTreeMap<(&'a str, &'a str), Named<'a, Pod>>,
    by_address: &'b PodsByAddress<'a>,
    settings: &'b Settings,
    found: Endpoints<'a>,
}

/// What an endpoint of a slice is.
enum Behind<'a> {
    Pod(Named<'a, Pod>),
    /// A pod by the slice's word, of which nothing is known: slices and pods arrive independently. It
    /// serves nothing until it is known, and never passes for a machine that speaks plain TCP.
    UnknownPod,
    /// A machine outside the cluster, or on its nodes' network.
    NoPod,
}

impl<'a> Finder<'a, '_> {
    fn add_selected(&mut self, service: &Named<'_, Service>, pods: &[Named<'a, Pod>]) {
        let selector = &service.object.spec.selector;
        if selector.is_empty() {
            return;
        }
        for pod in pods.iter().filter(|pod| includes(&pod.object.metadata.labels, selector)) {
            let ports = service.object.tcp_ports().filter_map(|port| selected_port(port, pod.object));
            self.add_pod(service, pod, ports.collect());
        }
    }

    fn add_slice(&mut self, service: &Named<'_, Service>, slice: &Named<'a, EndpointSlice>) {
        if slice.object.address_type == AddressType::Fqdn {
            return;
        }
        let ports: Vec<_> =
            service.object.tcp_ports().filter_map(|port| slice_port(port, slice.object)).collect();
        for endpoint in &slice.object.endpoints {
            match self.behind(endpoint, slice) {
                Behind::Pod(pod) if serves(service, endpoint, pod.object) => {
                    self.add_pod(service, &pod, ports.clone())
                }
                Behind::Pod(_) | Behind::UnknownPod => {}
                Behind::NoPod => self.add_outside(service, slice, endpoint, &ports),
            }
        }
    }

    /// By name where the slice names a pod of its namespace, otherwise by address: an address of a pod
    /// is never treated as plain machine, which would go around the pod's tunnel.
    fn behind(&self, endpoint: &Endpoint, slice: &Named<'_, EndpointSlice>) -> Behind<'a> {
        let target = endpoint.target_ref.as_ref().filter(|target| target.kind == "Pod");
        let by_name = target.and_then(|target| self.named_pod(target, slice.namespace()));
        let by_address = || addresses(endpoint).find_map(|ip| self.by_address.pods.get(&ip)).copied();
        match (by_name.or_else(by_address), target) {
            (Some(pod), _) => Behind::Pod(pod),
            (None, Some(_)) => Behind::UnknownPod,
            (None, None) => Behind::NoPod,
        }
    }

    /// The pod that a slice names. A StatefulSet gives the next pod the name of the last one: the UID
    /// tells them apart.
    fn named_pod(&self, target: &TargetRef, namespace: &str) -> Option<Named<'a, Pod>> {
        if target.namespace.as_deref().is_some_and(|other| other != namespace) {
            return None;
        }
        let pod = self.by_name.get(&(namespace, target.name.as_str()))?;
        let uid = pod.object.metadata.uid.as_str();
        (uid.is_empty() || target.uid.is_empty() || uid == target.uid).then_some(*pod)
    }

    fn add_pod(&mut self, service: &Named<'_, Service>, pod: &Named<'a, Pod>, ports: Vec<PortMapping>) {
        if let Some(asks) = waypoint::requirement(service.object) {
            *self.found.requirements.entry(pod.key).or_default() |= asks;
        }
        let services = self.found.by_pod.entry(pod.key).or_default();
        add_service(services, service, ports);
    }

    fn add_outside(
        &mut self,
        service: &Named<'_, Service>,
        slice: &Named<'_, EndpointSlice>,
        endpoint: &Endpoint,
        ports: &[PortMapping],
    ) {
        for ip in addresses(endpoint) {
            let Some(outside) = outside(ip, service, slice, endpoint, self.settings) else { continue };
            let outside = Outside { workload: outside, services: Services::new() };
            let found = &mut self.found.outside_the_cluster;
            let outside = found.entry(outside.workload.uid.clone()).or_insert(outside);
            add_service(&mut outside.services, service, ports.to_vec());
        }
    }
}

/// An endpoint that is no pod: it is reached in plain TCP, so that its identity is never asked for.
fn outside(
    ip: IpAddr,
    service: &Named<'_, Service>,
    slice: &Named<'_, EndpointSlice>,
    endpoint: &Endpoint,
    settings: &Settings,
) -> Option<Workload> {
    let place = format!("{}/{}/{ip}", slice.namespace(), slice.name());
    let by = match &service.object.entry {
        None => "discovery.k8s.io/EndpointSlice",
        Some(_) => "networking.istio.io/ServiceEntry",
    };
    let uid = format!("{}/{by}/{place}", settings.cluster_id);
    let status = match endpoint.is_ready() {
        true => WorkloadStatus::Healthy,
        false => WorkloadStatus::Unhealthy,
    };
    Some(Workload {
        uid: WorkloadUid(uid.into()),
        name: slice.key.name.clone(),
        namespace: slice.namespace().into(),
        cluster_id: settings.cluster_id.clone(),
        network: settings.network.clone(),
        addresses: vec![ip],
        hostname: None,
        identity: SpiffeId::new(settings.trust_domain.clone(), slice.namespace(), "default").ok()?,
        tunnel_protocol: TunnelProtocol::None,
        node: endpoint.node_name.as_deref().unwrap_or_default().into(),
        network_mode: NetworkMode::Standard,
        workload_type: WorkloadType::Pod,
        workload_name: slice.key.name.clone(),
        canonical_name: service.key.name.clone(),
        canonical_revision: "latest".into(),
        waypoint: None,
        waypoint_failure: Default::default(),
        requires_waypoint: false,
        network_gateway: None,
        application_tunnel: None,
        authorization_policies: Default::default(),
        status,
        locality: Locality::default(),
        capacity: 1,
        services: Default::default(),
        pod: None,
    })
}

/// A pod that is not ready is listed all the same: its own status keeps it from traffic, and a
/// service that publishes such pods needs it. Where only the slice says not ready, the slice decides.
fn serves(service: &Named<'_, Service>, endpoint: &Endpoint, pod: &Pod) -> bool {
    endpoint.is_ready() || !pod.is_ready() || service.object.spec.publish_not_ready_addresses
}

/// A dual-stack service has a slice per family: the ports are the same.
fn add_service(services: &mut Services, service: &Named<'_, Service>, ports: Vec<PortMapping>) {
    let known = services.entry(service.mesh_name()).or_default();
    for port in ports {
        if !known.iter().any(|other| other.service_port == port.service_port) {
            known.push(port);
        }
    }
}

fn addresses(endpoint: &Endpoint) -> impl Iterator<Item = IpAddr> {
    endpoint.addresses.iter().filter_map(|text| text.parse::<IpAddr>().ok()).map(|ip| ip.to_canonical())
}

/// The port of a selected pod; `None` where no container has a port of that name.
fn selected_port(port: &ServicePort, pod: &Pod) -> Option<PortMapping> {
    let target = match &port.target_port {
        None => port.port,
        Some(TargetPort::Number(number)) => *number,
        Some(TargetPort::Name(name)) => pod.named_port(name)?,
    };
    Some(mapping(port, target))
}

/// The port of a slice that has the service port's name.
fn slice_port(port: &ServicePort, slice: &EndpointSlice) -> Option<PortMapping> {
    let same = slice.ports.iter().find(|other| other.name == port.name && other.protocol == Protocol::Tcp)?;
    Some(mapping(port, same.port?))
}

fn mapping(port: &ServicePort, target: u16) -> PortMapping {
    PortMapping {
        service_port: port.port,
        target_port: Some(target),
        app_protocol: service::app_protocol(port),
    }
}
