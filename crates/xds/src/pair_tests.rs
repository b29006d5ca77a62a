//! A session against a subscriber: whatever happens between them, the client ends up with what
//! the server has, less what it could not use.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use ambit_mesh::address::ServiceName;
use ambit_mesh::mesh::Mesh;
use ambit_mesh::policy::Action;
use ambit_mesh::snapshot::Change;
use ambit_proto::envoy::config::core::v3::Node;
use ambit_proto::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::*;

use crate::resources::{Audience, Resource, Resources, Update, Viewer};
use crate::samples;
use crate::session::{Interest, Session};
use crate::subscriber::{Acknowledgement, Subscriber};
use crate::subscriptions::Subscriptions;
use crate::{ResourceType, Role};

/// Versions of resources by short name: what a generation is made of. Of each resource there are so many
/// versions, first for everybody, then for our waypoint, then for another's.
type Content = BTreeMap<char, u8>;

const VERSIONS: u8 = 4;

#[derive(Clone, Debug)]
enum Step {
    /// The server has a new configuration.
    Publish { workloads: Content, policies: Content },
    /// So many messages are delivered, oldest first, in each direction.
    Deliver(usize),
    /// The stream breaks; what was under way is lost. A new one opens.
    Reconnect,
    /// The client asks for these.
    Demand(BTreeSet<char>),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let content = || btree_map(proptest::char::range('a', 'e'), 0..3 * VERSIONS, 0..5);
    let step = prop_oneof![
        3 => (content(), content()).prop_map(|(workloads, policies)| Step::Publish { workloads, policies }),
        4 => (1_usize..4).prop_map(Step::Deliver),
        1 => Just(Step::Reconnect),
        1 => btree_set(proptest::char::range('a', 'e'), 1..3).prop_map(Step::Demand),
    ];
    vec(step, 1..25)
}

/// Both ends and the messages between them.
struct Pair {
    session: Session,
    viewer: Viewer,
    resources: Resources,
    subscriptions: Subscriptions,
    requests: VecDeque<DeltaDiscoveryRequest>,
    responses: VecDeque<DeltaDiscoveryResponse>,
    answered: BTreeSet<(String, String)>,
    /// What the client has applied: name to version.
    applied: BTreeMap<String, u8>,
    mesh: Option<Arc<Mesh>>,
}

impl Pair {
    fn new(addresses: Interest) -> Self {
        Self::seeing(Viewer::Node, addresses)
    }

    fn seeing(viewer: Viewer, addresses: Interest) -> Self {
        let role = match &viewer {
            Viewer::Node => Role::Node,
            Viewer::Waypoint(_) => Role::Waypoint,
        };
        let mut pair = Self {
            session: Session::new(Node::default(), addresses, role),
            subscriptions: Subscriptions::new(viewer.clone(), Resources::default()),
            viewer,
            resources: Resources::default(),
            requests: VecDeque::new(),
            responses: VecDeque::new(),
            answered: BTreeSet::new(),
            applied: BTreeMap::new(),
            mesh: None,
        };
        pair.reconnect();
        pair
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Publish { workloads, policies } => self.publish(&workloads, &policies),
            Step::Deliver(count) => {
                let _ = (0..count).take_while(|_| self.deliver()).count();
            }
            Step::Reconnect => self.reconnect(),
            Step::Demand(names) => {
                self.requests.extend(self.session.subscribe(names.iter().map(ToString::to_string)));
            }
        }
    }

    fn publish(&mut self, workloads: &Content, policies: &Content) {
        let workloads = workloads.iter().map(|(&name, &version)| workload(name, version));
        let policies = policies.iter().map(|(&name, &version)| policy(name, version));
        self.offer(workloads.chain(policies).collect());
    }

    fn offer(&mut self, next: Resources) {
        self.resources = next.sharing_with(&self.resources);
        self.responses.extend(self.subscriptions.on_change(&self.resources, Instant::now()));
    }

    fn reconnect(&mut self) {
        self.session.on_disconnect();
        self.requests.clear();
        self.responses.clear();
        self.subscriptions = Subscriptions::new(self.viewer.clone(), self.resources.clone());
        self.answered.clear();
        self.requests.extend(self.session.connect());
    }

    /// Delivers one message each way; whether there was any.
    fn deliver(&mut self) -> bool {
        let request = self.requests.pop_front();
        let response = self.responses.pop_front();
        let any = request.is_some() || response.is_some();
        if let Some(request) = request {
            self.on_request(&request);
        }
        if let Some(response) = response {
            self.on_response(response);
        }
        any
    }

    fn on_request(&mut self, request: &DeltaDiscoveryRequest) {
        let kind = ResourceType::from_type_url(&request.type_url).unwrap();
        self.responses.extend(self.subscriptions.on_request(kind, request, Instant::now()));
    }

    fn on_response(&mut self, response: DeltaDiscoveryResponse) {
        let reaction = self.session.on_response(response);
        for change in reaction.changes {
            self.apply(&change);
        }
        if let Some(answer) = reaction.answer {
            let nonce = (answer.type_url.clone(), answer.response_nonce.clone());
            assert!(self.answered.insert(nonce), "a nonce was answered twice: {answer:?}");
            self.requests.push_back(answer);
        }
        self.requests.extend(reaction.further);
    }

    fn apply(&mut self, change: &Change) {
        match change {
            Change::Workload(workload) => {
                let version = workload.node.parse().unwrap();
                self.applied.insert(workload.uid.to_string(), version);
            }
            Change::Policy(policy) => {
                self.applied.insert(policy.name.to_string(), u8::try_from(policy.rules.len()).unwrap());
            }
            Change::RemoveWorkload(uid) => drop(self.applied.remove(&uid.to_string())),
            Change::RemovePolicy(name) => drop(self.applied.remove(&name.to_string())),
            Change::Mesh(mesh) => self.mesh = Some(mesh.clone()),
            Change::RemoveMesh => self.mesh = None,
            Change::Service(_) | Change::RemoveService(_) | Change::Http(_) => {
                panic!("nobody sent it: {change:?}")
            }
        }
    }

    fn settle(&mut self) {
        while self.deliver() {}
    }
}

