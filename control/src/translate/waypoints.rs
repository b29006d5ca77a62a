//! Which pods are waypoints' instances, asked of the objects in force without translating them.

use ambit_mesh::address::ServiceName;

use crate::inputs::Inputs;
use crate::kube::token_review::decide::Account;
use crate::objects::{Kind, KnownKind, Object, ObjectKey, Pod};

use super::service_name;
use super::waypoint::GATEWAY_NAME;

/// The waypoint that a pod is an instance of, by the name of its Service.
pub fn of_pod(inputs: &Inputs, namespace: &str, pod: &str) -> Option<ServiceName> {
    let Some(Object::Pod(pod)) = entry(inputs, KnownKind::Pod, namespace, pod) else { return None };
    let gateway = pod.metadata.label(GATEWAY_NAME)?;
    is_instance(inputs, namespace, pod).then(|| service_name(namespace, gateway))
}

/// Whether a pod of this name is there and names a waypoint of its namespace.
pub fn is_pod(inputs: &Inputs, namespace: &str, pod: &str) -> bool {
    of_pod(inputs, namespace, pod).is_some()
}

/// Whether a waypoint's instance has this ServiceAccount.
pub fn has_account(inputs: &Inputs, account: &Account) -> bool {
    inputs.entries().any(|(key, entry)| {
        key.namespace.as_deref() == Some(&*account.namespace)
            && matches!(
                entry.object(),
                Some(Object::Pod(pod))
                    if pod.service_account() == &*account.name && is_instance(inputs, &account.namespace, pod)
            )
    })
}

fn is_instance(inputs: &Inputs, namespace: &str, pod: &Pod) -> bool {
    let name = pod.metadata.label(GATEWAY_NAME);
    let gateway = name.and_then(|name| entry(inputs, KnownKind::Gateway, namespace, name));
    matches!(gateway, Some(Object::Gateway(gateway)) if gateway.is_waypoint())
}

fn entry<'a>(inputs: &'a Inputs, kind: KnownKind, namespace: &str, name: &str) -> Option<&'a Object> {
    let key = ObjectKey { kind: Kind::Known(kind), namespace: Some(namespace.into()), name: name.into() };
    inputs.entry(&key).and_then(|entry| entry.object())
}
