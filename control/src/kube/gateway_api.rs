//! The statuses of the Gateway API's objects, and of Services that are bound to waypoints, written by the replica
//! that leads.
//!
//! What they say was decided when they were translated, and how it stands beside what other controllers say is
//! decided in [`status`]; here is the API server. An object is read before its status is written, and written only
//! if it says something else.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams};
use kube::{Api, Client, Error};
use metrics::counter;
use serde_json::json;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::FIELD_MANAGER;
use crate::inputs::Entry;
use crate::objects::{Kind, KnownKind, Object, ObjectKey};
use crate::publish::Generation;
use crate::translate::{Condition, WAYPOINT_BOUND};
use gateway::GatewayStatus;
use status::{Says, desired};

pub mod gateway;
pub mod status;

/// Changes that come within this time are looked at together.
const TOGETHER: Duration = Duration::from_millis(300);

/// How often everything is looked at though nothing has changed here: another may have written.
const LOOK_EVERY: Duration = Duration::from_secs(300);

/// The pause after a failure.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// Between two writes: the API server has more to do than this.
const BETWEEN: Duration = Duration::from_millis(20);

/// How long one request may take.
const REQUEST_DEADLINE: Duration = Duration::from_secs(10);

/// What an object said that was looked at.
#[derive(Clone, Debug, Default, PartialEq)]
struct Said {
    /// The generation that this is said of.
    generation: Option<i64>,
    conditions: Vec<Condition>,
    /// Of a Gateway.
    gateway: Option<GatewayStatus>,
}

/// Writes until it is dropped, which is when this replica leads no more, or until control has nothing more to
/// serve.
pub async fn run(client: Client, mut generations: watch::Receiver<Arc<Generation>>) {
    let mut written = BTreeMap::<ObjectKey, Said>::new();
    let mut look_at = Instant::now() + LOOK_EVERY;
    loop {
        let generation = generations.borrow_and_update().clone();
        let mut again = look_at;
        let wanted: BTreeMap<ObjectKey, Said> = wanted(&generation);
        written.retain(|key, _| wanted.contains_key(key));
        for (key, said) in wanted {
            if written.get(&key) == Some(&said) {
                continue;
            }
            match write(&client, &key, &said).await {
                Ok(()) => drop(written.insert(key, said)),
                // It was deleted since it was read: what it said goes with it.
                Err(Problem { code: Some(404), .. }) => {}
                Err(problem) => {
                    counter!("ambit_control_status_writes_total", "result" => "failed").increment(1);
                    tracing::warn!(object = %key, problem = problem.message, "cannot write a status: check the API server and our Role");
                    again = again.min(Instant::now() + RETRY_AFTER);
                }
            }
            sleep(BETWEEN).await;
        }
        tokio::select! {
            changed = generations.changed() => {
                if changed.is_err() {
                    return;
                }
                sleep(TOGETHER).await;
            }
            () = sleep_until(again) => {}
        }
        if Instant::now() >= look_at {
            look_at = Instant::now() + LOOK_EVERY;
            written.clear();
        }
    }
}

fn wanted(generation: &Generation) -> BTreeMap<ObjectKey, Said> {
    let conditions = &generation.translated.conditions.0;
    let of = |key: &ObjectKey, entry: &Entry| {
        let object = entry.object()?;
        if let Object::Service(service) = object {
            let said = conditions.get(key).cloned().unwrap_or_default();
            // A Service that was bound once may still say so.
            let concerns_us = !said.is_empty() || service.has_condition(WAYPOINT_BOUND);
            return concerns_us.then(|| (key.clone(), Said { conditions: said, ..Said::default() }));
        }
        let said = conditions.get(key)?;
        let mut of_gateway = None;
        let metadata = if let Object::Gateway(gateway) = object {
            of_gateway = GatewayStatus::of(generation, key, gateway, said);
            &gateway.metadata
        } else if let Object::HttpRoute(route) = object {
            &route.metadata
        } else if let Object::GrpcRoute(route) = object {
            &route.metadata
        } else if let Object::TcpRoute(route) | Object::TlsRoute(route) = object {
            &route.metadata
        } else {
            return None;
        };
        let said = Said { generation: metadata.generation, conditions: said.clone(), gateway: of_gateway };
        Some((key.clone(), said))
    };
    generation.inputs.entries().filter_map(|(key, entry)| of(key, entry)).collect()
}

async fn write(client: &Client, key: &ObjectKey, said: &Said) -> Result<(), Problem> {
    let Kind::Known(kind) = key.kind else { return Ok(()) };
    let namespace = key.namespace.as_deref().unwrap_or_default();
    let Some((resource, there)) = find(client, kind, namespace, &key.name).await? else { return Ok(()) };
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
    let says = if kind == KnownKind::Gateway {
        Says::OfGateway { status: said.gateway.as_ref() }
    } else if kind == KnownKind::Service {
        Says::OfItself { only: Some(WAYPOINT_BOUND) }
    } else {
        Says::OfParents { namespace }
    };
    let now = Timestamp::now().to_string();
    let status = desired(says, &there.data, said.generation, &said.conditions, &now);
    let Some(status) = status else { return Ok(()) };
    let mut body = json!({
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "metadata": {"name": &*key.name, "namespace": namespace, "uid": there.metadata.uid},
        "status": status,
    });
    let result = if kind == KnownKind::Service {
        // A condition that another mesh writes too stays that mesh's: two would overwrite each other for ever.
        let parameters = PatchParams::apply(FIELD_MANAGER);
        match answered(api.patch_status(&key.name, &parameters, &Patch::Apply(&body))).await {
            Err(Problem { code: Some(409), .. }) => "of_another",
            answer => answer.map(|_| "written")?,
        }
    } else {
        // Lists that controllers share are written whole, so only as they were read.
        body["metadata"]["resourceVersion"] = json!(there.metadata.resource_version);
        let parameters = PatchParams::apply(FIELD_MANAGER).force();
        answered(api.patch_status(&key.name, &parameters, &Patch::Apply(&body))).await?;
        "written"
    };
    counter!("ambit_control_status_writes_total", "result" => result).increment(1);
    Ok(())
}

/// Why a request failed.
#[derive(Debug)]
struct Problem {
    /// The status that the API server answered with, if it did.
    code: Option<u16>,
    message: String,
}

/// The object in the first of its kind's versions that is served, and that version.
async fn find(
    client: &Client,
    kind: KnownKind,
    namespace: &str,
    name: &str,
) -> Result<Option<(ApiResource, DynamicObject)>, Problem> {
    for version in kind.versions() {
        let gvk = GroupVersionKind::gvk(kind.group(), version, kind.name());
        let resource = ApiResource::from_gvk_with_plural(&gvk, kind.plural());
        let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
        // A version that is not served is not found either.
        if let Some(there) = answered(api.get_opt(name)).await? {
            return Ok(Some((resource, there)));
        }
    }
    Ok(None)
}

async fn answered<T>(request: impl Future<Output = Result<T, Error>>) -> Result<T, Problem> {
    match timeout(REQUEST_DEADLINE, request).await {
        Ok(answer) => answer.map_err(|error| {
            let code = if let Error::Api(status) = &error { Some(status.code) } else { None };
            Problem { code, message: error.to_string() }
        }),
        Err(_) => Err(Problem { code: None, message: "no answer in time".to_owned() }),
    }
}
