//! Deploys waypoints: for each Gateway of our class the replica that leads keeps a ServiceAccount, a
//! Service, a Deployment and what goes with them.
//!
//! What the objects are is decided in [`desired`]. The first is a [`Waypoint`], which the Gateway owns, and which owns
//! the others. An object of the same name that has another owner is somebody else's, and is left alone: the waypoint is
//! then not deployed, and an Event of the Gateway says why. What users change about them is merged in [`custom`].

use std::collections::BTreeMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, CustomResourceExt, Error, Resource};
use metrics::counter;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use self::custom::Patches;
use self::desired::{Common, Owner, Part, merge};
use self::kind::Waypoint;
use super::events::plan::{Telling, Weight};
use super::gateway_api::status::{self, CONTROLLER, Says};
use super::reports::report::ProxyReport;
use super::status::desired::shortened;
use super::{FIELD_MANAGER, Replica, events};
use crate::ca::authority::Authority;
use crate::objects::gateway_api::gateway::{Gateway, Parameters};
use crate::objects::{Object, ObjectKey};
use crate::publish::Generation;
use crate::translate::Condition;

pub mod custom;
pub mod desired;
pub mod kind;

/// The class of our waypoints.
const CLASS: &str = "ambit-waypoint";

/// Who makes an object, with what is set once, so that applying without that takes nothing back.
const CREATOR: &str = "ambit-control-create";

/// How often a write is tried that others come between.
const ATTEMPTS: usize = 5;

/// Changes that come within this time are looked at together.
const TOGETHER: Duration = Duration::from_millis(300);

/// How often everything is looked at though nothing has changed here: somebody may have changed or deleted it.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// The pause after a failure.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// How long one request may take.
const REQUEST_DEADLINE: Duration = Duration::from_secs(10);

/// What waypoints are deployed with.
#[derive(Clone)]
pub struct Deploying {
    /// What they have in common.
    pub common: Common,
    /// What they trust.
    pub authority: watch::Receiver<Arc<Authority>>,
}

