//! What becomes of a request: the one question that a waypoint asks for each.

use std::net::IpAddr;
use std::sync::Arc;

use rand::Rng;

use super::authorize::{HttpDenied, HttpPermit, HttpVerdict, authorize, host_of, verdicts};
use super::client::{Client, Head};
use super::connection::as_dialled;
use super::destination::{Destination, Place};
use super::edits::{Edits, rewritten};
use super::matching::{Request, first};
use super::normalize::{Path, normalize};
use super::redirect::location;
use super::route::{Filters, HeaderEdits, RouteName, RuleAction, Timeouts, WeightedBackend};
use super::snapshot::{SubsetName, WaypointSnapshot};
use super::table::Entry;
use crate::balance;
use crate::service::AppProtocol;

/// What becomes of a request, and by which objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What is to be done.
    pub outcome: Outcome,
    /// The route that took it; `None` where the service has none, or it was not asked.
    pub route: Option<MatchedRoute>,
    /// What policies say that do not decide, for the log.
    pub verdicts: Vec<HttpVerdict>,
}

/// The route that took a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MatchedRoute {
    /// The object.
    pub name: RouteName,
    /// The rule's position, from 0.
    pub rule: usize,
    /// The rule's own name.
    pub rule_name: Option<Arc<str>>,
    /// The position of the match in the rule, from 0; `None` for a rule without matches.
    pub at: Option<usize>,
}

/// What is to be done with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Send it on.
    Forward(Box<Forward>),
    /// Answer with a redirect.
    Redirect {
        /// The status.
        status: u16,
        /// The `Location` header.
        location: String,
        /// Changes of the answer's headers.
        response: Edits,
    },
    /// Answer with this.
    Respond {
        /// The status.
        status: u16,
        /// The body.
        body: Arc<[u8]>,
        /// Changes of the answer's headers.
        response: Edits,
    },
    /// Policy forbids it: 403 with the body `RBAC: access denied`.
    Deny(HttpDenied),
    /// The service has routes and none takes it: 404 without a body.
    NoRoute,
    /// The rule has no usable backend.
    NoBackend {
        /// The status, such as 500.
        status: u16,
        /// What is wrong, for the log.
        why: Arc<str>,
    },
    /// It cannot be decided.
    Refuse {
        /// The status, such as 400.
        status: u16,
        /// What is wrong, for the log.
        why: String,
    },
}

/// A request that is sent on, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forward {
    /// The leave to do so.
    pub permit: HttpPermit,
    /// To whom: see [`WaypointSnapshot::upstream`].
    pub backend: Backend,
    /// The path and query to send, and no other.
    pub target: String,
    /// The authority to send.
    pub authority: String,
    /// Changes of the request's headers.
    pub request: Edits,
    /// Changes of the response's headers.
    pub response: Edits,
    /// How long it may take.
    pub timeouts: Timeouts,
}

/// Who takes a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// A service, or the very workload that was dialled.
    pub place: Place,
    /// The address that was dialled, of a workload.
    pub address: Option<IpAddr>,
    /// The port: of the service, or of the workload.
    pub port: u16,
    /// A part of the service's endpoints.
    pub subset: Option<SubsetName>,
    /// The protocol that is declared for the port.
    pub protocol: AppProtocol,
}

/// Decides what becomes of a request to `destination`.
///
/// Istio's order: policy first, on the request as it was sent, then routes.
pub fn decide(
    snapshot: &WaypointSnapshot,
    destination: &Destination,
    client: &Client,
    head: &Head<'_>,
    rng: &mut (impl Rng + ?Sized),
) -> Decision {
    let by_weight =
        |backends: &[WeightedBackend]| balance::pick_position(backends, |backend| backend.weight, rng);
    decide_by(snapshot, destination, client, head, by_weight)
}

/// The same where `pick` says which of a rule's backends takes the request, by its position: for whoever
/// asks what becomes of each share.
pub fn decide_by(
    snapshot: &WaypointSnapshot,
    destination: &Destination,
    client: &Client,
    head: &Head<'_>,
    pick: impl FnOnce(&[WeightedBackend]) -> Option<usize>,
) -> Decision {
    let undecided = |outcome| Decision { outcome, route: None, verdicts: Vec::new() };
    let path = match normalize(head.target) {
        Ok(path) => path,
        Err(invalid) => return undecided(Outcome::Refuse { status: 400, why: invalid.to_string() }),
    };
    if !is_authority(head.authority) {
        let why = "the authority is not a host with an optional port".to_owned();
        return undecided(Outcome::Refuse { status: 400, why });
    }
    let verdicts = verdicts(snapshot, destination, client, head, &path);
    let permit = match authorize(snapshot, destination, client, head, &path) {
        Ok(permit) => permit,
        Err(denied) => return Decision { outcome: refusal(denied), route: None, verdicts },
    };
    let call = Call { snapshot, destination, head, path: &path };
    let Some(entries) = call.entries(client) else {
        return Decision { outcome: call.to_destination(permit), route: None, verdicts };
    };
    let host = host_of(head.authority).to_ascii_lowercase();
    let request = Request {
        method: head.method,
        host: &host,
        path: path.path(),
        query: path.query(),
        headers: head.headers,
        port: destination.port,
        client_namespace: client.peer.identity().map(|identity| identity.namespace()),
    };
    let Some(entry) = first(entries, &request) else {
        return Decision { outcome: Outcome::NoRoute, route: None, verdicts };
    };
    let route = MatchedRoute {
        name: entry.route.name.clone(),
        rule: entry.rule_position(),
        rule_name: entry.rule().name.clone(),
        at: entry.match_position(),
    };
    Decision { outcome: call.by_rule(entry, permit, pick), route: Some(route), verdicts }
}

