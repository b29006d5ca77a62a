//! What a run touches of Ambit: its Deployment, its DaemonSet, and policies in the run's namespaces.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::pod::ports;

/// Ambit in a cluster.
pub(crate) struct Mesh {
    client: Client,
    namespace: String,
}

/// What can be rolled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Control,
    Agents,
}

const CONTROL: &str = "control";
const AGENTS: &str = "ztunnel";
const LEASE: &str = "ambit-control";
/// By this annotation pods are known to be of a restart.
pub(crate) const RESTARTED: &str = "kubectl.kubernetes.io/restartedAt";
/// Between two looks at a rollout.
const LOOK_EVERY: Duration = Duration::from_millis(250);

impl Mesh {
    /// Finds it.
    ///
    /// # Errors
    /// When it is not there.
    pub(crate) async fn find(client: &Client, namespace: &str) -> Result<Self> {
        let mesh = Self { client: client.clone(), namespace: namespace.to_owned() };
        let control = mesh.deployments().get_opt(CONTROL).await.context("the cluster cannot be asked")?;
        let agents = mesh.daemon_sets().get_opt(AGENTS).await?;
        if control.is_none() || agents.is_none() {
            bail!(
                "Ambit is not in namespace {namespace} (Deployment {CONTROL} and DaemonSet {AGENTS}): install it, \
                 name its namespace with --mesh-namespace, or measure the cluster alone with --baseline"
            );
        }
        Ok(mesh)
    }

    fn deployments(&self) -> Api<Deployment> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    fn daemon_sets(&self) -> Api<DaemonSet> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Does what `kubectl rollout restart` does.
    ///
    /// # Errors
    /// When the API server refuses.
    pub(crate) async fn restart(&self, part: Part) -> Result<()> {
        let now = Timestamp::now().to_string();
        let annotations = json!({RESTARTED: now});
        let patch =
            Patch::Strategic(json!({"spec": {"template": {"metadata": {"annotations": annotations}}}}));
        let parameters = PatchParams::default();
        match part {
            Part::Control => self.deployments().patch(CONTROL, &parameters, &patch).await.map(drop)?,
            Part::Agents => self.daemon_sets().patch(AGENTS, &parameters, &patch).await.map(drop)?,
        }
        Ok(())
    }

    /// Waits until a rollout is through and the pods of before are gone; those of agents may still carry
    /// connections that stay open, for as long as they drain.
    ///
    /// # Errors
    /// When it is not within the time.
    pub(crate) async fn rolled(&self, part: Part, within: Duration) -> Result<()> {
        let end = Instant::now() + within;
        loop {
            let is_through = match part {
                Part::Control => self.control_is_through().await?,
                Part::Agents => self.agents_are_through().await?,
            };
            if is_through {
                return Ok(());
            }
            if Instant::now() >= end {
                bail!("the rollout of {part:?} is not through after {within:?}");
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Whether all pods of control are of the newest version and available, and no other is left.
    async fn control_is_through(&self) -> Result<bool> {
        let object = self.deployments().get(CONTROL).await?;
        let spec = object.spec.context("a Deployment without spec")?;
        let status = object.status.unwrap_or_default();
        let wanted = spec.replicas.unwrap_or(1);
        let left = self.pods_of(&spec.selector).await?.len();
        Ok(status.observed_generation >= object.metadata.generation
            && status.updated_replicas.unwrap_or(0) == wanted
            && status.available_replicas.unwrap_or(0) == wanted
            && left == usize::try_from(wanted).unwrap_or(0))
    }

    /// Whether each node has an agent of the newest version that is ready.
    ///
    /// The DaemonSet's own status counts the oldest pod of each node, which is that of before for as long as it
    /// drains connections that stay open.
    async fn agents_are_through(&self) -> Result<bool> {
        let object = self.daemon_sets().get(AGENTS).await?;
        let spec = object.spec.context("a DaemonSet without spec")?;
        let wanted = object.status.unwrap_or_default().desired_number_scheduled;
        let template = spec.template.metadata.unwrap_or_default().annotations.unwrap_or_default();
        let restarted = template.get(RESTARTED);
        let is_new = |pod: &&Pod| {
            let metadata = &pod.metadata;
            let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
            metadata.deletion_timestamp.is_none()
                && metadata.annotations.as_ref().and_then(|all| all.get(RESTARTED)) == restarted
                && conditions.into_iter().any(|one| one.type_ == "Ready" && one.status == "True")
        };
        let new = self.pods_of(&spec.selector).await?.iter().filter(is_new).count();
        Ok(new == usize::try_from(wanted).unwrap_or(0))
    }

    async fn pods_of(&self, selector: &LabelSelector) -> Result<Vec<Pod>> {
        let labels = selector.match_labels.iter().flatten();
        let text = labels.map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",");
        Ok(self.pods().list(&ListParams::default().labels(&text)).await?.items)
    }

    /// Kills a replica of control at once: the one that writes, if it is known.
    ///
    /// # Errors
    /// When there is none, or the API server refuses.
    pub(crate) async fn kill_control(&self) -> Result<String> {
        let control = self.deployments().get(CONTROL).await?;
        let selector = control.spec.context("a Deployment without spec")?.selector;
        let names: Vec<String> =
            self.pods_of(&selector).await?.into_iter().filter_map(|pod| pod.metadata.name).collect();
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), &self.namespace);
        let holder =
            leases.get_opt(LEASE).await?.and_then(|lease| lease.spec).and_then(|spec| spec.holder_identity);
        let holder = holder.unwrap_or_default();
        let victim = names.iter().find(|name| holder.contains(name.as_str())).or_else(|| names.first());
        let victim = victim.context("control has no pod")?;
        kill(&self.pods(), victim).await?;
        Ok(victim.clone())
    }
}

