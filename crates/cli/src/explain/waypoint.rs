//! What becomes of a request at a waypoint: pure, by the functions that it calls.

use std::net::{IpAddr, SocketAddr};

use ambit_mesh::address::Authority;
use ambit_mesh::decide::{OutboundDecision, Transport, Why};
use ambit_mesh::http::{
    Backend, Client, ConnectionChoices, Decision, Destination, Edits, Forward, Head, HeaderEdit, HttpAction,
    HttpAllowedBy, HttpConsulted, HttpDenied, MatchedRoute, NotServed, Outcome, Place, Reading,
    WaypointSnapshot, authorize_connection, consulted, decide_by, normalize,
};
use ambit_mesh::identity::SpiffeId;
use ambit_mesh::policy::{Peer, PolicyName};
use ambit_mesh::service::AppProtocol;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use waypoint::exchange::{grpc_status, keep_what_counts};
use waypoint::head::{parse_request, strip_hop_by_hop};

use super::answer::{End, PolicySays, RouteHop, Says, Sends, Share, WaypointHop};
use super::conditions;
use super::endpoint::{self, Tunnel};
use crate::configuration::Model;

/// Waypoints in front of each other: more is a circle.
const MAX_WAYPOINTS: usize = 4;

/// Who is at the far end of a tunnel to a waypoint.
pub(super) struct Seen<'a> {
    pub(super) identity: &'a SpiffeId,
    pub(super) ip: Option<IpAddr>,
}

/// A request as a client writes it.
#[derive(Clone, Debug)]
pub(super) struct RawHead {
    pub(super) method: Method,
    pub(super) authority: String,
    pub(super) target: String,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
}

/// What becomes of a request to `dialled` at one of `instances`. An error is a connection that is reset.
pub(super) fn at(
    model: &Model,
    instances: &[OutboundDecision],
    dialled: SocketAddr,
    client: &Seen<'_>,
    head: &RawHead,
    depth: usize,
) -> Result<(WaypointHop, Vec<End>), String> {
    if depth == MAX_WAYPOINTS {
        return Err(format!("more than {MAX_WAYPOINTS} waypoints are in front of each other"));
    }
    let instance = instances.first().and_then(|choice| choice.endpoint.as_ref());
    let instance = instance.ok_or("no instance of the waypoint is known")?;
    let snapshot = model.waypoint(instance).ok_or_else(|| {
        format!("{} is no instance of a waypoint: check its label and its Gateway", instance.uid)
    })?;
    let destination =
        snapshot.destination(&Authority::Address(dialled)).map_err(|error: NotServed| error.to_string())?;
    let ip = client.ip.unwrap_or(IpAddr::from([0, 0, 0, 0]));
    let seen = Client { peer: Peer::Verified(client.identity.clone()), ip };
    let hop = WaypointHop {
        gateway: snapshot.myself().gateway.to_string(),
        instance: instance.uid.to_string(),
        instances: instances.len(),
        client: client.identity.to_string(),
        protocol: protocol(destination.protocol).to_owned(),
        policies: Vec::new(),
        allowed_by: None,
        route: None,
        end: None,
        backends: Vec::new(),
    };
    let here = Here {
        model,
        snapshot: &snapshot,
        destination: &destination,
        client: &seen,
        original: client.identity,
        identity: &instance.identity,
        ip: instance.addresses.first().copied().unwrap_or(ip),
        depth,
    };
    match (destination.protocol, snapshot.reading(&destination, &seen)) {
        (_, Reading::ServerName | Reading::Nothing) | (AppProtocol::Tcp | AppProtocol::Tls, _) => {
            here.opaque(hop, head)
        }
        (
            AppProtocol::Unknown | AppProtocol::Http11 | AppProtocol::Http2 | AppProtocol::Grpc,
            Reading::Requests,
        ) => Ok(here.request(hop, head)),
    }
}

/// What the steps at one waypoint read.
#[derive(Clone, Copy)]
struct Here<'a> {
    model: &'a Model,
    snapshot: &'a WaypointSnapshot,
    destination: &'a Destination,
    client: &'a Client,
    original: &'a SpiffeId,
    /// The waypoint's own.
    identity: &'a SpiffeId,
    ip: IpAddr,
    depth: usize,
}

