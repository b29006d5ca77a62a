//! The nodes: one xDS client each, which look for the changes that are expected of them and keep nothing.

use std::collections::HashMap;
use std::fs;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ambit_mesh::snapshot::Change;
use ambit_mesh::workload::{WorkloadStatus, WorkloadUid};
use ambit_proto::envoy::config::core::v3::Node;
use ambit_tests::cluster::control::Control;
use ambit_tests::cluster::kinds::CONFIG_MAPS;
use ambit_tests::wait::until_answered;
use ambit_xds::client::{Batch, Client, Config};
use ambit_xds::session::Interest;
use anyhow::{Context, Result};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::cluster::{Cluster, SYSTEM};

/// The clients. Clones are the same; they end with the last one.
#[derive(Clone)]
pub(super) struct Followers {
    expected: Arc<Expected>,
    synced: watch::Receiver<usize>,
    _tasks: Arc<JoinSet<()>>,
    count: usize,
}

/// What is expected of all of them.
#[derive(Default)]
struct Expected(Mutex<HashMap<WorkloadUid, Pending>>);

struct Pending {
    wanted: WorkloadStatus,
    seen: Vec<bool>,
    missing: usize,
    begun: Instant,
    done: Option<oneshot::Sender<Duration>>,
}

/// A change that is under way.
pub(super) struct Awaited(oneshot::Receiver<Duration>);

impl Awaited {
    /// Waits until every node has received it, and says how long that took.
    pub(super) async fn everywhere(self, within: Duration) -> Result<Duration> {
        let took =
            timeout(within, self.0).await.with_context(|| format!("not everywhere within {within:?}"))?;
        took.context("another change of the same pod came in between")
    }
}

impl Followers {
    pub(super) async fn start(cluster: &Cluster, control: &Control) -> Result<Self> {
        let maps = CONFIG_MAPS.api(cluster.client(), SYSTEM);
        let (map, _) = until_answered("the ConfigMap of the roots", Duration::from_secs(30), async || {
            Ok(maps.get("ambit-ca-root-cert").await?)
        })
        .await?;
        let root_file = cluster.file("root-cert.pem");
        fs::write(&root_file, map.data["data"]["root-cert.pem"].as_str().context("no root-cert.pem")?)?;

        let expected = Arc::new(Expected::default());
        let (publish, synced) = watch::channel(0);
        let publish = Arc::new(publish);
        let mut tasks = JoinSet::new();
        for (index, node) in cluster.nodes().iter().enumerate() {
            let token_file = cluster.file(&format!("token-{node}"));
            fs::write(&token_file, cluster.token_of(node).await?)?;
            let client = Client::new(Config {
                address: control.url()?,
                root_file: root_file.clone(),
                token_file,
                cluster_id: "Kubernetes".into(),
                node: Node { id: format!("ztunnel~{node}"), ..Node::default() },
                addresses: Interest::Everything,
                role: ambit_xds::Role::Node,
                problems: watch::channel(Vec::new()).1,
            });
            let (expected, publish) = (Arc::clone(&expected), Arc::clone(&publish));
            tasks.spawn(async move {
                let mut is_synced = false;
                // Nothing is asked for by name.
                let (_, demand) = mpsc::channel(1);
                client
                    .run(demand, |batch| {
                        if batch.synced && !is_synced {
                            is_synced = true;
                            publish.send_modify(|count| *count += 1);
                        }
                        expected.look(index, &batch);
                    })
                    .await;
            });
        }
        let count = cluster.nodes().len();
        Ok(Self { expected, synced, _tasks: Arc::new(tasks), count })
    }

    /// Waits until all of them have received everything.
    pub(super) async fn synced(&self, within: Duration) -> Result<()> {
        let mut synced = self.synced.clone();
        timeout(within, synced.wait_for(|count| *count == self.count))
            .await
            .context("not all nodes are synced")??;
        Ok(())
    }

    /// From now on all of them look for this.
    pub(super) fn expect(&self, workload: WorkloadUid, ready: bool) -> Awaited {
        let wanted = if ready { WorkloadStatus::Healthy } else { WorkloadStatus::Unhealthy };
        let (done, awaited) = oneshot::channel();
        let (seen, missing) = (vec![false; self.count], self.count);
        let pending = Pending { wanted, seen, missing, begun: Instant::now(), done: Some(done) };
        self.expected.lock().insert(workload, pending);
        Awaited(awaited)
    }
}

impl Expected {
    fn look(&self, node: usize, batch: &Batch) {
        let mut expected = self.lock();
        if expected.is_empty() {
            return;
        }
        for change in &batch.changes {
            let Change::Workload(workload) = change else { continue };
            let Some(pending) = expected.get_mut(&workload.uid) else { continue };
            if workload.status != pending.wanted || std::mem::replace(&mut pending.seen[node], true) {
                continue;
            }
            pending.missing -= 1;
            if pending.missing == 0
                && let Some(pending) = expected.remove(&workload.uid)
                && let Some(done) = pending.done
            {
                // Who no longer waits has given up.
                let _ = done.send(pending.begun.elapsed());
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<WorkloadUid, Pending>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
