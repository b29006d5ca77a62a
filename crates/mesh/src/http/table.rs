//! The routes of one service in the order in which they are asked, by the Gateway API's precedence.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::route::{HostPattern, Order, PathMatch, Route, RouteKind, RouteMatch, RouteRule};
use crate::address::ServiceName;

/// The routes of one service.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Tables {
    requests: Classes,
    connections: Classes,
}

/// Routes for requests, or for connections.
#[derive(Debug, Default, PartialEq, Eq)]
struct Classes {
    /// Of the service's own namespace.
    producers: Table,
    /// Of other namespaces, for clients of those.
    consumers: BTreeMap<Arc<str>, Table>,
}

/// Routes of one class, by port.
#[derive(Debug, Default, PartialEq, Eq)]
struct Table {
    /// For ports that no route names; `None` where none takes every port.
    every_port: Option<Vec<Entry>>,
    by_port: BTreeMap<u16, Vec<Entry>>,
}

/// One match of one rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) route: Arc<Route>,
    /// The rule's position.
    rule: usize,
    /// The match's position; `None` for a rule without matches.
    at: Option<usize>,
    pub(super) host: Option<HostPattern>,
}

impl Entry {
    pub(super) fn rule_position(&self) -> usize {
        self.rule
    }

    pub(super) fn rule(&self) -> &RouteRule {
        &self.route.rules[self.rule]
    }

    pub(super) fn match_position(&self) -> Option<usize> {
        self.at
    }

    /// The conditions; `None` is none.
    pub(super) fn conditions(&self) -> Option<&RouteMatch> {
        self.at.map(|at| &self.rule().matches[at])
    }
}

impl Tables {
    /// The tables of `service`; `None` when no route is for it.
    pub(super) fn of<'a>(
        service: &ServiceName,
        routes: impl Iterator<Item = &'a Arc<Route>>,
    ) -> Option<Self> {
        let is_parent = |route: &&Arc<Route>| route.parents.iter().any(|parent| parent.service == *service);
        let (connections, requests): (Vec<&Arc<Route>>, Vec<&Arc<Route>>) =
            routes.filter(is_parent).partition(|route| route.name.kind.is_of_connections());
        (!connections.is_empty() || !requests.is_empty()).then(|| Self {
            requests: Classes::of(service, requests),
            connections: Classes::of(service, connections),
        })
    }

    /// What is to be asked of a request of a client of this namespace to a port, in order; `None` when no route
    /// takes that traffic.
    pub(super) fn entries(&self, client_namespace: Option<&str>, port: u16) -> Option<&[Entry]> {
        self.requests.entries(client_namespace, port)
    }

    /// The same of a connection whose requests are not read.
    pub(super) fn connection_entries(&self, client_namespace: Option<&str>, port: u16) -> Option<&[Entry]> {
        self.connections.entries(client_namespace, port)
    }
}

impl Classes {
    fn of(service: &ServiceName, routes: Vec<&Arc<Route>>) -> Self {
        let mut by_namespace: BTreeMap<Arc<str>, Vec<&Arc<Route>>> = BTreeMap::new();
        for route in routes {
            // A VirtualService of the waypoint's namespace is for every client, as one of the service's own is.
            let of = match route.name.kind {
                RouteKind::Http | RouteKind::Grpc | RouteKind::Tcp | RouteKind::Tls => &route.name.namespace,
                RouteKind::VirtualService => &service.namespace,
            };
            by_namespace.entry(of.clone()).or_default().push(route);
        }
        let own = by_namespace.remove(&service.namespace).unwrap_or_default();
        let consumers = by_namespace.into_iter();
        Self {
            producers: Table::of(service, &own),
            consumers: consumers.map(|(from, routes)| (from, Table::of(service, &routes))).collect(),
        }
    }

