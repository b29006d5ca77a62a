//! Gateway API in a mesh: what its conformance profiles MESH-HTTP and MESH-GRPC ask for, and what its tests of
//! routes ask of any gateway and a waypoint can be asked too (`shared/reference/l7.md` 2b and 2c).
//!
//! Each case is a file below `conformance/cases`: objects, what their statuses say, and calls with what becomes of
//! them. A case holds when each of its calls has gone as expected three times in a row.

mod cases;
mod connections;
mod place;
mod weights;

use anyhow::{Context, Result};

use cases::Case;
pub(crate) use connections::connections_have_routes_too;
use place::Place;
pub(crate) use weights::{
    a_teams_istio_objects_work_unchanged, weights_that_are_edited_under_load_lose_nothing,
};

/// Runs cases one after the other in one mesh.
fn hold(cases: &[(&str, &str)]) -> Result<()> {
    let place = Place::open()?;
    for (name, text) in cases {
        let case: Case = serde_saphyr::from_str(text).with_context(|| format!("{name} cannot be read"))?;
        case.hold(&place, name).with_context(|| name.to_string())?;
    }
    Ok(())
}

macro_rules! cases {
    ($($name:literal,)*) => {
        &[$(($name, include_str!(concat!("conformance/cases/", $name, ".yaml"))),)*]
    };
}

pub(crate) fn services_and_their_ports_have_routes_of_their_own() -> Result<()> {
    hold(cases![
        "mesh-basic",
        "mesh-traffic-split",
        "mesh-ports",
        "mesh-frontend",
        "mesh-frontend-hostname",
        "mesh-consumer-route",
        "mesh-httproute-simple-same-namespace",
        "mesh-httproute-weight",
        "mesh-httproute-named-rule",
        "route-types-of-one-port",
    ])
}

pub(crate) fn requests_are_matched() -> Result<()> {
    hold(cases![
        "mesh-httproute-matching",
        "mesh-httproute-query-param-matching",
        "httproute-exact-path-matching",
        "httproute-path-match-order",
        "httproute-header-matching",
        "httproute-method-matching",
        "httproute-matching-across-routes",
        "grpcroute-exact-method-matching",
        "grpcroute-header-matching",
    ])
}

pub(crate) fn requests_and_answers_are_changed() -> Result<()> {
    hold(cases![
        "mesh-httproute-request-header-modifier",
        "mesh-httproute-backend-request-header-modifier",
        "mesh-httproute-rewrite-path",
        "httproute-rewrite-host",
        "httproute-response-header-modifier",
        "httproute-request-header-modifier-backend-weights",
        "mesh-grpcroute-request-header-modifier",
        "mesh-grpcroute-weight",
        "httproute-cors",
    ])
}

pub(crate) fn virtual_services_do_what_they_say() -> Result<()> {
    hold(cases!["virtual-service", "virtual-service-of-the-waypoint",])
}

pub(crate) fn requests_are_redirected() -> Result<()> {
    hold(cases![
        "mesh-httproute-redirect-host-and-status",
        "mesh-httproute-redirect-path",
        "mesh-httproute-redirect-port",
        "mesh-httproute-scheme-redirect",
        "mesh-httproute-redirect-codes",
        "httproute-redirect-port-and-scheme",
    ])
}

pub(crate) fn backends_of_every_sort_and_none() -> Result<()> {
    hold(cases![
        "httproute-omitted-backendrefs",
        "httproute-invalid-backendrefs",
        "httproute-invalid-parentrefs",
        "httproute-service-types",
        "httproute-backend-protocol-h2c",
        "httproute-timeouts",
    ])
}
