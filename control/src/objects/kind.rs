//! Kinds of objects: the ones that control understands, and all others by name.

use std::fmt;
use std::sync::Arc;

/// The kind of an object.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A kind that control understands.
    Known(KnownKind),
    /// Any other kind: reported and left alone.
    Foreign {
        /// The API group, empty for the core group.
        group: Arc<str>,
        /// The kind.
        kind: Arc<str>,
    },
}

/// The kinds that control understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the variants are the kinds' names")]
pub enum KnownKind {
    Namespace,
    Node,
    Pod,
    Service,
    EndpointSlice,
    ServiceAccount,
    AuthorizationPolicy,
    PeerAuthentication,
    ServiceCidr,
    Gateway,
    HttpRoute,
    GrpcRoute,
    TcpRoute,
    TlsRoute,
    VirtualService,
    DestinationRule,
    ServiceEntry,
}

/// Whether objects of a kind live in a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// They live in a namespace.
    Namespaced,
    /// They belong to the cluster.
    Cluster,
}

impl Kind {
    /// The kind that `kind` names in an API group.
    pub fn of(group: &str, kind: &str) -> Self {
        KnownKind::ALL
            .into_iter()
            .find(|known| known.group() == group && known.name() == kind)
            .map_or_else(|| Self::Foreign { group: group.into(), kind: kind.into() }, Self::Known)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Known(known) => f.write_str(known.name()),
            Self::Foreign { group, kind } if group.is_empty() => f.write_str(kind),
            Self::Foreign { group, kind } => write!(f, "{kind}.{group}"),
        }
    }
}

impl KnownKind {
    /// All of them.
    pub const ALL: [Self; 17] = [
        Self::Namespace,
        Self::Node,
        Self::Pod,
        Self::Service,
        Self::EndpointSlice,
        Self::ServiceAccount,
        Self::AuthorizationPolicy,
        Self::PeerAuthentication,
        Self::ServiceCidr,
        Self::Gateway,
        Self::HttpRoute,
        Self::GrpcRoute,
        Self::TcpRoute,
        Self::TlsRoute,
        Self::VirtualService,
        Self::DestinationRule,
        Self::ServiceEntry,
    ];

    /// The kind's name, as `kind:` has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Namespace => "Namespace",
            Self::Node => "Node",
            Self::Pod => "Pod",
            Self::Service => "Service",
            Self::EndpointSlice => "EndpointSlice",
            Self::ServiceAccount => "ServiceAccount",
            Self::AuthorizationPolicy => "AuthorizationPolicy",
            Self::PeerAuthentication => "PeerAuthentication",
            Self::ServiceCidr => "ServiceCIDR",
            Self::Gateway => "Gateway",
            Self::HttpRoute => "HTTPRoute",
            Self::GrpcRoute => "GRPCRoute",
            Self::TcpRoute => "TCPRoute",
            Self::TlsRoute => "TLSRoute",
            Self::VirtualService => "VirtualService",
            Self::DestinationRule => "DestinationRule",
            Self::ServiceEntry => "ServiceEntry",
        }
    }

    /// The kind's name in paths of an API server.
    pub fn plural(self) -> &'static str {
        match self {
            Self::Namespace => "namespaces",
            Self::Node => "nodes",
            Self::Pod => "pods",
            Self::Service => "services",
            Self::EndpointSlice => "endpointslices",
            Self::ServiceAccount => "serviceaccounts",
            Self::AuthorizationPolicy => "authorizationpolicies",
            Self::PeerAuthentication => "peerauthentications",
            Self::ServiceCidr => "servicecidrs",
            Self::Gateway => "gateways",
            Self::HttpRoute => "httproutes",
            Self::GrpcRoute => "grpcroutes",
            Self::TcpRoute => "tcproutes",
            Self::TlsRoute => "tlsroutes",
            Self::VirtualService => "virtualservices",
            Self::DestinationRule => "destinationrules",
            Self::ServiceEntry => "serviceentries",
        }
    }

    /// The API group; empty for the core group.
    pub fn group(self) -> &'static str {
        match self {
            Self::Namespace | Self::Node | Self::Pod | Self::Service | Self::ServiceAccount => "",
            Self::EndpointSlice => "discovery.k8s.io",
            Self::AuthorizationPolicy | Self::PeerAuthentication => "security.istio.io",
            Self::ServiceCidr => "networking.k8s.io",
            Self::Gateway | Self::HttpRoute | Self::GrpcRoute | Self::TcpRoute | Self::TlsRoute => {
                "gateway.networking.k8s.io"
            }
            Self::VirtualService | Self::DestinationRule | Self::ServiceEntry => "networking.istio.io",
        }
    }

    /// The versions that are read, the preferred one first.
    pub fn versions(self) -> &'static [&'static str] {
        match self {
            Self::Namespace
            | Self::Node
            | Self::Pod
            | Self::Service
            | Self::ServiceAccount
            | Self::EndpointSlice => &["v1"],
            Self::AuthorizationPolicy
            | Self::PeerAuthentication
            | Self::ServiceCidr
            | Self::Gateway
            | Self::HttpRoute => &["v1", "v1beta1"],
            Self::GrpcRoute => &["v1"],
            Self::TcpRoute => &["v1", "v1alpha2"],
            Self::TlsRoute => &["v1", "v1alpha3", "v1alpha2"],
            Self::VirtualService | Self::DestinationRule | Self::ServiceEntry => {
                &["v1", "v1beta1", "v1alpha3"]
            }
        }
    }

    /// Whether objects of this kind live in a namespace.
    pub fn scope(self) -> Scope {
        match self {
            Self::Namespace | Self::Node | Self::ServiceCidr => Scope::Cluster,
            Self::Pod
            | Self::Service
            | Self::EndpointSlice
            | Self::ServiceAccount
            | Self::AuthorizationPolicy
            | Self::PeerAuthentication
            | Self::Gateway
            | Self::HttpRoute
            | Self::GrpcRoute
            | Self::TcpRoute
            | Self::TlsRoute
            | Self::VirtualService
            | Self::DestinationRule
            | Self::ServiceEntry => Scope::Namespaced,
        }
    }
}
