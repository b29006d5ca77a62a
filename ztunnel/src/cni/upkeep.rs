//! What a running agent does for the plugin: answers it, keeps the host's list, and keeps it in the
//! node's chain. In this order: where the plugin is called, there is a list to go by.

use std::path::PathBuf;

use ambit_runtime::readiness::{Readiness, Ready};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::error;

use super::SOCKET;
use super::install::{self, Installation, PluginSettings};
use super::list::keeper::Keeper;
use super::server::{BindError, Server};
use crate::config::{CniDirectories, CniSettings};
use crate::pods::arrival::CniEvent;
use crate::state::SnapshotReader;

/// What is to be kept up, prepared.
#[derive(Debug)]
pub struct Upkeep {
    server: Server,
    list: Keeper,
    chain: Option<Chain>,
    problems: watch::Receiver<Vec<String>>,
}

/// What it takes to keep the plugin in the node's chain.
#[derive(Debug)]
struct Chain {
    installation: Installation,
    ready: Ready,
    problems: watch::Sender<Vec<String>>,
}

impl Upkeep {
    /// Prepares it for the agent of `node`. If the plugin is to be installed, the agent is not ready
    /// before it is.
    ///
    /// # Errors
    /// When the socket cannot be made.
    pub fn prepare(
        node: String,
        settings: &CniSettings,
        state_dir: PathBuf,
        readiness: &Readiness,
    ) -> Result<Self, BindError> {
        let server = Server::bind(&state_dir.join(SOCKET))?;
        let lists = PluginSettings::new(&settings.plugin, state_dir.clone()).lists();
        let directories = settings.cni_conf_dir.clone().zip(settings.cni_bin_dir.clone());
        let (told, problems) = watch::channel(Vec::new());
        let chain = directories.map(|(cni_conf_dir, cni_bin_dir)| {
            let directories = CniDirectories { cni_conf_dir, cni_bin_dir };
            let installation = Installation::new(&directories, &settings.plugin, state_dir);
            let ready = readiness.register("CNI plugin in the node's chain");
            Chain { installation, ready, problems: told }
        });
        Ok(Self { server, list: Keeper::new(node, lists), chain, problems })
    }

    /// What keeps the plugin out of the chain, while something does: a person has to see to it.
    pub fn problems(&self) -> watch::Receiver<Vec<String>> {
        self.problems.clone()
    }

    /// Does it until the future is dropped. What the plugin asks goes to whoever manages the pods.
    pub async fn run(self, snapshots: SnapshotReader, events: mpsc::Sender<CniEvent>) {
        let (first, listed) = oneshot::channel();
        let serving = self.server.serve(events, first_of(snapshots.clone()));
        tokio::join!(serving, self.list.run(snapshots, first), keep_chained(self.chain, listed));
    }
}

/// Waits until there is a configuration to answer by.
async fn first_of(mut snapshots: SnapshotReader) {
    while snapshots.load().is_none() && snapshots.changed().await {}
}

async fn keep_chained(chain: Option<Chain>, listed: oneshot::Receiver<()>) {
    let Some(Chain { installation, ready, problems }) = chain else { return };
    // Without a sender the agent is ending.
    if listed.await.is_err() {
        return;
    }
    let refused = problems.clone();
    match install::Keeper::start(installation, ready, problems) {
        // It is kept until this future is dropped.
        Ok(_keeper) => std::future::pending().await,
        Err(error) => {
            error!(%error, "the CNI plugin is not installed: the system refuses a thread");
            let problem = format!("the CNI plugin is not installed: the system refuses a thread: {error}");
            refused.send_replace(vec![problem]);
        }
    }
}
