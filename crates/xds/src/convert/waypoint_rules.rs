//! What the owner of a workload or a service wants of its waypoint: our extension of Istio's messages.

use ambit_mesh::service::WaypointFailure;
use ambit_proto::ambit::workload::v1 as ambit;
use ambit_proto::istio::workload as proto;
use prost::Message;
use prost_types::Any;

/// The name of the extension.
const EXTENSION: &str = "ambit.dev/waypoint";

/// Its type.
const TYPE_URL: &str = "type.googleapis.com/ambit.workload.v1.WaypointRules";

/// What it says; what its absence says by default.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct WaypointRules {
    pub(super) failure: WaypointFailure,
    pub(super) is_required: bool,
}

/// Why the extension is refused: what it closes would be open without it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidWaypointRules {
    /// It is of another type.
    #[error("extension ambit.dev/waypoint is not an ambit.workload.v1.WaypointRules")]
    Type,
    /// It cannot be decoded.
    #[error("extension ambit.dev/waypoint")]
    Decode(#[from] prost::DecodeError),
}

pub(super) fn read(extensions: &[proto::Extension]) -> Result<WaypointRules, InvalidWaypointRules> {
    let Some(ours) = extensions.iter().find(|extension| extension.name == EXTENSION) else {
        return Ok(WaypointRules::default());
    };
    let config = ours.config.as_ref().filter(|config| config.type_url == TYPE_URL);
    let config = config.ok_or(InvalidWaypointRules::Type)?;
    let ambit::WaypointRules { fails_open, is_required } =
        ambit::WaypointRules::decode(config.value.as_slice())?;
    let failure = if fails_open { WaypointFailure::Open } else { WaypointFailure::Closed };
    Ok(WaypointRules { failure, is_required })
}

/// `None` where it would say the default.
pub(super) fn write(rules: WaypointRules) -> Option<proto::Extension> {
    let fails_open = rules.failure == WaypointFailure::Open;
    (fails_open || rules.is_required).then(|| {
        let rules = ambit::WaypointRules { fails_open, is_required: rules.is_required };
        let config = Any { type_url: TYPE_URL.into(), value: rules.encode_to_vec() };
        proto::Extension { name: EXTENSION.into(), config: Some(config) }
    })
}
