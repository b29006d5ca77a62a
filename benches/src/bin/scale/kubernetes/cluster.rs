//! The cluster: namespaces, nodes with their agents' pods, pods, and the services that they serve.

use std::path::PathBuf;
use std::sync::Arc;

use ambit_kube::{Access, connect};
use ambit_mesh::workload::WorkloadUid;
use ambit_tests::cluster::control::Control;
use ambit_tests::cluster::crowd::{ACCOUNT, Pod, Where};
use ambit_tests::cluster::kinds::{ENDPOINT_SLICES, Kind, NAMESPACES, NODES, PODS, SERVICE_ACCOUNTS};
use ambit_tests::cluster::token::{self, BoundTo};
use ambit_tests::cluster::write_kubeconfig;
use anyhow::{Context, Result};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinSet;

/// The mesh's own namespace.
pub(super) const SYSTEM: &str = "ambit-system";

/// Pods of one namespace; a team's.
const PODS_OF_A_NAMESPACE: usize = 200;

/// A cluster in an API server. Clones are the same.
#[derive(Clone)]
pub(super) struct Cluster(Arc<Inner>);

struct Inner {
    client: Client,
    kubeconfig: PathBuf,
    directory: TempDir,
    nodes: Vec<String>,
    pods: usize,
    of_a_service: usize,
}

impl Cluster {
    pub(super) async fn make(url: &str, nodes: usize, pods: usize, of_a_service: usize) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let kubeconfig = write_kubeconfig(directory.path(), "api", url)?;
        let client = connect(&Access::Kubeconfig { file: Some(kubeconfig.clone()), context: None }).await?;
        let nodes: Vec<String> = (0..nodes).map(|number| format!("node-{number}")).collect();
        let cluster = Self(Arc::new(Inner { client, kubeconfig, directory, nodes, pods, of_a_service }));
        cluster.make_system().await?;
        let mut teams = JoinSet::new();
        for namespace in 0..pods.div_ceil(PODS_OF_A_NAMESPACE) {
            let cluster = cluster.clone();
            teams.spawn(async move { cluster.make_team(namespace).await });
        }
        teams.join_all().await.into_iter().collect::<Result<Vec<()>>>()?;
        Ok(cluster)
    }

    async fn make_system(&self) -> Result<()> {
        self.create(NAMESPACES, "", json!({"metadata": {"name": SYSTEM}})).await?;
        self.create(SERVICE_ACCOUNTS, SYSTEM, json!({"metadata": {"name": "ztunnel"}})).await?;
        for (number, node) in self.0.nodes.iter().enumerate() {
            let range = format!("10.{}.{}.0/24", 64 + number / 256, number % 256);
            let spec = json!({"podCIDR": range, "podCIDRs": [range]});
            self.create(NODES, "", json!({"metadata": {"name": node}, "spec": spec})).await?;
            let spec = json!({
                "nodeName": node, "serviceAccountName": "ztunnel", "containers": [{"name": "c", "image": "none"}],
            });
            self.create(PODS, SYSTEM, json!({"metadata": {"name": agent_of(node)}, "spec": spec})).await?;
        }
        Ok(())
    }

    async fn make_team(&self, number: usize) -> Result<()> {
        let namespace = name_of_team(number);
        let labels = json!({"istio.io/dataplane-mode": "ambient"});
        self.create(NAMESPACES, "", json!({"metadata": {"name": namespace, "labels": labels}})).await?;
        self.create(SERVICE_ACCOUNTS, &namespace, json!({"metadata": {"name": ACCOUNT}})).await?;
        let first = number * PODS_OF_A_NAMESPACE;
        for pod in first..(first + PODS_OF_A_NAMESPACE).min(self.0.pods) {
            self.place(pod).run(&Pod::numbered(pod), &Value::Null).await?;
            if pod % self.0.of_a_service == 0 {
                let service = self.service_of(pod);
                self.place(pod).serve(&service.name, &service.pods).await?;
            }
        }
        Ok(())
    }

    pub(super) fn pods(&self) -> usize {
        self.0.pods
    }

    pub(super) fn nodes(&self) -> &[String] {
        &self.0.nodes
    }

    pub(super) fn services(&self) -> usize {
        self.0.pods.div_ceil(self.0.of_a_service)
    }

    /// The name that proxies know a pod by.
    pub(super) fn workload(&self, pod: usize) -> WorkloadUid {
        let namespace = name_of_team(pod / PODS_OF_A_NAMESPACE);
        WorkloadUid(format!("Kubernetes//Pod/{namespace}/{}", Pod::numbered(pod).name).into())
    }

    /// Says of a pod, as its kubelet and then the controller of slices do, whether it is ready.
    pub(super) async fn set_ready(&self, pod: usize, ready: bool) -> Result<()> {
        let place = self.place(pod);
        place.set_running(&Pod::numbered(pod), ready).await?;
        let service = self.service_of(pod);
        let changed = Pod::numbered(pod).name;
        let endpoint = |one: &Pod| place.endpoint(one, one.name != changed || ready);
        let endpoints: Vec<Value> = service.pods.iter().map(endpoint).collect();
        let slices = ENDPOINT_SLICES.api(self.0.client.clone(), &place.namespace);
        let patch = Patch::Merge(json!({"endpoints": endpoints}));
        slices.patch(&format!("{}-1", service.name), &PatchParams::default(), &patch).await?;
        Ok(())
    }

    /// Starts control on it.
    pub(super) fn control(&self) -> Result<Control> {
        Control::start("control-a", &self.0.kubeconfig, SYSTEM, self.0.directory.path(), &[])
    }

    pub(super) fn client(&self) -> Client {
        self.0.client.clone()
    }

    /// A file for something.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.0.directory.path().join(name)
    }

    /// A token of a node's agent.
    pub(super) async fn token_of(&self, node: &str) -> Result<String> {
        let pod = agent_of(node);
        let found = PODS.api(self.client(), SYSTEM).get(&pod).await?;
        let bound = BoundTo { pod, uid: found.uid().context("a pod has a UID")? };
        Ok(token::request(&self.0.client, (SYSTEM, "ztunnel"), &["ambit-ca"], Some(&bound)).await?)
    }

    async fn create(&self, kind: Kind, namespace: &str, object: Value) -> Result<()> {
        let api = kind.api(self.0.client.clone(), namespace);
        api.create(&PostParams::default(), &kind.object(object)?).await?;
        Ok(())
    }

    fn place(&self, pod: usize) -> Where {
        Where {
            client: self.0.client.clone(),
            namespace: name_of_team(pod / PODS_OF_A_NAMESPACE),
            node: self.0.nodes[pod % self.0.nodes.len()].clone(),
        }
    }

    fn service_of(&self, pod: usize) -> Service {
        let first = pod - pod % self.0.of_a_service;
        let last = (first + self.0.of_a_service).min(self.0.pods);
        Service { name: format!("service-{first}"), pods: (first..last).map(Pod::numbered).collect() }
    }
}

struct Service {
    name: String,
    pods: Vec<Pod>,
}

fn name_of_team(number: usize) -> String {
    format!("team-{number}")
}

fn agent_of(node: &str) -> String {
    format!("ztunnel-{node}")
}