impl Here<'_> {
    /// What is no HTTP: allowed or not, and sent by routes of connections or where it was sent.
    fn opaque(self, hop: WaypointHop, head: &RawHead) -> Result<(WaypointHop, Vec<End>), String> {
        let asked = consulted(self.snapshot, self.destination, self.client, None);
        let permit = match authorize_connection(self.snapshot, self.destination, self.client) {
            Ok(permit) => permit,
            Err(denied) => {
                let end = End::Reset { reason: denied.to_string() };
                let policies = says(&asked, decided_by(&denied));
                return Ok((WaypointHop { policies, end: Some(end.clone()), ..hop }, vec![end]));
            }
        };
        let hop = WaypointHop {
            policies: says(&asked, allowed_by(permit.allowed_by())),
            allowed_by: Some(permit.allowed_by().to_string()),
            ..hop
        };
        // What a client of TLS would name is the host that it asks for.
        let name = head.authority.rsplit_once(':').map_or(head.authority.as_str(), |(host, _)| host);
        let choices = self.snapshot.connection_choices(self.destination, self.client, Some(name));
        let ConnectionChoices { backends, route } = match choices {
            Ok(choices) => choices,
            Err(error) => {
                let end = End::Reset { reason: error.to_string() };
                return Ok((WaypointHop { end: Some(end.clone()), ..hop }, vec![end]));
            }
        };
        let total: u64 = backends.iter().map(|(weight, _)| u64::from(*weight)).sum();
        if total == 0 {
            let end = End::Reset { reason: "the rule has no backend with a weight".to_owned() };
            return Ok((WaypointHop { end: Some(end.clone()), ..hop }, vec![end]));
        }
        let mut hop = WaypointHop { route: route.as_ref().map(|matched| self.route(matched)), ..hop };
        let mut all = Vec::new();
        for (weight, backend) in backends {
            let (mut share, mut ends) = match backend {
                Ok(backend) => {
                    let share = Share { backend: named(&backend), ..share(weight, total) };
                    self.onward(share, &backend, head)
                }
                Err(why) => {
                    let end = End::Reset { reason: why.to_string() };
                    let backend = "no usable backend".to_owned();
                    (Share { backend, end: Some(end.clone()), ..share(weight, total) }, vec![end])
                }
            };
            // There is nobody to answer: what fails is reset.
            let as_reset = |end: &mut End| {
                if let End::Answered { reason, .. } = end {
                    *end = End::Reset { reason: std::mem::take(reason) };
                }
            };
            ends.iter_mut().chain(share.endpoints.iter_mut().map(|hop| &mut hop.end)).for_each(as_reset);
            share.end.iter_mut().for_each(as_reset);
            if weight > 0 {
                all.extend(ends);
            }
            hop.backends.push(share);
        }
        Ok((hop, all))
    }

    fn request(self, hop: WaypointHop, raw: &RawHead) -> (WaypointHop, Vec<End>) {
        let headers = match received(raw) {
            Ok(headers) => headers,
            Err((status, reason)) => {
                let end = End::Answered { status, grpc_status: None, reason };
                return (WaypointHop { end: Some(end.clone()), ..hop }, vec![end]);
            }
        };
        let head =
            Head { method: &raw.method, authority: &raw.authority, target: &raw.target, headers: &headers };
        let is_grpc = headers
            .get(header::CONTENT_TYPE)
            .is_some_and(|content| content.as_bytes().starts_with(b"application/grpc"));
        let mut weights = Vec::new();
        let first = decide_by(self.snapshot, self.destination, self.client, &head, |backends| {
            weights = backends.iter().map(|backend| backend.weight).collect();
            backends.iter().position(|backend| backend.weight > 0)
        });
        let path = normalize(&raw.target).ok();
        let asked =
            path.map(|path| consulted(self.snapshot, self.destination, self.client, Some((&head, &path))));
        let asked = asked.unwrap_or_default();
        let hop = WaypointHop { route: first.route.as_ref().map(|matched| self.route(matched)), ..hop };
        let Decision { outcome, .. } = first;
        let total: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
        if total == 0 {
            return self.one(hop, outcome, (&asked, is_grpc), raw);
        }
        let mut hop = hop;
        let mut ends = Vec::new();
        for (at, weight) in weights.iter().enumerate() {
            let decided = decide_by(self.snapshot, self.destination, self.client, &head, |_| Some(at));
            if let Outcome::Forward(forward) = &decided.outcome {
                hop.policies = says(&asked, allowed_by(forward.permit.allowed_by()));
                hop.allowed_by = Some(forward.permit.allowed_by().to_string());
            }
            let (made, of_share) = self.share(share(*weight, total), decided.outcome, is_grpc, raw);
            hop.backends.push(made);
            if *weight > 0 {
                ends.extend(of_share);
            }
        }
        if hop.policies.is_empty() {
            hop.policies = says(&asked, None);
        }
        (hop, ends)
    }

    /// Where nothing is left to chance.
    fn one(
        self,
        hop: WaypointHop,
        outcome: Outcome,
        (asked, is_grpc): (&[HttpConsulted], bool),
        raw: &RawHead,
    ) -> (WaypointHop, Vec<End>) {
        let decided_by = match &outcome {
            Outcome::Forward(forward) => allowed_by(forward.permit.allowed_by()),
            Outcome::Deny(denied) => decided_by(denied),
            Outcome::Redirect { .. }
            | Outcome::Respond { .. }
            | Outcome::NoRoute
            | Outcome::NoBackend { .. }
            | Outcome::Refuse { .. } => None,
        };
        let mut hop = WaypointHop { policies: says(asked, decided_by), ..hop };
        match outcome {
            Outcome::Forward(forward) => {
                hop.allowed_by = Some(forward.permit.allowed_by().to_string());
                let (made, ends) = self.share(share(1, 1), Outcome::Forward(forward), is_grpc, raw);
                hop.backends.push(made);
                (hop, ends)
            }
            other @ (Outcome::Deny(_)
            | Outcome::Redirect { .. }
            | Outcome::Respond { .. }
            | Outcome::NoRoute
            | Outcome::NoBackend { .. }
            | Outcome::Refuse { .. }) => {
                let end = answered(&other, is_grpc);
                hop.end = Some(end.clone());
                (hop, vec![end])
            }
        }
    }

    fn share(self, share: Share, outcome: Outcome, is_grpc: bool, raw: &RawHead) -> (Share, Vec<End>) {
        let Outcome::Forward(forward) = outcome else {
            let end = answered(&outcome, is_grpc);
            let backend = "no usable backend".to_owned();
            return (Share { backend, end: Some(end.clone()), ..share }, vec![end]);
        };
        let share = Share {
            backend: named(&forward.backend),
            subset: forward.backend.subset.as_ref().map(|subset| subset.name.to_string()),
            sends: Some(sends(&forward, raw)),
            ..share
        };
        let mut headers: HeaderMap = raw.headers.iter().cloned().collect();
        forward.request.apply(&mut headers);
        let sent = RawHead {
            method: raw.method.clone(),
            authority: forward.authority.clone(),
            target: forward.target.clone(),
            headers: headers.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
        };
        let (mut share, mut ends) = self.onward(share, &forward.backend, &sent);
        if is_grpc {
            let all = ends.iter_mut().chain(share.endpoints.iter_mut().map(|hop| &mut hop.end));
            all.chain(share.end.iter_mut()).for_each(as_grpc);
        }
        (share, ends)
    }

    /// From here to an endpoint, or to the waypoint that the backend is bound to.
    fn onward(self, share: Share, backend: &Backend, head: &RawHead) -> (Share, Vec<End>) {
        let choices = match self.snapshot.upstream_choices(backend) {
            Ok(choices) => choices,
            Err(error) => {
                let end = End::Answered { status: 503, grpc_status: None, reason: error.to_string() };
                return (Share { end: Some(end.clone()), ..share }, vec![end]);
            }
        };
        if let Some(first) = choices.first()
            && matches!(first.why, Why::ServiceWaypoint | Why::WorkloadWaypoint)
            && let Transport::Hbone { authority, .. } = first.transport
        {
            let seen = Seen { identity: self.identity, ip: Some(self.ip) };
            return match at(self.model, &choices, authority, &seen, head, self.depth + 1) {
                Ok((hop, ends)) => (Share { through: Some(Box::new(hop)), ..share }, ends),
                Err(reason) => {
                    let end = End::Answered { status: 503, grpc_status: None, reason };
                    (Share { end: Some(end.clone()), ..share }, vec![end])
                }
            };
        }
        let tunnel = Tunnel {
            peer: self.identity,
            peer_ip: self.ip,
            speaks_for: Some(self.original),
            service: self.destination.service().map(|service| &**service),
        };
        let snapshot = self.model.snapshot();
        let hops: Vec<_> =
            choices.iter().map(|choice| endpoint::by_tunnel(snapshot, choice, &tunnel)).collect();
        let ends = hops.iter().map(|hop| hop.end.clone()).collect();
        (Share { endpoints: hops, ..share }, ends)
    }

    fn route(self, matched: &MatchedRoute) -> RouteHop {
        let route = self.snapshot.routes().find(|route| route.name == matched.name);
        let rule = route.and_then(|route| route.rules.get(matched.rule));
        let conditions = rule.and_then(|rule| rule.matches.get(matched.at?));
        RouteHop {
            route: matched.name.to_string(),
            rule: matched.rule,
            rule_name: matched.rule_name.as_ref().map(ToString::to_string),
            r#match: matched.at,
            conditions: conditions.map_or_else(|| "every request".to_owned(), conditions::text),
        }
    }
}

