use std::sync::Arc;

use ambit_mesh::mesh::Mesh;
use ambit_mesh::policy::{Action, AuthorizationPolicy, PolicyScope};
use ambit_mesh::workload::WorkloadUid;
use ambit_proto::envoy::service::discovery::v3 as discovery;
use ambit_proto::istio::security as proto;
use prost::Message;
use prost_types::Any;

use super::*;
use crate::convert::authorization::deny_all;
use crate::resources::Resource;
use crate::samples;

const ADDRESS: ResourceType = ResourceType::Address;
const AUTHORIZATION: ResourceType = ResourceType::Authorization;
const MESH: ResourceType = ResourceType::Mesh;

fn session(addresses: Interest) -> Session {
    let node = Node { id: "ztunnel~10.0.0.1~z.ambit-system~cluster.local".into(), ..Node::default() };
    Session::new(node, addresses, Role::Node)
}

fn connected() -> Session {
    let mut session = session(Interest::Everything);
    session.connect();
    session
}

fn response(kind: ResourceType, nonce: &str) -> DeltaDiscoveryResponse {
    DeltaDiscoveryResponse {
        type_url: kind.type_url().into(),
        nonce: nonce.into(),
        ..DeltaDiscoveryResponse::default()
    }
}

fn with(kind: ResourceType, nonce: &str, resources: Vec<discovery::Resource>) -> DeltaDiscoveryResponse {
    DeltaDiscoveryResponse { resources, ..response(kind, nonce) }
}

fn removing(kind: ResourceType, nonce: &str, names: &[&str]) -> DeltaDiscoveryResponse {
    let removed_resources = names.iter().map(ToString::to_string).collect();
    DeltaDiscoveryResponse { removed_resources, ..response(kind, nonce) }
}

fn workload(uid: &str) -> discovery::Resource {
    Resource::workload(&samples::workload_on(uid, "n1")).to_proto()
}

/// A resource of this name that cannot be used.
fn broken(kind: ResourceType, name: &str) -> discovery::Resource {
    let body = Any { type_url: kind.type_url().into(), value: vec![0xff] };
    discovery::Resource { name: name.into(), version: "broken".into(), resource: Some(body), aliases: vec![] }
}

/// A policy that cannot be enforced, of a known scope.
fn broken_policy(name: &str, scope: proto::Scope) -> discovery::Resource {
    let policy = proto::Authorization {
        name: name.into(),
        namespace: "shop".into(),
        scope: scope.into(),
        action: 9,
        ..proto::Authorization::default()
    };
    let body = Any { type_url: AUTHORIZATION.type_url().into(), value: policy.encode_to_vec() };
    discovery::Resource { resource: Some(body), ..broken(AUTHORIZATION, &format!("shop/{name}")) }
}

fn applied(policy: AuthorizationPolicy) -> Change {
    Change::Policy(Arc::new(policy))
}

fn versions(requests: &[DeltaDiscoveryRequest], kind: ResourceType) -> Vec<(&str, &str)> {
    let request = requests.iter().find(|request| request.type_url == kind.type_url()).unwrap();
    request
        .initial_resource_versions
        .iter()
        .map(|(name, version)| (name.as_str(), version.as_str()))
        .collect()
}

#[test]
fn the_first_requests_ask_for_everything_and_say_who_asks() {
    let requests = session(Interest::Everything).connect();
    assert_eq!(requests.len(), 2);
    for (request, kind) in
        requests.iter().zip(ResourceType::ALL.into_iter().filter(|kind| kind.is_for(Role::Node)))
    {
        assert_eq!(request.type_url, kind.type_url());
        assert!(request.node.as_ref().is_some_and(|node| node.id.starts_with("ztunnel~")));
        assert_eq!(request.resource_names_subscribe, [""; 0]);
        assert_eq!(request.response_nonce, "");
    }
}

