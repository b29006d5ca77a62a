//! Finds the redirection of another mesh in a pod: two of them would fight over each connection.
//!
//! Also finds what our other backend left. Looks at names only.

use super::iptables::CHAIN_PREFIX;
use super::legacy;
use super::netlink::Refused;
use super::nftables;

/// What is in the namespace the thread is in, besides what the chosen backend would install.
pub(super) struct Findings {
    /// Another mesh's redirection: its name, and the chain that gave it away.
    pub(super) foreign: Option<(&'static str, String)>,
    /// Whether chains of our iptables backend are there.
    pub(super) iptables: bool,
}

/// Looks at the chains of nf_tables (which iptables-nft uses, too) and of the older iptables.
pub(super) fn look() -> Result<Findings, Refused> {
    let mut chains = nftables::chains()?;
    chains.extend(legacy::chains());
    Ok(Findings {
        foreign: chains
            .iter()
            .find_map(|(table, chain)| owner(table, chain).map(|mesh| (mesh, chain.clone()))),
        iptables: chains.iter().any(|(_, chain)| chain.starts_with(CHAIN_PREFIX)),
    })
}

/// What tables or chains of other meshes begin with.
const OWNERS: [(&str, &str); 8] = [
    ("ISTIO_", "Istio"),
    ("istio-", "Istio"),
    ("PROXY_INIT_", "Linkerd"),
    ("CONSUL_PROXY_", "Consul"),
    ("CONSUL_DNS_", "Consul"),
    ("KUMA_", "Kuma"),
    ("MESH_INBOUND", "Kuma"),
    ("MESH_OUTBOUND", "Kuma"),
];

fn owner(table: &str, chain: &str) -> Option<&'static str> {
    let owned = |prefix: &str| table.starts_with(prefix) || chain.starts_with(prefix);
    OWNERS.iter().find(|(prefix, _)| owned(prefix)).map(|(_, mesh)| *mesh)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meshes_are_known_by_their_names() {
        for (table, chain, expected) in [
            ("nat", "ISTIO_OUTPUT", Some("Istio")),
            ("istio-ambient-nat", "prerouting", Some("Istio")),
            ("nat", "PROXY_INIT_REDIRECT", Some("Linkerd")),
            ("nat", "CONSUL_PROXY_INBOUND", Some("Consul")),
            ("nat", "KUMA_MESH_INBOUND", Some("Kuma")),
            ("nat", "AMBIT_OUTBOUND", None),
            ("ambit", "outbound", None),
            ("nat", "DOCKER_OUTPUT", None),
        ] {
            assert_eq!(owner(table, chain), expected, "{table} {chain}");
        }
    }
}
