//! The waypoint: its parts in the order in which they depend on each other, and its end.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::SystemTime;

use ambit_identity::ca_client::{CaClient, CaClientConfig};
use ambit_identity::channel::{BadAddress, to_control_plane};
use ambit_identity::manager::{CertificateManager, ManagerConfig};
use ambit_identity::store::{CertificateStore, StoreError};
use ambit_identity::tls::TlsIdentity;
use ambit_mesh::http::{GatewayName, Myself};
use ambit_mesh::identity::SpiffeId;
use ambit_mesh::workload::WorkloadUid;
use ambit_proto::envoy::config::core::v3::Node;
use ambit_runtime::admin::{BindError, Reply, Router, Server};
use ambit_runtime::config::effective;
use ambit_runtime::drain;
use ambit_runtime::readiness::{Readiness, Ready};
use ambit_runtime::shutdown::{self, ShutdownHandle};
use ambit_runtime::telemetry::logging::Logging;
use ambit_runtime::telemetry::metrics::Metrics;
use ambit_xds::Role;
use ambit_xds::client::{Client, Config};
use ambit_xds::last_good::{LastGood, Owner, keeper};
use ambit_xds::session::Interest;
use http::Uri;
use http::uri::InvalidUri;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{error, info};

use crate::config::RunConfig;
use crate::configuration::Configuration;
use crate::state::{SnapshotReader, SnapshotWriter, store};
use crate::worker::{self, Shared, WorkerHandle};