#[test]
fn what_nothing_waits_for_is_asked_for_when_the_others_are_answered() {
    let mut session = connected();
    assert_eq!(session.on_response(response(AUTHORIZATION, "1")).further, []);
    let further = session.on_response(response(ADDRESS, "1")).further;
    assert!(session.synced(), "a server that does not know the type never answers it");
    assert_eq!(further.len(), 1);
    assert_eq!(further[0].type_url, ResourceType::Mesh.type_url());
    assert!(further[0].node.is_some());
    assert_eq!(session.on_response(response(ADDRESS, "2")).further, [], "once a stream");

    session.on_disconnect();
    session.connect();
    assert_eq!(session.on_response(response(ADDRESS, "1")).further, [], "policies are not answered on it");
    assert_eq!(session.on_response(response(AUTHORIZATION, "1")).further.len(), 1);
}

#[test]
fn a_version_of_any_form_is_declared_as_it_came() {
    let forms = [
        "00f1e2d3c4b5a6978877665544332211",
        "00F1E2D3C4B5A6978877665544332211",
        "1",
        "",
        "+0f1e2d3c4b5a69788776655443322110",
    ];
    let mut session = connected();
    let named = |(number, version): (usize, &&str)| discovery::Resource {
        version: (*version).to_owned(),
        ..workload(&format!("w{number}"))
    };
    session.on_response(with(ADDRESS, "1", forms.iter().enumerate().map(named).collect()));
    session.on_disconnect();
    let declared: Vec<String> =
        versions(&session.connect(), ADDRESS).into_iter().map(|(_, version)| version.to_owned()).collect();
    assert_eq!(declared, forms);
}

#[test]
fn a_mesh_that_cannot_be_read_leaves_the_last_good_one() {
    let mut session = connected();
    session.on_response(response(ADDRESS, "1"));
    session.on_response(response(AUTHORIZATION, "1"));
    let good = Mesh::new(["shop".into()], []);
    let reaction = session.on_response(with(MESH, "1", vec![Resource::mesh(&good).to_proto()]));
    assert_eq!(reaction.changes, [Change::Mesh(Arc::new(good))]);
    let reaction = session.on_response(with(MESH, "2", vec![broken(MESH, "mesh")]));
    assert_eq!(reaction.changes, []);
    assert!(reaction.answer.unwrap().error_detail.is_some());
    let removal = session.on_response(removing(MESH, "3", &["mesh"]));
    assert_eq!(removal.changes, [Change::RemoveMesh]);
}

#[test]
fn addresses_on_demand_are_asked_for_by_name_and_policies_are_not() {
    let mut session = session(Interest::OnDemand);
    let requests = session.connect();
    assert_eq!(requests[0].resource_names_subscribe, ["*"]);
    assert_eq!(requests[0].resource_names_unsubscribe, ["*"]);
    assert_eq!(requests[1].resource_names_subscribe, [""; 0]);

    let names = || ["net/10.0.0.1".to_owned(), "net/10.0.0.2".to_owned()];
    let request = session.subscribe(names()).unwrap();
    assert_eq!(request.resource_names_subscribe, names());
    assert_eq!(session.subscribe(names()), None, "asked for twice");

    session.on_disconnect();
    assert_eq!(session.subscribe(["net/10.0.0.3".to_owned()]), None, "there is no stream");
    let requests = session.connect();
    assert_eq!(requests[0].resource_names_subscribe, ["net/10.0.0.1", "net/10.0.0.2", "net/10.0.0.3"]);
    assert_eq!(requests[0].resource_names_unsubscribe, [""; 0]);
}

#[test]
fn a_session_is_synced_when_each_type_was_answered_once() {
    let mut session = connected();
    session.on_response(response(ADDRESS, "1"));
    assert!(!session.synced());
    session.on_response(response(AUTHORIZATION, "1"));
    assert!(session.synced());
    session.on_disconnect();
    assert!(session.synced(), "what was received stays");
}

#[test]
fn addresses_on_demand_are_not_waited_for() {
    let mut session = session(Interest::OnDemand);
    session.connect();
    session.on_response(response(AUTHORIZATION, "1"));
    assert!(session.synced());
}

#[test]
fn a_refused_first_response_does_not_hold_readiness() {
    let mut session = connected();
    session.on_response(with(ADDRESS, "1", vec![broken(ADDRESS, "a")]));
    session.on_response(with(AUTHORIZATION, "1", vec![broken(AUTHORIZATION, "shop/p")]));
    assert!(session.synced());
}