/// The version is the node's name.
fn workload(name: char, version: u8) -> Resource {
    let workload = samples::workload_on(&name.to_string(), &(version % VERSIONS).to_string());
    Resource::workload(&workload).to(audience(version))
}

fn audience(version: u8) -> Audience {
    match version / VERSIONS {
        0 => Audience::Everybody,
        1 => Audience::Waypoints(Arc::new([waypoint("ours")].into())),
        _ => Audience::Waypoints(Arc::new([waypoint("anothers")].into())),
    }
}

fn waypoint(name: &str) -> ServiceName {
    ServiceName { namespace: "shop".into(), hostname: name.into() }
}

/// The version is the number of rules.
fn policy(name: char, version: u8) -> Resource {
    let mut policy = samples::policy("shop", &name.to_string(), Action::Deny);
    policy.rules = vec![policy.rules[0].clone(); (version % VERSIONS).into()];
    Resource::policy(&policy).to(audience(version))
}

/// What a client should have of a generation.
fn expected(workloads: &Content, policies: &Content) -> BTreeMap<String, u8> {
    let workloads = workloads.iter().map(|(name, &version)| (name.to_string(), version % VERSIONS));
    let policies = policies.iter().map(|(name, &version)| (format!("shop/{name}"), version % VERSIONS));
    workloads.chain(policies).collect()
}

fn last_published(steps: &[Step]) -> (Content, Content) {
    let published = steps.iter().rev().find_map(|step| match step {
        Step::Publish { workloads, policies } => Some((workloads.clone(), policies.clone())),
        Step::Deliver(_) | Step::Reconnect | Step::Demand(_) => None,
    });
    published.unwrap_or_default()
}

