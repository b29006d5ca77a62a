//! What a cluster adds to the files that are applied to it: pods of Deployments, addresses of Services,
//! instances of waypoints. Pure.
//!
//! Files for GitOps hold none of that, and nothing in them could be reached. What is assumed is the least
//! that is needed, ready and in good health, and nothing takes the place of what is written.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use control::objects::meta::StringMap;
use control::objects::service::ClusterIp;
use control::objects::{Kind, Object, ObjectKey};
use control::source::reading::FileContent;
use control::source::{Content, document, yaml};
use serde_json::{Value, json};

use super::model::{GATEWAY_NAME, STANDS_IN};

/// Kinds that make pods of a template.
const WITH_PODS: [&str; 5] = ["Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job"];

/// RFC 1112 §4: reserved, so that no address of a real pod or service is among them.
const ADDRESSES: u32 = 0xf000_0000;

/// Gives Services addresses, and returns documents of what else is assumed.
pub(super) fn complete<'a>(
    contents: &mut BTreeMap<Arc<str>, FileContent>,
    texts: impl Iterator<Item = &'a str>,
) -> String {
    let mut assumed = Assumed { next: ADDRESSES, ..Assumed::default() };
    for reading in contents.values_mut().flat_map(|content| &mut content.readings) {
        let reading = Arc::make_mut(reading);
        if let Content::Object(object) = &mut reading.content {
            assumed.take_in(&reading.key, object);
        }
    }
    for text in texts {
        for document in document::split(text) {
            // What cannot be read is reported where it is read.
            if let Ok(value) = yaml::read::<Value>(document.text) {
                let items = value.get("items").and_then(Value::as_array);
                items.map_or(std::slice::from_ref(&value), Vec::as_slice).iter().for_each(|item| {
                    assumed.pods_of(item);
                });
            }
        }
    }
    assumed.waypoints();
    assumed.endpoints();
    assumed.documents.join("---\n")
}

#[derive(Default)]
struct Assumed {
    next: u32,
    /// The labels of all pods, by namespace.
    pods: Vec<(Arc<str>, StringMap)>,
    /// By namespace and name, with the selector.
    services: BTreeMap<(Arc<str>, Arc<str>), StringMap>,
    gateways: BTreeSet<(Arc<str>, Arc<str>)>,
    documents: Vec<String>,
}

impl Assumed {
    fn address(&mut self) -> IpAddr {
        self.next += 1;
        Ipv4Addr::from(self.next).into()
    }

    fn take_in(&mut self, key: &ObjectKey, object: &mut Object) {
        let Some(namespace) = key.namespace.clone() else { return };
        if let Object::Pod(pod) = object {
            self.pods.push((namespace, pod.metadata.labels.clone()));
        } else if let Object::Service(service) = object {
            let spec = &mut service.spec;
            if spec.cluster_ip == ClusterIp::Unassigned
                && spec.cluster_ips.is_empty()
                && spec.kind.as_deref() != Some("ExternalName")
            {
                spec.cluster_ip = ClusterIp::Address(self.address());
            }
            self.services.insert((namespace, key.name.clone()), spec.selector.clone());
        } else if let Object::Gateway(gateway) = object
            && gateway.is_waypoint()
        {
            self.gateways.insert((namespace, key.name.clone()));
        }
    }

    /// One pod of an object that makes pods.
    fn pods_of(&mut self, object: &Value) {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
        let kind = text("/kind").unwrap_or_default();
        let Some(name) = text("/metadata/name").filter(|_| WITH_PODS.contains(&kind)) else { return };
        let Some(template) = object.pointer("/spec/template") else { return };
        let namespace = text("/metadata/namespace").unwrap_or("default");
        let metadata = template.get("metadata").cloned().unwrap_or_default();
        let spec = template.get("spec").cloned().unwrap_or_default();
        let labels = metadata.get("labels").cloned().unwrap_or_default();
        let annotations = metadata.get("annotations").cloned().unwrap_or_default();
        self.pod((namespace, &format!("{name}-assumed")), &labels, &annotations, spec);
    }

    /// An instance and a Service of each waypoint that has none.
    fn waypoints(&mut self) {
        for (namespace, name) in std::mem::take(&mut self.gateways) {
            let labels: StringMap = [(GATEWAY_NAME.to_owned(), name.to_string())].into();
            if !self.services.contains_key(&(namespace.clone(), name.clone())) {
                let address = self.address();
                self.documents.push(
                    json!({
                        "apiVersion": "v1", "kind": "Service",
                        "metadata": {"name": &*name, "namespace": &*namespace},
                        "spec": {
                            "clusterIP": address, "selector": labels,
                            "ports": [{"port": 15008, "targetPort": 15008}],
                        },
                    })
                    .to_string()
                        + "\n",
                );
            }
            if !self.has_pod(&namespace, &labels) {
                let spec = json!({"serviceAccountName": &*name});
                self.pod((&namespace, &format!("{name}-assumed")), &json!(labels), &stand_in(), spec);
            }
        }
    }

    /// A pod behind each Service that would have none.
    fn endpoints(&mut self) {
        for ((namespace, name), selector) in std::mem::take(&mut self.services) {
            if !selector.is_empty() && !self.has_pod(&namespace, &selector) {
                let pod = format!("{name}-assumed");
                self.pod((&namespace, &pod), &json!(selector), &stand_in(), json!({}));
            }
        }
    }

    fn has_pod(&self, namespace: &str, labels: &StringMap) -> bool {
        let includes = |own: &StringMap| labels.iter().all(|(key, value)| own.get(key) == Some(value));
        self.pods.iter().any(|(of, own)| &**of == namespace && includes(own))
    }

    fn pod(&mut self, (namespace, name): (&str, &str), labels: &Value, annotations: &Value, spec: Value) {
        let address = self.address();
        let own = serde_json::from_value(labels.clone()).unwrap_or_default();
        self.pods.push((namespace.into(), own));
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": namespace, "labels": labels, "annotations": annotations},
            "spec": spec,
            "status": {
                "phase": "Running", "podIP": address,
                "conditions": [{"type": "Ready", "status": "True"}],
            },
        });
        self.documents.push(pod.to_string() + "\n");
    }
}

fn stand_in() -> Value {
    json!({STANDS_IN: "true"})
}

/// The objects that were assumed.
pub(crate) fn objects<'a>(
    entries: impl Iterator<Item = (&'a ObjectKey, &'a control::inputs::Entry)>,
) -> Vec<String> {
    let is_assumed = |(key, entry): &(&ObjectKey, &control::inputs::Entry)| {
        &*entry.origin().file == super::ASSUMED && matches!(key.kind, Kind::Known(_))
    };
    entries.filter(is_assumed).map(|(key, _)| key.to_string()).collect()
}