#[test]
fn a_response_is_acknowledged_by_its_nonce_alone() {
    let mut session = connected();
    let reaction = session.on_response(with(ADDRESS, "n7", vec![workload("a")]));
    let expected = DeltaDiscoveryRequest {
        type_url: ADDRESS.type_url().into(),
        response_nonce: "n7".into(),
        ..DeltaDiscoveryRequest::default()
    };
    assert_eq!(reaction.answer, Some(expected));
}

#[test]
fn a_nonce_is_never_answered_twice() {
    let mut session = connected();
    assert!(session.on_response(response(ADDRESS, "1")).answer.is_some());
    assert!(session.on_response(response(ADDRESS, "1")).answer.is_none());
    assert!(session.on_response(response(AUTHORIZATION, "1")).answer.is_some(), "types are apart");
    session.on_disconnect();
    session.connect();
    assert!(session.on_response(response(ADDRESS, "1")).answer.is_some(), "streams are apart");
}

#[test]
fn responses_that_cannot_be_answered_are_not() {
    let mut session = connected();
    let unknown = DeltaDiscoveryResponse { type_url: "type/Other".into(), ..response(ADDRESS, "1") };
    assert!(session.on_response(unknown).answer.is_none());
    let reaction = session.on_response(with(ADDRESS, "", vec![workload("a")]));
    assert_eq!((reaction.changes.len(), reaction.answer), (1, None));
    session.on_disconnect();
    assert!(session.on_response(response(ADDRESS, "2")).answer.is_none());
}

#[test]
fn one_bad_resource_does_not_keep_the_others_out() {
    let mut session = connected();
    let reaction =
        session.on_response(with(ADDRESS, "1", vec![workload("a"), broken(ADDRESS, "b"), workload("c")]));
    assert_eq!(reaction.changes.len(), 2);
    let error = reaction.answer.unwrap().error_detail.unwrap();
    assert!(error.message.starts_with("b: it cannot be decoded: "), "{}", error.message);
}

#[test]
fn a_refusal_names_ten_resources_and_counts_the_rest() {
    let mut session = connected();
    let many = (0..12).map(|number| broken(ADDRESS, &format!("w{number}"))).collect();
    let reaction = session.on_response(with(ADDRESS, "1", many));
    let message = reaction.answer.unwrap().error_detail.unwrap().message;
    assert!(message.contains("w9: ") && !message.contains("w10: "), "{message}");
    assert!(message.ends_with("; and 2 more"), "{message}");
}

#[test]
fn a_rejected_workload_keeps_its_last_good_version() {
    let mut session = connected();
    let good = workload("a");
    session.on_response(with(ADDRESS, "1", vec![good.clone()]));
    let reaction = session.on_response(with(ADDRESS, "2", vec![broken(ADDRESS, "a")]));
    assert_eq!(reaction.changes, []);
    session.on_disconnect();
    assert_eq!(versions(&session.connect(), ADDRESS), [("a", good.version.as_str())]);
}

#[test]
fn a_rejected_workload_without_a_good_version_is_not_recorded() {
    let mut session = connected();
    let reaction = session.on_response(with(ADDRESS, "1", vec![broken(ADDRESS, "a")]));
    assert_eq!(reaction.changes, []);
    session.on_disconnect();
    assert_eq!(versions(&session.connect(), ADDRESS), []);
}

#[test]
fn a_body_under_anothers_name_is_rejected() {
    let mut session = connected();
    let renamed = discovery::Resource { name: "b".into(), ..workload("a") };
    let bodiless = discovery::Resource { resource: None, ..workload("c") };
    let mut of_another_type = workload("d");
    of_another_type.resource.as_mut().unwrap().type_url = AUTHORIZATION.type_url().into();
    let reaction = session.on_response(with(ADDRESS, "1", vec![renamed, bodiless, of_another_type]));
    assert_eq!(reaction.changes, []);
    let names: Vec<&str> = reaction.rejected.iter().map(|rejected| rejected.name.as_str()).collect();
    assert_eq!(names, ["b", "c", "d"]);
}

