//! Which pod of its node a workload is: our extension of Istio's message.

use std::path::PathBuf;

use ambit_mesh::workload::PodBinding;
use ambit_proto::ambit::workload::v1 as ambit;
use ambit_proto::istio::workload as proto;
use prost::Message;
use prost_types::Any;

use super::InvalidWorkload;

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
    };
    proto::Extension {
        name: POD_EXTENSION.into(),
        config: Some(Any { type_url: POD_TYPE_URL.into(), value: binding.encode_to_vec() }),
    }
}
