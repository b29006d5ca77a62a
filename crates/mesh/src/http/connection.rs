//! Where a connection goes whose requests are not read: by a TCPRoute, a TLSRoute, or as it was dialled.

use std::sync::Arc;

use rand::Rng;

use super::client::Client;
use super::decide::{Backend, MatchedRoute};
use super::destination::{Destination, Place};
use super::route::{BackendTarget, RouteKind, RuleAction, WeightedBackend};
use super::snapshot::{SubsetName, WaypointSnapshot};
use super::table::Entry;
use crate::balance;

/// What of a connection is to be known before it is routed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// Its requests, where it has some: no route is of connections.
    Requests,
    /// The name that the client's TLS says it asks for.
    ServerName,
    /// Nothing.
    Nothing,
}

/// Where a connection may go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionChoices {
    /// To whom, with its share of the sum of all weights; an error is a reference that is wrong.
    pub backends: Vec<(u32, Result<Backend, Arc<str>>)>,
    /// By which route; `None` where none is of it.
    pub route: Option<MatchedRoute>,
}

/// Why a connection goes nowhere.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotRouted {
    /// The service has routes and none takes it.
    #[error("no TLSRoute of this service takes {}", .name.as_deref().unwrap_or("a connection without a name"))]
    NoRoute {
        /// What the client's TLS named.
        name: Option<String>,
    },
    /// The route has no usable backend.
    #[error("{route}: {why}")]
    NoBackend {
        /// The route.
        route: String,
        /// What is wrong.
        why: Arc<str>,
    },
}

impl WaypointSnapshot {
    /// What is to be read of a connection to `destination`.
    pub fn reading(&self, destination: &Destination, client: &Client) -> Reading {
        match self.connection_entries(destination, client).and_then(<[Entry]>::first) {
            None => Reading::Requests,
            Some(entry) if entry.route.name.kind == RouteKind::Tls => Reading::ServerName,
            Some(_) => Reading::Nothing,
        }
    }

    /// Where a connection goes. Policy is asked before.
    ///
    /// # Errors
    /// When the routes of the service leave it without a backend.
    pub fn route_connection(
        &self,
        destination: &Destination,
        client: &Client,
        server_name: Option<&str>,
        rng: &mut (impl Rng + ?Sized),
    ) -> Result<Backend, NotRouted> {
        let ConnectionChoices { backends, route } =
            self.connection_choices(destination, client, server_name)?;
        let without = |why: Arc<str>| NotRouted::NoBackend {
            route: route.as_ref().map(|route| route.name.to_string()).unwrap_or_default(),
            why,
        };
        let picked = balance::pick(&backends, |(weight, _)| *weight, rng);
        let (_, backend) = picked.ok_or_else(|| without("the rule has no backend with a weight".into()))?;
        backend.clone().map_err(without)
    }

    /// Every backend that [`Self::route_connection`] may come to, with its weight.
    ///
    /// # Errors
    /// When no route takes the connection, or its rule cannot be carried out.
    pub fn connection_choices(
        &self,
        destination: &Destination,
        client: &Client,
        server_name: Option<&str>,
    ) -> Result<ConnectionChoices, NotRouted> {
        let Some(entries) = self.connection_entries(destination, client) else {
            return Ok(ConnectionChoices { backends: vec![(1, Ok(as_dialled(destination)))], route: None });
        };
        let name = server_name.map(|name| name.trim_end_matches('.').to_ascii_lowercase());
        let takes = |entry: &&Entry| {
            let named =
                entry.host.as_ref().map(|host| name.as_deref().is_some_and(|name| host.matches(name)));
            named.unwrap_or(true)
        };
        let entry = entries.iter().find(takes).ok_or(NotRouted::NoRoute { name: name.clone() })?;
        let without = |why: Arc<str>| NotRouted::NoBackend { route: entry.route.name.to_string(), why };
        let backends = match &entry.rule().action {
            RuleAction::Forward(backends) => backends,
            RuleAction::Fail { why, .. } => return Err(without(why.clone())),
            RuleAction::Redirect(_) | RuleAction::Respond(_) => {
                return Err(without("a connection cannot be answered here".into()));
            }
        };
        let choice = |one: &WeightedBackend| (one.weight, self.backend(&one.target));
        let route = MatchedRoute {
            name: entry.route.name.clone(),
            rule: entry.rule_position(),
            rule_name: entry.rule().name.clone(),
            at: None,
        };
        Ok(ConnectionChoices { backends: backends.iter().map(choice).collect(), route: Some(route) })
    }

    fn connection_entries(&self, destination: &Destination, client: &Client) -> Option<&[Entry]> {
        let tables = self.tables(&destination.service()?.name)?;
        let namespace = client.peer.identity().map(|identity| identity.namespace());
        tables.connection_entries(namespace, destination.port)
    }

