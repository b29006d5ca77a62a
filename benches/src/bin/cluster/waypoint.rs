//! The waypoint of a run: a Gateway, to which the crowd's namespace is bound.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::jiff::Timestamp;
use kube::api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::mesh::RESTARTED;
use crate::reach;
use crate::stage::Stage;

const NAME: &str = "waypoint";
const USE: &str = "istio.io/use-waypoint";
/// Where an instance serves its metrics.
const METRICS: u16 = 15020;
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// A waypoint that serves.
pub(crate) struct Waypoint {
    client: Client,
    namespace: String,
}

impl Waypoint {
    /// Makes one for the crowd, and binds its namespace once it is ready.
    ///
    /// # Errors
    /// When the Gateway API is not installed, or the waypoint is not ready within the time.
    pub(crate) async fn deploy(stage: &Stage, within: Duration) -> Result<Self> {
        let waypoint = Self { client: stage.client.clone(), namespace: stage.crowd.clone() };
        let listener = json!({"name": "mesh", "port": 15008, "protocol": "HBONE"});
        let spec = json!({"gatewayClassName": "ambit-waypoint", "listeners": [listener]});
        let gateway = DynamicObject::new(NAME, &gateways()).data(json!({ "spec": spec }));
        let created = waypoint.gateways().create(&PostParams::default(), &gateway).await;
        created.context("no Gateway can be created: is the Gateway API installed?")?;
        waypoint.settled(within).await?;
        waypoint.bind(Some(NAME)).await?;
        waypoint.used(stage, within).await?;
        Ok(waypoint)
    }

    pub(crate) fn name(&self) -> String {
        format!("{}/{NAME}", self.namespace)
    }

    /// How many requests its instances have counted that are there now.
    ///
    /// # Errors
    /// When one cannot be asked.
    pub(crate) async fn requests(&self) -> Result<u64> {
        let mut sum = 0.0;
        for pod in self.pods().await? {
            let name = pod.metadata.name.unwrap_or_default();
            let path = format!("{name}:{METRICS}");
            let text = reach::proxied(&self.client, &self.namespace, &path, "/metrics").await?;
            let counters = text.lines().filter(|line| line.starts_with("istio_requests_total{"));
            sum += counters.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>();
        }
        Ok(sum as u64)
    }

    /// Does what `kubectl rollout restart` does, and waits until it is through.
    ///
    /// # Errors
    /// When it is not within the time.
    pub(crate) async fn restart(&self, within: Duration) -> Result<()> {
        let annotations = json!({RESTARTED: Timestamp::now().to_string()});
        self.patch(json!({"spec": {"template": {"metadata": {"annotations": annotations}}}})).await?;
        self.settled(within).await
    }

    /// Does what `kubectl scale` does, and waits until it is through.
    ///
    /// # Errors
    /// When it is not within the time.
    pub(crate) async fn scale(&self, replicas: u32, within: Duration) -> Result<()> {
        self.patch(json!({"spec": {"replicas": replicas}})).await?;
        self.settled(within).await
    }

    /// Deletes an instance as `kubectl delete pod` does, and waits until another has taken its place.
    ///
    /// # Errors
    /// When none has within the time.
    pub(crate) async fn delete_one(&self, within: Duration) -> Result<()> {
        let pod = self.pods().await?.into_iter().find_map(|pod| pod.metadata.name);
        let pod = pod.context("the waypoint has no pod")?;
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &self.namespace);
        pods.delete(&pod, &DeleteParams::default()).await?;
        let end = Instant::now() + within;
        while pods.get_opt(&pod).await?.is_some() && Instant::now() < end {
            sleep(LOOK_EVERY).await;
        }
        self.settled(within).await
    }

    /// Takes it away: first the binding, then the Gateway.
    ///
    /// # Errors
    /// When the API server refuses.
    pub(crate) async fn remove(self, stage: &Stage) -> Result<()> {
        self.bind(None).await?;
        stage.reconnect().await?;
        // No request comes any more.
        let mut before = self.requests().await?;
        loop {
            sleep(LOOK_EVERY * 4).await;
            let now = self.requests().await?;
            if std::mem::replace(&mut before, now) == now {
                break;
            }
        }
        self.gateways().delete(NAME, &DeleteParams::default()).await?;
        Ok(())
    }

    async fn bind(&self, to: Option<&str>) -> Result<()> {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let patch = Patch::Merge(json!({"metadata": {"labels": {USE: to}}}));
        namespaces.patch(&self.namespace, &PatchParams::default(), &patch).await?;
        Ok(())
    }

    async fn patch(&self, patch: Value) -> Result<()> {
        let deployments: Api<Deployment> = Api::namespaced(self.client.clone(), &self.namespace);
        deployments.patch(NAME, &PatchParams::default(), &Patch::Strategic(patch)).await?;
        Ok(())
    }

    /// Waits until all instances are of the newest version and available, and those that go are gone.
    async fn settled(&self, within: Duration) -> Result<()> {
        let end = Instant::now() + within;
        let deployments: Api<Deployment> = Api::namespaced(self.client.clone(), &self.namespace);
        loop {
            if let Some(deployment) = deployments.get_opt(NAME).await? {
                let wanted = deployment.spec.and_then(|spec| spec.replicas).unwrap_or(1);
                let status = deployment.status.unwrap_or_default();
                let is_current = status.observed_generation >= deployment.metadata.generation;
                let counts =
                    [status.updated_replicas, status.available_replicas].map(Option::unwrap_or_default);
                let left = self.pods_with_going().await?.len();
                if is_current && counts == [wanted; 2] && i32::try_from(left) == Ok(wanted) {
                    return Ok(());
                }
            }
            if Instant::now() >= end {
                bail!("the waypoint {} is not as it should be after {within:?}", self.name());
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Waits until requests pass it.
    async fn used(&self, stage: &Stage, within: Duration) -> Result<()> {
        let end = Instant::now() + within;
        while self.requests().await? == 0 {
            if Instant::now() >= end {
                bail!("no request has passed the waypoint {} after {within:?}", self.name());
            }
            stage.reconnect().await?;
            sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    /// Its instances that are not about to go.
    async fn pods(&self) -> Result<Vec<Pod>> {
        let all = self.pods_with_going().await?;
        Ok(all.into_iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).collect())
    }

    async fn pods_with_going(&self) -> Result<Vec<Pod>> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &self.namespace);
        let label = format!("gateway.networking.k8s.io/gateway-name={NAME}");
        Ok(pods.list(&ListParams::default().labels(&label)).await?.items)
    }

    fn gateways(&self) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), &self.namespace, &gateways())
    }
}

fn gateways() -> ApiResource {
    let kind = GroupVersionKind::gvk("gateway.networking.k8s.io", "v1", "Gateway");
    ApiResource::from_gvk_with_plural(&kind, "gateways")
}
