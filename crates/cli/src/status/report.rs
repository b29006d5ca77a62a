//! What the replicas of control report of the proxies connected to them.

use std::collections::BTreeMap;

use kube::api::{Api, ApiResource, DynamicObject, ListParams};
use kube::core::GroupVersionKind;
use kube::{Client, Error};
use serde_json::Value;

use crate::NAMESPACE;
use crate::apply::is_absent;

/// How agents call themselves.
const AGENT: &str = "ztunnel~";

/// Reports of all replicas.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reports {
    /// By node: the replica, and whether everything is acknowledged.
    by_node: BTreeMap<String, (String, bool)>,
}

impl Reports {
    /// Reads them. Where the kind is not served there are none.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn read(client: &Client) -> Result<Self, Error> {
        let kind = GroupVersionKind::gvk("ambit.dev", "v1alpha1", "ProxyReport");
        let resource = ApiResource::from_gvk(&kind);
        let reports: Api<DynamicObject> = Api::namespaced_with(client.clone(), NAMESPACE, &resource);
        match reports.list(&ListParams::default()).await {
            Ok(reports) => Ok(Self::of(&reports.items)),
            Err(error) if is_absent(&error) => Ok(Self::default()),
            Err(error) => Err(error),
        }
    }

    fn of(reports: &[DynamicObject]) -> Self {
        let mut by_node = BTreeMap::new();
        for report in reports {
            let replica = report.metadata.name.clone().unwrap_or_default();
            for proxy in report.data.pointer("/spec/proxies").and_then(Value::as_array).into_iter().flatten()
            {
                let Some(node) = proxy["node"].as_str() else { continue };
                // Waypoints on the node are in it as well.
                if !proxy["id"].as_str().is_some_and(|id| id.starts_with(AGENT)) {
                    continue;
                }
                let is_in_sync = proxy["lacking"].as_u64() == Some(0);
                // An agent that moves from one replica to another is in both reports for a moment.
                by_node
                    .entry(node.to_owned())
                    .and_modify(|(_, in_sync): &mut (String, bool)| *in_sync |= is_in_sync)
                    .or_insert_with(|| (replica.clone(), is_in_sync));
            }
        }
        Self { by_node }
    }

    /// The replica that the agent of `node` is connected to.
    pub fn replica_of(&self, node: &str) -> Option<&str> {
        self.by_node.get(node).map(|(replica, _)| replica.as_str())
    }

    /// Whether the agent of `node` has acknowledged everything.
    pub fn is_in_sync(&self, node: &str) -> Option<bool> {
        self.by_node.get(node).map(|(_, in_sync)| *in_sync)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn reports_say_where_an_agent_is_connected_and_how_far_it_is() {
        let report = json!({
            "apiVersion": "ambit.dev/v1alpha1", "kind": "ProxyReport", "metadata": {"name": "control-x"},
            "spec": {"proxies": [
                {"node": "a", "id": "ztunnel~a", "lacking": 0},
                {"node": "b", "id": "ztunnel~b", "lacking": 2},
                {"node": "b", "id": "waypoint~b", "lacking": 0},
            ]},
        });
        let reports = Reports::of(&[serde_json::from_value(report).unwrap()]);
        assert_eq!((reports.replica_of("a"), reports.is_in_sync("a")), (Some("control-x"), Some(true)));
        assert_eq!((reports.replica_of("b"), reports.is_in_sync("b")), (Some("control-x"), Some(false)));
        assert_eq!((reports.replica_of("c"), reports.is_in_sync("c")), (None, None));
    }
}
