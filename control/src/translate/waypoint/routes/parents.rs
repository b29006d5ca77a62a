//! What routes are attached to: a Service, or those ports of it that no stronger type of route holds.

use std::collections::BTreeMap;

use ambit_mesh::address::ServiceName;
use ambit_mesh::http::{Parent, Route, RouteKind};
use ambit_mesh::service::AppProtocol;

use super::{Unresolved, find_service};
use crate::objects::Service;
use crate::objects::gateway_api::parts::ParentRef;
use crate::objects::service::ServicePort;
use crate::translate::service::app_protocol;
use crate::translate::view::{Named, View};

/// A parent that takes a route.
pub(super) struct Attached<'a> {
    /// One; of a ServiceEntry one for each host.
    pub(super) services: Vec<Named<'a, Service>>,
    /// Them, or their ports one by one where not all of them are the route's.
    pub(super) parents: Vec<Parent>,
    /// Ports that a stronger type of route holds.
    pub(super) lost: Vec<(u16, RouteKind)>,
}

/// As conditions name a parent.
pub(super) fn place(parent: &ParentRef, from: &str) -> String {
    let namespace = parent.namespace.as_deref().unwrap_or(from);
    let port = parent.port.map(|port| format!(":{port}")).unwrap_or_default();
    let section = parent.section_name.as_deref().map(|name| format!("#{name}")).unwrap_or_default();
    let kind = if parent.is_service_entry() { "ServiceEntry" } else { "Service" };
    format!("{kind}/{namespace}/{}{port}{section}", parent.name)
}

/// What a reference of a route in namespace `from` is attached to.
pub(super) fn attached<'a>(
    parent: &ParentRef,
    from: &str,
    view: &View<'a>,
    taken: &Taken,
) -> Result<Attached<'a>, Unresolved> {
    let namespace = parent.namespace.as_deref().unwrap_or(from);
    let kind = if parent.is_service_entry() { "ServiceEntry" } else { "Service" };
    let services = services(parent, namespace, view);
    // Those of a ServiceEntry have the same ports.
    let Some(first) = services.first() else {
        return Err(("NoMatchingParent", format!("there is no {kind} {namespace}/{}", parent.name)));
    };
    let is_meant = |port: &&ServicePort| {
        let is_named = parent.section_name.as_deref().is_none_or(|name| port.name == name);
        is_named && parent.port.is_none_or(|number| port.port == number)
    };
    let ports: Vec<u16> = first.object.tcp_ports().filter(is_meant).map(|port| port.port).collect();
    let asks_for_port = parent.section_name.is_some() || parent.port.is_some();
    if asks_for_port && ports.is_empty() {
        let message =
            format!("{kind} {namespace}/{} has no such port: check port and sectionName", parent.name);
        return Err(("NoMatchingParent", message));
    }
    let name = first.mesh_name();
    let holder = |port: &u16| Some((*port, taken.holder(from, &name, *port)?));
    let lost: Vec<(u16, RouteKind)> = ports.iter().filter_map(holder).collect();
    if let Some((_, stronger)) = lost.first()
        && lost.len() == ports.len()
    {
        let message = format!("a {} holds for the same port of this {kind}", stronger.as_str());
        return Err(("Conflicted", message));
    }
    let is_free = |port: &&u16| lost.iter().all(|(other, _)| other != *port);
    let every = !asks_for_port && lost.is_empty();
    let parents = services.iter().flat_map(|service| {
        let of_port = |port: Option<u16>| Parent { service: service.mesh_name(), port };
        match every {
            true => vec![of_port(None)],
            false => ports.iter().filter(is_free).map(|port| of_port(Some(*port))).collect(),
        }
    });
    let parents = parents.collect();
    Ok(Attached { services, parents, lost })
}

/// What a reference names.
fn services<'a>(parent: &ParentRef, namespace: &str, view: &View<'a>) -> Vec<Named<'a, Service>> {
    if !parent.is_service_entry() {
        return find_service(view, namespace, &parent.name).into_iter().collect();
    }
    let services = view.services.get(namespace).into_iter().flatten();
    let is_its = |service: &&Named<'_, Service>| {
        service.object.entry.is_some() && service.name() == parent.name.as_str()
    };
    services.filter(is_its).copied().collect()
}

/// Which ports of Services are held by a type of route, by the namespace of the routes.
///
/// GAMMA: of one port of a Service one type of route holds. Producers and the consumers of each namespace are
/// routed apart from each other, so that they hold ports apart, too.
#[derive(Default)]
pub(super) struct Taken(BTreeMap<(String, ServiceName, u16), RouteKind>);

impl Taken {
    /// Has routes of one type take their ports. Nobody takes what is declared as another protocol unless it is asked
    /// for by its number.
    pub(super) fn add<'a>(&mut self, routes: impl IntoIterator<Item = &'a Route>, view: &View<'_>) {
        for route in routes {
            for parent in &route.parents {
                for port in ports_of(route.name.kind, parent, view) {
                    let key = (route.name.namespace.to_string(), parent.service.clone(), port);
                    self.0.entry(key).or_insert(route.name.kind);
                }
            }
        }
    }

    fn holder(&self, from: &str, service: &ServiceName, port: u16) -> Option<RouteKind> {
        self.0.get(&(from.to_owned(), service.clone(), port)).copied()
    }
}

fn ports_of(kind: RouteKind, parent: &Parent, view: &View<'_>) -> Vec<u16> {
    if let Some(port) = parent.port {
        return vec![port];
    }
    let services = view.services.get(&*parent.service.namespace).into_iter().flatten();
    let is_it = |service: &&Named<'_, Service>| service.mesh_name() == parent.service;
    let is_for = |port: &&ServicePort| match (app_protocol(port), kind) {
        (AppProtocol::Unknown, _) | (_, RouteKind::Tcp) => true,
        (AppProtocol::Tcp, _) => false,
        (AppProtocol::Tls, kind) => kind == RouteKind::Tls,
        (AppProtocol::Http11 | AppProtocol::Http2 | AppProtocol::Grpc, kind) => kind != RouteKind::Tls,
    };
    let ports = services.filter(is_it).flat_map(|service| service.object.tcp_ports());
    ports.filter(is_for).map(|port| port.port).collect()
}
