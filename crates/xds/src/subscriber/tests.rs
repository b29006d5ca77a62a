use ambit_proto::google::rpc;

use super::*;
use crate::samples;

const ADDRESS: ResourceType = ResourceType::Address;

/// Workloads by uid and node: another node makes another version.
fn generation(workloads: &[(&str, &str)]) -> Resources {
    let workload = |&(uid, node): &(&str, &str)| Resource::workload(&samples::workload_on(uid, node));
    workloads.iter().map(workload).collect()
}

fn version(resources: &Resources, name: &str) -> String {
    resources.of_type(ADDRESS).get(name).unwrap().version().to_string()
}

fn strings(names: &[&str]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

fn request(subscribe: &[&str], unsubscribe: &[&str]) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        type_url: ADDRESS.type_url().into(),
        resource_names_subscribe: strings(subscribe),
        resource_names_unsubscribe: strings(unsubscribe),
        ..DeltaDiscoveryRequest::default()
    }
}

fn ack(response: &DeltaDiscoveryResponse) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest { response_nonce: response.nonce.clone(), ..request(&[], &[]) }
}

fn nack(response: &DeltaDiscoveryResponse) -> DeltaDiscoveryRequest {
    let error = rpc::Status { message: "no".into(), ..rpc::Status::default() };
    DeltaDiscoveryRequest { error_detail: Some(error), ..ack(response) }
}

fn on_demand(names: &[&str]) -> DeltaDiscoveryRequest {
    if names.is_empty() { request(&["*"], &["*"]) } else { request(names, &[]) }
}

fn names(response: &DeltaDiscoveryResponse) -> Vec<&str> {
    response.resources.iter().map(|resource| resource.name.as_str()).collect()
}

/// A subscriber after its first request and the acknowledgement of the first response.
fn following(resources: &Resources, first: &DeltaDiscoveryRequest) -> Subscriber {
    let mut subscriber = Subscriber::new(ADDRESS, resources, Viewer::Node);
    let response = subscriber.on_request(first, Instant::now()).unwrap();
    assert_eq!(subscriber.on_request(&ack(&response), Instant::now()), None);
    subscriber
}

#[test]
fn nothing_is_sent_before_it_is_asked_for() {
    let mut subscriber = Subscriber::new(ADDRESS, &generation(&[("a", "n1")]), Viewer::Node);
    assert_eq!(subscriber.on_change(&generation(&[("a", "n2")]), Instant::now()), None);
}

#[test]
fn a_first_request_without_names_is_for_everything() {
    let now = Instant::now();
    let resources = generation(&[("a", "n1"), ("b", "n1")]);
    for first in [request(&[], &[]), request(&["*"], &[])] {
        let response = Subscriber::new(ADDRESS, &resources, Viewer::Node).on_request(&first, now).unwrap();
        assert_eq!(names(&response), ["a", "b"]);
        assert_eq!(response.type_url, ADDRESS.type_url());
        assert_eq!(response.resources[0].version, version(&resources, "a"));
    }
}

#[test]
fn a_first_request_is_answered_even_if_there_is_nothing() {
    for first in [request(&[], &[]), on_demand(&[])] {
        let response = Subscriber::new(ADDRESS, &generation(&[]), Viewer::Node)
            .on_request(&first, Instant::now())
            .unwrap();
        assert_eq!((names(&response), response.removed_resources.len()), (vec![], 0));
        assert_ne!(response.nonce, "");
    }
}

#[test]
fn changes_and_removals_follow() {
    let now = Instant::now();
    let mut subscriber = following(&generation(&[("a", "n1"), ("b", "n1"), ("c", "n1")]), &request(&[], &[]));
    let response = subscriber.on_change(&generation(&[("a", "n1"), ("b", "n2"), ("d", "n1")]), now).unwrap();
    assert_eq!(names(&response), ["b", "d"]);
    assert_eq!(response.removed_resources, ["c"]);
}

#[test]
fn a_generation_that_changes_nothing_is_not_sent() {
    let mut subscriber = following(&generation(&[("a", "n1")]), &request(&[], &[]));
    assert_eq!(subscriber.on_change(&generation(&[("a", "n1")]), Instant::now()), None);
}

