//! Routes as `control` sends them: one for each object of a user.
//!
//! Which of them takes a request is `table`'s part.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method};

use super::cors::Cors;
use super::text::{Pattern, Substitution, ValueMatch};
use crate::address::ServiceName;

/// One route: an HTTPRoute, a GRPCRoute, a TCPRoute, a TLSRoute or the routing part of a VirtualService.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Which object it is.
    pub name: RouteName,
    /// When the object was made, in seconds since 1970: of two equal matches the older route's counts.
    pub created: i64,
    /// How its matches stand to those of other routes.
    pub order: Order,
    /// The services whose traffic it takes.
    pub parents: Vec<Parent>,
    /// The host names that it takes, of a TLSRoute those that TLS names; none is any.
    pub hostnames: Vec<HostPattern>,
    /// Its rules.
    pub rules: Vec<RouteRule>,
}

impl Route {
    /// The services that its rules lead to; one may come several times.
    pub fn backends(&self) -> impl Iterator<Item = &ServiceName> {
        let forwarded = self.rules.iter().filter_map(|rule| match &rule.action {
            RuleAction::Forward(backends) => Some(backends),
            RuleAction::Redirect(_) | RuleAction::Respond(_) | RuleAction::Fail { .. } => None,
        });
        forwarded.flatten().filter_map(|backend| match &backend.target {
            BackendTarget::Service { service, .. } => Some(service),
            BackendTarget::Invalid { .. } => None,
        })
    }
}

/// Which object a route is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RouteName {
    /// Its kind.
    pub kind: RouteKind,
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
}

impl fmt::Display for RouteName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.kind.as_str(), self.namespace, self.name)
    }
}

/// The kind of a route's object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RouteKind {
    /// HTTPRoute of the Gateway API.
    Http,
    /// GRPCRoute of the Gateway API.
    Grpc,
    /// VirtualService of Istio.
    VirtualService,
    /// TCPRoute of the Gateway API.
    Tcp,
    /// TLSRoute of the Gateway API.
    Tls,
}

impl RouteKind {
    /// Every kind.
    pub const ALL: [Self; 5] = [Self::Http, Self::Grpc, Self::VirtualService, Self::Tcp, Self::Tls];

    /// The kind as users write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "HTTPRoute",
            Self::Grpc => "GRPCRoute",
            Self::VirtualService => "VirtualService",
            Self::Tcp => "TCPRoute",
            Self::Tls => "TLSRoute",
        }
    }

    /// Whether it is of connections, whose requests are not read.
    pub fn is_of_connections(self) -> bool {
        match self {
            Self::Http | Self::Grpc | Self::VirtualService => false,
            Self::Tcp | Self::Tls => true,
        }
    }
}

/// How the matches of a route stand to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// The most specific match counts (Gateway API).
    MostSpecific,
    /// The first rule that matches counts (VirtualService).
    AsWritten,
}

/// A service whose traffic a route takes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Parent {
    /// The service.
    pub service: ServiceName,
    /// Its port; `None` is all of them.
    pub port: Option<u16>,
}

/// A host name, or `*.` and the end of one. In lower case.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HostPattern {
    /// The whole name.
    Exact(Arc<str>),
    /// Names of one label or more before this end, which begins with a dot.
    Suffix(Arc<str>),
}

/// One rule of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteRule {
    /// Its own name, if it has one.
    pub name: Option<Arc<str>>,
    /// Any of them may match; none is every request.
    pub matches: Vec<RouteMatch>,
    /// What becomes of a request.
    pub action: RuleAction,
    /// What is changed on the way, whatever the backend.
    pub filters: Filters,
    /// How long it may take.
    pub timeouts: Timeouts,
}

/// Conditions on a request; all must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouteMatch {
    /// The path, without the query.
    pub path: PathMatch,
    /// The method; `None` is any.
    pub method: Option<Method>,
    /// Headers.
    pub headers: Vec<HeaderMatch>,
    /// Query parameters.
    pub query: Vec<QueryMatch>,
    /// The authority as it was sent, without its port (VirtualService).
    pub authority: Option<ValueMatch>,
    /// The service port (VirtualService).
    pub port: Option<u16>,
    /// The client's namespace (VirtualService).
    pub source_namespace: Option<Arc<str>>,
}

