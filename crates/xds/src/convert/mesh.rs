//! The mesh as a whole.

use ambit_mesh::mesh::Mesh;
use ambit_proto::ambit::node::v1 as proto;
use ipnet::{AddrParseError, IpNet};

/// The name of the one resource of its type.
pub const NAME: &str = "mesh";

/// Reads what control says of the mesh as a whole.
///
/// # Errors
/// When a range cannot be read: without it, addresses of the mesh would count as outside.
pub fn from_proto(from: &proto::Mesh) -> Result<Mesh, InvalidMesh> {
    let range = |text: &String| {
        text.parse::<IpNet>().map_err(|source| InvalidMesh::Range { text: text.clone(), source })
    };
    let ranges: Vec<IpNet> = from.ranges.iter().map(range).collect::<Result<_, _>>()?;
    if from.enrolled_namespaces.iter().any(String::is_empty) {
        return Err(InvalidMesh::NamelessNamespace);
    }
    let mesh = Mesh::new(from.enrolled_namespaces.iter().map(|name| name.as_str().into()), ranges);
    Ok(mesh.being_uninstalled(from.uninstalling))
}

/// Writes it.
pub fn to_proto(from: &Mesh) -> proto::Mesh {
    proto::Mesh {
        enrolled_namespaces: from.enrolled_namespaces().iter().map(ToString::to_string).collect(),
        ranges: from.ranges().iter().map(ToString::to_string).collect(),
        uninstalling: from.is_being_uninstalled(),
    }
}

/// Why what is said of the mesh as a whole is not usable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidMesh {
    /// A range is none.
    #[error("range {text:?} is not a CIDR such as 10.0.0.0/8")]
    Range {
        /// What was received.
        text: String,
        /// The cause.
        source: AddrParseError,
    },
    /// A namespace has no name.
    #[error("one of the enrolled namespaces has no name")]
    NamelessNamespace,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let ranges = ["10.10.0.0/16", "fd00:10::/32"].map(|range| range.parse().unwrap());
        let mesh = Mesh::new(["shop".into(), "bank".into()], ranges);
        for mesh in [mesh.clone(), mesh.being_uninstalled(true)] {
            assert_eq!(from_proto(&to_proto(&mesh)), Ok(mesh));
        }
        assert_eq!(from_proto(&proto::Mesh::default()), Ok(Mesh::default()));
    }

    #[test]
    fn one_bad_value_makes_all_of_it_unusable() {
        let bad_range =
            proto::Mesh { ranges: vec!["10.0.0.0/8".into(), "10.0.0.1".into()], ..Default::default() };
        assert!(matches!(from_proto(&bad_range), Err(InvalidMesh::Range { text, .. }) if text == "10.0.0.1"));
        let nameless = proto::Mesh { enrolled_namespaces: vec![String::new()], ..Default::default() };
        assert_eq!(from_proto(&nameless), Err(InvalidMesh::NamelessNamespace));
    }
}