proptest! {
    #[test]
    fn a_client_of_everything_ends_up_with_what_the_server_has(steps in steps()) {
        let (workloads, policies) = last_published(&steps);
        let mut pair = Pair::new(Interest::Everything);
        steps.into_iter().for_each(|step| pair.step(step));
        pair.settle();
        prop_assert_eq!(&pair.applied, &expected(&workloads, &policies));
        prop_assert!(pair.session.synced());
        for subscriber in pair.subscriptions.iter() {
            let status = subscriber.status();
            prop_assert_eq!(status.up_to_date, pair.resources.of_type(status.kind).len());
            prop_assert_eq!(status.unanswered_since, None);
        }
    }

    #[test]
    fn a_waypoint_ends_up_with_what_is_for_it(steps in steps()) {
        let (mut workloads, mut policies) = last_published(&steps);
        for content in [&mut workloads, &mut policies] {
            content.retain(|_, version| *version < 2 * VERSIONS);
        }
        let mut pair = Pair::seeing(Viewer::Waypoint(waypoint("ours")), Interest::Everything);
        steps.into_iter().for_each(|step| pair.step(step));
        pair.settle();
        prop_assert_eq!(&pair.applied, &expected(&workloads, &policies));
        prop_assert!(pair.session.synced());
        for subscriber in pair.subscriptions.iter() {
            let status = subscriber.status();
            prop_assert_eq!(status.up_to_date, status.wanted);
            prop_assert!(subscriber.lacking(pair.resources.of_type(status.kind)).is_empty());
        }
    }

    /// What a waypoint decides by is at every moment one generation, as it sees it, and never an older one than before.
    #[test]
    fn a_waypoint_decides_by_one_generation_at_a_time(steps in steps()) {
        let mut pair = Pair::seeing(Viewer::Waypoint(waypoint("ours")), Interest::Everything);
        let mut published = vec![BTreeMap::new()];
        let mut newest = 0;
        let mut check = |pair: &Pair, published: &[BTreeMap<String, u8>]| {
            if !pair.session.synced() {
                return Ok(());
            }
            let at = published.iter().skip(newest).position(|generation| *generation == pair.applied);
            let Some(at) = at else {
                return Err(TestCaseError::fail(format!("{:?} is none of {published:?}", pair.applied)));
            };
            newest += at;
            Ok(())
        };
        for step in steps {
            match step {
                Step::Publish { mut workloads, mut policies } => {
                    pair.publish(&workloads, &policies);
                    for content in [&mut workloads, &mut policies] {
                        content.retain(|_, version| *version < 2 * VERSIONS);
                    }
                    published.push(expected(&workloads, &policies));
                }
                Step::Deliver(count) => {
                    for _ in 0..count {
                        pair.deliver();
                        check(&pair, &published)?;
                    }
                }
                Step::Reconnect => pair.reconnect(),
                Step::Demand(_) => {}
            }
        }
        while pair.deliver() {
            check(&pair, &published)?;
        }
        prop_assert!(pair.session.synced());
        prop_assert_eq!(Some(&pair.applied), published.last());
    }

    #[test]
    fn a_client_on_demand_ends_up_with_what_it_asked_for(steps in steps()) {
        let (mut workloads, policies) = last_published(&steps);
        let demanded: BTreeSet<char> = steps
            .iter()
            .filter_map(|step| match step {
                Step::Demand(names) => Some(names.clone()),
                Step::Publish { .. } | Step::Deliver(_) | Step::Reconnect => None,
            })
            .flatten()
            .collect();
        workloads.retain(|name, _| demanded.contains(name));
        let mut pair = Pair::new(Interest::OnDemand);
        steps.into_iter().for_each(|step| pair.step(step));
        pair.settle();
        prop_assert_eq!(&pair.applied, &expected(&workloads, &policies));
    }

    #[test]
    fn from_one_generation_to_the_next_is_its_difference(
        (from, to) in (steps(), steps()).prop_map(|(a, b)| (last_published(&a), last_published(&b)))
    ) {
        let mut pair = Pair::new(Interest::Everything);
        pair.publish(&from.0, &from.1);
        pair.settle();
        pair.publish(&to.0, &to.1);
        let moved: usize = pair
            .responses
            .iter()
            .map(|response| response.resources.len() + response.removed_resources.len())
            .sum();
        let (before, after) = (expected(&from.0, &from.1), expected(&to.0, &to.1));
        let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
        prop_assert_eq!(moved, names.iter().filter(|&&name| before.get(name) != after.get(name)).count());
        pair.settle();
        prop_assert_eq!(&pair.applied, &after);
    }
}

#[test]
fn a_resource_that_cannot_be_used_stays_as_it_was_until_it_is_repaired() {
    let mut pair = Pair::new(Interest::Everything);
    pair.publish(&[('a', 1), ('b', 1)].into(), &Content::new());
    pair.settle();

    let mut unusable = samples::workload_on("a", "2");
    let nameless = ServiceName { namespace: "".into(), hostname: "".into() };
    unusable.services = [(nameless, Vec::new())].into();
    pair.offer([Resource::workload(&unusable), workload('b', 2)].into_iter().collect());
    pair.settle();
    assert_eq!(pair.applied, [("a".to_owned(), 1), ("b".to_owned(), 2)].into());

    pair.publish(&[('a', 3), ('b', 2)].into(), &Content::new());
    pair.settle();
    assert_eq!(pair.applied, [("a".to_owned(), 3), ("b".to_owned(), 2)].into());
}

