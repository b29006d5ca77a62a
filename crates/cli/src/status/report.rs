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
    by_node: BTreeMap<String, Reported>,
}

/// What is reported of one agent.
#[derive(Clone, Debug, PartialEq)]
struct Reported {
    replica: String,
    in_sync: bool,
    problems: Vec<String>,
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
        let mut by_node = BTreeMap::<String, Reported>::new();
        for report in reports {
            let replica = report.metadata.name.clone().unwrap_or_default();
            for proxy in report.data.pointer("/spec/proxies").and_then(Value::as_array).into_iter().flatten()
            {
                let Some(node) = proxy["node"].as_str() else { continue };
                // Waypoints on the node are in it as well.
                if !proxy["id"].as_str().is_some_and(|id| id.starts_with(AGENT)) {
                    continue;
                }
                let problems = proxy["problems"].as_array().into_iter().flatten().filter_map(Value::as_str);
                let one = Reported {
                    replica: replica.clone(),
                    in_sync: proxy["lacking"].as_u64() == Some(0),
                    problems: problems.map(str::to_owned).collect(),
                };
                // An agent that moves from one replica to another is in both reports for a moment.
                match by_node.get_mut(node) {
                    Some(known) => {
                        known.in_sync |= one.in_sync;
                        let more =
                            one.problems.into_iter().filter(|problem| !known.problems.contains(problem));
                        let more: Vec<_> = more.collect();
                        known.problems.extend(more);
                    }
                    None => drop(by_node.insert(node.to_owned(), one)),
                }
            }
        }
        Self { by_node }
    }

    /// The replica that the agent of `node` is connected to.
    pub fn replica_of(&self, node: &str) -> Option<&str> {
        self.by_node.get(node).map(|reported| reported.replica.as_str())
    }

    /// Whether the agent of `node` has acknowledged everything.
    pub fn is_in_sync(&self, node: &str) -> Option<bool> {
        self.by_node.get(node).map(|reported| reported.in_sync)
    }

    /// What the agent of `node` says that a person should know.
    pub fn problems_of(&self, node: &str) -> &[String] {
        self.by_node.get(node).map_or(&[], |reported| &reported.problems)
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
                {"node": "b", "id": "ztunnel~b", "lacking": 2, "problems": ["the chain is broken"]},
                {"node": "b", "id": "ztunnel~b", "lacking": 0, "problems": ["the chain is broken", "so is the disk"]},
                {"node": "b", "id": "waypoint~b", "lacking": 0},
            ]},
        });
        let reports = Reports::of(&[serde_json::from_value(report).unwrap()]);
        assert_eq!((reports.replica_of("a"), reports.is_in_sync("a")), (Some("control-x"), Some(true)));
        assert_eq!((reports.replica_of("b"), reports.is_in_sync("b")), (Some("control-x"), Some(true)));
        assert_eq!(reports.problems_of("b"), ["the chain is broken", "so is the disk"], "of both agents");
        assert!(reports.problems_of("a").is_empty() && reports.problems_of("c").is_empty());
        assert_eq!((reports.replica_of("c"), reports.is_in_sync("c")), (None, None));
    }
}
