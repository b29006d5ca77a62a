//! Requests at a waypoint: which route takes one, whether policy allows it, and what is sent where.
//!
//! Reading requests, sending them and trying again are `waypoint`'s work. What the users' objects
//! mean is decided before, by `control`: what arrives here is already parsed and complete.

mod authorize;
mod client;
mod connection;
mod cors;
mod decide;
mod destination;
mod edits;
mod matching;
mod normalize;
mod policy;
mod redirect;
mod route;
mod snapshot;
mod table;
mod template;
mod text;
mod upstream;

#[cfg(test)]
mod testing;

pub use authorize::{
    HttpAllowedBy, HttpConsulted, HttpDenied, HttpPermit, HttpVerdict, authorize, authorize_connection,
    consulted,
};
pub use client::{Client, Head};
pub use connection::{ConnectionChoices, NotRouted, Reading};
pub use cors::{Cors, UnmatchedPreflight};
pub use decide::{Backend, Decision, Forward, MatchedRoute, Outcome, decide, decide_by};
pub use destination::{Destination, NotServed, Place};
pub use edits::{Edits, HeaderEdit};
pub use normalize::{Ambiguity, InvalidTarget, Path, normalize};
pub use policy::{
    Condition, HttpAction, HttpPolicy, HttpRule, Operation, PathCondition, PolicyTarget, Source,
    TemplatePart, Values,
};
pub use route::{
    BackendTarget, DirectResponse, Filters, HeaderEdits, HeaderMatch, HostPattern, Order, Parent, PathMatch,
    PathRewrite, QueryMatch, Redirect, RedirectPort, Rewrite, Route, RouteKind, RouteMatch, RouteName,
    RouteRule, RuleAction, Timeouts, WeightedBackend,
};
pub use snapshot::{GatewayName, HttpChange, Myself, Subset, SubsetName, WaypointSnapshot, WaypointState};
pub use template::{InvalidTemplate, is_path_template, path_template, path_template_text};
pub use text::{InvalidPattern, Pattern, Substitution, ValueMatch};
pub use upstream::UpstreamError;