#[test]
fn changes_wait_for_the_answer_and_are_folded_together() {
    let now = Instant::now();
    let mut subscriber = Subscriber::new(ADDRESS, &generation(&[("a", "n1")]), Viewer::Node);
    let first = subscriber.on_request(&request(&[], &[]), now).unwrap();
    assert_eq!(subscriber.on_change(&generation(&[("a", "n2"), ("b", "n1")]), now), None);
    assert_eq!(subscriber.on_change(&generation(&[("a", "n3")]), now), None);
    assert_eq!(subscriber.unanswered_since(), Some(now));
    let second = subscriber.on_request(&ack(&first), now).unwrap();
    assert_eq!((names(&second), second.removed_resources.len()), (vec!["a"], 0));
    assert_ne!(second.nonce, first.nonce);
    assert_eq!(subscriber.on_request(&ack(&second), now), None);
    assert_eq!(subscriber.unanswered_since(), None);
}

#[test]
fn only_the_outstanding_nonce_is_an_answer() {
    let now = Instant::now();
    let mut subscriber = Subscriber::new(ADDRESS, &generation(&[("a", "n1")]), Viewer::Node);
    let first = subscriber.on_request(&request(&[], &[]), now).unwrap();
    subscriber.on_change(&generation(&[("a", "n2")]), now);
    for nonce in ["", "made up"] {
        let made_up = DeltaDiscoveryRequest { response_nonce: nonce.into(), ..ack(&first) };
        assert_eq!(subscriber.on_request(&made_up, now), None, "{nonce:?}");
    }
    let second = subscriber.on_request(&ack(&first), now).unwrap();
    assert_eq!(subscriber.on_request(&nack(&first), now), None, "the first was answered before");
    assert_eq!(subscriber.last_refusal(), None);
    assert_eq!(subscriber.acknowledgement("a"), Acknowledgement::Pending);
    subscriber.on_request(&ack(&second), now);
    assert_eq!(subscriber.acknowledgement("a"), Acknowledgement::Acknowledged);
}

#[test]
fn a_client_that_comes_back_gets_what_it_lacks() {
    let resources = generation(&[("same", "n1"), ("changed", "n1"), ("new", "n1")]);
    let held = [("same", version(&resources, "same").as_str()), ("changed", "old"), ("gone", "old")]
        .map(|(name, version)| (name.to_owned(), version.to_owned()));
    let first = DeltaDiscoveryRequest { initial_resource_versions: held.into(), ..request(&[], &[]) };
    let response =
        Subscriber::new(ADDRESS, &resources, Viewer::Node).on_request(&first, Instant::now()).unwrap();
    assert_eq!(names(&response), ["changed", "new"]);
    assert_eq!(response.removed_resources, ["gone"]);
}

#[test]
fn a_client_that_comes_back_on_demand_gets_what_it_lacks_of_its_names() {
    let resources = generation(&[("a", "n1"), ("b", "n1"), ("c", "n1")]);
    let held = ["a", "b", "c"].map(|name| (name.to_owned(), version(&resources, name)));
    let first = DeltaDiscoveryRequest { initial_resource_versions: held.into(), ..on_demand(&["a", "gone"]) };
    let response =
        Subscriber::new(ADDRESS, &resources, Viewer::Node).on_request(&first, Instant::now()).unwrap();
    assert_eq!(names(&response), [""; 0]);
    assert_eq!(response.removed_resources, ["b", "c", "gone"], "not wanted is as good as gone");
}

#[test]
fn on_demand_only_what_was_asked_for_is_sent() {
    let now = Instant::now();
    let mut subscriber = following(&generation(&[("a", "n1"), ("b", "n1")]), &on_demand(&[]));
    let response = subscriber.on_request(&request(&["a", "z"], &[]), now).unwrap();
    assert_eq!(names(&response), ["a"]);
    assert_eq!(response.removed_resources, ["z"], "there is no such resource, and the client waits to know");
    subscriber.on_request(&ack(&response), now);

    let response = subscriber.on_change(&generation(&[("b", "n2"), ("z", "n1")]), now).unwrap();
    assert_eq!(names(&response), ["z"]);
    assert_eq!(response.removed_resources, ["a"]);
    assert_eq!(subscriber.acknowledgement("b"), Acknowledgement::NotWanted);
}

