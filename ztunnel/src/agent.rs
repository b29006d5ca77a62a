//! The agent of a node: its parts in the order in which they depend on each other, and its end.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use ambit_identity::ca_client::{CaClient, CaClientConfig};
use ambit_identity::channel::{BadAddress, to_control_plane};
use ambit_identity::manager::{CertificateManager, ManagerConfig};
use ambit_identity::store::{CertificateStore, StoreError};
use ambit_proto::envoy::config::core::v3::Node;
use ambit_runtime::admin::{BindError, Reply, Router, Server};
use ambit_runtime::config::effective;
use ambit_runtime::drain::{self, DrainTrigger};
use ambit_runtime::readiness::Readiness;
use ambit_runtime::shutdown::{self, Ended, Shutdown, ShutdownHandle};
use ambit_runtime::telemetry::logging::Logging;
use ambit_runtime::telemetry::metrics::Metrics;
use ambit_xds::client::{Client, Config};
use ambit_xds::last_good::{LastGood, Owner, keeper};
use ambit_xds::session::Interest;
use http::Uri;
use http::uri::InvalidUri;
use tokio::sync::{oneshot, watch};
use tokio::task::{JoinHandle, JoinSet, spawn_local};
use tracing::{error, info};

use crate::beginning::take_over;
use crate::capture::marks::{MarkStore, MarkStoreError};
use crate::capture::netns::NamespaceError;
use crate::capture::node::NodeNetwork;
use crate::capture::{Backend, DetectError};
use crate::cni::server::BindError as CniBindError;
use crate::cni::upkeep::Upkeep;
use crate::config::{CaptureBackend, CaptureSettings, EndConfig, RunConfig, UninstallCheck};
use crate::configuration::Configuration;
use crate::dump::config_dump;
use crate::ending::{self, Ending, Haste, Inputs, Inquiry, clear_node};
use crate::expiry;
use crate::handover::{self, Myself, Notice, Parting, ReceptionError};
use crate::limits::raise_descriptor_limit;
use crate::pods::cgroup::CgroupRoot;
use crate::pods::registry::Registry;
use crate::pods::scan::HostProc;
use crate::pods::{Finding, PodManager, PodSettings, PodStatus, arrival};
use crate::state::{SnapshotReader, store};
use crate::uninstall::discovery::{BadAddress as BadApiAddress, Discovery};
use crate::uninstall::remains::Places;
use crate::uninstall::witness::Witness;
use crate::worker::{self, Command, Shared, WorkerHandle};

