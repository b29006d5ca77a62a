//! Subsets.

use ambit_mesh::http::{Subset, SubsetName};
use ambit_mesh::workload::WorkloadUid;
use ambit_proto::ambit::waypoint::v1 as proto;

use super::{Read, non_empty, service};

/// Reads a subset.
///
/// # Errors
/// When its name is incomplete.
pub fn from_proto(from: &proto::Subset) -> Read<Subset> {
    let name = SubsetName {
        service: service(&from.namespace, &from.hostname)?,
        name: non_empty(&from.name, "name")?.into(),
    };
    let members = from.members.iter().map(|uid| WorkloadUid(uid.as_str().into())).collect();
    Ok(Subset { name, members })
}

/// Writes a subset.
pub fn to_proto(from: &Subset) -> proto::Subset {
    proto::Subset {
        namespace: from.name.service.namespace.to_string(),
        hostname: from.name.service.hostname.to_string(),
        name: from.name.name.to_string(),
        members: from.members.iter().map(ToString::to_string).collect(),
    }
}
