//! What authorization allocates does not grow with the number of policies.

#![expect(unsafe_code, reason = "counting allocations takes an allocator of our own")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;

use ambit_mesh::address::Network;
use ambit_mesh::identity::{SpiffeId, TrustDomain};
use ambit_mesh::policy::{
    Action, AuthorizationPolicy, Clause, Connection, Match, Peer, PolicyName, PolicyNames, PolicyScope, Rule,
    StringMatch, authorize,
};
use ambit_mesh::snapshot::{Change, Snapshot, State};
use ambit_mesh::workload::{
    Locality, NetworkMode, TunnelProtocol, Workload, WorkloadStatus, WorkloadType, WorkloadUid,
};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: both methods pass their arguments to the system's allocator unchanged; the counter is a
// thread-local without destructor, which allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller keeps `alloc`'s contract, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the block came from `alloc` above, so from the system's allocator.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn authorization_allocates_the_same_for_one_policy_and_for_ten_thousand() {
    let connection = Connection {
        peer: Peer::Verified(identity("client")),
        source_ip: [10, 0, 0, 9].into(),
        destination: ([10, 0, 0, 1], 8080).into(),
        through_waypoint: false,
    };
    for scope in [PolicyScope::Namespace, PolicyScope::WorkloadSelector] {
        let [few, many] = [1, 10_000].map(|count| allocations(scope, count, &connection));
        assert_eq!(few, many, "policies of scope {scope:?}");
        assert!(few <= 8, "{few} allocations for one connection");
    }
}

/// How often `authorize` allocates with `count` DENY policies that do not match and one ALLOW that
/// does.
fn allocations(scope: PolicyScope, count: usize, connection: &Connection) -> usize {
    let deny = |index| policy(scope, &format!("deny-{index}"), Action::Deny, "other");
    let policies: Vec<_> =
        (0..count).map(deny).chain([policy(scope, "allow", Action::Allow, "client")]).collect();
    let named = policies.iter().map(|policy| policy.name.clone()).collect();
    let web = workload(named);
    let snapshot = snapshot(policies, web.clone());
    let web = snapshot.workload(&web.uid).expect("it was put there").clone();

    let before = ALLOCATIONS.get();
    let permit = authorize(&snapshot, &web, connection);
    let allocations = ALLOCATIONS.get() - before;
    assert!(permit.is_ok(), "{permit:?}");
    allocations
}

fn snapshot(policies: Vec<AuthorizationPolicy>, workload: Workload) -> Arc<Snapshot> {
    let mut state = State::default();
    state.apply(policies.into_iter().map(|policy| Change::Policy(Arc::new(policy))));
    state.apply([Change::Workload(Arc::new(workload))]);
    state.snapshot()
}

fn policy(scope: PolicyScope, name: &str, action: Action, account: &str) -> AuthorizationPolicy {
    let principal = StringMatch::Exact(identity(account).principal().into());
    let group = Match { principals: vec![principal], ..Match::default() };
    let rule = Rule { clauses: vec![Clause { any_of: vec![group] }] };
    let name = PolicyName { namespace: "shop".into(), name: name.into() };
    AuthorizationPolicy { name, scope, action, rules: vec![rule], dry_run: false }
}

fn identity(account: &str) -> SpiffeId {
    SpiffeId::new(TrustDomain::default(), "shop", account).expect("both are plain letters")
}

fn workload(authorization_policies: PolicyNames) -> Workload {
    Workload {
        uid: WorkloadUid("Kubernetes//Pod/shop/web".into()),
        name: "web".into(),
        namespace: "shop".into(),
        cluster_id: "Kubernetes".into(),
        network: Network::default(),
        addresses: vec![[10, 0, 0, 1].into()],
        hostname: None,
        identity: identity("web"),
        tunnel_protocol: TunnelProtocol::Hbone,
        node: "node-1".into(),
        network_mode: NetworkMode::Standard,
        workload_type: WorkloadType::Deployment,
        workload_name: "web".into(),
        canonical_name: "web".into(),
        canonical_revision: "latest".into(),
        waypoint: None,
        waypoint_failure: Default::default(),
        requires_waypoint: false,
        network_gateway: None,
        application_tunnel: None,
        authorization_policies,
        status: WorkloadStatus::Healthy,
        locality: Locality::default(),
        capacity: 1,
        services: Default::default(),
        pod: None,
    }
}
