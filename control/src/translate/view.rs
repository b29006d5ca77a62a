//! The objects in force, sorted by what translation asks for.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use ambit_mesh::address::ServiceName;

use super::service_name;
use crate::inputs::Inputs;
use crate::objects::meta::StringMap;
use crate::objects::{
    AuthorizationPolicy, ConnectionRoute, DestinationRule, EndpointSlice, Gateway, GrpcRoute, HttpRoute,
    Namespace, Node, Object, ObjectKey, PeerAuthentication, Pod, Service, ServiceCidr, ServiceEntry,
    VirtualService,
};
use crate::source::Origin;

/// The objects in force.
#[derive(Debug, Default)]
pub(super) struct View<'a> {
    pub(super) namespaces: BTreeMap<&'a str, &'a Namespace>,
    pub(super) nodes: BTreeMap<&'a str, &'a Node>,
    /// By namespace.
    pub(super) pods: BTreeMap<&'a str, Vec<Named<'a, Pod>>>,
    /// By namespace.
    pub(super) services: BTreeMap<&'a str, Vec<Named<'a, Service>>>,
    /// By namespace and service.
    pub(super) slices: BTreeMap<(&'a str, &'a str), Vec<Named<'a, EndpointSlice>>>,
    /// By namespace.
    pub(super) authorization_policies: BTreeMap<&'a str, Vec<Named<'a, AuthorizationPolicy>>>,
    pub(super) peer_authentications: Vec<Named<'a, PeerAuthentication>>,
    pub(super) service_cidrs: Vec<&'a ServiceCidr>,
    /// By namespace and name.
    pub(super) gateways: BTreeMap<&'a str, BTreeMap<&'a str, Named<'a, Gateway>>>,
    pub(super) http_routes: Vec<Named<'a, HttpRoute>>,
    pub(super) grpc_routes: Vec<Named<'a, GrpcRoute>>,
    pub(super) tcp_routes: Vec<Named<'a, ConnectionRoute>>,
    pub(super) tls_routes: Vec<Named<'a, ConnectionRoute>>,
    pub(super) virtual_services: Vec<Named<'a, VirtualService>>,
    pub(super) destination_rules: Vec<Named<'a, DestinationRule>>,
    pub(super) service_entries: Vec<Named<'a, ServiceEntry>>,
}

/// Which pod has an address.
#[derive(Debug, Default)]
pub(super) struct PodsByAddress<'a> {
    pub(super) pods: HashMap<IpAddr, Named<'a, Pod>>,
    /// Whether pods of two namespaces claim the same address.
    pub(super) is_shared: bool,
}

impl PodsByAddress<'_> {
    /// The addresses of a pod that count for it.
    pub(super) fn of(&self, pod: &Named<'_, Pod>) -> Vec<IpAddr> {
        let mut addresses = pod.object.addresses();
        if pod.object.has_own_address() {
            addresses.retain(|ip| self.pods.get(ip).is_none_or(|owner| owner.key == pod.key));
        }
        addresses
    }
}

/// The greater of two claims to one address wins; of equal ones the first by name.
fn claim(pod: &Pod) -> (bool, Option<&str>) {
    let metadata = &pod.metadata;
    (metadata.deletion_timestamp.is_none(), metadata.creation_timestamp.as_deref())
}

/// An object with what identifies it.
#[derive(Debug)]
pub(super) struct Named<'a, T> {
    pub(super) key: &'a ObjectKey,
    pub(super) origin: &'a Origin,
    pub(super) object: &'a T,
}

impl<'a, T> Named<'a, T> {
    /// Namespace and name.
    pub(super) fn place(&self) -> (&'a str, &'a str) {
        (self.key.namespace.as_deref().unwrap_or(""), &self.key.name)
    }

    pub(super) fn name(&self) -> &str {
        &self.key.name
    }

    /// The namespace; empty for an object of the cluster.
    pub(super) fn namespace(&self) -> &str {
        self.key.namespace.as_deref().unwrap_or("")
    }
}

impl<'a> Named<'a, Service> {
    /// Its name in the mesh: a ServiceEntry stands for its host.
    pub(super) fn mesh_name(&self) -> ServiceName {
        match &self.object.entry {
            Some(entry) => ServiceName { namespace: self.namespace().into(), hostname: entry.host.clone() },
            None => service_name(self.namespace(), self.name()),
        }
    }

    /// The name by which its slices are found; that of a Service has no dots.
    pub(super) fn slices_name(&self) -> &'a str {
        self.object.entry.as_ref().map_or(&*self.key.name, |entry| &*entry.host)
    }
}

impl<T> Clone for Named<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Named<'_, T> {}

