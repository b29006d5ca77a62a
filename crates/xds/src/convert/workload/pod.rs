//! Which pod of its node a workload is: our extension of Istio's message.

use std::collections::BTreeSet;
use std::path::PathBuf;

use ambit_mesh::workload::{CaptureExclusions, PodBinding};
use ambit_proto::ambit::workload::v1 as ambit;
use ambit_proto::istio::workload as proto;
use ipnet::IpNet;
use prost::Message;
use prost_types::Any;

use super::InvalidWorkload;
use crate::convert::ports;

/// The name of the extension that binds a workload to a pod.
const POD_EXTENSION: &str = "ambit.dev/pod";

/// The type of that extension.
const POD_TYPE_URL: &str = "type.googleapis.com/ambit.workload.v1.PodBinding";

/// Extensions of other parties are none of our business; ours is refused when it cannot be read,
/// for an agent that does not find the pod would leave it uncaptured.
pub(super) fn read(extensions: &[proto::Extension]) -> Result<Option<PodBinding>, InvalidWorkload> {
    let Some(ours) = extensions.iter().find(|extension| extension.name == POD_EXTENSION) else {
        return Ok(None);
    };
    let config = ours.config.as_ref().filter(|config| config.type_url == POD_TYPE_URL);
    let config = config.ok_or(InvalidWorkload::PodType)?;
    let binding = ambit::PodBinding::decode(config.value.as_slice())?;
    if binding.pod_uid.is_empty() {
        return Err(InvalidWorkload::PodUid);
    }
    Ok(Some(PodBinding {
        pod_uid: binding.pod_uid.into(),
        network_namespace: (!binding.network_namespace.is_empty())
            .then(|| PathBuf::from(binding.network_namespace)),
        probe_ports: ports("probe_ports", &binding.probe_ports)?,
        exclusions: binding.exclusions.as_ref().map(exclusions).transpose()?.unwrap_or_default(),
    }))
}

pub(super) fn write(from: &PodBinding) -> proto::Extension {
    let binding = ambit::PodBinding {
        pod_uid: from.pod_uid.to_string(),
        // It was read from an annotation, which is text: nothing is lost.
        network_namespace: from
            .network_namespace
            .as_ref()
            .map_or_else(String::new, |path| path.to_string_lossy().into_owned()),
        probe_ports: numbers(&from.probe_ports),
        exclusions: (from.exclusions.count() > 0).then(|| ambit::CaptureExclusions {
            inbound_ports: numbers(&from.exclusions.inbound_ports),
            outbound_ports: numbers(&from.exclusions.outbound_ports),
            outbound_cidrs: from.exclusions.outbound_destinations.iter().map(ToString::to_string).collect(),
        }),
    };
    proto::Extension {
        name: POD_EXTENSION.into(),
        config: Some(Any { type_url: POD_TYPE_URL.into(), value: binding.encode_to_vec() }),
    }
}

fn exclusions(from: &ambit::CaptureExclusions) -> Result<CaptureExclusions, InvalidWorkload> {
    let range = |text: &String| -> Result<IpNet, InvalidWorkload> {
        text.parse().map_err(|_| InvalidWorkload::PodRange { range: text.clone() })
    };
    Ok(CaptureExclusions {
        inbound_ports: ports("inbound_ports", &from.inbound_ports)?,
        outbound_ports: ports("outbound_ports", &from.outbound_ports)?,
        outbound_destinations: from.outbound_cidrs.iter().map(range).collect::<Result<_, _>>()?,
    })
}

fn ports(field: &'static str, from: &[u32]) -> Result<BTreeSet<u16>, InvalidWorkload> {
    let port =
        |number: &u32| ports::port(*number).map_err(|source| InvalidWorkload::PodPort { field, source });
    from.iter().map(port).collect()
}

fn numbers(ports: &BTreeSet<u16>) -> Vec<u32> {
    ports.iter().map(|port| u32::from(*port)).collect()
}