#[test]
fn the_mesh_as_a_whole_arrives_changes_and_is_known_across_streams() {
    let of = |namespaces: &[&str]| {
        let namespaces = namespaces.iter().map(|name| (*name).into());
        Mesh::new(namespaces, ["10.10.0.0/16".parse().unwrap()])
    };
    let offered = |mesh: &Mesh| [Resource::mesh(mesh), workload('a', 1)].into_iter().collect();
    let mut pair = Pair::new(Interest::Everything);
    pair.offer(offered(&of(&["shop"])));
    pair.settle();
    assert_eq!(pair.mesh.as_deref(), Some(&of(&["shop"])));

    pair.reconnect();
    pair.settle();
    let status = pair.subscriptions.of_type(ResourceType::Mesh).unwrap().status();
    assert_eq!((status.wanted, status.up_to_date), (1, 1), "declared, and not sent again");
    pair.offer(offered(&of(&["shop", "bank"])));
    pair.settle();
    assert_eq!(pair.mesh.as_deref(), Some(&of(&["bank", "shop"])));
}

/// Workloads that together take several responses.
fn large(count: usize, node: u8) -> Resources {
    let name = |index| format!("{index:04}-{}", "x".repeat(2_000));
    let workload = |index| samples::workload_on(&name(index), &node.to_string());
    (0..count).map(|index| Resource::workload(&workload(index))).collect()
}

#[test]
fn a_large_generation_comes_in_parts_and_counts_when_it_is_whole() {
    let mut pair = Pair::new(Interest::Everything);
    pair.offer(large(2_000, 1));
    let mut parts = 0;
    while pair.deliver() {
        parts += usize::from(!pair.session.synced());
        let status = pair.subscriptions.of_type(ResourceType::Address).map(Subscriber::status);
        let up_to_date = status.map_or(0, |status| status.up_to_date);
        assert!(up_to_date == 0 || pair.session.synced(), "{up_to_date} count before all have come");
        if parts == 3 {
            // What changes meanwhile comes too, and in the same way.
            pair.offer(large(1_999, 2));
        }
    }
    assert!(parts >= 5, "{parts} deliveries before everything was there");
    assert!(pair.session.synced());
    assert_eq!(pair.applied.len(), 1_999);
    assert!(pair.applied.values().all(|node| *node == 2));
}

#[test]
fn a_waypoint_takes_a_large_generation_of_several_types_at_once() {
    let generation = |version: u8| {
        let policy = Update::Put(policy('p', version));
        large(1_999, version).with([policy])
    };
    let mut pair = Pair::seeing(Viewer::Waypoint(waypoint("ours")), Interest::Everything);
    pair.offer(generation(1));
    pair.settle();
    assert!(pair.session.synced());
    assert_eq!(pair.applied.len(), 2_000);
    pair.offer(generation(2));
    let mut deliveries = 0;
    while pair.deliver() {
        deliveries += 1;
        let versions: BTreeSet<u8> = pair.applied.values().copied().collect();
        assert!(!pair.session.synced() || versions.len() == 1, "a half of {versions:?}");
        let policies = pair.subscriptions.of_type(ResourceType::Authorization).unwrap();
        let acknowledged = policies.acknowledgement("shop/p") == Acknowledgement::Acknowledged;
        assert!(!acknowledged || pair.session.synced(), "acknowledged before it is in force");
    }
    assert!(deliveries > 3, "{deliveries} deliveries");
    assert!(pair.session.synced() && pair.applied.values().all(|version| *version == 2));
}

#[test]
fn a_client_that_does_not_take_parts_is_sent_everything_at_once() {
    let resources = large(2_000, 1);
    let mut subscriber = Subscriber::new(ResourceType::Address, &resources, Viewer::Node);
    let response = subscriber.on_request(&DeltaDiscoveryRequest::default(), Instant::now()).unwrap();
    assert_eq!((response.resources.len(), response.system_version_info.as_str()), (2_000, ""));
}