    fn entries(&self, client_namespace: Option<&str>, port: u16) -> Option<&[Entry]> {
        // GAMMA: a consumer's routes take the place of the producer's for the consumer's own clients.
        let consumer = client_namespace.and_then(|namespace| self.consumers.get(namespace));
        consumer.and_then(|table| table.entries(port)).or_else(|| self.producers.entries(port))
    }
}

impl Table {
    fn of(service: &ServiceName, routes: &[&Arc<Route>]) -> Self {
        let parents = || routes.iter().flat_map(|route| &route.parents);
        let ours = || parents().filter(|parent| parent.service == *service);
        let ports: BTreeSet<u16> = ours().filter_map(|parent| parent.port).collect();
        let entries = |port: Option<u16>| {
            let takes = |route: &&&Arc<Route>| {
                let mut parents = route.parents.iter().filter(|parent| parent.service == *service);
                parents.any(|parent| parent.port.is_none() || parent.port == port)
            };
            let mut entries: Vec<Entry> =
                routes.iter().filter(takes).flat_map(|route| entries_of(route)).collect();
            entries.sort_by(|a, b| rank(a).cmp(&rank(b)));
            entries
        };
        Self {
            every_port: ours().any(|parent| parent.port.is_none()).then(|| entries(None)),
            by_port: ports.into_iter().map(|port| (port, entries(Some(port)))).collect(),
        }
    }

    fn entries(&self, port: u16) -> Option<&[Entry]> {
        self.by_port.get(&port).or(self.every_port.as_ref()).map(Vec::as_slice)
    }
}

fn entries_of(route: &Arc<Route>) -> Vec<Entry> {
    let hosts: Vec<Option<&HostPattern>> = match route.hostnames.as_slice() {
        [] => vec![None],
        hosts => hosts.iter().map(Some).collect(),
    };
    let mut entries = Vec::new();
    for (position, rule) in route.rules.iter().enumerate() {
        let matches: Vec<Option<usize>> = match rule.matches.len() {
            0 => vec![None],
            count => (0..count).map(Some).collect(),
        };
        for at in matches {
            let entry = |host: &Option<&HostPattern>| Entry {
                route: route.clone(),
                rule: position,
                at,
                host: host.cloned(),
            };
            entries.extend(hosts.iter().map(entry));
        }
    }
    entries
}

/// Gateway API HTTPRoute: the host name first, then "Exact" path match, "Prefix" path match with the
/// largest number of characters, method match, the largest number of header matches, the largest
/// number of query param matches; then the oldest route, the first by `<namespace>/<name>`, and the
/// first rule. An expression comes after prefixes, the longer before the shorter.
fn rank(entry: &Entry) -> impl Ord + '_ {
    let route = &entry.route;
    let host = Reverse(entry.host.as_ref().map(|host| match host {
        HostPattern::Exact(name) => (1, name.len()),
        HostPattern::Suffix(end) => (0, end.len()),
    }));
    let (order, specific) = match route.order {
        Order::MostSpecific => (0, entry.conditions().map(specificity)),
        // Its rules are asked as they are written.
        Order::AsWritten => (1, None),
    };
    // A rule without conditions comes last: `None` is the least, and the greatest rank goes first.
    let age = (route.created, &route.name.namespace, &route.name.name, route.name.kind);
    (order, host, Reverse(specific), age, entry.rule, entry.at)
}

/// The greater, the more specific.
fn specificity(conditions: &RouteMatch) -> (u8, usize, bool, usize, usize) {
    let (path, length) = match &conditions.path {
        PathMatch::Exact(path) | PathMatch::ExactIgnoringCase(path) => (3, path.len()),
        PathMatch::Segments(path) => (2, path.trim_end_matches('/').len()),
        PathMatch::Prefix(path) | PathMatch::PrefixIgnoringCase(path) => (2, path.len()),
        PathMatch::Regex(pattern) => (1, pattern.source().len()),
        PathMatch::Any => (0, 0),
    };
    (path, length, conditions.method.is_some(), conditions.headers.len(), conditions.query.len())
}
