//! Both shells over real TLS on the loopback.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ambit_mesh::snapshot::State;
use ambit_mesh::workload::WorkloadUid;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Identity, ServerTlsConfig};

use super::*;
use crate::ResourceType;
use crate::resources::{Resource, Resources, Viewer};
use crate::samples;
use crate::server::{Authenticator, DiscoveryService, Known, Programmed, Subscribers, transport};

const TOKEN: &str = "the token of node n1";

/// Far above what anything here takes, so that a hang fails the test.
const PATIENCE: Duration = Duration::from_secs(30);

/// A root, and what a server at localhost needs to prove itself.
struct Authority {
    root: String,
    identity: Identity,
}

impl Authority {
    fn new() -> Self {
        let root_key = KeyPair::generate().unwrap();
        let mut root = CertificateParams::new(Vec::new()).unwrap();
        root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root_certificate = root.self_signed(&root_key).unwrap();
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(vec!["localhost".into()]).unwrap();
        let leaf = leaf.signed_by(&key, &Issuer::new(root, root_key)).unwrap();
        Self { root: root_certificate.pem(), identity: Identity::from_pem(leaf.pem(), key.serialize_pem()) }
    }
}

/// A running server. Dropping the generations ends its streams.
struct Server {
    address: SocketAddr,
    generations: watch::Sender<Arc<Resources>>,
    subscribers: Subscribers,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), tonic::transport::Error>>,
}

impl Server {
    async fn start(address: SocketAddr, authority: &Authority, first: Resources) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (generations, resources) = watch::channel(Arc::new(first));
        let service = DiscoveryService::new(resources, authenticator());
        let subscribers = service.subscribers();
        let (stop, stopped) = oneshot::channel::<()>();
        let server = transport()
            .tls_config(ServerTlsConfig::new().identity(authority.identity.clone()))
            .unwrap()
            .add_service(service.into_server())
            .serve_with_incoming_shutdown(TcpListenerStream::new(listener), async {
                let _ = stopped.await;
            });
        Self { address, generations, subscribers, stop, task: tokio::spawn(server) }
    }

    fn publish(&self, next: Resources) {
        self.generations.send_modify(|current| *current = Arc::new(next.sharing_with(current)));
    }

    async fn stop(self) {
        drop(self.generations);
        drop(self.stop);
        self.task.await.unwrap().unwrap();
    }

    /// Waits until its one subscriber says just this of itself.
    async fn knows(&self, problems: &[&str]) {
        let knows = |_: &u64| {
            let status = self.subscribers.status();
            status.len() == 1 && status[0].problems.iter().map(|text| &**text).eq(problems.iter().copied())
        };
        let mut progress = self.subscribers.progress();
        tokio::time::timeout(PATIENCE, progress.wait_for(knows)).await.unwrap().unwrap();
    }

    /// Waits until the subscribers have come so far.
    async fn programmed(&self, name: &str, expected: Programmed) {
        let mut progress = self.subscribers.progress();
        let reached =
            progress.wait_for(|_| self.subscribers.programmed(ResourceType::Address, name) == expected);
        tokio::time::timeout(PATIENCE, reached).await.unwrap().unwrap();
    }
}

/// A running client and what it has applied.
struct Agent {
    state: watch::Receiver<(State, bool)>,
    demand: mpsc::Sender<Vec<String>>,
    problems: watch::Sender<Vec<String>>,
    task: JoinHandle<Infallible>,
    files: TempDir,
}

impl Agent {
    fn start(port: u16, authority: &Authority, token: &str, addresses: Interest) -> Self {
        let files = tempfile::tempdir().unwrap();
        write(files.path(), "root.pem", &authority.root);
        write(files.path(), "token", token);
        let (problems, of_itself) = watch::channel(Vec::new());
        let client = Client::new(Config {
            address: format!("https://localhost:{port}").parse().unwrap(),
            root_file: files.path().join("root.pem"),
            token_file: files.path().join("token"),
            cluster_id: "Kubernetes".into(),
            node: Node { id: "agent".into(), ..Node::default() },
            addresses,
            role: Role::Node,
            problems: of_itself,
        });
        let (demand, names) = mpsc::channel(1);
        let (applied, state) = watch::channel((State::default(), false));
        let apply = move |batch: Batch| {
            applied.send_modify(|(state, synced)| {
                state.apply(batch.changes);
                *synced = batch.synced;
            });
        };
        let task = tokio::spawn(client.run(names, apply));
        Self { state, demand, problems, task, files }
    }

