//! A waypoint, its clients and its endpoints in one process: loopback addresses stand for pods.

#[path = "../../../crates/hbone/tests/support/certificates.rs"]
mod certificates;

use std::cell::RefCell;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use ambit_hbone::buffer::BufferPool;
use ambit_hbone::codec::{Codec, ConnectRequest, Settings};
use ambit_hbone::relay::{IdleLimits, Stop, relay};
use ambit_hbone::socket::Socket;
use ambit_hbone::tls::TlsSession;
use ambit_hbone::tunnel::{Keepalive, Tunnel, handshake};
use ambit_identity::tls::TlsIdentity;
use ambit_mesh::address::{GatewayAddress, GatewayDestination, Network, NetworkAddress, ServiceName};
use ambit_mesh::http::{
    GatewayName, HttpAction, HttpChange, HttpPolicy, HttpRule, Myself, Operation, PathCondition,
    PolicyTarget, Source, Values, WaypointSnapshot, WaypointState,
};
use ambit_mesh::policy::{PolicyName, PolicyNames, StringMatch};
use ambit_mesh::service::{AppProtocol, IpFamilies, LoadBalancing, PortMapping, Service};
use ambit_mesh::snapshot::Change;
use ambit_mesh::workload::{
    Locality, NetworkMode, TunnelProtocol, Workload, WorkloadStatus, WorkloadType, WorkloadUid,
};
use ambit_runtime::drain::{self, DrainTrigger};
use certificates::Root;
use clap::Parser;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{LocalSet, spawn_local};
use waypoint::config::{Cli, Command};
use waypoint::state::{SnapshotWriter, store};
use waypoint::wire::Wire;
use waypoint::worker::{self, Shared, WorkerHandle};

/// Runs a test on one thread, as everything here must.
pub(crate) fn run<F: Future<Output = ()>>(test: F) {
    run_for(Duration::from_secs(120), test);
}

/// The same of a test that may take longer.
pub(crate) fn run_for<F: Future<Output = ()>>(limit: Duration, test: F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async {
        tokio::time::timeout(limit, test).await.expect("the test hangs");
    });
}

/// A waypoint for one service with one endpoint.
pub(crate) struct Mesh {
    pub(crate) root: Root,
    pub(crate) vip: SocketAddr,
    pub(crate) endpoint: IpAddr,
    pub(crate) drain: Option<DrainTrigger>,
    address: SocketAddr,
    state: WaypointState,
    writer: SnapshotWriter,
    buffers: BufferPool,
    _renewal: watch::Sender<Option<Arc<TlsIdentity>>>,
    _worker: WorkerHandle,
}

/// What a test is about.
#[derive(Clone, Copy)]
pub(crate) struct Setup {
    pub(crate) protocol: AppProtocol,
    pub(crate) tunnel: TunnelProtocol,
    pub(crate) is_configured: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Self { protocol: AppProtocol::Unknown, tunnel: TunnelProtocol::None, is_configured: true }
    }
}

/// The backend's port.
pub(crate) const PORT: u16 = 8080;

impl Mesh {
    /// Starts a waypoint whose service leads to an endpoint at `self.endpoint`, port [`PORT`].
    pub(crate) fn start(setup: Setup) -> Self {
        Self::start_with(setup, &[])
    }