    /// Whom a reference of a route means.
    pub(super) fn backend(&self, target: &BackendTarget) -> Result<Backend, Arc<str>> {
        let (service, port, subset) = match target {
            BackendTarget::Service { service, port, subset } => (service, *port, subset),
            BackendTarget::Invalid { why, .. } => return Err(why.clone()),
        };
        let Some(found) = self.mesh().service(service) else {
            return Err(format!("service {service} is not known").into());
        };
        let Some(mapping) = found.ports.iter().find(|mapping| mapping.service_port == port) else {
            return Err(format!("service {service} has no port {port}").into());
        };
        Ok(Backend {
            place: Place::Service(found.clone()),
            address: None,
            port,
            subset: subset.clone().map(|name| SubsetName { service: service.clone(), name }),
            protocol: mapping.app_protocol,
        })
    }
}

/// Without a route a connection goes where it was sent.
pub(super) fn as_dialled(destination: &Destination) -> Backend {
    let Destination { place, address, port, protocol } = destination.clone();
    Backend { place, address: address.map(|at| at.ip()), port, subset: None, protocol }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::*;
    use crate::http::testing::{backend, client, route, rule, snapshot, to, web, web_v2};
    use crate::http::{HostPattern, HttpChange, Parent, Route, RouteName, RouteRule};

    fn of_kind(kind: RouteKind, namespace: &str, hosts: &[HostPattern], rule: RouteRule) -> HttpChange {
        let name = RouteName { kind, namespace: namespace.into(), name: "r".into() };
        let parents = vec![Parent { service: web(), port: Some(80) }];
        Route { name, parents, hostnames: hosts.to_vec(), ..route("r", vec![rule]) }.into()
    }

    fn goes(changes: Vec<HttpChange>, at: &str, name: Option<&str>) -> Result<String, String> {
        let snapshot = snapshot(changes);
        let rng = &mut SmallRng::seed_from_u64(1);
        let routed = snapshot.route_connection(&to(&snapshot, at), &client("cart"), name, rng);
        routed.map_err(|error| error.to_string()).map(|backend| match backend.place {
            Place::Service(service) => service.short_name.to_string(),
            Place::Workload(workload) => workload.uid.to_string(),
        })
    }

    #[test]
    fn a_connection_goes_by_its_routes_or_as_it_was_dialled() {
        let tcp = || of_kind(RouteKind::Tcp, "shop", &[], rule(vec![], &web_v2()));
        assert_eq!(goes(vec![], "10.96.0.1:80", None).unwrap(), "web");
        assert_eq!(goes(vec![tcp()], "10.96.0.1:80", None).unwrap(), "web-v2");
        assert_eq!(goes(vec![tcp()], "10.96.0.1:81", None).unwrap(), "web", "another port");
        let of_requests = route("r", vec![rule(vec![], &web_v2())]).into();
        assert_eq!(goes(vec![of_requests], "10.96.0.1:80", None).unwrap(), "web");
        let elsewhere = of_kind(RouteKind::Tcp, "bank", &[], rule(vec![], &web_v2()));
        assert_eq!(goes(vec![elsewhere], "10.96.0.1:80", None).unwrap(), "web", "of other clients");
        let nobody =
            RouteRule { action: RuleAction::Forward(vec![backend(&web(), 0)]), ..rule(vec![], &web()) };
        let error = goes(vec![of_kind(RouteKind::Tcp, "shop", &[], nobody)], "10.96.0.1:80", None);
        assert_eq!(error.unwrap_err(), "TCPRoute/shop/r: the rule has no backend with a weight");
    }

    #[test]
    fn a_tls_route_takes_the_names_that_it_lists() {
        let hosts = [HostPattern::Exact("a.example".into()), HostPattern::Suffix(".b.example".into())];
        let tls = || of_kind(RouteKind::Tls, "shop", &hosts, rule(vec![], &web_v2()));
        for (name, expected) in [
            (Some("a.example"), Ok("web-v2")),
            (Some("A.Example."), Ok("web-v2")),
            (Some("x.y.b.example"), Ok("web-v2")),
            (Some("b.example"), Err("no TLSRoute of this service takes b.example")),
            (None, Err("no TLSRoute of this service takes a connection without a name")),
        ] {
            let found = goes(vec![tls()], "10.96.0.1:80", name);
            assert_eq!(found.as_deref().map_err(String::as_str), expected, "{name:?}");
        }
        let every = of_kind(RouteKind::Tls, "shop", &[], rule(vec![], &web_v2()));
        assert_eq!(goes(vec![every], "10.96.0.1:80", None).unwrap(), "web-v2");
    }

    #[test]
    fn what_is_read_of_a_connection_is_what_its_routes_ask_for() {
        let of = |changes: Vec<HttpChange>| {
            let snapshot = snapshot(changes);
            snapshot.reading(&to(&snapshot, "10.96.0.1:80"), &client("cart"))
        };
        let kind = |kind| of_kind(kind, "shop", &[], rule(vec![], &web_v2()));
        assert_eq!(of(vec![]), Reading::Requests);
        assert_eq!(of(vec![kind(RouteKind::Http)]), Reading::Requests);
        assert_eq!(of(vec![kind(RouteKind::Tcp)]), Reading::Nothing);
        assert_eq!(of(vec![kind(RouteKind::Tls)]), Reading::ServerName);
    }
}
