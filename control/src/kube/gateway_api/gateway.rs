//! What the status of a Gateway says besides its conditions: where it is reached, and what becomes of its listeners.
//! Pure.

use ambit_mesh::decide::HBONE_PORT;
use serde_json::{Value, json};

use super::status::{find, text, written};
use crate::objects::gateway_api::gateway::{GROUP, Gateway, Listener, RouteKind};
use crate::objects::{Kind, KnownKind, Object, ObjectKey};
use crate::publish::Generation;
use crate::translate::Condition;

/// What is said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GatewayStatus {
    /// Addresses of its Service, once it is programmed.
    addresses: Vec<String>,
    listeners: Vec<ListenerStatus>,
}

/// What is said of one listener.
#[derive(Clone, Debug, PartialEq, Eq)]
struct ListenerStatus {
    name: String,
    kinds: Vec<&'static str>,
    conditions: Vec<Condition>,
}

impl GatewayStatus {
    /// Of a waypoint, of which these conditions are said; nothing of other Gateways.
    pub fn of(
        generation: &Generation,
        key: &ObjectKey,
        gateway: &Gateway,
        conditions: &[Condition],
    ) -> Option<Self> {
        if !gateway.is_waypoint() {
            return None;
        }
        let service = ObjectKey { kind: Kind::Known(KnownKind::Service), ..key.clone() };
        let service = generation.inputs.entry(&service).and_then(|entry| entry.object());
        let programmed = conditions.iter().find(|condition| condition.kind == PROGRAMMED);
        let addresses = match service {
            Some(Object::Service(service)) if programmed.is_some_and(|condition| condition.status) => {
                service.addresses().iter().map(ToString::to_string).collect()
            }
            Some(_) | None => Vec::new(),
        };
        Some(Self { addresses, listeners: listeners(gateway, programmed) })
    }

    /// The parts of the status to apply. `there` is the object as it was read.
    pub(super) fn parts(&self, there: &Value, generation: Option<i64>, now: &str) -> (Value, Value) {
        let addresses = self.addresses.iter().map(|ip| json!({"type": "IPAddress", "value": ip})).collect();
        let listeners = self.listeners.iter().map(|listener| {
            let old = listed(there, &listener.name);
            let old = &old.unwrap_or(&Value::Null)["conditions"];
            let conditions: Vec<Value> = listener
                .conditions
                .iter()
                .map(|condition| written(condition, find(old, condition.kind), generation, now))
                .collect();
            let kinds: Vec<Value> =
                listener.kinds.iter().map(|kind| json!({"group": GROUP, "kind": kind})).collect();
            json!({
                "name": listener.name,
                // Routes are attached to the Services that it serves.
                "attachedRoutes": 0,
                "supportedKinds": kinds,
                "conditions": conditions,
            })
        });
        (addresses, listeners.collect())
    }
}

/// Whether a status says so already. Conditions of others beside ours are theirs.
pub(super) fn is_said(there: &Value, addresses: &Value, listeners: &Value) -> bool {
    let status = &there["status"];
    let empty = Value::Array(Vec::new());
    let said = |key: &str| if status[key].is_null() { empty.clone() } else { status[key].clone() };
    let entries = listeners.as_array().map_or(&[][..], Vec::as_slice);
    let is_listed = |listener: &Value| {
        let Some(old) = listed(there, text(listener, "name")) else { return false };
        let conditions = listener["conditions"].as_array().map_or(&[][..], Vec::as_slice);
        ["attachedRoutes", "supportedKinds"].iter().all(|key| old[key] == listener[key])
            && conditions.iter().all(|one| find(&old["conditions"], text(one, "type")) == Some(one))
    };
    said("addresses") == *addresses
        && said("listeners").as_array().map_or(0, Vec::len) == entries.len()
        && entries.iter().all(is_listed)
}

fn listed<'a>(there: &'a Value, name: &str) -> Option<&'a Value> {
    there["status"]["listeners"].as_array()?.iter().find(|listener| text(listener, "name") == name)
}

fn listeners(gateway: &Gateway, programmed: Option<&Condition>) -> Vec<ListenerStatus> {
    let mut is_taken = false;
    let of = |listener: &Listener| {
        let problem = if listener.protocol != "HBONE" {
            Some(("UnsupportedProtocol", "a waypoint takes HBONE alone".to_owned()))
        } else if listener.port != HBONE_PORT {
            Some(("PortUnavailable", format!("a waypoint listens on {HBONE_PORT}")))
        } else if std::mem::replace(&mut is_taken, true) {
            Some(("PortUnavailable", "another listener of this Gateway has the port".to_owned()))
        } else {
            None
        };
        let (kinds, unknown) = kinds(listener);
        let resolved = if unknown.is_empty() {
            condition("ResolvedRefs", true, "ResolvedRefs", "it refers to nothing that is missing".into())
        } else {
            let message = format!("no routes of kind {} here", unknown.join(", "));
            condition("ResolvedRefs", false, "InvalidRouteKinds", message)
        };
        let conditions = match (problem, programmed) {
            (Some((reason, message)), _) => vec![
                condition("Accepted", false, reason, message.clone()),
                condition(PROGRAMMED, false, "Invalid", message),
                resolved,
            ],
            (None, programmed) => vec![
                condition("Accepted", true, "Accepted", "traffic is taken here".into()),
                match programmed {
                    Some(programmed) if programmed.status => programmed.clone(),
                    Some(programmed) => condition(PROGRAMMED, false, "Pending", programmed.message.clone()),
                    None => condition(PROGRAMMED, false, "Pending", "not deployed yet".into()),
                },
                resolved,
            ],
        };
        ListenerStatus { name: listener.name.clone(), kinds, conditions }
    };
    gateway.spec.listeners.iter().map(of).collect()
}

/// Which of the kinds that there are a listener takes, and which it asks for in vain.
fn kinds(listener: &Listener) -> (Vec<&'static str>, Vec<&str>) {
    let asked = &listener.allowed_routes.kinds;
    if asked.is_empty() {
        return (ROUTES.to_vec(), Vec::new());
    }
    let known = |kind: &&str| asked.iter().any(|asked| asked.kind == **kind && asked.group() == GROUP);
    let unknown = |kind: &&RouteKind| kind.group() != GROUP || !ROUTES.contains(&&*kind.kind);
    let unknown = asked.iter().filter(unknown).map(|kind| &*kind.kind);
    (ROUTES.into_iter().filter(known).collect(), unknown.collect())
}

fn condition(kind: &'static str, status: bool, reason: &'static str, message: String) -> Condition {
    Condition { parent: None, kind, status, reason, message }
}

/// The type of the condition that both the Gateway and its listeners have.
const PROGRAMMED: &str = "Programmed";

/// The kinds of routes of the Services that a waypoint serves.
const ROUTES: [&str; 4] = ["HTTPRoute", "GRPCRoute", "TLSRoute", "TCPRoute"];

#[cfg(test)]
mod tests;
