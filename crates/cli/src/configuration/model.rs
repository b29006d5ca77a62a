//! A configuration as every proxy of its mesh has it. Pure.
//!
//! It goes the whole way that control and its proxies send it: translated, encoded, decoded, and applied to
//! the same state.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ambit_mesh::http::{GatewayName, Myself, WaypointSnapshot, WaypointState};
use ambit_mesh::snapshot::{Change, Snapshot, State};
use ambit_mesh::workload::{Workload, WorkloadUid};
use ambit_xds::ResourceType;
use ambit_xds::convert::Received;
use control::inputs::{Entry, Inputs};
use control::objects::{Kind, KnownKind, Object, ObjectKey};
use control::publish::{self, Generation};
use control::translate::{Settings, translate};

use super::ASSUMED;

/// On a pod: the Gateway that it is an instance of (Gateway API).
pub(super) const GATEWAY_NAME: &str = "gateway.networking.k8s.io/gateway-name";

/// On an assumed pod of which no template is known. Only annotations that mean something to a mesh are kept
/// of a pod, and so it looks like one.
pub(super) const STANDS_IN: &str = "ambit.dev/stands-in";

/// A configuration, and what it is to a node's agent and to a waypoint.
#[derive(Debug)]
pub struct Model {
    generation: Arc<Generation>,
    settings: Settings,
    refused: Vec<Refused>,
    changes: Vec<Change>,
    snapshot: Arc<Snapshot>,
    /// Made when they are first asked.
    waypoints: RefCell<BTreeMap<WorkloadUid, Arc<WaypointSnapshot>>>,
}

/// A resource that proxies would refuse, so that they keep what they had of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Its name.
    pub name: String,
    /// Why.
    pub why: String,
}

impl Model {
    /// What becomes of `inputs`.
    pub fn new(inputs: Inputs, settings: Settings) -> Self {
        let translated = translate(&inputs, &settings);
        let (mut publisher, published) = publish::channel();
        publisher.publish(inputs, translated);
        let resources = published.resources.borrow().clone();
        let (mut changes, mut refused) = (Vec::new(), Vec::new());
        for kind in ResourceType::ALL {
            for resource in resources.of_type(kind).iter() {
                match Received::decode(kind, &resource.to_proto()) {
                    Ok(received) => changes.push(received.into_change()),
                    Err(error) => {
                        refused.push(Refused { name: resource.name().to_string(), why: error.with_causes() });
                    }
                }
            }
        }
        let mut state = State::default();
        state.apply(changes.clone());
        let generation = published.generation.borrow().clone();
        let snapshot = state.snapshot();
        Self { generation, settings, refused, changes, snapshot, waypoints: RefCell::default() }
    }

    /// What is written, what is in force of it, and what control has to say of it.
    pub fn generation(&self) -> &Generation {
        &self.generation
    }

    /// What holds for the whole mesh.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// What proxies would not take.
    pub fn refused(&self) -> &[Refused] {
        &self.refused
    }

    /// What a node's agent knows.
    pub fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    /// The Gateway that a workload is an instance of.
    pub fn gateway_of(&self, workload: &Workload) -> Option<GatewayName> {
        let Some(Object::Pod(pod)) = self.object(KnownKind::Pod, &workload.namespace, &workload.name) else {
            return None;
        };
        let name = pod.metadata.label(GATEWAY_NAME)?;
        let gateway = self.object(KnownKind::Gateway, &workload.namespace, name)?;
        let is_waypoint = matches!(gateway, Object::Gateway(gateway) if gateway.is_waypoint());
        is_waypoint.then(|| GatewayName { namespace: workload.namespace.clone(), name: name.into() })
    }

    /// What an instance of a waypoint knows; `None` for a workload that is none.
    pub fn waypoint(&self, instance: &Workload) -> Option<Arc<WaypointSnapshot>> {
        let gateway = self.gateway_of(instance)?;
        let mut known = self.waypoints.borrow_mut();
        let made = known.entry(instance.uid.clone()).or_insert_with(|| {
            let mut state = WaypointState::new(Myself { gateway, workload: instance.uid.clone() });
            state.apply(self.changes.iter().cloned());
            state.snapshot()
        });
        Some(made.clone())
    }

    /// Namespaces of which pods are written, or what makes pods: those that stand in for what is behind a
    /// Service, or for a waypoint, say nothing of the others there.
    pub fn namespaces_with_known_pods(&self) -> BTreeSet<Arc<str>> {
        let entries = self.generation.inputs.entries();
        let is_known = |entry: &Entry| match entry.object() {
            Some(Object::Pod(pod)) => {
                &*entry.origin().file != ASSUMED || pod.metadata.annotation(STANDS_IN).is_none()
            }
            Some(_) | None => false,
        };
        entries.filter(|(_, entry)| is_known(entry)).filter_map(|(key, _)| key.namespace.clone()).collect()
    }

    /// An object in force.
    pub fn object(&self, kind: KnownKind, namespace: &str, name: &str) -> Option<&Object> {
        let key = ObjectKey { kind: Kind::Known(kind), namespace: Some(namespace.into()), name: name.into() };
        self.generation.inputs.entry(&key)?.object()
    }
}
