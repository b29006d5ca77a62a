//! Pods that the runtime starts: what the CNI plugin is answered, and what the answer means.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use ambit_identity::certificate::WorkloadCertificate;
use ambit_identity::manager::{CertificateManager, Issuer, ManagerConfig};
use ambit_mesh::identity::SpiffeId;
use ambit_mesh::snapshot::{Change, State};
use ambit_mesh::workload::{
    CaptureExclusions, Locality, NetworkMode, PodBinding, TunnelProtocol, Workload, WorkloadStatus,
    WorkloadType, WorkloadUid,
};
use ambit_runtime::drain;
use clap::Parser;
use tokio::runtime::Builder;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{LocalSet, spawn_local};
use tokio::time::timeout;
use ztunnel::capture::marks::MarkStore;
use ztunnel::capture::netns::NetworkNamespace;
use ztunnel::capture::node::NodeNetwork;
use ztunnel::capture::{Backend, is_in_place};
use ztunnel::config::{Cli, Command};
use ztunnel::pods::arrival::{Arrival, Arrived, Check, Checked, CniEvent, Departure, channel};
use ztunnel::pods::registry::Registry;
use ztunnel::pods::{Finding, PodManager, PodSettings, PodStatus};
use ztunnel::state::{SnapshotWriter, store};
use ztunnel::worker::{self, Shared};

use crate::network::{Network, new_namespace, path};

const PATIENCE: Duration = Duration::from_secs(10);

/// A certificate authority that does not answer: no pod's start waits for it.
struct Away;

impl Issuer for Away {
    type Error = Infallible;

    async fn issue(&self, _: &SpiffeId) -> Result<WorkloadCertificate, Infallible> {
        std::future::pending().await
    }
}

/// The agent's part that knows pods, and who talks to it.
struct Node {
    cni: mpsc::Sender<CniEvent>,
    writer: SnapshotWriter,
    state: State,
    /// What is shown of each pod: its name and how far it is.
    shown: watch::Receiver<Vec<(String, &'static str)>>,
    node_network: Arc<NodeNetwork>,
    _state_dir: tempfile::TempDir,
    _trigger: drain::DrainTrigger,
}

impl Node {
    fn start(arrival_wait: Duration, node_network: NodeNetwork) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (writer, snapshots) = store();
        let (trigger, drain) = drain::channel();
        let node_network = Arc::new(node_network);
        let Command::Run(config) = Cli::parse_from(["ztunnel", "run", "--node", "n1"]).command else {
            unreachable!("it was asked to run")
        };
        let shared = Shared {
            snapshots: snapshots.clone(),
            config: Arc::new(config.data_path),
            node_network: Arc::clone(&node_network),
            drain,
        };
        let settings = PodSettings {
            node: "n1".to_owned(),
            node_network: Arc::clone(&node_network),
            backend: Backend::Nftables,
            finding: Finding::Uid(None),
            arrival_wait,
            marks: MarkStore::open(directory.path()).unwrap(),
            registry: Registry::new(directory.path()),
        };
        let certificates = Arc::new(CertificateManager::new(Away, ManagerConfig::default()));
        let mut manager =
            PodManager::new(settings, certificates, [worker::start(0, shared).unwrap()].into()).unwrap();
        let (cni, mut events) = channel();
        let (showing, shown) = watch::channel(Vec::new());
        spawn_local(async move {
            let (mut snapshots, (_, mut successors)) = (snapshots, mpsc::channel(1));
            let show = move |pods: Vec<PodStatus>| {
                showing.send_replace(pods.into_iter().map(|pod| (pod.pod_uid, pod.state)).collect());
            };
            manager.run(&mut snapshots, &mut events, &mut successors, show).await
        });
        let state = State::default();
        Self { cni, writer, state, shown, node_network, _state_dir: directory, _trigger: trigger }
    }

    fn publish(&mut self, pods: &[(&str, TunnelProtocol)]) {
        self.state
            .apply(pods.iter().map(|(name, protocol)| Change::Workload(Arc::new(pod(name, *protocol)))));
        self.writer.publish(self.state.snapshot());
    }

    async fn arrive(&self, uid: &str, sandbox: &str, file: &File) -> oneshot::Receiver<Arrived> {
        let namespace = NetworkNamespace::open(&path(file)).unwrap();
        let (answer, answered) = oneshot::channel();
        let arrival = Arrival { pod_uid: uid.into(), sandbox: sandbox.into(), namespace, answer };
        self.cni.send(CniEvent::Arrival(arrival)).await.unwrap();
        answered
    }

    async fn depart(&self, uid: &str, sandbox: &str) {
        let departure = Departure { pod_uid: uid.into(), sandbox: sandbox.into() };
        self.cni.send(CniEvent::Departure(departure)).await.unwrap();
    }

    async fn check(&self, uid: &str, file: &File) -> Checked {
        let namespace = NetworkNamespace::open(&path(file)).unwrap();
        let (answer, answered) = oneshot::channel();
        self.cni.send(CniEvent::Check(Check { pod_uid: uid.into(), namespace, answer })).await.unwrap();
        answer_to(answered).await
    }

    async fn wait_for(&mut self, uid: &str, wanted: &str) {
        let is_so =
            |pods: &Vec<(String, &str)>| pods.iter().any(|(pod, state)| pod == uid && *state == wanted);
        timeout(PATIENCE, self.shown.wait_for(is_so)).await.unwrap().unwrap();
    }
}

async fn answer_to<T>(answered: oneshot::Receiver<T>) -> T {
    timeout(PATIENCE, answered).await.unwrap().unwrap()
}

fn run(test: impl Future<Output = ()>) {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, test);
}