    /// Waits until the client is synced and holds these workloads, on these nodes, and no other.
    async fn holds(&mut self, workloads: &[(&str, &str)]) {
        let holds = |(state, synced): &(State, bool)| {
            let snapshot = state.clone().snapshot();
            let on_its_node = |&(uid, node): &(&str, &str)| {
                snapshot.workload(&WorkloadUid(uid.into())).is_some_and(|workload| &*workload.node == node)
            };
            *synced && snapshot.counts().workloads == workloads.len() && workloads.iter().all(on_its_node)
        };
        tokio::time::timeout(PATIENCE, self.state.wait_for(holds)).await.unwrap().unwrap();
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn write(directory: &Path, name: &str, content: &str) {
    std::fs::write(directory.join(name), content).unwrap();
}

/// Asks somebody else, and knows one token.
fn authenticator() -> Authenticator {
    Authenticator::new(|metadata, peer| {
        let shown = metadata.get("authorization").is_some_and(|shown| shown == &format!("Bearer {TOKEN}"));
        assert!(peer.is_some_and(|peer| peer.ip().is_loopback()));
        async move {
            tokio::task::yield_now().await;
            let known = Known { name: "n1".into(), viewer: Viewer::Node };
            if shown { Ok(known) } else { Err(tonic::Status::unauthenticated("nobody that is known")) }
        }
    })
}

fn any_port() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

fn generation(workloads: &[(&str, &str)]) -> Resources {
    let workload = |&(uid, node): &(&str, &str)| Resource::workload(&samples::workload_on(uid, node));
    workloads.iter().map(workload).collect()
}

fn on_one_of_one() -> Programmed {
    Programmed { acknowledged: 1, wanted: 1, refusals: Vec::new() }
}

#[tokio::test]
async fn a_client_follows_its_server_also_through_a_restart() {
    let authority = Authority::new();
    let server = Server::start(any_port(), &authority, generation(&[("a", "n1"), ("b", "n1")])).await;
    let mut agent = Agent::start(server.address.port(), &authority, TOKEN, Interest::Everything);
    agent.holds(&[("a", "n1"), ("b", "n1")]).await;

    server.publish(generation(&[("a", "n2"), ("c", "n1")]));
    agent.holds(&[("a", "n2"), ("c", "n1")]).await;
    server.programmed("a", on_one_of_one()).await;
    let status = server.subscribers.status();
    assert_eq!((&*status[0].node, status[0].id.as_str()), ("n1", "agent"));
    assert!(status[0].peer.is_some_and(|peer| peer.ip().is_loopback()));
    let address = server.address;
    server.stop().await;
    agent.holds(&[("a", "n2"), ("c", "n1")]).await;

    let server = Server::start(address, &authority, generation(&[("c", "n3"), ("d", "n1")])).await;
    agent.holds(&[("c", "n3"), ("d", "n1")]).await;
    server.programmed("d", on_one_of_one()).await;
}

#[tokio::test]
async fn a_client_on_demand_gets_what_it_asks_for() {
    let authority = Authority::new();
    let server = Server::start(any_port(), &authority, generation(&[("a", "n1"), ("b", "n1")])).await;
    let mut agent = Agent::start(server.address.port(), &authority, TOKEN, Interest::OnDemand);
    agent.holds(&[]).await;
    agent.demand.send(vec![format!("net/{}", samples::address_of("b"))]).await.unwrap();
    agent.holds(&[("b", "n1")]).await;
}

#[tokio::test]
async fn a_subscriber_that_leaves_is_forgotten() {
    let authority = Authority::new();
    let server = Server::start(any_port(), &authority, generation(&[("a", "n1")])).await;
    let mut agent = Agent::start(server.address.port(), &authority, TOKEN, Interest::Everything);
    agent.holds(&[("a", "n1")]).await;
    drop(agent);
    let mut progress = server.subscribers.progress();
    let gone = progress.wait_for(|_| server.subscribers.status().is_empty());
    tokio::time::timeout(PATIENCE, gone).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_server_knows_what_a_client_says_of_itself_also_after_a_restart() {
    let authority = Authority::new();
    let server = Server::start(any_port(), &authority, generation(&[("a", "n1")])).await;
    let mut agent = Agent::start(server.address.port(), &authority, TOKEN, Interest::Everything);
    agent.holds(&[("a", "n1")]).await;
    agent.problems.send_replace(vec!["the chain is broken".to_owned()]);
    server.knows(&["the chain is broken"]).await;
    let address = server.address;
    server.stop().await;

    let server = Server::start(address, &authority, generation(&[("a", "n1")])).await;
    server.knows(&["the chain is broken"]).await;
    agent.problems.send_replace(Vec::new());
    server.knows(&[]).await;
    // Nothing else was asked for by that.
    server.publish(generation(&[("b", "n1")]));
    agent.holds(&[("b", "n1")]).await;
}

#[tokio::test]
async fn roots_and_token_are_read_again_for_each_attempt() {
    let (authority, other) = (Authority::new(), Authority::new());
    let server = Server::start(any_port(), &authority, generation(&[("a", "n1")])).await;
    let mut agent = Agent::start(server.address.port(), &other, "stale", Interest::Everything);
    write(agent.files.path(), "root.pem", &authority.root);
    write(agent.files.path(), "token", TOKEN);
    agent.holds(&[("a", "n1")]).await;
}

/// A configuration whose files are as given.
fn config(port: u16, directory: &Path, root: &str, token: &str) -> Config {
    write(directory, "root.pem", root);
    write(directory, "token", token);
    Config {
        address: format!("https://localhost:{port}").parse().unwrap(),
        root_file: directory.join("root.pem"),
        token_file: directory.join("token"),
        cluster_id: "Kubernetes".into(),
        node: Node::default(),
        addresses: Interest::Everything,
        role: Role::Node,
        problems: watch::channel(Vec::new()).1,
    }
}

#[tokio::test]
async fn nothing_is_asked_of_a_server_that_is_not_ours_and_nothing_given_to_a_stranger() {
    let authority = Authority::new();
    let server = Server::start(any_port(), &authority, generation(&[("a", "n1")])).await;
    let port = server.address.port();
    let files = tempfile::tempdir().unwrap();
    let open = async |root: &str, token: &str| {
        connect::open(&config(port, files.path(), root, token), Vec::new()).await.err()
    };
    let other_root = open(&Authority::new().root, TOKEN).await;
    assert!(matches!(other_root, Some(ConnectError::Connect { .. })), "{other_root:?}");
    let no_root = open("", TOKEN).await;
    assert!(matches!(no_root, Some(ConnectError::Roots { .. })), "{no_root:?}");
    let no_token = open(&authority.root, "\n").await;
    assert!(matches!(no_token, Some(ConnectError::Token { .. })), "{no_token:?}");
    let stranger = open(&authority.root, "a guess").await;
    let Some(ConnectError::Refused { code: tonic::Code::Unauthenticated, message }) = stranger else {
        panic!("{stranger:?}");
    };
    assert!(!message.contains("a guess"), "{message}");
}

#[tokio::test]
async fn the_host_has_to_be_the_one_the_certificate_names() {
    let authority = Authority::new();
    let server = Server::start(any_port(), &authority, generation(&[])).await;
    let files = tempfile::tempdir().unwrap();
    let by_address = Config {
        address: format!("https://{}", server.address).parse().unwrap(),
        ..config(server.address.port(), files.path(), &authority.root, TOKEN)
    };
    let error = connect::open(&by_address, Vec::new()).await.err();
    assert!(matches!(error, Some(ConnectError::Connect { .. })), "{error:?}");
}
