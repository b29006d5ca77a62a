//! `ambit uninstall`: takes the mesh out, agents last to be waited for.

use std::time::Duration;

use ambit_kube::Access;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::{Api, ListParams};
use kube::{Client, Error, ResourceExt};
use tokio::time::{Instant, sleep};

use crate::apply::Manifest;
use crate::args::{SettingsArgs, UninstallArgs};
use crate::install::{InstallError, manifests};
use crate::{NAMESPACE, PART_OF};

/// The labels of what control makes of a Gateway.
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
/// definition with which what control had made of users' Gateways goes. The Gateways stay.
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
    wait_until_gone(&client, args.wait, until, "waypoints", waypoints).await?;
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

/// The Deployments that are still there.
async fn waypoints(client: &Client) -> Result<Vec<String>, Error> {
    let deployments: Api<Deployment> = Api::all(client.clone());
    let found = deployments.list_metadata(&ListParams::default().labels(WAYPOINTS)).await?;
    let label = |namespace: String, name: String| format!("Deployment {namespace}/{name}");
    Ok(found.iter().map(|one| label(one.namespace().unwrap_or_default(), one.name_any())).collect())
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
