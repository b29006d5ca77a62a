//! The program: builds its parts in the order in which they depend on each other, waits for the end,
//! and takes them apart.

use std::io;
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ambit_identity::clock::WallClock;
use ambit_kube::ConnectError;
use ambit_runtime::admin::{self, Reply, Router};
use ambit_runtime::config::{InvalidConfig, effective};
use ambit_runtime::drain::{self, DrainWatch};
use ambit_runtime::readiness::Readiness;
use ambit_runtime::shutdown::{self, Shutdown};
use ambit_runtime::telemetry::{logging, metrics};
use ambit_xds::resources::Viewer;
use ambit_xds::server::{Authenticator, DiscoveryService, Known, Subscribers, transport};
use kube::Client;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tonic::Status;

use crate::admin::with_debug_pages;
use crate::ca::authentication::{Authentication, Proof};
use crate::ca::authority::AuthorityError;
use crate::ca::current::CurrentAuthority;
use crate::ca::grant::pod_of_caller;
use crate::ca::service::CertificateService;
use crate::ca::serving::{ServingCertificate, ServingError};
use crate::config::{DirectoryMode, Flags, KubernetesMode};
use crate::kube::status::Facts;
use crate::kube::waypoints::Deploying;
use crate::kube::waypoints::desired::GATEWAY_NAME;
use crate::kube::{Replica, Writing};
use crate::limits::buckets::{Buckets, Rate};
use crate::listener::{self, BindError};
use crate::pipeline::Pipeline;
use crate::publish::{self, Generation, Published};
use crate::source::{Batch, Running, Source};
use crate::state::{FileSet, StateError};
use crate::status;
use crate::translate::waypoints;

mod directory;
mod kubernetes;

/// Batches that wait to be applied. The source blocks when it is full, and reads fewer, larger ones.
const BATCH_QUEUE: usize = 4;

/// How long everything goes on at the end as before, on Kubernetes: who uninstalls the mesh may delete control
/// before what shows that it is uninstalled, and the agents are to hear of it.
const LINGER: Duration = Duration::from_secs(5);