    /// The same with more on its command line.
    pub(crate) fn start_with(setup: Setup, flags: &[&str]) -> Self {
        let endpoint = own_address();
        let vip = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 96, 0, 1)), 80);
        let root = Root::new();
        let myself = Myself {
            gateway: GatewayName { namespace: "test".into(), name: "waypoint".into() },
            workload: uid("waypoint"),
        };
        let mut state = WaypointState::new(myself);
        state.apply(objects(setup, vip, endpoint));
        let (mut writer, snapshots) = store();
        if setup.is_configured {
            writer.publish(state.snapshot());
        }
        let (trigger, drain) = drain::channel();
        let (renewal, identity) = watch::channel(Some(Arc::new(root.workload("waypoint"))));
        let who = ["--namespace", "test", "--gateway", "waypoint", "--service-account", "waypoint"];
        let short = ["--pod-name", "waypoint", "--header-timeout", "2s", "--detect-timeout", "300ms"];
        let arguments = ["waypoint", "run"].iter().chain(&who).chain(&short).chain(flags);
        let Command::Run(config) = Cli::parse_from(arguments).command;
        let suspects = Arc::default();
        let shared = Shared { snapshots, config: Arc::new(config.data_path), identity, suspects, drain };
        let listener = worker::listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let worker = worker::start(0, shared, listener).unwrap();
        Self {
            root,
            vip,
            endpoint,
            drain: Some(trigger),
            address,
            state,
            writer,
            buffers: BufferPool::new(),
            _renewal: renewal,
            _worker: worker,
        }
    }

    /// The configuration as it is.
    pub(crate) fn state_now(&mut self) -> Arc<WaypointSnapshot> {
        self.state.snapshot()
    }

    /// Changes the configuration.
    pub(crate) fn apply(&mut self, changes: impl IntoIterator<Item = Change>) {
        self.state.apply(changes);
        self.writer.publish(self.state.snapshot());
    }

    /// A tunnel of a client.
    pub(crate) async fn tunnel(&self, account: &str) -> Tunnel {
        let identity = self.root.workload(account);
        let stream = TcpStream::connect(self.address).await.unwrap();
        let socket = Socket::new(stream.into_std().unwrap()).unwrap();
        let session = TlsSession::client(Arc::clone(&identity.client)).unwrap();
        let secured = handshake(socket, session, &self.buffers).await.unwrap();
        let codec = Codec::client(Settings::CLIENT);
        let (tunnel, driver) = Tunnel::new(secured, codec, self.buffers.clone(), Keepalive::default());
        spawn_local(driver);
        tunnel
    }

    /// A connection of a client to the service.
    pub(crate) async fn connect(&self) -> Wire {
        open(&self.tunnel("client").await, self.vip).await.unwrap()
    }

    /// Where the endpoint's application listens.
    pub(crate) async fn backend(&self) -> TcpListener {
        TcpListener::bind((self.endpoint, PORT)).await.unwrap()
    }

    /// The endpoint's node agent: joins each CONNECT with the application, and keeps for whom it was made.
    pub(crate) async fn node_agent(&self) -> Said {
        self.node_agent_that(|_| Verdict::Serves).await
    }

    /// The same, of an agent that does what `judges` says of whom a CONNECT is for.
    pub(crate) async fn node_agent_that(&self, judges: fn(Option<&str>) -> Verdict) -> Said {
        let listener = TcpListener::bind((self.endpoint, 15008)).await.unwrap();
        let identity = self.root.workload("web");
        let said = Rc::new(RefCell::new(Vec::new()));
        spawn_local(node_agent(listener, identity, self.buffers.clone(), judges, Rc::clone(&said)));
        said
    }
}

/// What an agent does with a CONNECT.
pub(crate) enum Verdict {
    Serves,
    Refuses,
    /// It takes it, and cuts it when it has heard something: its policies have changed meanwhile.
    Cuts,
}

/// What CONNECTs have said of whom they are for.
type Said = Rc<RefCell<Vec<Option<String>>>>;

/// Opens a stream to `authority`; the status if it is refused.
pub(crate) async fn open(tunnel: &Tunnel, authority: SocketAddr) -> Result<Wire, u16> {
    let authority = authority.to_string();
    let mut stream = tunnel.open(&ConnectRequest { authority: &authority, headers: &[] }).unwrap();
    match stream.response().await.unwrap().status {
        200 => Ok(Wire::of_tunnel(stream)),
        status => Err(status),
    }
}

async fn node_agent(
    listener: TcpListener,
    identity: TlsIdentity,
    buffers: BufferPool,
    judges: fn(Option<&str>) -> Verdict,
    said: Said,
) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let socket = Socket::new(stream.into_std().unwrap()).unwrap();
        let session = TlsSession::server(Arc::clone(&identity.server)).unwrap();
        let secured = handshake(socket, session, &buffers).await.unwrap();
        let (tunnel, driver) =
            Tunnel::new(secured, Codec::server(Settings::SERVER), buffers.clone(), Keepalive::default());
        spawn_local(driver);
        let said = Rc::clone(&said);
        spawn_local(async move {
            while let Some((head, mut stream)) = tunnel.next_request().await {
                let client = head.headers().text("ambit-original-source");
                said.borrow_mut().push(client.map(str::to_owned));
                match judges(client) {
                    Verdict::Serves => {}
                    Verdict::Refuses => {
                        stream.refuse(401, &[]);
                        continue;
                    }
                    Verdict::Cuts => {
                        stream.accept(&[]);
                        spawn_local(async move { Wire::of_tunnel(stream).fill().await.map(drop) });
                        continue;
                    }
                }
                let application = TcpStream::connect(head.authority().to_owned()).await.unwrap();
                let application = Rc::new(Socket::new(application.into_std().unwrap()).unwrap());
                stream.accept(&[]);
                let limits =
                    IdleLimits { open: Duration::from_secs(60), half_closed: Duration::from_secs(60) };
                spawn_local(relay(stream, application, limits, Stop::<()>::default()));
            }
        });
    }
}

/// A loopback address that no other test uses.
fn own_address() -> IpAddr {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let process = std::process::id();
    let [_, _, high, low] = process.to_be_bytes();
    let next = u8::try_from(NEXT.fetch_add(1, Ordering::Relaxed)).unwrap();
    IpAddr::V4(Ipv4Addr::new(127, high.wrapping_add(next).max(1), low, next))
}

fn uid(name: &str) -> WorkloadUid {
    WorkloadUid(format!("Kubernetes//Pod/test/{name}").into())
}