/// Why a waypoint is not as it should be.
#[derive(Debug, thiserror::Error)]
enum Problem {
    #[error(
        "{kind} {namespace}/{name} exists and was not made for the Gateway: rename one of them, or delete it"
    )]
    NotOurs { kind: &'static str, namespace: String, name: String },
    #[error("{kind} {namespace}/{name} is of a waypoint that was deleted, and about to go")]
    Going { kind: &'static str, namespace: String, name: String },
    #[error("{kind} {namespace}/{name}: {source}")]
    Api { kind: &'static str, namespace: String, name: String, source: Box<Error> },
    #[error("{kind} {namespace}/{name}: no answer in time")]
    Late { kind: &'static str, namespace: String, name: String },
    #[error("spec.infrastructure.parametersRef, {kind} {name}: {problem}")]
    Parameters { kind: String, name: String, problem: String },
}

/// Deploys until it is dropped, which is when this replica leads no more, or until control has nothing more to
/// serve.
pub async fn run(
    client: Client,
    replica: &Replica,
    deploying: Deploying,
    mut generations: watch::Receiver<Arc<Generation>>,
) {
    let Deploying { common, mut authority } = deploying;
    let mut applied = BTreeMap::<ObjectKey, u64>::new();
    let (mut look_for_class, mut look_at) = (true, Instant::now() + LOOK_EVERY);
    loop {
        let generation = generations.borrow_and_update().clone();
        let roots = authority.borrow_and_update().roots_pem();
        let gateways = ours(&generation);
        applied.retain(|key, _| gateways.iter().any(|(known, _)| *known == key));
        let mut wait = LOOK_EVERY;
        if look_for_class {
            look_for_class = false;
            if let Err(problem) = class(&client).await {
                tracing::warn!(%problem, "GatewayClass {CLASS} cannot be kept up to date");
            }
        }
        for (key, gateway) in gateways {
            let stamp = stamp(gateway, &common, &roots);
            if applied.get(key) == Some(&stamp) {
                continue;
            }
            match deploy(&client, key, gateway, &common, &roots).await {
                Ok(()) => {
                    applied.insert(key.clone(), stamp);
                    counter!("ambit_control_waypoints_total", "result" => "applied").increment(1);
                    tracing::info!(gateway = %key, "the waypoint is deployed");
                }
                Err(problem) => {
                    wait = RETRY_AFTER;
                    counter!("ambit_control_waypoints_total", "result" => "failed").increment(1);
                    tracing::warn!(gateway = %key, %problem, "the waypoint cannot be deployed");
                    if !matches!(problem, Problem::Going { .. }) {
                        tell(&client, replica, key, gateway, &problem).await;
                    }
                }
            }
        }
        // Each arm only waits: cancelling one loses nothing.
        tokio::select! {
            changed = generations.changed() => {
                if changed.is_err() {
                    return;
                }
                sleep(TOGETHER).await;
            }
            Ok(()) = authority.changed() => {}
            () = sleep(wait.min(look_at.saturating_duration_since(Instant::now()))) => {}
        }
        if Instant::now() >= look_at {
            (look_for_class, look_at) = (true, Instant::now() + LOOK_EVERY);
            applied.clear();
        }
    }
}

/// The Gateways that are deployed: those of our class. One of Istio's class is served where its Service and pods
/// are there, and deployed by whoever owns that class.
fn ours(generation: &Generation) -> Vec<(&ObjectKey, &Gateway)> {
    let objects = generation.inputs.entries().filter_map(|(key, entry)| Some((key, entry.object()?)));
    let gateways = objects.filter_map(|(key, object)| {
        let Object::Gateway(gateway) = object else { return None };
        let metadata = &gateway.metadata;
        let is_ours = gateway.spec.gateway_class_name == CLASS
            && !metadata.uid.is_empty()
            && metadata.deletion_timestamp.is_none();
        is_ours.then_some((key, gateway))
    });
    gateways.collect()
}

fn stamp(gateway: &Gateway, common: &Common, roots: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    format!("{gateway:?} {common:?}").hash(&mut hasher);
    roots.hash(&mut hasher);
    hasher.finish()
}

/// Tells the Gateway's owner, who does not read our log. What cannot be told is in the log all the same.
async fn tell(client: &Client, replica: &Replica, key: &ObjectKey, gateway: &Gateway, problem: &Problem) {
    let telling = Telling {
        key: key.clone(),
        uid: gateway.metadata.uid.as_str().into(),
        weight: Weight::Warning,
        reason: "WaypointNotDeployed",
        action: "Deploy",
        note: shortened(problem.to_string()),
    };
    if let Err(problem) = events::create(client, replica, &telling).await {
        tracing::warn!(object = %key, problem, "cannot write an Event: check the API server and our Role");
    }
}

async fn deploy(
    client: &Client,
    key: &ObjectKey,
    gateway: &Gateway,
    common: &Common,
    roots: &str,
) -> Result<(), Problem> {
    let namespace = key.namespace.as_deref().unwrap_or_default();
    let patches = patches(client, namespace, gateway).await?;
    let of_gateway = Owner { namespace, name: &key.name, uid: &gateway.metadata.uid };
    let uid = waypoint(client, &of_gateway, common).await?;
    let owner = Owner { uid: &uid, ..of_gateway.clone() };
    for part in Part::ALL {
        let (group, version, kind, plural) = part.names();
        let resource =
            ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural);
        let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
        let at = Place { kind, namespace, name: owner.name };
        let mut object = part.object(&owner, gateway, common, roots);
        patches.apply(part, &mut object);
        match at.answered(api.get_opt(owner.name)).await? {
            Some(there) => {
                if at.owned(&there.metadata, &[owner.uid, of_gateway.uid])? == of_gateway.uid {
                    // As versions without Waypoints left it. An object has one owner that controls it.
                    let own = json!({ "metadata": { "ownerReferences": [desired::owner(&owner)] } });
                    let parameters = PatchParams {
                        field_manager: Some(FIELD_MANAGER.to_owned()),
                        ..PatchParams::default()
                    };
                    at.answered(api.patch(owner.name, &parameters, &Patch::Merge(&own))).await?;
                }
            }
            None => {
                let mut first = object.clone();
                // What is asked for from the beginning is not set to something else first.
                let asked = std::mem::replace(&mut first, part.once().unwrap_or(json!({})));
                merge(&mut first, asked);
                create(&api, &at, first).await?;
            }
        }
        let parameters = PatchParams::apply(FIELD_MANAGER).force();
        let written = at.answered(api.patch(owner.name, &parameters, &Patch::Apply(&object))).await?;
        disown(&api, &at, written).await?;
    }
    Ok(())
}

/// Takes an object's fields from [`CREATOR`] once they have been applied: a field goes when nobody owns it, and this one
/// would own for ever what a Gateway once asked for.
async fn disown(api: &Api<DynamicObject>, at: &Place<'_>, written: DynamicObject) -> Result<(), Problem> {
    let mut object = written;
    for _ in 0..ATTEMPTS {
        let mut entries = object.metadata.managed_fields.unwrap_or_default();
        let before = entries.len();
        entries.retain(|entry| entry.manager.as_deref() != Some(CREATOR));
        if entries.len() == before {
            return Ok(());
        }
        let version = object.metadata.resource_version;
        let body = json!({ "metadata": { "resourceVersion": version, "managedFields": entries } });
        let parameters =
            PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        match at.answered(api.patch(at.name, &parameters, &Patch::Merge(&body))).await {
            Err(Problem::Api { source, .. }) if matches!(&*source, Error::Api(status) if status.code == 409) =>
                {}
            answered => return answered.map(drop),
        }
        object = at.answered(api.get(at.name)).await?;
    }
    // Whoever writes it so often lets us at the next look.
    tracing::debug!(kind = at.kind, namespace = at.namespace, name = at.name, "still owned by its creator");
    Ok(())
}

/// Writes what owns the rest: its UID.
async fn waypoint(client: &Client, gateway: &Owner<'_>, common: &Common) -> Result<String, Problem> {
    let api: Api<Waypoint> = Api::namespaced(client.clone(), gateway.namespace);
    let at = Place { kind: "Waypoint", namespace: gateway.namespace, name: gateway.name };
    if let Some(there) = at.answered(api.get_opt(gateway.name)).await? {
        at.owned(&there.metadata, &[gateway.uid])?;
    }
    let parameters = PatchParams::apply(FIELD_MANAGER).force();
    let desired = Patch::Apply(desired::waypoint(gateway, common));
    let written = at.answered(api.patch(gateway.name, &parameters, &desired)).await?;
    Ok(written.metadata.uid.unwrap_or_default())
}

/// What the Gateway's parameters change.
async fn patches(client: &Client, namespace: &str, gateway: &Gateway) -> Result<Patches, Problem> {
    let Some(Parameters { group, kind, name }) = &gateway.spec.infrastructure.parameters else {
        return Ok(Patches::default());
    };
    let wrong = |problem: String| Problem::Parameters { kind: kind.clone(), name: name.clone(), problem };
    if !group.is_empty() || kind != "ConfigMap" {
        return Err(wrong("only a ConfigMap of the Gateway's namespace can be referred to".to_owned()));
    }
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let at = Place { kind: "ConfigMap", namespace, name };
    let map = at.answered(api.get_opt(name)).await?;
    let map = map.ok_or_else(|| wrong(format!("it does not exist in namespace {namespace}")))?;
    Patches::read(&map.data.unwrap_or_default()).map_err(wrong)
}

async fn create(api: &Api<DynamicObject>, at: &Place<'_>, object: Value) -> Result<(), Problem> {
    let object = serde_json::from_value(object).map_err(|error| at.failed(Error::SerdeError(error)))?;
    let parameters = PostParams { field_manager: Some(CREATOR.to_owned()), ..PostParams::default() };
    at.answered(api.create(&parameters, &object)).await.map(drop)
}

/// The class, so that users see that it is served. Where the Gateway API is not installed there is none. It goes with
/// the definition of our own kind, and with it in every usual way in which a mesh is uninstalled.
async fn class(client: &Client) -> Result<(), Problem> {
    let Some(definition) = definition(client).await? else { return Ok(()) };
    let gvk = GroupVersionKind::gvk("gateway.networking.k8s.io", "v1", "GatewayClass");
    let resource = ApiResource::from_gvk_with_plural(&gvk, "gatewayclasses");
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
    let at = Place { kind: "GatewayClass", namespace: "", name: CLASS };
    let object = json!({
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "GatewayClass",
        "metadata": { "name": CLASS, "labels": super::labels(), "ownerReferences": [definition] },
        "spec": { "controllerName": CONTROLLER, "description": "Waypoints of Ambit" },
    });
    let parameters = PatchParams::apply(FIELD_MANAGER).force();
    let class = match at.answered(api.patch(CLASS, &parameters, &Patch::Apply(&object))).await {
        Err(Problem::Api { source, .. }) if matches!(&*source, Error::Api(status) if status.code == 404) => {
            return Ok(());
        }
        answered => answered?,
    };
    let condition = Condition {
        parent: None,
        kind: "Accepted",
        status: true,
        reason: "Accepted",
        message: "its Gateways are waypoints of this mesh".to_owned(),
    };
    let now = Timestamp::now().to_string();
    let Some(says) = status::desired(
        Says::OfItself { only: None },
        &class.data,
        class.metadata.generation,
        &[condition],
        &now,
    ) else {
        return Ok(());
    };
    let body = json!({
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "GatewayClass",
        "metadata": { "name": CLASS },
        "status": says,
    });
    at.answered(api.patch_status(CLASS, &parameters, &Patch::Apply(&body))).await.map(drop)
}

/// The definition of our own kind, as an owner.
async fn definition(client: &Client) -> Result<Option<Value>, Problem> {
    let (name, kind) = (ProxyReport::crd_name(), "CustomResourceDefinition");
    let gvk = GroupVersionKind::gvk("apiextensions.k8s.io", "v1", kind);
    let resource = ApiResource::from_gvk_with_plural(&gvk, "customresourcedefinitions");
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
    let at = Place { kind, namespace: "", name };
    let named = ListParams::default().fields(&format!("metadata.name={name}"));
    let found = at.answered(api.list_metadata(&named)).await?.items.into_iter().next();
    let uid = found
        .filter(|found| found.metadata.deletion_timestamp.is_none())
        .and_then(|found| found.metadata.uid);
    Ok(uid.map(
        |uid| json!({ "apiVersion": "apiextensions.k8s.io/v1", "kind": kind, "name": name, "uid": uid }),
    ))
}

/// An object, for messages.
struct Place<'a> {
    kind: &'static str,
    namespace: &'a str,
    name: &'a str,
}

impl Place<'_> {
    async fn answered<T>(&self, request: impl Future<Output = Result<T, Error>>) -> Result<T, Problem> {
        match timeout(REQUEST_DEADLINE, request).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(self.failed(error)),
            Err(_) => {
                let (namespace, name) = (self.namespace.to_owned(), self.name.to_owned());
                Err(Problem::Late { kind: self.kind, namespace, name })
            }
        }
    }

    /// Which of these owns what is there: their UIDs.
    fn owned<'b>(&self, there: &ObjectMeta, by: &[&'b str]) -> Result<&'b str, Problem> {
        let owners = || there.owner_references.iter().flatten();
        if let Some(uid) = by.iter().find(|uid| owners().any(|owner| owner.uid == ***uid)) {
            return Ok(uid);
        }
        let (kind, namespace, name) = (self.kind, self.namespace.to_owned(), self.name.to_owned());
        if owners().any(|owner| owner.kind == Waypoint::kind(&()) && owner.name == self.name) {
            return Err(Problem::Going { kind, namespace, name });
        }
        Err(Problem::NotOurs { kind, namespace, name })
    }

    fn failed(&self, source: Error) -> Problem {
        let (namespace, name) = (self.namespace.to_owned(), self.name.to_owned());
        Problem::Api { kind: self.kind, namespace, name, source: Box::new(source) }
    }
}
