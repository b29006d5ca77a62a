//! A mesh's configuration, read once: from files or from a cluster, by the parts of control that serve it.

mod assumed;
mod model;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

use ambit_kube::Access;
use ambit_mesh::address::Network;
use ambit_mesh::identity::TrustDomain;
use clap::Args;
use control::inputs::Inputs;
use control::source::catalog::{Catalog, FileState, Files};
use control::source::scan::Scanner;
use control::source::{Batch, Source, SourceProblem, reading};
use control::translate::{NetnsAnnotation, Settings};

pub(crate) use assumed::objects as assumed_objects;
pub use model::{Model, Refused};

/// How long an API server may take to tell everything.
const CLUSTER_PATIENCE: Duration = Duration::from_secs(60);

/// The name under which what is assumed is read.
pub(crate) const ASSUMED: &str = "(assumed)";

/// What every command needs to know of a mesh that it does not run in.
#[derive(Clone, Debug, Args)]
pub struct MeshArgs {
    /// The trust domain of the mesh's identities.
    #[arg(long, value_name = "DOMAIN", default_value = "cluster.local")]
    pub trust_domain: TrustDomain,
    /// The name of the cluster, as control has it.
    #[arg(long, value_name = "NAME", default_value = "Kubernetes")]
    pub cluster_id: String,
    /// Take the files as deployed: what a cluster would add to them (pods of Deployments, addresses of
    /// Services, instances of waypoints) is assumed, and listed.
    #[arg(long)]
    pub as_deployed: bool,
}

impl MeshArgs {
    /// What holds for the whole mesh.
    pub fn settings(&self) -> Settings {
        Settings {
            cluster_id: self.cluster_id.as_str().into(),
            network: Network::default(),
            trust_domain: self.trust_domain.clone(),
            mesh_ranges: Vec::new(),
            netns_annotation: NetnsAnnotation::Honoured,
        }
    }
}

/// Why a configuration could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// A path is not there, or no file.
    #[error("{path}: it cannot be read")]
    Path {
        /// The path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Nothing to read.
    #[error("{path} holds no file that ends with .yaml or .yml")]
    Empty {
        /// The path.
        path: PathBuf,
    },
    /// The cluster cannot be asked.
    #[error(transparent)]
    Connect(#[from] ambit_kube::ConnectError),
    /// The API server refuses to answer.
    #[error("the API server does not answer")]
    Api(#[from] Box<kube::Error>),
    /// The cluster's thread cannot be started.
    #[error("no thread to read the cluster with")]
    Thread(#[source] io::Error),
    /// The cluster did not tell everything.
    #[error(
        "the API server did not tell of every object within {} s: check that you may list every kind that \
         control reads",
        CLUSTER_PATIENCE.as_secs()
    )]
    Late,
}

/// Reads directories and files of Kubernetes YAML, as control reads its directory.
///
/// # Errors
/// When a path cannot be read at all. What is wrong inside a file is a problem of the inputs.
pub fn read_files(paths: &[PathBuf], as_deployed: bool) -> Result<Inputs, ReadError> {
    let mut texts = BTreeMap::new();
    let mut unreadable: Vec<SourceProblem> = Vec::new();
    for path in paths {
        let failed = |source| ReadError::Path { path: path.clone(), source };
        if fs::metadata(path).map_err(failed)?.is_file() {
            let text = fs::read_to_string(path).map_err(failed)?;
            texts.insert(Arc::from(path.to_string_lossy()), text);
            continue;
        }
        let scan = Scanner::new(path.clone()).scan();
        // Of several directories each file says in which it is.
        let named = |name: &str| match paths.len() {
            1 => Arc::from(name),
            _ => Arc::from(path.join(name).to_string_lossy()),
        };
        texts.extend(scan.texts.into_iter().map(|(name, text)| (named(&name), text.unwrap_or_default())));
        unreadable.extend(scan.unreadable);
    }
    if texts.is_empty() && unreadable.is_empty() {
        let path = paths.first().map_or_else(|| Path::new(".").to_owned(), PathBuf::clone);
        return Err(ReadError::Empty { path });
    }
    Ok(of_texts(&texts, unreadable, as_deployed))
}

/// What control would have in force that starts with these files.
pub fn of_texts(
    texts: &BTreeMap<Arc<str>, String>,
    unreadable: Vec<SourceProblem>,
    as_deployed: bool,
) -> Inputs {
    let read = |(name, text): (&Arc<str>, &String)| (name.clone(), reading::read(name, text));
    let mut contents: BTreeMap<Arc<str>, _> = texts.iter().map(read).collect();
    if as_deployed {
        let name: Arc<str> = ASSUMED.into();
        let text = assumed::complete(&mut contents, texts.values().map(String::as_str));
        contents.insert(name.clone(), reading::read(&name, &text));
    }
    let contents = contents.into_iter().map(|(name, content)| (name, FileState::Read(content)));
    inputs(Catalog::default().update(Files { contents: contents.collect(), unreadable }))
}

/// Reads everything that a cluster's API server has.
///
/// # Errors
/// When it does not tell.
pub async fn read_cluster(access: &Access) -> Result<Inputs, ReadError> {
    // Asked first: the source tries again for ever, which says nothing to who waits.
    let client = ambit_kube::connect(access).await?;
    client.apiserver_version().await.map_err(Box::new)?;
    let (sender, batches) = sync_channel(1);
    let source = Source::Kubernetes { access: access.clone(), namespace: crate::NAMESPACE.to_owned() };
    let running = source.start(sender).map_err(ReadError::Thread)?;
    let first = batches.recv_timeout(CLUSTER_PATIENCE);
    drop(running);
    match first {
        Ok(batch) => Ok(inputs(batch)),
        Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => Err(ReadError::Late),
    }
}

fn inputs(batch: Batch) -> Inputs {
    let mut inputs = Inputs::default();
    inputs.apply(batch);
    inputs
}
