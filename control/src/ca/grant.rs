//! Which workload's certificate a caller may have: that of a workload on its own node.
//!
//! Pure. Whether the caller is who it says is decided by `tokens`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use ambit_mesh::identity::SpiffeId;

/// A node's agent that has authenticated itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Caller {
    node: Arc<str>,
}

impl Caller {
    /// Made by whoever checked the credentials of `node`.
    pub(crate) fn authenticated(node: Arc<str>) -> Self {
        Self { node }
    }

    /// The name of its Node object.
    pub fn node(&self) -> &str {
        &self.node
    }
}

/// The name under which a pod of a waypoint calls, beside the names of nodes. It cannot be one of those:
/// no name of Kubernetes has a tilde.
pub fn waypoint_caller(namespace: &str, pod: &str) -> Arc<str> {
    format!("waypoint~{namespace}~{pod}").into()
}

/// The namespace and the name of the waypoint's pod that calls under this name.
pub fn pod_of_caller(name: &str) -> Option<(&str, &str)> {
    name.strip_prefix("waypoint~")?.split_once('~')
}

/// What runs where: the identities of the enrolled workloads of each node, pods that are scheduled
/// there but have not started included.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeIdentities {
    /// Identities by the node's name.
    pub by_node: BTreeMap<Arc<str>, BTreeSet<SpiffeId>>,
}

/// The permission to have one certificate of one workload. Only [`authorize`] makes it.
#[derive(Debug, PartialEq, Eq)]
pub struct Grant {
    identity: SpiffeId,
}

impl Grant {
    /// The workload.
    pub fn identity(&self) -> &SpiffeId {
        &self.identity
    }
}

/// Decides whether `caller` may have a certificate of `requested`.
///
/// The whole identity is compared, trust domain included.
///
/// # Errors
/// When no such workload runs on the caller's node.
pub fn authorize(caller: &Caller, requested: &SpiffeId, facts: &NodeIdentities) -> Result<Grant, NotGranted> {
    let refused = |reason| NotGranted { node: caller.node.clone(), requested: requested.clone(), reason };
    let on_node = facts.by_node.get(caller.node()).ok_or_else(|| refused(Reason::NothingOnNode))?;
    if !on_node.contains(requested) {
        return Err(refused(Reason::NotOnNode));
    }
    Ok(Grant { identity: requested.clone() })
}

/// A caller may not have the certificate it asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("node {node} may not have a certificate of {requested}: {reason}")]
pub struct NotGranted {
    /// The caller.
    pub node: Arc<str>,
    /// What it asked for.
    pub requested: SpiffeId,
    /// Why not.
    pub reason: Reason,
}

/// Why a caller may not have a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The mesh has no workload on that node.
    NothingOnNode,
    /// It has some, but not this one.
    NotOnNode,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NothingOnNode => "no enrolled pod is scheduled on that node",
            Self::NotOnNode => "no enrolled pod of that ServiceAccount is scheduled on that node",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_gets_certificates_of_its_own_workloads_alone() {
        let id = |text: &str| -> SpiffeId { text.parse().unwrap() };
        let cart = id("spiffe://cluster.local/ns/shop/sa/cart");
        let facts = NodeIdentities {
            by_node: [
                ("node-1".into(), [cart.clone(), id("spiffe://cluster.local/ns/shop/sa/web")].into()),
                ("node-2".into(), [id("spiffe://cluster.local/ns/bank/sa/vault")].into()),
                ("node-3".into(), BTreeSet::new()),
            ]
            .into(),
        };
        let rows: [(&str, &str, Result<(), Reason>); 9] = [
            ("node-1", "spiffe://cluster.local/ns/shop/sa/cart", Ok(())),
            ("node-2", "spiffe://cluster.local/ns/bank/sa/vault", Ok(())),
            ("node-1", "spiffe://cluster.local/ns/bank/sa/vault", Err(Reason::NotOnNode)),
            ("node-2", "spiffe://cluster.local/ns/shop/sa/cart", Err(Reason::NotOnNode)),
            ("node-1", "spiffe://other.example/ns/shop/sa/cart", Err(Reason::NotOnNode)),
            ("node-1", "spiffe://cluster.local/ns/Shop/sa/cart", Err(Reason::NotOnNode)),
            ("node-3", "spiffe://cluster.local/ns/shop/sa/cart", Err(Reason::NotOnNode)),
            ("node-4", "spiffe://cluster.local/ns/shop/sa/cart", Err(Reason::NothingOnNode)),
            ("Node-1", "spiffe://cluster.local/ns/shop/sa/cart", Err(Reason::NothingOnNode)),
        ];
        for (node, requested, expected) in rows {
            let caller = Caller::authenticated(node.into());
            let decided = authorize(&caller, &id(requested), &facts);
            assert_eq!(
                decided.as_ref().map(|_| ()).map_err(|refused| refused.reason),
                expected,
                "{node} {requested}"
            );
            if let Ok(grant) = decided {
                assert_eq!(grant.identity(), &id(requested));
            }
        }
    }
}