fn refusal(denied: HttpDenied) -> Outcome {
    match denied {
        HttpDenied::AmbiguousPath { .. } => Outcome::Refuse { status: 400, why: denied.to_string() },
        HttpDenied::ByRule { .. } | HttpDenied::NoAuthorizer { .. } | HttpDenied::NoneAllowed { .. } => {
            Outcome::Deny(denied)
        }
    }
}

/// RFC 9110 §4.2.4: user information in an authority is an error. An HTTP/1.0 request has none.
fn is_authority(authority: &str) -> bool {
    authority
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b':' | b'[' | b']'))
}

/// One call of [`decide`]: what its steps read.
#[derive(Clone, Copy)]
struct Call<'a> {
    snapshot: &'a WaypointSnapshot,
    destination: &'a Destination,
    head: &'a Head<'a>,
    path: &'a Path,
}

impl<'a> Call<'a> {
    fn entries(self, client: &Client) -> Option<&'a [Entry]> {
        let tables = self.snapshot.tables(&self.destination.service()?.name)?;
        let namespace = client.peer.identity().map(|identity| identity.namespace());
        tables.entries(namespace, self.destination.port)
    }

    /// Without a route a request goes where it was sent.
    fn to_destination(self, permit: HttpPermit) -> Outcome {
        Outcome::Forward(Box::new(Forward {
            permit,
            backend: as_dialled(self.destination),
            target: self.path.target(self.path.path()),
            authority: self.head.authority.to_owned(),
            request: Edits::default(),
            response: Edits::default(),
            timeouts: Timeouts::default(),
        }))
    }

    fn by_rule(
        self,
        entry: &Entry,
        permit: HttpPermit,
        pick: impl FnOnce(&[WeightedBackend]) -> Option<usize>,
    ) -> Outcome {
        let rule = entry.rule();
        let cors = rule.filters.cors.as_ref();
        if let Some(told) = cors.and_then(|cors| cors.preflight(self.head)) {
            let response = Edits::of([&rule.filters.response, &told]);
            return Outcome::Respond { status: 200, body: Arc::default(), response };
        }
        let told = cors.and_then(|cors| cors.answer(self.head.headers)).unwrap_or_default();
        let response = || Edits::of([&rule.filters.response, &told]);
        match &rule.action {
            RuleAction::Forward(backends) => match pick(backends).and_then(|at| backends.get(at)) {
                Some(backend) => self.to_backend(entry, backend, &told, permit),
                None => {
                    Outcome::NoBackend { status: 500, why: "the rule has no backend with a weight".into() }
                }
            },
            RuleAction::Redirect(redirect) => {
                let condition = entry.conditions().map(|conditions| &conditions.path);
                let Self { destination, head, path, .. } = self;
                let location = location(redirect, head.authority, destination.port, path, condition);
                Outcome::Redirect { status: redirect.status, location, response: response() }
            }
            RuleAction::Respond(answer) => {
                Outcome::Respond { status: answer.status, body: answer.body.clone(), response: response() }
            }
            RuleAction::Fail { status, why } => Outcome::NoBackend { status: *status, why: why.clone() },
        }
    }

    fn to_backend(
        self,
        entry: &Entry,
        backend: &WeightedBackend,
        told: &HeaderEdits,
        permit: HttpPermit,
    ) -> Outcome {
        let found = match self.snapshot.backend(&backend.target) {
            Ok(found) => found,
            Err(why) => return Outcome::NoBackend { status: backend.target.failing_status(), why },
        };
        let rule = entry.rule();
        let filters: [&Filters; 2] = [&rule.filters, &backend.filters];
        let (target, authority) = self.rewritten(entry, filters);
        Outcome::Forward(Box::new(Forward {
            permit,
            backend: found,
            target,
            authority,
            request: Edits::of(filters.map(|filters| &filters.request)),
            // The backend's own come first: they are nearer to it. What browsers are told has the last word.
            response: Edits::of([&backend.filters.response, &rule.filters.response, told]),
            timeouts: rule.timeouts,
        }))
    }

    /// What is sent: the backend's own rewrite takes the place of the rule's.
    fn rewritten(self, entry: &Entry, [rule, backend]: [&Filters; 2]) -> (String, String) {
        let condition = entry.conditions().map(|conditions| &conditions.path);
        let path = backend.rewrite.path.as_ref().or(rule.rewrite.path.as_ref());
        let path = path.map(|rewrite| rewritten(rewrite, condition, self.path.path()));
        let host = backend.rewrite.host.as_deref().or(rule.rewrite.host.as_deref());
        let target = self.path.target(path.as_deref().unwrap_or(self.path.path()));
        (target, host.unwrap_or(self.head.authority).to_owned())
    }
}

#[cfg(test)]
mod tests;
