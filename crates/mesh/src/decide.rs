//! Where a connection goes: one pure function for each direction.
//!
//! Whether an inbound connection is allowed is decided after, in `policy`.

mod inbound;
mod outbound;
mod ports;

use std::fmt;

pub use inbound::{InboundDecision, InboundError, InboundRequest, InboundTarget, inbound};
pub use outbound::{
    Ask, LeftOut, NoEndpoint, OutboundDecision, OutboundError, OutboundRequest, Outcome, Transport, Why,
    is_waypoint_instance, outbound, outbound_choices, outbound_to_service, outbound_to_service_choices,
    outbound_to_workload, outbound_to_workload_choices,
};

/// Where the proxy takes captured outbound connections, in each pod (Istio's port).
pub const OUTBOUND_PORT: u16 = 15001;
/// Where the proxy takes captured plaintext inbound connections, in each pod (Istio's port).
pub const INBOUND_PLAINTEXT_PORT: u16 = 15006;
/// Where the proxy takes HBONE, in each pod (Istio's port).
pub const HBONE_PORT: u16 = 15008;

/// Whether `port` is one of the proxy's own: a connection that ended there would come back to the
/// proxy for ever.
pub fn is_own_port(port: u16) -> bool {
    matches!(port, OUTBOUND_PORT | INBOUND_PLAINTEXT_PORT | HBONE_PORT)
}

/// How a connection ended, as Istio's `response_flags` metric label says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ResponseFlag {
    /// As it should.
    None,
    /// An AuthorizationPolicy, or the lack of one that was named.
    Denied,
    /// There was nowhere to connect to, or the connect failed.
    ConnectFailure,
    /// The TLS handshake failed.
    TlsFailure,
    /// The HTTP/2 handshake failed.
    Http2HandshakeFailure,
    /// The connect timed out, which is how a NetworkPolicy that blocks port 15008 shows.
    NetworkPolicy,
    /// There is no certificate for the workload's own identity.
    IdentityError,
    /// The peer's certificate was revoked.
    CertificateRevoked,
}

impl ResponseFlag {
    /// Istio's text of the label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "-",
            Self::Denied => "DENY",
            Self::ConnectFailure => "CONNECT",
            Self::TlsFailure => "TLS_FAILURE",
            Self::Http2HandshakeFailure => "H2_HANDSHAKE_FAILURE",
            Self::NetworkPolicy => "NETWORK_POLICY",
            Self::IdentityError => "IDENTITY_ERROR",
            Self::CertificateRevoked => "CERT_REVOKED",
        }
    }
}

impl fmt::Display for ResponseFlag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
