//! What is known of the mesh as a whole: which namespaces are in it, and where its addresses lie.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

/// The mesh as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mesh {
    enrolled_namespaces: BTreeSet<Arc<str>>,
    /// Disjoint and in order, so that an address is looked up by halving.
    ranges: Vec<IpNet>,
    is_being_uninstalled: bool,
}

impl Mesh {
    /// A mesh of these namespaces and ranges. Ranges may overlap: the same addresses in other words
    /// make the same mesh.
    pub fn new(
        enrolled_namespaces: impl IntoIterator<Item = Arc<str>>,
        ranges: impl IntoIterator<Item = IpNet>,
    ) -> Self {
        let ranges: Vec<IpNet> = ranges.into_iter().collect();
        let mut ranges = IpNet::aggregate(&ranges);
        ranges.sort_unstable_by_key(IpNet::network);
        Self {
            enrolled_namespaces: enrolled_namespaces.into_iter().collect(),
            ranges,
            is_being_uninstalled: false,
        }
    }

    /// The same mesh while it is being uninstalled, or while it is not.
    #[must_use]
    pub fn being_uninstalled(self, is_being_uninstalled: bool) -> Self {
        Self { is_being_uninstalled, ..self }
    }

    /// Whether its own objects are being deleted: an agent that ends now ends for good.
    pub fn is_being_uninstalled(&self) -> bool {
        self.is_being_uninstalled
    }

    /// Namespaces whose pods are in the mesh unless a pod itself says otherwise.
    pub fn enrolled_namespaces(&self) -> &BTreeSet<Arc<str>> {
        &self.enrolled_namespaces
    }

    /// Where the mesh's own pods and services have their addresses: disjoint and in order.
    pub fn ranges(&self) -> &[IpNet] {
        &self.ranges
    }

    /// Whether an address lies inside the mesh's ranges. Its cost grows with the logarithm of their
    /// number: there may be one for every node.
    pub fn has_in_range(&self, address: IpAddr) -> bool {
        let begun = self.ranges.partition_point(|range| range.network() <= address);
        // Disjoint: only the last that begins at or before the address can hold it.
        self.ranges[..begun].last().is_some_and(|range| range.contains(&address))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn mesh(ranges: &[&str]) -> Mesh {
        Mesh::new(["shop".into()], ranges.iter().map(|range| range.parse().unwrap()))
    }

    #[test]
    fn equal_addresses_make_equal_meshes() {
        let halves = mesh(&["10.10.1.0/25", "fd00::/64", "10.10.1.128/25", "10.10.1.7/32"]);
        assert_eq!(halves, mesh(&["fd00::/64", "10.10.1.0/24"]));
        assert_eq!(halves.ranges().len(), 2);
    }

    #[test]
    fn an_address_is_in_the_range_that_holds_it() {
        let mesh = mesh(&["10.10.1.0/24", "10.10.3.0/24", "fd00:10::/64"]);
        for (address, expected) in [
            ("10.10.0.255", false),
            ("10.10.1.0", true),
            ("10.10.1.255", true),
            ("10.10.2.1", false),
            ("10.10.3.1", true),
            ("255.255.255.255", false),
            ("::", false),
            ("fd00:10::1", true),
            ("fd00:10:0:1::1", false),
        ] {
            assert_eq!(mesh.has_in_range(address.parse().unwrap()), expected, "{address}");
        }
        assert!(!Mesh::default().has_in_range("10.0.0.1".parse().unwrap()));
    }

    proptest! {
        #[test]
        fn looking_up_by_halving_is_looking_at_each(
            ranges in proptest::collection::vec((any::<u16>(), 16_u8..=32), 0..12),
            address in any::<u16>(),
        ) {
            let ip = |low: u16| IpAddr::from((0x0a00_0000_u32 | u32::from(low)).to_be_bytes());
            let ranges: Vec<IpNet> = ranges
                .into_iter()
                .map(|(low, length)| IpNet::new(ip(low), length).unwrap().trunc())
                .collect();
            let expected = ranges.iter().any(|range| range.contains(&ip(address)));
            prop_assert_eq!(Mesh::new([], ranges).has_in_range(ip(address)), expected);
        }
    }
}