/// The headers that count, or the answer to a head that is refused before anything is decided.
fn received(raw: &RawHead) -> Result<HeaderMap, (u16, String)> {
    // A backend of HTTP/1.0 alone may leave the host away, which no client of today does.
    let version = if raw.authority.is_empty() { "HTTP/1.0" } else { "HTTP/1.1" };
    let mut octets = format!("{} {} {version}\r\n", raw.method, raw.target).into_bytes();
    if !raw.authority.is_empty() {
        octets.extend_from_slice(format!("host: {}\r\n", raw.authority).as_bytes());
    }
    for (name, value) in raw.headers.iter().filter(|(name, _)| *name != header::HOST) {
        octets.extend_from_slice(&[name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
    octets.extend_from_slice(b"\r\n");
    let refused = |why: String| (400, why);
    let head = match parse_request(&octets) {
        Ok(Some((_, head))) => head,
        Ok(None) => return Err(refused("the head does not end".to_owned())),
        Err(refusal) => return Err((refusal.status().as_u16(), refusal.to_string())),
    };
    let mut headers = head.headers;
    strip_hop_by_hop(&mut headers, &head.connection);
    headers.remove(header::HOST);
    headers.remove(header::EXPECT);
    keep_what_counts(&mut headers);
    Ok(headers)
}

fn share(weight: u32, of: u64) -> Share {
    Share {
        weight,
        of,
        backend: String::new(),
        subset: None,
        sends: None,
        end: None,
        endpoints: Vec::new(),
        through: None,
    }
}

fn named(backend: &Backend) -> String {
    match &backend.place {
        Place::Service(service) => {
            format!("{}/{}:{}", service.name.namespace, service.short_name, backend.port)
        }
        Place::Workload(workload) => format!("{}/{}:{}", workload.namespace, workload.name, backend.port),
    }
}

fn sends(forward: &Forward, raw: &RawHead) -> Sends {
    let mut rewritten = Vec::new();
    if forward.target != raw.target {
        rewritten.push(format!("path {} becomes {}", raw.target, forward.target));
    }
    if forward.authority != raw.authority {
        rewritten.push(format!("Host {} becomes {}", raw.authority, forward.authority));
    }
    let milliseconds = |limit: std::time::Duration| u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
    Sends {
        target: forward.target.clone(),
        authority: forward.authority.clone(),
        rewritten,
        request_headers: edits(&forward.request),
        response_headers: edits(&forward.response),
        timeout_ms: forward.timeouts.request.map(milliseconds),
        try_timeout_ms: forward.timeouts.backend_request.map(milliseconds),
    }
}

fn edits(edits: &Edits) -> Vec<String> {
    let value = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let text = |edit: &HeaderEdit| match edit {
        HeaderEdit::Set(name, to) => format!("set {name}: {}", value(to)),
        HeaderEdit::Add(name, more) => format!("add {name}: {}", value(more)),
        HeaderEdit::Remove(name) => format!("remove {name}"),
    };
    edits.headers.iter().map(text).collect()
}

/// What the client is answered, where nothing is forwarded.
fn answered(outcome: &Outcome, is_grpc: bool) -> End {
    let (status, reason) = match outcome {
        Outcome::Forward(_) => (200, "forwarded".to_owned()),
        Outcome::Redirect { status, location, .. } => (*status, format!("redirected to {location}")),
        Outcome::Respond { status, .. } => (*status, "the route's own answer".to_owned()),
        Outcome::Deny(denied) => (403, denied.to_string()),
        Outcome::NoRoute => (404, "the Service has routes, and none takes this request".to_owned()),
        Outcome::NoBackend { status, why } => (*status, why.to_string()),
        Outcome::Refuse { status, why } => (*status, why.clone()),
    };
    let mut end = End::Answered { status, grpc_status: None, reason };
    if is_grpc {
        as_grpc(&mut end);
    }
    end
}

/// gRPC's clients are told in their own terms.
fn as_grpc(end: &mut End) {
    if let End::Answered { status, grpc_status: of_grpc, .. } = end
        && let Ok(status) = http::StatusCode::from_u16(*status)
    {
        *of_grpc = Some(grpc_status(status));
    }
}

fn allowed_by(by: &HttpAllowedBy) -> Option<&PolicyName> {
    match by {
        HttpAllowedBy::Rule { policy, .. } => Some(policy),
        HttpAllowedBy::NoAllowPolicy => None,
    }
}

fn decided_by(denied: &HttpDenied) -> Option<&PolicyName> {
    match denied {
        HttpDenied::ByRule { policy, .. }
        | HttpDenied::NoAuthorizer { policy, .. }
        | HttpDenied::AmbiguousPath { policy, .. } => Some(policy),
        HttpDenied::NoneAllowed { .. } => None,
    }
}

fn says(asked: &[HttpConsulted], decided_by: Option<&PolicyName>) -> Vec<PolicySays> {
    let one = |asked: &HttpConsulted| {
        // Every reading of a path must be allowed, and none denied.
        let rule = match asked.action {
            HttpAction::Deny | HttpAction::Custom => asked.rule.or(asked.decoded_rule),
            HttpAction::Allow => asked.rule.filter(|_| asked.decoded_rule.is_some()),
            HttpAction::Audit => asked.rule,
        };
        let says = match (rule, asked.action, asked.dry_run) {
            (None, _, _) => Says::Nothing,
            (Some(_), HttpAction::Audit, _) => Says::Audits,
            (Some(_), HttpAction::Allow, false) => Says::Allows,
            (Some(_), HttpAction::Allow, true) => Says::WouldAllow,
            (Some(_), HttpAction::Deny | HttpAction::Custom, false) => Says::Denies,
            (Some(_), HttpAction::Deny | HttpAction::Custom, true) => Says::WouldDeny,
        };
        PolicySays {
            policy: asked.policy.to_string(),
            action: asked.action.as_str().to_owned(),
            dry_run: asked.dry_run,
            rule,
            says,
            decides: !asked.dry_run && decided_by == Some(&asked.policy),
        }
    };
    asked.iter().map(one).collect()
}

fn protocol(declared: AppProtocol) -> &'static str {
    match declared {
        AppProtocol::Unknown => "HTTP, by the first octets",
        AppProtocol::Http11 => "HTTP/1.1",
        AppProtocol::Http2 => "HTTP/2",
        AppProtocol::Grpc => "gRPC",
        AppProtocol::Tcp => "opaque TCP",
        AppProtocol::Tls => "opaque TLS",
    }
}