/// How long clients get to finish a call at the end. Streams are ended at once.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// Why control could not start, or ended by itself.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each variant is its message")]
pub enum RunError {
    #[error(transparent)]
    Config(#[from] InvalidConfig),
    #[error(transparent)]
    State(#[from] StateError),
    #[error("the certificate authority cannot be opened")]
    Authority(#[from] AuthorityError),
    #[error("the API server cannot be reached")]
    Kubernetes(#[from] ConnectError),
    #[error("no certificate for --xds-name")]
    Serving(#[from] ServingError),
    #[error(transparent)]
    Listen(#[from] BindError),
    #[error(transparent)]
    Admin(#[from] admin::BindError),
    #[error("signals cannot be listened for")]
    Signals(#[source] io::Error),
    #[error("a thread cannot be started")]
    Thread(#[source] io::Error),
    #[error("the gRPC server failed")]
    Grpc(#[source] tonic::transport::Error),
    #[error("the thread that applies the configuration has died")]
    PipelineDied,
}

/// Telemetry that exists before anything else runs.
#[derive(Debug)]
pub struct Telemetry {
    /// The log.
    pub logging: logging::Logging,
    /// The metrics.
    pub metrics: metrics::Metrics,
}

/// Where the configuration comes from that is served.
#[derive(Debug)]
pub enum Served {
    /// A directory.
    Directory(DirectoryMode),
    /// An API server.
    Kubernetes(KubernetesMode),
}

/// What differs between the modes: each brings its own.
struct Parts {
    authority: CurrentAuthority,
    /// By what callers are known.
    proof: Proof,
    pipeline: Pipeline,
    source: Source,
    statuses: Statuses,
    /// How long the configuration is followed once control is told to end.
    linger: Duration,
    /// What runs beside; aborted at the end.
    tasks: JoinSet<()>,
}

/// Where users see what became of what they wrote.
enum Statuses {
    /// In files.
    Files(FileSet),
    /// In the objects themselves, and in Events.
    Kubernetes {
        /// The API server.
        client: Client,
        /// Which replica this is.
        replica: Replica,
        /// What waypoints are deployed with, where that is wanted.
        deploying: Option<Box<Deploying>>,
    },
}

impl Statuses {
    fn keep_written(self, facts: Facts, tasks: &mut JoinSet<()>) -> Option<Writing> {
        match self {
            Self::Files(files) => {
                tasks.spawn(status::keep_written(files, facts.generations, facts.subscribers));
                None
            }
            Self::Kubernetes { client, replica, deploying } => {
                Some(Writing::start(client, replica, facts, deploying.map(|deploying| *deploying)))
            }
        }
    }
}

/// Runs control until it is told to end.
///
/// # Errors
/// When a part cannot be started, or ends by itself.
pub async fn run(flags: &Flags, served: Served, telemetry: &Telemetry) -> Result<(), RunError> {
    let mut shutdown = shutdown::signals().map_err(RunError::Signals)?;
    let (publisher, published) = publish::channel();
    let pipeline = Pipeline::new(flags.settings(), publisher);
    let parts = match &served {
        Served::Directory(mode) => directory::prepare(flags, mode, pipeline)?,
        Served::Kubernetes(mode) => tokio::select! {
            parts = kubernetes::prepare(flags, mode, pipeline, &published) => parts?,
            _ = shutdown.requested() => return Ok(()),
        },
    };
    serve(flags, telemetry, parts, published, shutdown).await
}

async fn serve(
    flags: &Flags,
    telemetry: &Telemetry,
    parts: Parts,
    mut published: Published,
    mut shutdown: Shutdown,
) -> Result<(), RunError> {
    let Parts { authority, proof, pipeline, source, statuses, linger, mut tasks } = parts;
    let lifetimes = flags.lifetimes()?;
    let certificate =
        ServingCertificate::start(authority.subscribe(), &flags.serving_names(), WallClock::default())?;
    let grpc_listener = listener::bind(flags.xds_address)?;

    let authentication = Authentication::by(proof);
    let discovery = DiscoveryService::new(
        published.resources.clone(),
        authenticator(authentication.clone(), published.generation.clone()),
    );
    let subscribers = discovery.subscribers();
    let certificates = CertificateService::new(
        authority.subscribe(),
        authentication,
        published.identities.clone(),
        lifetimes,
    );

    let readiness = Readiness::default();
    let (configuration, grpc) = (readiness.register("configuration"), readiness.register("xds"));
    let pages = Pages { flags, telemetry, readiness: &readiness, published: &published };
    pages.serve(&subscribers, &shutdown, &mut tasks)?;
    tasks.spawn(crate::telemetry::watch(subscribers.clone()));
    let facts = Facts {
        generations: published.generation.clone(),
        resources: published.resources.clone(),
        subscribers,
    };
    let writing = statuses.keep_written(facts, &mut tasks);

    let configured = Configured::start(source, pipeline)?;
    tokio::select! {
        first = published.first() => first.map_err(|_| RunError::PipelineDied)?,
        _ = shutdown.requested() => return Ok(()),
    }
    configuration.ready();

    let (trigger, drain) = drain::channel();
    let connections = listener::accept(grpc_listener, certificate.server_config());
    let server = transport()
        .add_service(discovery.into_server())
        .add_service(certificates.into_server())
        .serve_with_incoming_shutdown(connections, draining(drain.clone()));
    let mut server = std::pin::pin!(server);
    grpc.ready();
    tracing::info!(address = %flags.xds_address, "serving xDS and certificates");

    tokio::select! {
        ended = &mut server => return ended.map_err(RunError::Grpc),
        () = end_of(published.clone()) => return Err(RunError::PipelineDied),
        reason = shutdown.requested() => tracing::info!(?reason, "ending"),
    }
    grpc.unready();
    // The next writer is not kept waiting meanwhile.
    let writing_ends = async {
        if let Some(writing) = writing {
            writing.end().await;
        }
    };
    tokio::select! {
        ended = &mut server => return ended.map_err(RunError::Grpc),
        () = end_of(published) => return Err(RunError::PipelineDied),
        _ = shutdown.requested() => tracing::info!("told to end again"),
        _ = async { tokio::join!(writing_ends, sleep(linger)) } => {}
    }
    // The streams of subscribers never end by themselves: this ends them.
    drop(configured);
    tokio::select! {
        served = &mut server => served.map_err(RunError::Grpc)?,
        how = shutdown.drain(trigger, DRAIN_TIMEOUT) => tracing::info!(?how, "ended"),
    }
    drop(drain);
    Ok(())
}

/// The two threads that turn what is written into generations. Dropping it ends them, and with them whatever
/// waits for generations.
struct Configured {
    source: Option<Running>,
    pipeline: Option<JoinHandle<()>>,
}

impl Configured {
    fn start(source: Source, pipeline: Pipeline) -> Result<Self, RunError> {
        let (batches, to_apply): (_, Receiver<Batch>) = sync_channel(BATCH_QUEUE);
        let source = source.start(batches).map_err(RunError::Thread)?;
        let thread = std::thread::Builder::new().name("config".to_owned());
        let pipeline = thread.spawn(move || pipeline.run(&to_apply)).map_err(RunError::Thread)?;
        Ok(Self { source: Some(source), pipeline: Some(pipeline) })
    }
}

impl Drop for Configured {
    fn drop(&mut self) {
        // First the source: the pipeline ends when nothing can come any more.
        drop(self.source.take());
        if self.pipeline.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread that applies the configuration panicked");
        }
    }
}

/// What the HTTP servers show.
struct Pages<'a> {
    flags: &'a Flags,
    telemetry: &'a Telemetry,
    readiness: &'a Readiness,
    published: &'a Published,
}

impl Pages<'_> {
    fn serve(
        &self,
        subscribers: &Subscribers,
        shutdown: &Shutdown,
        tasks: &mut JoinSet<()>,
    ) -> Result<(), admin::BindError> {
        let common = &self.flags.common;
        let admin = Router::new("control")
            .with_config(effective(self.flags))
            .with_logging(self.telemetry.logging.control())
            .with_metrics(&self.telemetry.metrics)
            .with_readiness(self.readiness)
            .with_quit(shutdown.handle())
            .get("/healthz", "whether the program runs", |_| Reply::text("ok\n"));
        let admin = with_debug_pages(admin, &self.published.generation, subscribers.clone());
        let readiness = Router::new("control: readiness").with_readiness(self.readiness);
        let metrics = Router::new("control: metrics").with_metrics(&self.telemetry.metrics);
        for (address, flag, router) in [
            (common.admin_address, "--admin-address", admin),
            (common.readiness_address, "--readiness-address", readiness),
            (common.metrics_address, "--metrics-address", metrics),
        ] {
            tasks.spawn(admin::Server::bind(address, flag, router)?.serve());
        }
        Ok(())
    }
}

/// Streams that one caller may open: each begins with everything there is. A node's agent and its
/// successor come back at once when a replica of control has ended, and then as they back off.
const STREAMS: Rate = Rate { burst: 32, every: Duration::from_millis(500) };

/// How long is waited for the pod of a waypoint that calls, and for its Gateway, to be among what is in force.
const PLACED_WITHIN: Duration = Duration::from_secs(2);

/// Agents show the same token to xDS and to the certificate authority.
fn authenticator(
    authentication: Authentication,
    generations: watch::Receiver<Arc<Generation>>,
) -> Authenticator {
    let opened = Arc::new(Mutex::new(Buckets::new(STREAMS)));
    Authenticator::new(move |metadata, peer| {
        let (caller, opened) = (authentication.caller(metadata, peer), opened.clone());
        let generations = generations.clone();
        async move {
            let caller = caller.await?;
            if !opened.lock().unwrap_or_else(PoisonError::into_inner).admit(&caller, Instant::now()) {
                return Err(Status::resource_exhausted(
                    "this caller opens too many streams: try again later",
                ));
            }
            Ok(Known { name: caller.node().into(), viewer: viewer(caller.node(), generations).await? })
        }
    })
}

/// What a caller may see. A waypoint sees what its services need, for as long as its stream lasts.
async fn viewer(caller: &str, mut generations: watch::Receiver<Arc<Generation>>) -> Result<Viewer, Status> {
    let Some((namespace, pod)) = pod_of_caller(caller) else { return Ok(Viewer::Node) };
    let waypoint = |generation: &Generation| waypoints::of_pod(&generation.inputs, namespace, pod);
    let placed = generations.wait_for(|generation| waypoint(generation).is_some());
    let found = match timeout(PLACED_WITHIN, placed).await {
        Ok(Ok(generation)) => waypoint(&generation),
        Ok(Err(_)) | Err(_) => None,
    };
    found.map(Viewer::Waypoint).ok_or_else(|| {
        Status::unavailable(format!(
            "pod {namespace}/{pod} is no instance of a waypoint that is known: check its label {GATEWAY_NAME} and the \
             Gateway of that name"
        ))
    })
}

async fn draining(mut drain: DrainWatch) {
    drain.draining().await;
}

/// Returns when no generation can come any more.
async fn end_of(mut published: Published) {
    while published.generation.changed().await.is_ok() {}
}