/// Why the agent cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address of control is malformed.
    #[error("--xds-address {address:?}: {source}")]
    Uri {
        /// What was given.
        address: String,
        /// The cause.
        #[source]
        source: InvalidUri,
    },
    /// The address of control cannot be used.
    #[error("--xds-address: {0}")]
    Address(#[from] BadAddress),
    /// The cluster's name cannot be sent.
    #[error("--cluster-id {name:?} is not visible ASCII")]
    ClusterId {
        /// What was given.
        name: String,
    },
    /// Neither way of capture works here.
    #[error(transparent)]
    Capture(#[from] DetectError),
    /// The node's own network namespace cannot be opened.
    #[error("--host-netns: {0}")]
    NodeNetwork(#[from] NamespaceError),
    /// The state directory cannot be used.
    #[error(transparent)]
    Marks(#[from] MarkStoreError),
    /// The state directory cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A port of the agent's own is taken.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The address of the API server cannot be used.
    #[error("--uninstall-check: {0}")]
    Api(#[from] BadApiAddress),
    /// The state directory cannot be used.
    #[error(transparent)]
    Reception(#[from] ReceptionError),
    /// The CNI plugin's socket cannot be made.
    #[error(transparent)]
    Cni(#[from] CniBindError),
    /// A thread, a runtime or a signal handler cannot be made.
    #[error("the system refuses a thread, a descriptor or a signal handler: {0}")]
    System(#[from] std::io::Error),
}

/// Runs the agent until it is told to end, and has drained or cleared the node.
///
/// # Errors
/// When a part cannot be started. Nothing was captured then that was not captured before.
pub async fn run(config: RunConfig, logging: &Logging, metrics: &Metrics) -> Result<(), StartError> {
    let mut shutdown = shutdown::signals()?;
    raise_descriptor_limit();
    let readiness = Readiness::default();
    let synced = readiness.register("configuration from control");
    let in_office = readiness.register("hand-over from the agent before");
    let (writer, mut snapshots) = store();
    let (trigger, draining) = drain::channel();
    let certificates = Arc::new(certificate_manager(&config)?);
    let node_network = Arc::new(NodeNetwork::open(config.capture.host_netns.as_deref())?);
    let settings = pod_settings(&config, &node_network)?;
    let discovery = discovery(&config.end)?;
    let cni = Upkeep::prepare(config.node.clone(), &config.cni, config.state_dir.clone(), &readiness)?;
    let client = xds_client(&config, cni.problems())?;
    let pods = Arc::<Mutex<Vec<PodStatus>>>::default();

    let shown = Shown {
        snapshots: snapshots.clone(),
        certificates: Arc::clone(&certificates),
        pods: Arc::clone(&pods),
    };
    let mut tasks = JoinSet::new();
    for server in servers(&config, logging, metrics, &readiness, shutdown.handle(), shown)? {
        tasks.spawn(server.serve());
    }
    tasks.spawn(expiry::keep_told(Arc::clone(&certificates)));
    let shared = Shared {
        snapshots: snapshots.clone(),
        config: Arc::new(config.data_path.clone()),
        node_network,
        drain: draining,
    };
    let workers = start_workers(config.data_path.workers, &shared)?;
    drop(shared);
    info!(node = config.node, workers = workers.len(), capture = %settings.backend, "agent started");

    let last_good = last_good(&config);
    let (stop, stopped) = oneshot::channel::<()>();
    let (keeper, keeping) = keeper(last_good.clone(), async { drop(stopped.await) });
    let mut configuration = Configuration::new(config.node.clone(), writer, synced, keeper);
    configuration.take_up(&last_good, SystemTime::now());
    let mut source = configuration.source();
    tasks.spawn(configuration.follow(client));
    let mut manager = PodManager::new(settings, Arc::clone(&certificates), Arc::clone(&workers))?;
    let (arriving, mut arrivals) = arrival::channel();

    let socket = handover::socket_path(&config.state_dir);
    let reception = handover::prepare(&socket)?;
    let myself = Myself { instance: config.instance.clone() };
    let office = tokio::select! {
        replaced = take_over(&socket, &myself, &mut manager, &mut source) => Some(replaced),
        _ = shutdown.requested() => None,
    };
    let (ended, files) = if let Some(replaced) = office {
        // The files are this process's from here on, not before.
        let files = Files { stop, keeping: tokio::spawn(keeping), certificates };
        let (reception, notice, mut successors) = reception.open(myself, replaced);
        let reception = spawn_local(reception.run());
        let answering = tokio::spawn(cni.run(snapshots.clone(), arriving));
        in_office.ready();
        let witness = Witness::new(snapshots.clone(), source);
        let inputs =
            &mut Inputs { snapshots: &mut snapshots, cni: &mut arrivals, successors: &mut successors };
        let inquiry = discovery.as_ref().map(|discovery| Inquiry {
            discovery,
            witness,
            wait: config.end.uninstall_wait,
        });
        let on_change = move |statuses| *pods.lock().unwrap_or_else(PoisonError::into_inner) = statuses;
        let ending = ending::serve(&mut manager, inputs, &mut shutdown, inquiry, on_change).await;
        // A plugin that finds nobody asks again until its time is over. The end is waited for: who keeps
        // the plugin in the chain must be gone before it is taken out.
        answering.abort();
        let _aborted = answering.await;
        match ending {
            Ending::Succeeded { parting, told } => {
                in_office.unready();
                workers.iter().for_each(|worker| worker.send(Command::Retire));
                files.release().await;
                // It shows the successor that this process runs, and is found by who comes too late.
                let _parting = part(parting, &notice).await;
                if !told {
                    shutdown.requested().await;
                }
                (drain(shutdown, trigger, config.end.handover_drain_timeout).await, None)
            }
            Ending::Closed(haste) => {
                // Nobody is found here any more: the next agent opens the pods' listeners anew.
                reception.abort();
                let within = match haste {
                    Haste::Drain => config.end.drain_timeout,
                    Haste::Now => Duration::ZERO,
                };
                (drain(shutdown, trigger, within).await, Some(files))
            }
            Ending::Uninstalled => {
                reception.abort();
                files.release().await;
                let within = config.end.drain_timeout;
                let places = Places { state_dir: config.state_dir.clone(), cni: config.cni.clone() };
                clear_node(&mut manager, &places, &mut shutdown, within).await;
                (drain(shutdown, trigger, within).await, None)
            }
        }
    } else {
        info!("told to end before this agent served: what was there before goes on");
        (drain(shutdown, trigger, config.end.drain_timeout).await, None)
    };
    tasks.shutdown().await;
    // With the configuration's owner gone, its final state is written.
    if let Some(files) = files {
        files.finish().await;
    }
    drop((manager, workers));
    info!(?ended, "agent ended");
    Ok(())
}

/// The files that one process writes: the last good configuration and the certificates.
struct Files {
    stop: oneshot::Sender<()>,
    keeping: JoinHandle<()>,
    certificates: Arc<CertificateManager<CaClient>>,
}

impl Files {
    /// Leaves them to another process, or to nobody. What is being written is finished.
    async fn release(self) {
        self.certificates.release_store();
        drop(self.stop);
        written(self.keeping).await;
    }

    /// Finishes them.
    async fn finish(self) {
        written(self.keeping).await;
    }
}

async fn written(keeping: JoinHandle<()>) {
    if let Err(failure) = keeping.await {
        error!(%failure, "the last good configuration was not written");
    }
}

/// Lets the successor have everything.
async fn part(parting: Parting, notice: &Notice) -> Parting {
    match parting.successor() {
        Ok(successor) => notice.succeeded(successor),
        Err(error) => error!(%error, "who comes next may take this node for unserved"),
    }
    if let Err(error) = parting.released().await {
        error!(%error, "the successor is gone: this node's pods are closed until it is back");
    }
    parting
}

async fn drain(shutdown: Shutdown, trigger: DrainTrigger, within: Duration) -> Ended {
    info!(?within, "draining: no new connections, open ones may finish");
    shutdown.drain(trigger, within).await
}

/// Whom to ask whether the mesh was uninstalled.
fn discovery(config: &EndConfig) -> Result<Option<Discovery>, StartError> {
    let address = match &config.uninstall_check {
        UninstallCheck::Off => return Ok(None),
        UninstallCheck::At(address) => Some(address.clone()),
        UninstallCheck::Auto => in_cluster_address(),
    };
    let discovery = |address: String| {
        Discovery::new(&address, config.api_token_file.clone(), config.api_root_file.clone())
    };
    Ok(address.map(discovery).transpose()?)
}

/// Where the kubelet says that the API server is.
fn in_cluster_address() -> Option<String> {
    let host = std::env::var("KUBERNETES_SERVICE_HOST").ok()?;
    let port = std::env::var("KUBERNETES_SERVICE_PORT").ok()?;
    Some(if host.contains(':') {
        format!("https://[{host}]:{port}")
    } else {
        format!("https://{host}:{port}")
    })
}

/// What the admin interface shows.
struct Shown {
    snapshots: SnapshotReader,
    certificates: Arc<CertificateManager<CaClient>>,
    pods: Arc<Mutex<Vec<PodStatus>>>,
}

fn servers(
    config: &RunConfig,
    logging: &Logging,
    metrics: &Metrics,
    readiness: &Readiness,
    shutdown: ShutdownHandle,
    shown: Shown,
) -> Result<[Server; 3], BindError> {
    let shown_config = serde_json::to_value(config).unwrap_or_default();
    let admin = Router::new("ztunnel")
        .with_config(effective(config))
        .with_logging(logging.control())
        .with_quit(shutdown)
        .get(
            "/config_dump",
            "what the agent knows: workloads, services, policies, certificates, pods",
            move |_| {
                let pods = shown.pods.lock().unwrap_or_else(PoisonError::into_inner);
                let snapshot = shown.snapshots.load();
                Reply::json(&config_dump(
                    snapshot.as_deref(),
                    &shown.certificates.statuses(),
                    &pods,
                    &shown_config,
                ))
            },
        );
    let common = &config.common;
    Ok([
        Server::bind(common.admin_address, "--admin-address", admin)?,
        Server::bind(
            common.metrics_address,
            "--metrics-address",
            Router::new("ztunnel metrics").with_metrics(metrics),
        )?,
        Server::bind(
            common.readiness_address,
            "--readiness-address",
            Router::new("ztunnel readiness").with_readiness(readiness),
        )?,
    ])
}

fn certificate_manager(config: &RunConfig) -> Result<CertificateManager<CaClient>, StartError> {
    let channel = to_control_plane(&control_address(config)?, config.control.xds_root_file.clone())?;
    let cluster_id =
        config.cluster_id.parse().map_err(|_| StartError::ClusterId { name: config.cluster_id.clone() })?;
    let ca = CaClientConfig {
        token_file: config.control.token_file.clone(),
        cluster_id,
        certificate_ttl: config.control.certificate_ttl,
    };
    let store = CertificateStore::open(config.state_dir.join("certificates"))?;
    let settings = ManagerConfig { store: Some(store), ..ManagerConfig::default() };
    Ok(CertificateManager::new(CaClient::new(channel, ca), settings))
}

fn control_address(config: &RunConfig) -> Result<Uri, StartError> {
    let address = &config.control.xds_address;
    address.parse().map_err(|source| StartError::Uri { address: address.clone(), source })
}

fn pod_settings(config: &RunConfig, node_network: &Arc<NodeNetwork>) -> Result<PodSettings, StartError> {
    Ok(PodSettings {
        node: config.node.clone(),
        node_network: Arc::clone(node_network),
        backend: backend(config.capture.capture)?,
        finding: finding(&config.capture, node_network)?,
        arrival_wait: config.data_path.unknown_wait,
        marks: MarkStore::open(&config.state_dir)?,
        registry: Registry::new(&config.state_dir),
    })
}

fn finding(capture: &CaptureSettings, node_network: &NodeNetwork) -> Result<Finding, NamespaceError> {
    if capture.allow_netns_annotation {
        return Ok(Finding::Annotations);
    }
    let Some(path) = capture.host_proc.clone() else { return Ok(Finding::Uid(None)) };
    Ok(Finding::Uid(Some(HostProc {
        path,
        cgroup_root: CgroupRoot::new(&capture.kubelet_cgroup_root),
        not_pods: node_network.not_pods()?,
    })))
}

/// The backend that was asked for, or the one that works here.
///
/// # Errors
/// When neither works.
pub fn backend(asked: CaptureBackend) -> Result<Backend, DetectError> {
    match asked {
        CaptureBackend::Auto => Backend::detect(),
        CaptureBackend::Nftables => Ok(Backend::Nftables),
        CaptureBackend::Iptables => Ok(Backend::Iptables),
    }
}

fn last_good(config: &RunConfig) -> LastGood {
    let owner = Owner {
        cluster_id: config.cluster_id.clone(),
        proxy: config.node.clone(),
        trust_domain: config.trust_domain.clone(),
    };
    LastGood::new(&config.state_dir, owner)
}

fn xds_client(config: &RunConfig, problems: watch::Receiver<Vec<String>>) -> Result<Client, StartError> {
    Ok(Client::new(Config {
        address: control_address(config)?,
        root_file: config.control.xds_root_file.clone(),
        token_file: config.control.token_file.clone(),
        cluster_id: config.cluster_id.clone(),
        node: node(config),
        addresses: Interest::Everything,
        role: ambit_xds::Role::Node,
        problems,
    }))
}

/// Who we are, in the form that Istio's control plane reads.
fn node(config: &RunConfig) -> Node {
    let text = |value: &str| prost_types::Value {
        kind: Some(prost_types::value::Kind::StringValue(value.to_owned())),
    };
    let metadata = [
        ("NAME", config.node.as_str()),
        ("NAMESPACE", NAMESPACE),
        ("NODE_NAME", config.node.as_str()),
        ("CLUSTER_ID", config.cluster_id.as_str()),
    ];
    Node {
        id: format!("ztunnel~{ANY_ADDRESS}~{}.{NAMESPACE}~{NAMESPACE}.svc.cluster.local", config.node),
        cluster: "ztunnel".to_owned(),
        metadata: Some(prost_types::Struct {
            fields: metadata.into_iter().map(|(key, value)| (key.to_owned(), text(value))).collect(),
        }),
    }
}

fn start_workers(asked: usize, shared: &Shared) -> Result<Arc<[WorkerHandle]>, std::io::Error> {
    let count = if asked == 0 { std::thread::available_parallelism()?.get() } else { asked };
    (0..count).map(|index| worker::start(index, shared.clone())).collect()
}

/// The namespace that the mesh runs in.
const NAMESPACE: &str = "ambit-system";

/// Istio's agents put their own address here; nothing depends on it.
const ANY_ADDRESS: &str = "1.1.1.1";