#[test]
fn a_broken_policy_keeps_its_last_good_version() {
    let mut session = connected();
    let good = Resource::policy(&samples::policy("shop", "p", Action::Allow)).to_proto();
    session.on_response(with(AUTHORIZATION, "1", vec![good]));
    let edit = broken_policy("p", proto::Scope::Global);
    assert_eq!(session.on_response(with(AUTHORIZATION, "2", vec![edit])).changes, []);
}

#[test]
fn a_broken_policy_without_a_good_version_denies_what_it_selects() {
    let mut session = connected();
    let name = samples::policy("shop", "p", Action::Allow).name;
    let reaction = session.on_response(with(
        AUTHORIZATION,
        "1",
        vec![broken_policy("p", proto::Scope::WorkloadSelector)],
    ));
    assert_eq!(reaction.changes, [applied(deny_all(name.clone(), PolicyScope::WorkloadSelector))]);
    assert!(reaction.answer.unwrap().error_detail.is_some());

    let edit =
        session.on_response(with(AUTHORIZATION, "2", vec![broken_policy("p", proto::Scope::Namespace)]));
    assert_eq!(
        edit.changes,
        [applied(deny_all(name.clone(), PolicyScope::Namespace))],
        "the selection has moved"
    );

    let removal = session.on_response(removing(AUTHORIZATION, "3", &["shop/p"]));
    assert_eq!(removal.changes, [Change::RemovePolicy(name)]);
}

#[test]
fn a_policy_whose_selection_cannot_be_told_denies_everywhere() {
    let mut session = connected();
    let garbled = vec![broken(AUTHORIZATION, "shop/p"), broken(AUTHORIZATION, "nameless")];
    let reaction = session.on_response(with(AUTHORIZATION, "1", garbled));
    assert_eq!(reaction.changes.len(), 2);
    for change in reaction.changes {
        let Change::Policy(policy) = change else { panic!("{change:?}") };
        assert_eq!((policy.scope, policy.action), (PolicyScope::Global, Action::Deny));
    }
}

#[test]
fn what_stands_in_is_not_declared_and_goes_when_it_is_no_longer_listed() {
    let mut session = connected();
    let name = samples::policy("shop", "p", Action::Allow).name;
    let still_broken = || with(AUTHORIZATION, "1", vec![broken_policy("p", proto::Scope::Namespace)]);
    session.on_response(still_broken());

    session.on_disconnect();
    assert_eq!(versions(&session.connect(), AUTHORIZATION), []);
    let listed_again = session.on_response(still_broken());
    assert_eq!(listed_again.changes, [applied(deny_all(name.clone(), PolicyScope::Namespace))]);

    session.on_disconnect();
    session.connect();
    let not_listed = session.on_response(response(AUTHORIZATION, "1"));
    assert_eq!(not_listed.changes, [Change::RemovePolicy(name)]);
    assert_eq!(session.on_response(response(AUTHORIZATION, "2")).changes, []);
}

#[test]
fn what_was_removed_while_away_is_removed_when_the_server_says_so() {
    let mut session = connected();
    session.on_response(with(ADDRESS, "1", vec![workload("a"), workload("b")]));
    session.on_disconnect();
    session.connect();
    let reaction = session.on_response(removing(ADDRESS, "1", &["a", "never known"]));
    assert_eq!(reaction.changes, [Change::RemoveWorkload(WorkloadUid("a".into()))]);
}

#[test]
fn a_removal_removes_what_was_received_under_the_name() {
    let mut session = connected();
    // The uid has the form of a service's name.
    let uid = "shop/web.test";
    session.on_response(with(ADDRESS, "1", vec![workload(uid)]));
    let service = samples::service("shop", "web");
    let taken_over = session.on_response(with(ADDRESS, "2", vec![Resource::service(&service).to_proto()]));
    let expected =
        [Change::RemoveWorkload(WorkloadUid(uid.into())), Change::Service(Arc::new(service.clone()))];
    assert_eq!(taken_over.changes, expected);
    let removal = session.on_response(removing(ADDRESS, "3", &[uid]));
    assert_eq!(removal.changes, [Change::RemoveService(service.name)]);
}
