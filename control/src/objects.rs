//! The Kubernetes and Istio objects that control understands, as typed values.
//!
//! Core kinds are read leniently: fields that are not used here are skipped. Policies are read
//! strictly: a field that is not understood could widen or narrow what they mean.

pub mod authorization_policy;
pub mod endpoint_slice;
mod envelope;
pub mod gateway_api;
pub mod key;
pub mod kind;
pub mod meta;
pub mod namespace;
pub mod networking;
pub mod node;
pub mod peer_authentication;
pub mod pod;
pub mod selector;
pub mod service;
pub mod service_account;
pub mod service_cidr;
pub mod values;

use std::sync::Arc;

use serde::de::DeserializeOwned;

pub use authorization_policy::AuthorizationPolicy;
pub use endpoint_slice::EndpointSlice;
pub use gateway_api::{ConnectionRoute, Gateway, GrpcRoute, HttpRoute};
pub use key::ObjectKey;
pub use kind::{Kind, KnownKind};
pub use meta::Meta;
pub use namespace::Namespace;
pub use networking::{DestinationRule, ServiceEntry, VirtualService};
pub use node::Node;
pub use peer_authentication::PeerAuthentication;
pub use pod::Pod;
pub use service::Service;
pub use service_account::ServiceAccount;
pub use service_cidr::ServiceCidr;

use crate::source::yaml::{self, Unreadable};

/// One object of a kind that control understands.
#[derive(Clone, Debug, PartialEq)]
pub enum Object {
    /// `v1` Namespace.
    Namespace(Namespace),
    /// `v1` Node.
    Node(Node),
    /// `v1` Pod.
    Pod(Pod),
    /// `v1` Service.
    Service(Service),
    /// `discovery.k8s.io` EndpointSlice.
    EndpointSlice(EndpointSlice),
    /// `v1` ServiceAccount.
    ServiceAccount(ServiceAccount),
    /// `security.istio.io` AuthorizationPolicy.
    AuthorizationPolicy(AuthorizationPolicy),
    /// `security.istio.io` PeerAuthentication.
    PeerAuthentication(PeerAuthentication),
    /// `networking.k8s.io` ServiceCIDR.
    ServiceCidr(ServiceCidr),
    /// `gateway.networking.k8s.io` Gateway.
    Gateway(Gateway),
    /// `gateway.networking.k8s.io` HTTPRoute.
    HttpRoute(HttpRoute),
    /// `gateway.networking.k8s.io` GRPCRoute.
    GrpcRoute(GrpcRoute),
    /// `gateway.networking.k8s.io` TCPRoute.
    TcpRoute(ConnectionRoute),
    /// `gateway.networking.k8s.io` TLSRoute.
    TlsRoute(ConnectionRoute),
    /// `networking.istio.io` VirtualService.
    VirtualService(VirtualService),
    /// `networking.istio.io` DestinationRule.
    DestinationRule(DestinationRule),
    /// `networking.istio.io` ServiceEntry.
    ServiceEntry(ServiceEntry),
}

