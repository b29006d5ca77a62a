//! What a proxy keeps of each workload of the mesh: names and versions in its session, and its snapshot.

#![expect(unsafe_code, reason = "counting memory takes an allocator of our own")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicIsize, Ordering};

use ambit_mesh::snapshot::State;
use ambit_proto::envoy::config::core::v3::Node;
use ambit_proto::envoy::service::discovery::v3::DeltaDiscoveryResponse;
use ambit_proto::istio::workload::{NetworkAddress, Port, PortList, Service, TunnelProtocol, Workload};
use ambit_xds::convert::{service, workload};
use ambit_xds::resources::Resource;
use ambit_xds::session::{Interest, Session};
use ambit_xds::{ResourceType, Role};

struct Counting;

static HELD: AtomicIsize = AtomicIsize::new(0);

/// What the GNU allocator takes for a piece: its head, in steps of 16 octets, 32 at least.
fn taken(layout: Layout) -> isize {
    let octets = (layout.size() + 8).next_multiple_of(16).max(32);
    octets.try_into().unwrap_or(isize::MAX)
}

// SAFETY: both methods pass their arguments to the system's allocator unchanged; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.fetch_add(taken(layout), Ordering::Relaxed);
        // SAFETY: the caller keeps `alloc`'s contract, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        HELD.fetch_sub(taken(layout), Ordering::Relaxed);
        // SAFETY: the block came from `alloc` above, so from the system's allocator.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Octets for each workload, its share of its service among them: 100,000 of them may take 120 MB in an agent,
/// with all else that it has.
const BUDGET: isize = 960;

const WORKLOADS: u32 = 20_000;
const PODS_OF_AN_APP: u32 = 10;
const APPS_OF_A_NAMESPACE: u32 = 50;

#[test]
fn a_workload_of_a_large_mesh_takes_little_memory() {
    let mut resources: Vec<_> = (0..WORKLOADS).map(|index| Resource::workload(&pod(index))).collect();
    resources.extend((0..WORKLOADS / PODS_OF_AN_APP).map(|app| Resource::service(&of_app(app))));
    // As the server sends them.
    resources.sort_by(|a, b| a.name().cmp(b.name()));
    let node = Node { id: "ztunnel~10.0.0.1~z.ambit-system~cluster.local".into(), ..Node::default() };
    let mut session = Session::new(node, Interest::Everything, Role::Node);
    let mut state = State::default();
    session.connect();

    let before = HELD.load(Ordering::Relaxed);
    let reaction = session.on_response(DeltaDiscoveryResponse {
        type_url: ResourceType::Address.type_url().into(),
        nonce: "1".into(),
        resources: resources.iter().map(Resource::to_proto).collect(),
        ..DeltaDiscoveryResponse::default()
    });
    assert_eq!(reaction.rejected.len(), 0);
    state.apply(reaction.changes);
    drop(reaction.answer);
    let snapshot = state.snapshot();
    let each = (HELD.load(Ordering::Relaxed) - before) / WORKLOADS as isize;

    assert_eq!(snapshot.counts().workloads, WORKLOADS as usize);
    assert!(each <= BUDGET, "{each} octets for each workload, of {BUDGET}");
    assert!(each > BUDGET / 8 * 7, "{each} octets for each workload: lower the budget to guard it");
}

/// As control describes a pod of a Deployment.
fn pod(index: u32) -> ambit_mesh::workload::Workload {
    let app = index / PODS_OF_AN_APP;
    let namespace = format!("team-{}", app / APPS_OF_A_NAMESPACE);
    let [_, b, c, d] = index.to_be_bytes();
    let name = format!("app-{app}-6d4cf56db6-{index:05}");
    let ports = PortList { ports: vec![Port { service_port: 80, target_port: 8080, ..Port::default() }] };
    let described = Workload {
        uid: format!("Kubernetes//Pod/{namespace}/{name}"),
        name,
        addresses: vec![vec![100, b, c, d]],
        service_account: format!("app-{app}"),
        tunnel_protocol: TunnelProtocol::Hbone.into(),
        node: format!("worker-{}", index / 100),
        workload_name: format!("app-{app}"),
        canonical_name: format!("app-{app}"),
        canonical_revision: "v1".into(),
        services: [(format!("{namespace}/app-{app}.{namespace}.svc.cluster.local"), ports)].into(),
        namespace,
        ..Workload::default()
    };
    workload::from_proto(&described).expect("control describes pods like that")
}

fn of_app(app: u32) -> ambit_mesh::service::Service {
    let namespace = format!("team-{}", app / APPS_OF_A_NAMESPACE);
    let [_, b, c, d] = app.to_be_bytes();
    let address = NetworkAddress { address: vec![110, b, c, d], ..NetworkAddress::default() };
    let described = Service {
        name: format!("app-{app}"),
        hostname: format!("app-{app}.{namespace}.svc.cluster.local"),
        addresses: vec![address],
        ports: vec![Port { service_port: 80, target_port: 8080, ..Port::default() }],
        namespace,
        ..Service::default()
    };
    service::from_proto(&described).expect("control describes Services like that")
}
