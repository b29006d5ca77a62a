//! VirtualService -> [`Route`], and DestinationRule -> `Subset`.

mod delegation;
mod hosts;
mod rules;
mod subsets;

use std::collections::BTreeSet;
use std::sync::Arc;

use ambit_mesh::address::ServiceName;
use ambit_mesh::http::{Order, Parent, Route, RouteKind, RouteName};

use self::delegation::Delegates;
use self::hosts::{Claim, Claims};
use self::rules::Rules;
use super::ForWaypoints;
use super::routes::{Report, created};
use crate::objects::VirtualService;
use crate::translate::view::{Named, View};
use crate::translate::{Reason, Settings};

/// Translates all of them. What has a route of the Gateway API is left to it.
pub(in crate::translate) fn translate(
    view: &View<'_>,
    settings: &Settings,
    report: &mut Report<'_>,
    out: &mut ForWaypoints,
) {
    let subsets = subsets::defined(view, report);
    let routed = out.routes.values().flat_map(|route| &route.parents);
    let routed: BTreeSet<ServiceName> = routed.map(|parent| parent.service.clone()).collect();
    let delegates = Delegates::of(view);
    let claims = Claims::of(view, &routed, report);
    for written in &view.virtual_services {
        note_left_out(written, report);
        if written.object.spec.hosts.is_empty() {
            delegates.note(written, report);
            continue;
        }
        let held = claims.of_object(written);
        let ports = held.iter().flat_map(|claim| claim.service.object.tcp_ports()).map(|port| port.port);
        let ports = ports.collect();
        let rules =
            Rules { view, subsets: &subsets, delegates: &delegates, namespace: written.namespace(), ports };
        let (rules, problems) = rules.translate(&written.object.spec.http);
        for (reason, message) in problems {
            report.notes.add(written.key, reason, message);
        }
        // What says nothing of HTTP leaves it as it is.
        if !held.is_empty() && !written.object.spec.http.is_empty() {
            let route = route(written, &held, rules);
            out.routes.insert(route.name.clone(), Arc::new(route));
        }
    }
    subsets::add(&subsets, view, settings, out);
}

fn route(
    written: &Named<'_, VirtualService>,
    held: &[&Claim<'_>],
    rules: Vec<ambit_mesh::http::RouteRule>,
) -> Route {
    Route {
        name: RouteName {
            kind: RouteKind::VirtualService,
            namespace: written.namespace().into(),
            name: written.key.name.clone(),
        },
        created: created(&written.object.metadata),
        order: Order::AsWritten,
        parents: held.iter().map(|claim| Parent { service: claim.name.clone(), port: None }).collect(),
        hostnames: Vec::new(),
        rules,
    }
}

fn note_left_out(written: &Named<'_, VirtualService>, report: &mut Report<'_>) {
    let spec = &written.object.spec;
    let fields = [("tcp", &spec.tcp), ("tls", &spec.tls)];
    let set: Vec<&str> = fields.iter().filter(|(_, value)| value.is_some()).map(|(name, _)| *name).collect();
    if !set.is_empty() {
        let message = format!("not carried out: {}; TCPRoute and TLSRoute are", set.join(", "));
        report.notes.add(written.key, Reason::NoEffect, message);
    }
}
