//! Pods and Services as a cluster has them, made many at a time.

use std::sync::Arc;

use anyhow::Result;
use kube::ResourceExt;
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::kinds::{ENDPOINT_SLICES, Kind, PODS, SERVICES};

/// The ServiceAccount of every pod.
pub const ACCOUNT: &str = "workload";

/// Requests that are under way at a time.
const AT_ONCE: usize = 24;

/// A pod that runs.
#[derive(Clone, Debug)]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// Its address.
    pub ip: String,
}

impl Pod {
    /// The `number`th pod, with an address that follows from the number.
    pub fn numbered(number: usize) -> Self {
        Self { name: format!("pod-{number}"), ip: address(number) }
    }
}

/// An address of 10.64.0.0/11, which no node's pods have.
pub fn address(number: usize) -> String {
    let [.., second, third, last] = number.to_be_bytes();
    format!("10.{}.{third}.{last}", 64 | (second & 31))
}

/// Where pods go.
#[derive(Clone)]
pub struct Where {
    /// The way to the API server.
    pub client: Client,
    /// Their namespace.
    pub namespace: String,
    /// Their node.
    pub node: String,
}

impl Where {
    /// The pods there.
    pub fn pods(&self) -> Api<DynamicObject> {
        PODS.api(self.client.clone(), &self.namespace)
    }

    /// Makes a pod, and says for its kubelet that it runs.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn run(&self, pod: &Pod, extra: &Value) -> Result<DynamicObject> {
        let mut object = json!({
            "metadata": {"name": pod.name, "labels": {"app": "crowd"}},
            "spec": {
                "nodeName": self.node, "serviceAccountName": ACCOUNT, "automountServiceAccountToken": false,
                "containers": [{"name": "c", "image": "none", "ports": [{"containerPort": 8080}]}],
                "tolerations": [{"operator": "Exists"}], "terminationGracePeriodSeconds": 1,
            },
        });
        overlay(&mut object, extra);
        self.pods().create(&PostParams::default(), &PODS.object(object)?).await?;
        self.set_running(pod, true).await
    }

    /// What a kubelet says of a pod.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn set_running(&self, pod: &Pod, ready: bool) -> Result<DynamicObject> {
        let ready = if ready { "True" } else { "False" };
        let status = json!({"status": {
            "phase": "Running", "podIP": pod.ip, "podIPs": [{"ip": pod.ip}],
            "conditions": [{"type": "Ready", "status": ready}],
        }});
        Ok(self.pods().patch_status(&pod.name, &PatchParams::default(), &Patch::Merge(status)).await?)
    }

    /// Makes many pods.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn run_all(&self, pods: impl IntoIterator<Item = Pod>) -> Result<()> {
        self.each(pods, |place, pod| async move { place.run(&pod, &Value::Null).await.map(drop) }).await
    }

    /// Removes many pods, as if their kubelets had ended them.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn end_all(&self, pods: impl IntoIterator<Item = Pod>) -> Result<()> {
        self.each(pods, |place, pod| async move {
            place.pods().delete(&pod.name, &DeleteParams::default().grace_period(0)).await?;
            Ok(())
        })
        .await
    }

    /// Does the same to many pods, some at a time.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn each<F>(
        &self,
        pods: impl IntoIterator<Item = Pod>,
        step: impl Fn(Self, Pod) -> F,
    ) -> Result<()>
    where
        F: Future<Output = Result<()>> + Send + 'static,
    {
        let permits = Arc::new(Semaphore::new(AT_ONCE));
        let mut tasks = JoinSet::new();
        for pod in pods {
            let permit = Arc::clone(&permits).acquire_owned().await?;
            let step = step(self.clone(), pod);
            tasks.spawn(async move {
                let outcome = step.await;
                drop(permit);
                outcome
            });
            while let Some(done) = tasks.try_join_next() {
                done??;
            }
        }
        while let Some(done) = tasks.join_next().await {
            done??;
        }
        Ok(())
    }

    /// A Service without a selector, and a slice of its endpoints: what a controller would write.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn serve(&self, name: &str, pods: &[Pod]) -> Result<()> {
        let make = async |kind: Kind, object: Value| -> Result<DynamicObject> {
            let api = kind.api(self.client.clone(), &self.namespace);
            Ok(api.create(&PostParams::default(), &kind.object(object)?).await?)
        };
        let port = json!({"name": "http", "port": 80, "protocol": "TCP", "targetPort": 8080});
        make(SERVICES, json!({"metadata": {"name": name}, "spec": {"ports": [port]}})).await?;
        let slice = json!({
            "metadata": {
                "name": format!("{name}-1"),
                "labels": {
                    "kubernetes.io/service-name": name,
                    "endpointslice.kubernetes.io/managed-by": "contract.ambit.dev",
                },
            },
            "addressType": "IPv4", "endpoints": pods.iter().map(|pod| self.endpoint(pod, true)).collect::<Vec<Value>>(),
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        });
        make(ENDPOINT_SLICES, slice).await?;
        Ok(())
    }

    /// A pod as a slice lists it.
    pub fn endpoint(&self, pod: &Pod, ready: bool) -> Value {
        let reference = json!({"kind": "Pod", "name": pod.name, "namespace": self.namespace});
        json!({
            "addresses": [pod.ip], "conditions": {"ready": ready}, "nodeName": self.node, "targetRef": reference,
        })
    }

    /// Name and UID of every pod that the API server has here.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn known(&self) -> Result<Vec<(String, String)>> {
        let found = self.pods().list(&Default::default()).await?;
        Ok(found.items.iter().map(|pod| (pod.name_any(), pod.uid().unwrap_or_default())).collect())
    }
}

/// Puts fields of `extra` over those of `object`.
fn overlay(object: &mut Value, extra: &Value) {
    match (object, extra) {
        (Value::Object(fields), Value::Object(extra)) => {
            for (name, value) in extra {
                overlay(fields.entry(name.clone()).or_insert(Value::Null), value);
            }
        }
        (_, Value::Null) => {}
        (object, extra) => *object = extra.clone(),
    }
}
