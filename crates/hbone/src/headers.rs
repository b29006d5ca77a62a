//! The header fields of a CONNECT request and its answer: what one proxy tells the other about a
//! connection beside where it goes.
//!
//! Pure text in both directions. Nothing here is proof of anything: who the peer is says its
//! certificate, and what it may do says the policy.

mod baggage;
mod forwarded;
mod traceparent;

pub use baggage::Baggage;
pub use forwarded::{forwarded, parse_forwarded_host};
pub use traceparent::TraceParent;

/// The client's address, and the service that it asked for (RFC 7239).
pub const FORWARDED: &str = "forwarded";
/// What the sender of the field is, for telemetry (W3C Baggage): the source in a request, the
/// destination in its answer.
pub const BAGGAGE: &str = "baggage";
/// Which trace the connection belongs to (W3C Trace Context).
pub const TRACEPARENT: &str = "traceparent";
/// Istio: on the inner CONNECT of a connection that crosses networks, the network it comes from.
pub const X_FORWARDED_NETWORK: &str = "x-forwarded-network";
/// Ours: the SPIFFE identity of the client that a waypoint speaks for. It counts only when the TLS
/// peer is the waypoint bound to the destination.
pub const AMBIT_ORIGINAL_SOURCE: &str = "ambit-original-source";
