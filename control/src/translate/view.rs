//! The objects in force, sorted by what translation asks for.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::inputs::Inputs;
use crate::objects::meta::StringMap;
use crate::objects::{
    AuthorizationPolicy, EndpointSlice, Namespace, Node, Object, ObjectKey, PeerAuthentication, Pod, Service,
};
use crate::source::Origin;

/// The objects in force.
#[derive(Debug, Default)]
pub(super) struct View<'a> {
    pub(super) namespaces: BTreeMap<&'a str, &'a Namespace>,
    pub(super) nodes: BTreeMap<&'a str, &'a Node>,
    pub(super) pods: Vec<Named<'a, Pod>>,
    /// By namespace.
    pub(super) services: BTreeMap<&'a str, Vec<Named<'a, Service>>>,
    /// By namespace and service.
    pub(super) slices: BTreeMap<(&'a str, &'a str), Vec<Named<'a, EndpointSlice>>>,
    pub(super) authorization_policies: Vec<Named<'a, AuthorizationPolicy>>,
    pub(super) peer_authentications: Vec<Named<'a, PeerAuthentication>>,
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
            Object::Pod(object) => self.pods.push(Named { key, origin, object }),
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
                self.authorization_policies.push(Named { key, origin, object });
            }
            Object::PeerAuthentication(object) => {
                self.peer_authentications.push(Named { key, origin, object })
            }
        }
    }

    /// The labels of a namespace; none where it is not defined.
    pub(super) fn namespace_labels(&self, namespace: &str) -> Option<&'a StringMap> {
        self.namespaces.get(namespace).map(|namespace| &namespace.metadata.labels)
    }

    /// The pod that an address identifies: the first of those that claim it.
    pub(super) fn pods_by_address(&self) -> BTreeMap<IpAddr, Named<'a, Pod>> {
        let own_network = |pod: &&Named<'a, Pod>| pod.object.has_own_address();
        let addresses = |pod: &Named<'a, Pod>| {
            let pod = *pod;
            pod.object.addresses().into_iter().map(move |ip| (ip, pod))
        };
        self.pods.iter().rev().filter(own_network).flat_map(addresses).collect()
    }
}