/// The service that everything is about.
pub(crate) fn service_name() -> ServiceName {
    ServiceName { namespace: "test".into(), hostname: "web.test.svc.cluster.local".into() }
}

fn objects(setup: Setup, vip: SocketAddr, endpoint: IpAddr) -> Vec<Change> {
    let own = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 99));
    let at = |ip| NetworkAddress { network: Network::default(), ip };
    let port =
        PortMapping { service_port: vip.port(), target_port: Some(PORT), app_protocol: setup.protocol };
    let service = Service {
        name: service_name(),
        short_name: "web".into(),
        addresses: vec![at(vip.ip())],
        ports: vec![port],
        subject_alt_names: Vec::new(),
        waypoint: Some(GatewayAddress {
            destination: GatewayDestination::Address(at(own)),
            hbone_mtls_port: 15008,
        }),
        waypoint_failure: Default::default(),
        load_balancing: LoadBalancing::default(),
        ip_families: IpFamilies::Automatic,
        canonical: false,
    };
    let mut web = workload("web", endpoint);
    web.tunnel_protocol = setup.tunnel;
    web.services = [(service_name(), vec![port])].into_iter().collect();
    vec![
        Change::Service(Arc::new(service)),
        Change::Workload(Arc::new(web)),
        Change::Workload(Arc::new(workload("waypoint", own))),
    ]
}

fn workload(name: &str, ip: IpAddr) -> Workload {
    Workload {
        uid: uid(name),
        name: name.into(),
        namespace: "test".into(),
        cluster_id: "Kubernetes".into(),
        network: Network::default(),
        addresses: vec![ip],
        hostname: None,
        identity: format!("spiffe://cluster.local/ns/test/sa/{name}").parse().unwrap(),
        tunnel_protocol: TunnelProtocol::Hbone,
        node: "n1".into(),
        network_mode: NetworkMode::Standard,
        workload_type: WorkloadType::Deployment,
        workload_name: name.into(),
        canonical_name: name.into(),
        canonical_revision: "latest".into(),
        waypoint: None,
        waypoint_failure: Default::default(),
        requires_waypoint: false,
        network_gateway: None,
        application_tunnel: None,
        authorization_policies: PolicyNames::default(),
        status: WorkloadStatus::Healthy,
        locality: Locality::default(),
        capacity: 1,
        services: Default::default(),
        pod: None,
    }
}

/// A policy that denies what `operation` says.
pub(crate) fn deny(path: &str) -> Change {
    let paths =
        Values { any_of: vec![PathCondition::Text(StringMatch::Prefix(path.into()))], none_of: Vec::new() };
    let to = vec![Operation { paths, ..Operation::default() }];
    policy("deny", vec![HttpRule { from: Vec::new(), to, when: Vec::new() }])
}

/// A policy that denies an account everything.
pub(crate) fn deny_account(account: &str) -> Change {
    let principal = StringMatch::Exact(format!("cluster.local/ns/test/sa/{account}").into());
    let principals = Values { any_of: vec![principal], none_of: Vec::new() };
    let from = vec![Source { principals, ..Source::default() }];
    policy("deny-account", vec![HttpRule { from, to: Vec::new(), when: Vec::new() }])
}

/// A policy that denies by these rules.
pub(crate) fn policy(name: &str, rules: Vec<HttpRule>) -> Change {
    Change::Http(HttpChange::Policy(Arc::new(HttpPolicy {
        name: PolicyName { namespace: "test".into(), name: name.into() },
        targets: vec![PolicyTarget::Service(service_name())],
        action: HttpAction::Deny,
        rules,
        dry_run: false,
    })))
}

/// Reads until `end` was seen.
pub(crate) async fn read_until(stream: &mut (impl AsyncReadExt + Unpin), end: &str) -> String {
    let mut octets = Vec::new();
    let mut octet = [0];
    while !octets.ends_with(end.as_bytes()) {
        if stream.read(&mut octet).await.unwrap() == 0 {
            panic!("ended after {:?}", String::from_utf8_lossy(&octets));
        }
        octets.push(octet[0]);
    }
    String::from_utf8(octets).unwrap()
}

/// Reads a whole message with a `content-length`, or without a body.
pub(crate) async fn read_message(stream: &mut (impl AsyncReadExt + Unpin)) -> (String, String) {
    let head = read_until(stream, "\r\n\r\n").await;
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    stream.read_exact(&mut body).await.unwrap();
    (head, String::from_utf8(body).unwrap())
}

pub(crate) async fn write(stream: &mut (impl AsyncWriteExt + Unpin), text: &str) {
    stream.write_all(text.as_bytes()).await.unwrap();
}

/// The service is bound to another waypoint now, or to none.
pub(crate) fn unbound(mesh: &mut Mesh) -> Change {
    let snapshot = mesh.state_now();
    let service = snapshot.mesh().service(&service_name()).unwrap();
    Change::Service(Arc::new(Service { waypoint: None, ..Service::clone(service) }))
}