/// Deletes a pod without giving it time to end.
///
/// # Errors
/// When the API server refuses.
pub(crate) async fn kill(pods: &Api<Pod>, name: &str) -> Result<()> {
    let at_once = DeleteParams::default().grace_period(0);
    pods.delete(name, &at_once).await.map(drop).with_context(|| format!("{name} cannot be deleted"))
}

/// Forbids a namespace's guarded port to callers without an identity.
///
/// # Errors
/// When the API server refuses, for one since it does not know Istio's kinds.
pub(crate) async fn guard(client: &Client, namespace: &str) -> Result<()> {
    let rule = json!({
        "from": [{"source": {"notPrincipals": ["*"]}}],
        "to": [{"operation": {"ports": [ports::GUARDED.to_string()]}}],
    });
    let policies = policies(client, namespace);
    policies
        .create(&PostParams::default(), &policy("guard", json!({"action": "DENY", "rules": [rule]})))
        .await
        .map(drop)
        .context("an AuthorizationPolicy cannot be created: are Istio's CustomResourceDefinitions installed?")
}

/// The policy that the scenario edits, at its two ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Edit {
    Allow,
    Deny,
}

impl Edit {
    fn spec(self) -> Value {
        let selector = json!({"matchLabels": {"role": "server"}});
        match self {
            Self::Allow => json!({"selector": selector, "action": "ALLOW", "rules": [{}]}),
            Self::Deny => {
                let ports = [ports::HTTP.to_string(), ports::ECHO.to_string()];
                let rule = json!({"to": [{"operation": {"ports": ports}}]});
                json!({"selector": selector, "action": "DENY", "rules": [rule]})
            }
        }
    }
}

/// Creates the policy or changes it.
///
/// # Errors
/// When the API server refuses.
pub(crate) async fn edit(client: &Client, namespace: &str, edit: Edit) -> Result<()> {
    let object = policy(EDITED, edit.spec());
    let policies = policies(client, namespace);
    let parameters = PatchParams::apply("ambit-bench").force();
    let applied = policies.patch(EDITED, &parameters, &Patch::Apply(&object)).await;
    applied.map(drop).context("the AuthorizationPolicy cannot be changed")
}

/// Deletes the policy that [`edit`] made.
///
/// # Errors
/// When the API server refuses.
pub(crate) async fn forget_edit(client: &Client, namespace: &str) -> Result<()> {
    let deleted = policies(client, namespace).delete(EDITED, &DeleteParams::default()).await;
    deleted.map(drop).context("the AuthorizationPolicy cannot be deleted")
}

const EDITED: &str = "edited";

fn resource() -> ApiResource {
    let kind = GroupVersionKind::gvk("security.istio.io", "v1", "AuthorizationPolicy");
    ApiResource::from_gvk_with_plural(&kind, "authorizationpolicies")
}

fn policies(client: &Client, namespace: &str) -> Api<DynamicObject> {
    Api::namespaced_with(client.clone(), namespace, &resource())
}

fn policy(name: &str, spec: Value) -> DynamicObject {
    DynamicObject::new(name, &resource()).data(json!({"spec": spec}))
}