#[test]
fn names_asked_for_while_a_response_is_unanswered_are_sent_after_it() {
    let now = Instant::now();
    let mut subscriber = Subscriber::new(ADDRESS, &generation(&[("a", "n1"), ("b", "n1")]), Viewer::Node);
    let first = subscriber.on_request(&on_demand(&["a"]), now).unwrap();
    assert_eq!(subscriber.on_request(&request(&["b"], &[]), now), None);
    let second = subscriber.on_request(&ack(&first), now).unwrap();
    assert_eq!(names(&second), ["b"]);
}

#[test]
fn what_is_asked_for_again_is_sent_again() {
    let now = Instant::now();
    let mut subscriber = following(&generation(&[("a", "n1")]), &on_demand(&["a"]));
    assert_eq!(subscriber.on_request(&request(&[], &["a"]), now), None);
    assert_eq!(subscriber.on_change(&generation(&[("a", "n2")]), now), None);
    let response = subscriber.on_request(&request(&["a"], &[]), now).unwrap();
    assert_eq!(names(&response), ["a"]);
}

#[test]
fn a_workload_asked_for_by_address_comes_under_its_name() {
    let now = Instant::now();
    let alias = format!("net/{}", samples::address_of("a"));
    let mut subscriber = following(&generation(&[("b", "n1")]), &on_demand(&[]));
    let absent = subscriber.on_request(&request(&[&alias], &[]), now).unwrap();
    assert_eq!(absent.removed_resources, [alias.as_str()]);
    subscriber.on_request(&ack(&absent), now);

    let found = subscriber.on_change(&generation(&[("a", "n1"), ("b", "n1")]), now).unwrap();
    assert_eq!(names(&found), ["a"]);
    assert_eq!(found.resources[0].aliases, [alias.as_str()]);
    subscriber.on_request(&ack(&found), now);

    let mut moved = samples::workload_on("a", "n1");
    moved.addresses = vec![samples::address_of("elsewhere")];
    let moved = [Resource::workload(&moved)].into_iter().collect();
    let response = subscriber.on_change(&moved, now).unwrap();
    assert_eq!(response.removed_resources, ["a"], "the address is no longer its own");
}

#[test]
fn a_nodes_address_is_no_workloads_alias() {
    let mut workload = samples::workload_on("a", "n1");
    workload.network_mode = ambit_mesh::workload::NetworkMode::HostNetwork;
    assert_eq!(Resource::workload(&workload).aliases(), []);
}

#[test]
fn a_refusal_is_reported_and_not_sent_again() {
    let now = Instant::now();
    let mut subscriber = following(&generation(&[("a", "n1"), ("b", "n1")]), &request(&[], &[]));
    let refused = subscriber.on_change(&generation(&[("a", "n2"), ("b", "n1")]), now).unwrap();
    assert_eq!(subscriber.on_request(&nack(&refused), now), None);
    assert_eq!(subscriber.acknowledgement("a"), Acknowledgement::Refused);
    assert_eq!(subscriber.acknowledgement("b"), Acknowledgement::Acknowledged);
    let status = subscriber.status();
    assert_eq!((status.wanted, status.up_to_date), (2, 1));
    assert_eq!(status.acknowledged.keys().map(|name| &**name).collect::<Vec<_>>(), ["b"]);
    assert_eq!(status.last_refusal.map(|refusal| refusal.message).as_deref(), Some("no"));

    let unrelated = subscriber.on_change(&generation(&[("a", "n2"), ("b", "n2")]), now).unwrap();
    assert_eq!(names(&unrelated), ["b"]);
    subscriber.on_request(&ack(&unrelated), now);
    assert_eq!(subscriber.acknowledgement("a"), Acknowledgement::Refused, "it was not in that response");

    let repaired = subscriber.on_change(&generation(&[("a", "n3"), ("b", "n2")]), now).unwrap();
    subscriber.on_request(&ack(&repaired), now);
    assert_eq!(subscriber.acknowledgement("a"), Acknowledgement::Acknowledged);
}

#[test]
fn a_removal_counts_once_it_is_acknowledged() {
    let now = Instant::now();
    let mut subscriber = following(&generation(&[("a", "n1")]), &request(&[], &[]));
    let removal = subscriber.on_change(&generation(&[]), now).unwrap();
    assert_eq!(subscriber.acknowledgement("a"), Acknowledgement::Pending);
    subscriber.on_request(&ack(&removal), now);
    assert_eq!(subscriber.acknowledgement("a"), Acknowledgement::Acknowledged);
}
