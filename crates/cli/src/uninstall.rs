//! `ambit uninstall`: takes the mesh out, agents last to be waited for.

use std::time::Duration;

use ambit_kube::Access;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams};
use kube::{Client, Error, ResourceExt};
use tokio::time::{Instant, sleep};

use crate::apply::{Manifest, is_absent};
use crate::args::{SettingsArgs, UninstallArgs};
use crate::install::{InstallError, manifests};
use crate::{NAMESPACE, PART_OF};

/// What control makes of a Gateway.
const OF_WAYPOINTS: [(&str, &str, &str); 5] = [
    ("apps", "v1", "Deployment"),
    ("policy", "v1", "PodDisruptionBudget"),
    ("", "v1", "Service"),
    ("", "v1", "ConfigMap"),
    ("", "v1", "ServiceAccount"),
];

/// The labels of all that.
const WAYPOINTS: &str = "app.kubernetes.io/managed-by=ambit,app.kubernetes.io/name=waypoint";

/// The API group by whose absence agents know that the mesh is uninstalled.
const KNOWN_BY: &str = ".ambit.dev";

/// How often the API server is asked.
const INTERVAL: Duration = Duration::from_secs(1);

/// Why the mesh is not gone.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each variant is its message")]
pub enum UninstallError {
    #[error(transparent)]
    Install(#[from] InstallError),
    #[error("the API server does not answer")]
    Api(#[from] Box<Error>),
    #[error(
        "after {waited:?} these are still there: {}. A node whose agent never ended keeps its pods closed: \
         run `ztunnel uninstall` on it",
        left.join(", ")
    )]
    Left { waited: Duration, left: Vec<String> },
}

/// Deletes everything that `ambit install` made, whatever its settings were, in the order that agents need
/// (docs/adr/007): the definition by whose absence an agent that is told to end knows that the mesh is uninstalled; the
/// agents, which let every pod go; then everything else, among it the ServiceAccount with which agents ask, and the
/// definition with which what control had made of users' Gateways goes. The Gateways stay. What garbage collection has
/// missed, which happens when its owner's kind goes at the wrong moment, is deleted at last.
///
/// # Errors
/// When something is still there after the time given.
pub async fn run(access: &Access, args: &UninstallArgs) -> Result<(), UninstallError> {
    let everything = ["networkPolicy.enabled=true", "podMonitor.enabled=true"];
    let settings =
        SettingsArgs { files: Vec::new(), assignments: everything.into_iter().map(str::to_owned).collect() };
    let client = ambit_kube::connect(access).await.map_err(InstallError::from)?;
    let (definitions, others): (Vec<_>, Vec<_>) = manifests(&settings)?.into_iter().partition(is_known_by);
    let (namespaces, others): (Vec<_>, Vec<_>) =
        others.into_iter().partition(|manifest| manifest.kind.kind == "Namespace");
    let (agents, others): (Vec<_>, Vec<_>) =
        others.into_iter().partition(|manifest| manifest.kind.kind == "DaemonSet");
    let until = Instant::now() + args.wait;
    delete(&client, definitions.iter().chain(&agents)).await?;
    wait_until_gone(&client, args.wait, until, "agents", agents_pods).await?;
    delete(&client, others.iter().chain(&namespaces)).await?;
    wait_until_gone(&client, args.wait, until, "the namespace", namespace).await?;
    // Control, which would make them anew, is gone.
    delete_waypoints(&client).await?;
    say("Ambit is uninstalled. Labels istio.io/dataplane-mode on namespaces stay: they are yours.");
    Ok(())
}

async fn delete(client: &Client, manifests: impl Iterator<Item = &Manifest>) -> Result<(), UninstallError> {
    for manifest in manifests {
        manifest.delete(client).await.map_err(InstallError::from)?;
        say(&format!("{} deleted", manifest.label()));
    }
    Ok(())
}

async fn delete_waypoints(client: &Client) -> Result<(), UninstallError> {
    for (group, version, kind) in OF_WAYPOINTS {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        let all: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
        let found = all.list_metadata(&ListParams::default().labels(WAYPOINTS)).await.map_err(Box::new)?;
        for object in found.items.iter().filter(|object| is_of_control(&object.metadata)) {
            let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
            let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), &namespace, &resource);
            match api.delete(&name, &DeleteParams::background()).await {
                Err(error) if !is_absent(&error) => return Err(Box::new(error).into()),
                Ok(_) | Err(_) => say(&format!("{kind} {namespace}/{name} deleted")),
            }
        }
    }
    Ok(())
}

/// By a Gateway where a version made it that had no Waypoints.
fn is_of_control(metadata: &ObjectMeta) -> bool {
    let mut owners = metadata.owner_references.iter().flatten();
    owners.any(|owner| ["Waypoint", "Gateway"].contains(&owner.kind.as_str()))
}

/// `<plural>.<group>`
fn is_known_by(manifest: &Manifest) -> bool {
    let plural = manifest.name.strip_suffix(KNOWN_BY);
    manifest.kind.kind == "CustomResourceDefinition" && plural.is_some_and(|plural| !plural.contains('.'))
}

async fn wait_until_gone(
    client: &Client,
    limit: Duration,
    until: Instant,
    what: &str,
    list: impl AsyncFn(&Client) -> Result<Vec<String>, Error>,
) -> Result<(), UninstallError> {
    let mut said = usize::MAX;
    loop {
        let left = list(client).await.map_err(Box::new)?;
        if left.is_empty() {
            return Ok(());
        }
        if left.len() != said {
            eprintln!("waiting for {what} to end: {}", left.join(", "));
            said = left.len();
        }
        if Instant::now() >= until {
            return Err(UninstallError::Left { waited: limit, left });
        }
        sleep(INTERVAL).await;
    }
}

async fn agents_pods(client: &Client) -> Result<Vec<String>, Error> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
    let agents = format!("{PART_OF},app.kubernetes.io/name=ztunnel");
    let pods = pods.list(&ListParams::default().labels(&agents)).await?;
    let label = |pod: Pod| {
        let node = pod.spec.and_then(|spec| spec.node_name).unwrap_or_default();
        format!("Pod {} on node {node}", pod.metadata.name.unwrap_or_default())
    };
    Ok(pods.into_iter().map(label).collect())
}

async fn namespace(client: &Client) -> Result<Vec<String>, Error> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let found = namespaces.get_metadata_opt(NAMESPACE).await?;
    Ok(found.map(|_| format!("Namespace {NAMESPACE}")).into_iter().collect())
}

#[expect(clippy::print_stdout, reason = "what it does is the command's output")]
fn say(line: &str) {
    println!("{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agents_know_by_one_definition_and_waypoints_go_with_another() {
        let all = manifests(&SettingsArgs { files: Vec::new(), assignments: Vec::new() }).unwrap();
        let definitions = all.iter().filter(|one| one.kind.kind == "CustomResourceDefinition");
        let (first, last): (Vec<_>, Vec<_>) = definitions.partition(|one| is_known_by(one));
        let names = |of: &[&Manifest]| of.iter().map(|one| one.name.clone()).collect::<Vec<_>>();
        assert_eq!(names(&first), ["proxyreports.ambit.dev"]);
        assert_eq!(names(&last), ["waypoints.deploy.ambit.dev"], "it goes when no agent sends to waypoints");
    }
}