/// Why the waypoint cannot start.
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
    /// Namespace and service account make no identity.
    #[error("--namespace and --service-account make no identity: {id:?}")]
    Identity {
        /// What they make.
        id: String,
    },
    /// The HBONE port is taken.
    #[error("--hbone-address {address}: {source}")]
    Listen {
        /// What was given.
        address: SocketAddr,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// A port of the admin pages is taken.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// Certificates cannot be kept.
    #[error("--state-dir: {0}")]
    Store(#[from] StoreError),
    /// A thread, a runtime or a signal handler cannot be made.
    #[error("the system refuses a thread, a descriptor or a signal handler: {0}")]
    System(#[from] std::io::Error),
}

/// Runs the waypoint until it is told to end, and has drained.
///
/// # Errors
/// When a part cannot be started.
pub async fn run(config: RunConfig, logging: &Logging, metrics: &Metrics) -> Result<(), StartError> {
    let mut shutdown = shutdown::signals()?;
    let readiness = Readiness::default();
    let synced = readiness.register("configuration from control");
    let certified = readiness.register("certificate");
    let serving = readiness.register("listener");
    let (writer, snapshots) = store();
    let (trigger, drain) = drain::channel();
    let certificates = Arc::new(certificate_manager(&config)?);
    let id = identity(&config)?;
    let own = certificates.subscribe(&id);

    let mut tasks = JoinSet::new();
    let shown = Shown { snapshots: snapshots.clone(), certificates: Arc::clone(&certificates) };
    for server in servers(&config, logging, metrics, &readiness, shutdown.handle(), shown)? {
        tasks.spawn(server.serve());
    }
    let mut first = own.clone();
    tasks.spawn(async move {
        // Closed when the manager is gone, and so are we.
        if first.wait_for(Option::is_some).await.is_ok() {
            certified.ready();
        }
        std::future::pending().await
    });
    let client = xds_client(&config)?;
    let (configuration, keeping) = configuration(&config, writer, synced);
    tasks.spawn(async move { match configuration.follow(client).await {} });
    let keeping = tokio::spawn(keeping);
    let shared = Shared {
        snapshots,
        config: Arc::new(config.data_path.clone()),
        identity: own,
        suspects: Arc::default(),
        drain,
    };
    let workers = start_workers(&config, shared)?;
    serving.ready();
    info!(gateway = %myself(&config).gateway, identity = %id, workers = workers.len(), "waypoint started");

    let reason = shutdown.requested().await;
    serving.unready();
    info!(?reason, within = ?config.drain_timeout, "draining");
    let ended = shutdown.drain(trigger, config.drain_timeout).await;
    drop(workers);
    tasks.shutdown().await;
    // With the configuration's owner gone, its final state is written.
    if let Err(failure) = keeping.await {
        error!(%failure, "the last good configuration was not written");
    }
    info!(?ended, "waypoint ended");
    Ok(())
}

/// The configuration that is followed, and what keeps it on disk, if it is to be kept.
fn configuration(
    config: &RunConfig,
    writer: SnapshotWriter,
    ready: Ready,
) -> (Configuration, Pin<Box<dyn Future<Output = ()> + Send>>) {
    let myself = myself(config);
    let Some(directory) = &config.state_dir else {
        return (Configuration::new(myself, writer, ready, None), Box::pin(std::future::ready(())));
    };
    let owner = Owner {
        cluster_id: config.cluster_id.clone(),
        proxy: myself.gateway.to_string(),
        trust_domain: config.trust_domain.clone(),
    };
    let last_good = LastGood::new(directory, owner);
    let (keeper, keeping) = keeper(last_good.clone(), std::future::pending());
    let mut configuration = Configuration::new(myself, writer, ready, Some(keeper));
    configuration.take_up(&last_good, SystemTime::now());
    (configuration, Box::pin(keeping))
}

/// What the admin interface shows.
struct Shown {
    snapshots: SnapshotReader,
    certificates: Arc<CertificateManager<CaClient>>,
}

fn servers(
    config: &RunConfig,
    logging: &Logging,
    metrics: &Metrics,
    readiness: &Readiness,
    shutdown: ShutdownHandle,
    shown: Shown,
) -> Result<[Server; 3], BindError> {
    let admin = Router::new("waypoint")
        .with_config(effective(config))
        .with_logging(logging.control())
        .with_quit(shutdown)
        .get(
            "/config_dump",
            "what the waypoint knows: routes, policies, services, certificates",
            move |_| {
                Reply::json(&crate::dump::config_dump(
                    shown.snapshots.load().as_deref(),
                    &shown.certificates.statuses(),
                ))
            },
        );
    let common = &config.common;
    Ok([
        Server::bind(common.admin_address, "--admin-address", admin)?,
        Server::bind(
            common.metrics_address,
            "--metrics-address",
            Router::new("waypoint metrics").with_metrics(metrics),
        )?,
        Server::bind(
            common.readiness_address,
            "--readiness-address",
            Router::new("waypoint readiness").with_readiness(readiness),
        )?,
    ])
}

fn start_workers(config: &RunConfig, shared: Shared) -> Result<Vec<WorkerHandle>, StartError> {
    let asked = config.data_path.workers;
    let count = if asked == 0 { std::thread::available_parallelism()?.get() } else { asked };
    let address = config.data_path.hbone_address;
    let listeners: Result<Vec<_>, _> = (0..count).map(|_| worker::listen(address)).collect();
    let listeners = listeners.map_err(|source| StartError::Listen { address, source })?;
    let workers = listeners.into_iter().enumerate();
    Ok(workers
        .map(|(index, listener)| worker::start(index, shared.clone(), listener))
        .collect::<Result<_, _>>()?)
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
    let directory = config.state_dir.as_ref().map(|directory| directory.join("certificates"));
    let store = directory.map(CertificateStore::open).transpose()?;
    let settings = ManagerConfig { store, ..ManagerConfig::default() };
    Ok(CertificateManager::new(CaClient::new(channel, ca), settings))
}

fn control_address(config: &RunConfig) -> Result<Uri, StartError> {
    let address = &config.control.xds_address;
    address.parse().map_err(|source| StartError::Uri { address: address.clone(), source })
}

fn identity(config: &RunConfig) -> Result<SpiffeId, StartError> {
    let id =
        format!("spiffe://{}/ns/{}/sa/{}", config.trust_domain, config.namespace, config.service_account);
    id.parse().map_err(|_| StartError::Identity { id })
}

/// Who we are in control's terms.
fn myself(config: &RunConfig) -> Myself {
    Myself {
        gateway: GatewayName {
            namespace: config.namespace.as_str().into(),
            name: config.gateway.as_str().into(),
        },
        workload: WorkloadUid(
            format!("{}//Pod/{}/{}", config.cluster_id, config.namespace, config.pod_name).into(),
        ),
    }
}

fn xds_client(config: &RunConfig) -> Result<Client, StartError> {
    Ok(Client::new(Config {
        address: control_address(config)?,
        root_file: config.control.xds_root_file.clone(),
        token_file: config.control.token_file.clone(),
        cluster_id: config.cluster_id.clone(),
        node: node(config),
        role: Role::Waypoint,
        problems: watch::channel(Vec::new()).1,
        addresses: Interest::Everything,
    }))
}

fn node(config: &RunConfig) -> Node {
    let RunConfig { namespace, pod_name, gateway, .. } = config;
    let text = |value: &str| prost_types::Value {
        kind: Some(prost_types::value::Kind::StringValue(value.to_owned())),
    };
    let metadata = [
        ("NAME", pod_name.as_str()),
        ("NAMESPACE", namespace.as_str()),
        ("GATEWAY_NAME", gateway.as_str()),
        ("CLUSTER_ID", config.cluster_id.as_str()),
    ];
    Node {
        id: format!("waypoint~{ANY_ADDRESS}~{pod_name}.{namespace}~{namespace}.svc.cluster.local"),
        cluster: format!("{gateway}.{namespace}"),
        metadata: Some(prost_types::Struct {
            fields: metadata.into_iter().map(|(key, value)| (key.to_owned(), text(value))).collect(),
        }),
    }
}

/// Our certificate as it is renewed, for those who start workers by themselves.
pub type OwnIdentity = watch::Receiver<Option<Arc<TlsIdentity>>>;

/// Istio's agents put their own address here; nothing depends on it.
const ANY_ADDRESS: &str = "1.1.1.1";