/// A condition on the path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum PathMatch {
    /// Every path.
    #[default]
    Any,
    /// The whole path.
    Exact(Arc<str>),
    /// Whole segments from the beginning: `/a` and `/a/` are the same, and match `/a` and `/a/b` but
    /// not `/ab`.
    Segments(Arc<str>),
    /// The beginning, also in the middle of a segment (VirtualService).
    Prefix(Arc<str>),
    /// The whole path, by an expression.
    Regex(Pattern),
    /// As [`Self::Exact`], without regard to ASCII case. In lower case (VirtualService).
    ExactIgnoringCase(Arc<str>),
    /// As [`Self::Prefix`], without regard to ASCII case. In lower case (VirtualService).
    PrefixIgnoringCase(Arc<str>),
}

/// A condition on a header. A header that was sent several times is compared as the values joined
/// by commas (RFC 9110 §5.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderMatch {
    /// Its name.
    pub name: HeaderName,
    /// Its value.
    pub value: ValueMatch,
    /// Holds where the comparison does not, also where the header is absent (VirtualService's
    /// `withoutHeaders`).
    pub inverted: bool,
}

/// A condition on a query parameter; its first value counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryMatch {
    /// Its name.
    pub name: Arc<str>,
    /// Its value.
    pub value: ValueMatch,
}

/// What becomes of a request that a rule takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RuleAction {
    /// It goes to one of these, by weight. None of weight above 0 is answered with 500.
    Forward(Vec<WeightedBackend>),
    /// It is answered with a redirect.
    Redirect(Redirect),
    /// It is answered here.
    Respond(DirectResponse),
    /// The rule holds something that cannot be done: it is refused rather than done by half.
    Fail {
        /// The status of the answer.
        status: u16,
        /// What cannot be done, for the log.
        why: Arc<str>,
    },
}

/// A backend and its share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightedBackend {
    /// Its share of the sum of all weights.
    pub weight: u32,
    /// Where its share goes.
    pub target: BackendTarget,
    /// What is changed on the way, after the rule's own filters.
    pub filters: Filters,
}

/// Where a share of requests goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BackendTarget {
    /// To a service.
    Service {
        /// Which.
        service: ServiceName,
        /// Its service port.
        port: u16,
        /// A named part of its endpoints.
        subset: Option<Arc<str>>,
    },
    /// Nowhere: the reference is wrong.
    Invalid {
        /// The status of the answer.
        status: u16,
        /// What is wrong, for the log.
        why: Arc<str>,
    },
}

impl BackendTarget {
    /// The status of an answer where it leads nowhere.
    pub(super) fn failing_status(&self) -> u16 {
        match self {
            Self::Service { .. } => 500,
            Self::Invalid { status, .. } => *status,
        }
    }
}

/// What is changed on the way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filters {
    /// Headers of the request.
    pub request: HeaderEdits,
    /// Headers of the response.
    pub response: HeaderEdits,
    /// Host and path of the request.
    pub rewrite: Rewrite,
    /// What browsers are told. Of a rule; a backend has none.
    pub cors: Option<Cors>,
}

/// Changes of headers, done in the order set, add, remove.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderEdits {
    /// Replaced.
    pub set: Vec<(HeaderName, HeaderValue)>,
    /// Appended to what is there.
    pub add: Vec<(HeaderName, HeaderValue)>,
    /// Taken away.
    pub remove: Vec<HeaderName>,
}

/// Changes of host and path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rewrite {
    /// The new host.
    pub host: Option<Arc<str>>,
    /// How the path changes.
    pub path: Option<PathRewrite>,
}

/// How a path changes. The query stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathRewrite {
    /// The whole path is replaced.
    Full(Arc<str>),
    /// What the match's prefix took is replaced; a match of another sort replaces the whole path.
    MatchedPrefix(Arc<str>),
    /// Every part of the path that an expression matches is replaced (VirtualService).
    Substituted(Substitution),
}

/// A redirect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// The new scheme; as it was if absent.
    pub scheme: Option<Arc<str>>,
    /// The new host; as it was if absent.
    pub host: Option<Arc<str>>,
    /// The new port.
    pub port: RedirectPort,
    /// How the path changes.
    pub path: Option<PathRewrite>,
    /// The status, such as 302.
    pub status: u16,
}

/// The port of a redirect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RedirectPort {
    /// That of the new scheme, or where there is none the one that was dialled.
    #[default]
    Usual,
    /// This one.
    Number(u16),
    /// That of the scheme, new or not.
    OfScheme,
    /// The one that was dialled.
    Dialled,
}

/// An answer that needs no backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectResponse {
    /// The status.
    pub status: u16,
    /// The body.
    pub body: Arc<[u8]>,
}

/// How long a request may take. Both hold together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timeouts {
    /// All tries together; `None` is no limit.
    pub request: Option<Duration>,
    /// Each try; `None` is no limit.
    pub backend_request: Option<Duration>,
}
