//! What the client counts, under Istio's names.

use ambit_proto::envoy::service::discovery::v3::DeltaDiscoveryResponse;
use metrics::counter;
use prost::Message;

use crate::ResourceType;

/// How a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Termination {
    /// It never began.
    ConnectionError,
    /// By an error.
    Error,
    /// By the server, in order.
    Complete,
}

pub(super) fn terminated(how: Termination) {
    let reason = match how {
        Termination::ConnectionError => "ConnectionError",
        Termination::Error => "Error",
        Termination::Complete => "Complete",
    };
    counter!("istio_xds_connection_terminations_total", "reason" => reason).increment(1);
}

pub(super) fn received(response: &DeltaDiscoveryResponse) {
    let url = ResourceType::from_type_url(&response.type_url).map_or("unknown", ResourceType::type_url);
    let octets = u64::try_from(response.encoded_len()).unwrap_or(u64::MAX);
    counter!("istio_xds_message_total", "url" => url).increment(1);
    counter!("istio_xds_message_bytes_total", "url" => url).increment(octets);
}