fn own_network() -> NodeNetwork {
    NodeNetwork::open(None).unwrap()
}

fn pod(name: &str, protocol: TunnelProtocol) -> Workload {
    Workload {
        uid: WorkloadUid(format!("Kubernetes//Pod/shop/{name}").into()),
        name: name.into(),
        namespace: "shop".into(),
        cluster_id: "Kubernetes".into(),
        network: Default::default(),
        addresses: Vec::new(),
        hostname: None,
        identity: format!("spiffe://cluster.local/ns/shop/sa/{name}").parse().unwrap(),
        tunnel_protocol: protocol,
        node: "n1".into(),
        network_mode: NetworkMode::Standard,
        workload_type: WorkloadType::Pod,
        workload_name: name.into(),
        canonical_name: name.into(),
        canonical_revision: "latest".into(),
        waypoint: None,
        waypoint_failure: Default::default(),
        requires_waypoint: false,
        network_gateway: None,
        application_tunnel: None,
        authorization_policies: Default::default(),
        status: WorkloadStatus::Healthy,
        locality: Locality::default(),
        capacity: 1,
        services: Default::default(),
        pod: Some(Box::new(PodBinding {
            pod_uid: name.into(),
            network_namespace: None,
            probe_ports: BTreeSet::new(),
            exclusions: CaptureExclusions::default(),
        })),
    }
}

/// A namespace as a CNI plugin leaves it: with `lo` up.
fn sandbox() -> (Network, File) {
    let network = Network::new();
    let file = File::open(network.pod.path()).unwrap();
    (network, file)
}

#[test]
fn a_pod_starts_when_it_is_captured_and_at_once_when_it_is_not_in_the_mesh() {
    run(async {
        let mut node = Node::start(PATIENCE, own_network());
        let ((early_network, early), (_kept, late)) = (sandbox(), sandbox());
        // Before control has said anything.
        let early = node.arrive("in", "s1", &early).await;
        node.publish(&[("in", TunnelProtocol::Hbone), ("out", TunnelProtocol::None)]);
        assert_eq!(answer_to(early).await, Arrived::Captured);
        assert!(is_in_place(&early_network.pod).unwrap());
        assert_eq!(answer_to(node.arrive("out", "s2", &late).await).await, Arrived::NotEnrolled);
        let late = NetworkNamespace::open(&path(&late)).unwrap();
        assert!(!is_in_place(&late).unwrap());

        // Its namespace is known when it is taken into the mesh later.
        node.publish(&[("out", TunnelProtocol::Hbone)]);
        node.wait_for("out", "captured").await;
        assert!(is_in_place(&late).unwrap());
    });
}

#[test]
fn a_pod_that_control_does_not_know_waits_for_a_bounded_time() {
    run(async {
        let mut node = Node::start(Duration::ZERO, own_network());
        let (_network, file) = sandbox();
        assert_eq!(answer_to(node.arrive("later", "s1", &file).await).await, Arrived::Unknown);
        // What becomes of it is the plugin's decision; when control tells of it, it is captured.
        node.publish(&[("later", TunnelProtocol::Hbone)]);
        node.wait_for("later", "captured").await;
    });
}

#[test]
fn a_namespace_that_is_another_pods_or_the_nodes_is_refused() {
    run(async {
        let node_file = new_namespace();
        let mut node = Node::start(PATIENCE, NodeNetwork::open(Some(&path(&node_file))).unwrap());
        let (_network, file) = sandbox();
        node.publish(&[("a", TunnelProtocol::Hbone), ("b", TunnelProtocol::Hbone)]);
        assert_eq!(answer_to(node.arrive("a", "s1", &file).await).await, Arrived::Captured);
        for (what, file, about) in [("another pod's", &file, "a"), ("the node's", &node_file, "node")] {
            let answer = answer_to(node.arrive("b", "s2", file).await).await;
            assert!(
                matches!(&answer, Arrived::Failed(reason) if reason.contains(about)),
                "{what}: {answer:?}"
            );
        }
        node.wait_for("a", "captured").await;
        node.wait_for("b", "pending").await;
        let own = NetworkNamespace::open(&path(&node_file)).unwrap();
        assert!(!is_in_place(&own).unwrap());
        assert_eq!(node.node_network.id(), own.id());
    });
}

#[test]
fn a_check_notices_rules_that_were_removed_and_a_departure_ends_only_its_sandbox() {
    run(async {
        let mut node = Node::start(PATIENCE, own_network());
        let (network, file) = sandbox();
        node.publish(&[("a", TunnelProtocol::Hbone), ("out", TunnelProtocol::None)]);
        assert_eq!(answer_to(node.arrive("a", "s2", &file).await).await, Arrived::Captured);
        assert_eq!(node.check("a", &file).await, Checked::Captured);
        assert_eq!(node.check("out", &new_namespace()).await, Checked::NotEnrolled);
        assert!(matches!(node.check("a", &new_namespace()).await, Checked::Missing(_)));
        network.in_pod("nft flush chain inet ambit inbound");
        assert!(matches!(node.check("a", &file).await, Checked::Missing(_)));

        node.depart("a", "s1").await;
        assert!(
            matches!(node.check("a", &file).await, Checked::Missing(reason) if reason.contains("redirection"))
        );
        node.depart("a", "s2").await;
        node.wait_for("a", "pending").await;
        assert!(
            matches!(node.check("a", &file).await, Checked::Missing(reason) if reason.contains("not captured"))
        );

        // The pod gets another sandbox.
        let (_network, next) = sandbox();
        assert_eq!(answer_to(node.arrive("a", "s3", &next).await).await, Arrived::Captured);
    });
}
