//! A node without a kubelet, whose Lease and condition are kept fresh, so that no controller takes it for
//! lost.

use std::time::Duration;

use anyhow::Result;
use kube::Client;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use tokio::task::JoinHandle;
use tokio::time::interval;

use super::kinds::{LEASES, NODES};

/// Far below the 40 seconds after which a node counts as lost.
const BEAT: Duration = Duration::from_secs(8);

/// A node that is alive as long as this is. Its objects stay: the node, and its Lease.
pub struct Node {
    /// Its name.
    pub name: String,
    heart: JoinHandle<()>,
}

impl Node {
    /// Makes a node. No DaemonSet that asks for Linux comes to it, since it does not say what it runs.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn make(client: &Client, name: &str, pod_range: &str) -> Result<Self> {
        let taint = json!({"key": "ambit.dev/contract", "effect": "NoSchedule"});
        let node = json!({"metadata": {"name": name}, "spec": {"podCIDR": pod_range, "podCIDRs": [pod_range],
                          "taints": [taint]}});
        NODES.api(client.clone(), "").create(&Default::default(), &NODES.object(node)?).await?;
        beat(client, name).await?;
        let (beating, of) = (client.clone(), name.to_owned());
        let heart = tokio::spawn(async move {
            let mut ticks = interval(BEAT);
            loop {
                ticks.tick().await;
                // The next beat may succeed; a node that is lost shows in the scenario.
                if let Err(error) = beat(&beating, &of).await {
                    eprintln!("the node {of} has missed a beat: {error:#}");
                }
            }
        });
        Ok(Self { name: name.to_owned(), heart })
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.heart.abort();
    }
}

/// Leases want all six digits.
const MICRO_TIME: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z");

/// Where its Lease is.
pub const LEASE_NAMESPACE: &str = "kube-node-lease";

async fn beat(client: &Client, name: &str) -> Result<()> {
    let now = OffsetDateTime::now_utc();
    let seconds = now.replace_nanosecond(0)?.format(&Rfc3339)?;
    let micros = now.format(MICRO_TIME)?;
    let condition = json!({
        "type": "Ready", "status": "True", "reason": "KubeletReady", "message": "",
        "lastHeartbeatTime": seconds, "lastTransitionTime": seconds,
    });
    let status = Patch::Merge(json!({"status": {"conditions": [condition]}}));
    NODES.api(client.clone(), "").patch_status(name, &PatchParams::default(), &status).await?;
    let lease: Value = json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name},
        "spec": {"holderIdentity": name, "leaseDurationSeconds": 40, "renewTime": micros},
    });
    let options = PatchParams::apply("ambit-contract").force();
    LEASES.api(client.clone(), LEASE_NAMESPACE).patch(name, &options, &Patch::Apply(lease)).await?;
    Ok(())
}