impl<'a> View<'a> {
    pub(super) fn of(inputs: &'a Inputs) -> Self {
        let mut view = Self::default();
        for (key, entry) in inputs.entries() {
            if let Some(object) = entry.object() {
                view.add(key, entry.origin(), object);
            }
        }
        view
    }

    fn add(&mut self, key: &'a ObjectKey, origin: &'a Origin, object: &'a Object) {
        let namespace = key.namespace.as_deref().unwrap_or("");
        match object {
            Object::Namespace(object) => {
                self.namespaces.insert(&key.name, object);
            }
            Object::Node(object) => {
                self.nodes.insert(&key.name, object);
            }
            Object::Pod(object) => {
                self.pods.entry(namespace).or_default().push(Named { key, origin, object });
            }
            Object::Service(object) => {
                self.services.entry(namespace).or_default().push(Named { key, origin, object });
            }
            Object::EndpointSlice(object) => {
                if let Some(service) = object.service() {
                    let slices = self.slices.entry((namespace, service)).or_default();
                    slices.push(Named { key, origin, object });
                }
            }
            // Identities come from the pods that name it.
            Object::ServiceAccount(_) => {}
            Object::AuthorizationPolicy(object) => {
                let policies = self.authorization_policies.entry(namespace).or_default();
                policies.push(Named { key, origin, object });
            }
            Object::PeerAuthentication(object) => {
                self.peer_authentications.push(Named { key, origin, object })
            }
            Object::ServiceCidr(object) => self.service_cidrs.push(object),
            Object::Gateway(object) => {
                let of_namespace = self.gateways.entry(namespace).or_default();
                of_namespace.insert(&key.name, Named { key, origin, object });
            }
            Object::HttpRoute(object) => self.http_routes.push(Named { key, origin, object }),
            Object::GrpcRoute(object) => self.grpc_routes.push(Named { key, origin, object }),
            Object::TcpRoute(object) => self.tcp_routes.push(Named { key, origin, object }),
            Object::TlsRoute(object) => self.tls_routes.push(Named { key, origin, object }),
            Object::VirtualService(object) => self.virtual_services.push(Named { key, origin, object }),
            Object::ServiceEntry(object) => self.add_entry(key, origin, object),
            Object::DestinationRule(object) => self.destination_rules.push(Named { key, origin, object }),
        }
    }

    fn add_entry(&mut self, key: &'a ObjectKey, origin: &'a Origin, entry: &'a ServiceEntry) {
        let namespace = key.namespace.as_deref().unwrap_or("");
        for service in &entry.services {
            let service = Named { key, origin, object: service };
            self.services.entry(namespace).or_default().push(service);
            for slice in &entry.slices {
                let slices = self.slices.entry((namespace, service.slices_name())).or_default();
                slices.push(Named { key, origin, object: slice });
            }
        }
        self.service_entries.push(Named { key, origin, object: entry });
    }

    /// The labels of a namespace; none where it is not defined.
    pub(super) fn namespace_labels(&self, namespace: &str) -> Option<&'a StringMap> {
        self.namespaces.get(namespace).map(|namespace| &namespace.metadata.labels)
    }

    /// The waypoint of this name.
    pub(super) fn waypoint(&self, namespace: &str, name: &str) -> Option<&Named<'a, Gateway>> {
        self.gateways.get(namespace)?.get(name).filter(|gateway| gateway.object.is_waypoint())
    }

    /// The pod that an address identifies. An address is given to a new pod while the API server may
    /// still tell of the one that had it: of several, the newest that is not about to end owns it.
    pub(super) fn pods_by_address(&self) -> PodsByAddress<'a> {
        let mut found = PodsByAddress::default();
        for pod in self.pods.values().flatten().filter(|pod| pod.object.has_own_address()) {
            for ip in pod.object.addresses() {
                let owner = found.pods.entry(ip).or_insert(*pod);
                found.is_shared |= owner.namespace() != pod.namespace();
                if claim(pod.object) > claim(owner.object) {
                    *owner = *pod;
                }
            }
        }
        found
    }

    /// Every namespace that has an object of its own.
    pub(super) fn namespaces_with_objects(&self) -> BTreeSet<&'a str> {
        let slices = self.slices.keys().map(|(namespace, _)| *namespace);
        let others = self.pods.keys().chain(self.services.keys()).chain(self.authorization_policies.keys());
        others.copied().chain(slices).collect()
    }

    /// The namespaces that have pods on a node.
    pub(super) fn namespaces_on(&self, node: &str) -> impl Iterator<Item = &'a str> {
        let is_there =
            move |pods: &[Named<'_, Pod>]| pods.iter().any(|pod| pod.object.spec.node_name == node);
        self.pods.iter().filter(move |(_, pods)| is_there(pods)).map(|(namespace, _)| *namespace)
    }
}