/// The text or value that an object is read from.
#[derive(Clone, Copy, Debug)]
pub enum Body<'a> {
    /// A document of its own: errors carry a line.
    Yaml(&'a str),
    /// An item of a `List`.
    Value(&'a serde_json::Value),
    /// An object as an API server sends it.
    Json(&'a str),
}

impl Body<'_> {
    /// Reads the body as a `T`.
    ///
    /// # Errors
    /// When the body does not have the shape of `T`.
    pub fn read<T: DeserializeOwned>(self) -> Result<T, Unreadable> {
        match self {
            Self::Yaml(text) => yaml::read(text),
            Self::Value(value) => T::deserialize(value).map_err(|error| Unreadable::new(error.to_string())),
            Self::Json(text) => {
                serde_json::from_str(text).map_err(|error| Unreadable::new(without_position(&error)))
            }
        }
    }

    /// The body as a document of its own. JSON is YAML.
    pub fn text(self) -> Arc<str> {
        match self {
            Self::Yaml(text) | Self::Json(text) => text.into(),
            Self::Value(value) => value.to_string().into(),
        }
    }
}

impl Object {
    /// Reads an object of a known kind.
    ///
    /// # Errors
    /// When the body is not what the kind asks for.
    pub fn read(kind: KnownKind, body: Body<'_>) -> Result<Self, Unreadable> {
        Ok(match kind {
            KnownKind::Namespace => Self::Namespace(body.read()?),
            KnownKind::Node => Self::Node(body.read()?),
            KnownKind::Pod => Self::Pod(body.read()?),
            KnownKind::Service => Self::Service(body.read()?),
            KnownKind::EndpointSlice => Self::EndpointSlice(body.read()?),
            KnownKind::ServiceAccount => Self::ServiceAccount(body.read()?),
            KnownKind::AuthorizationPolicy => Self::AuthorizationPolicy(body.read()?),
            KnownKind::PeerAuthentication => Self::PeerAuthentication(body.read()?),
            KnownKind::ServiceCidr => Self::ServiceCidr(body.read()?),
            KnownKind::Gateway => Self::Gateway(body.read()?),
            KnownKind::HttpRoute => Self::HttpRoute(body.read()?),
            KnownKind::GrpcRoute => Self::GrpcRoute(body.read()?),
            KnownKind::TcpRoute => Self::TcpRoute(body.read()?),
            KnownKind::TlsRoute => Self::TlsRoute(body.read()?),
            KnownKind::VirtualService => Self::VirtualService(body.read()?),
            KnownKind::DestinationRule => Self::DestinationRule(body.read()?),
            KnownKind::ServiceEntry => Self::ServiceEntry(body.read()?),
        })
    }

    /// Its metadata.
    pub fn metadata(&self) -> &Meta {
        match self {
            Self::Namespace(Namespace { metadata, .. })
            | Self::Node(Node { metadata, .. })
            | Self::ServiceAccount(ServiceAccount { metadata, .. })
            | Self::Pod(Pod { metadata, .. })
            | Self::Service(Service { metadata, .. })
            | Self::EndpointSlice(EndpointSlice { metadata, .. })
            | Self::AuthorizationPolicy(AuthorizationPolicy { metadata, .. })
            | Self::PeerAuthentication(PeerAuthentication { metadata, .. })
            | Self::ServiceCidr(ServiceCidr { metadata, .. })
            | Self::Gateway(Gateway { metadata, .. })
            | Self::HttpRoute(HttpRoute { metadata, .. })
            | Self::GrpcRoute(GrpcRoute { metadata, .. })
            | Self::TcpRoute(ConnectionRoute { metadata, .. })
            | Self::TlsRoute(ConnectionRoute { metadata, .. })
            | Self::VirtualService(VirtualService { metadata, .. })
            | Self::DestinationRule(DestinationRule { metadata, .. })
            | Self::ServiceEntry(ServiceEntry { metadata, .. }) => metadata,
        }
    }

    /// What stands in for an object that cannot be read and was never read before: for a policy
    /// the strictest it could have said, for everything else nothing.
    ///
    /// `body` is `None` when not even the document is YAML.
    pub fn closed(kind: KnownKind, body: Option<Body<'_>>) -> Option<Self> {
        match kind {
            KnownKind::AuthorizationPolicy => {
                Some(Self::AuthorizationPolicy(AuthorizationPolicy::deny_all(body)))
            }
            KnownKind::PeerAuthentication => Some(Self::PeerAuthentication(PeerAuthentication::strict(body))),
            KnownKind::Namespace
            | KnownKind::Node
            | KnownKind::Pod
            | KnownKind::Service
            | KnownKind::EndpointSlice
            | KnownKind::ServiceAccount
            | KnownKind::ServiceCidr
            | KnownKind::Gateway
            | KnownKind::HttpRoute
            | KnownKind::GrpcRoute
            | KnownKind::TcpRoute
            | KnownKind::TlsRoute
            | KnownKind::VirtualService
            | KnownKind::DestinationRule
            | KnownKind::ServiceEntry => None,
        }
    }
}

/// An object of an API server is one line, which nobody wrote: a column in it helps nobody.
fn without_position(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.rfind(" at line ").map(|at| text[..at].to_owned()).unwrap_or(text)
}

#[cfg(test)]
mod tests;
