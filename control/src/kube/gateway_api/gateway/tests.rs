use super::*;
use crate::kube::gateway_api::status::{Says, desired};
use crate::kube::testing::{generation, object};

fn gateway(listeners: &Value) -> Value {
    let rest = json!({"spec": {"gatewayClassName": "ambit-waypoint", "listeners": listeners}});
    object("gateway.networking.k8s.io/v1", "Gateway", "waypoint", 2, rest)
}

fn service() -> Value {
    let rest =
        json!({"spec": {"clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7", "fd00::7"], "ports": []}});
    object("v1", "Service", "waypoint", 1, rest)
}

/// What is written of this Gateway where `there` is its status.
fn said(documents: &[Value], programmed: bool, there: &Value) -> Option<Value> {
    let generation = generation(documents);
    let (key, gateway) = generation
        .inputs
        .entries()
        .find_map(|(key, entry)| {
            let Object::Gateway(gateway) = entry.object()? else { return None };
            Some((key, gateway))
        })
        .expect("there is a Gateway");
    let reason = if programmed { "Programmed" } else { "NoResources" };
    let conditions = [condition(PROGRAMMED, programmed, reason, "why".into())];
    let status = GatewayStatus::of(&generation, key, gateway, &conditions);
    let says = Says::OfGateway { status: status.as_ref() };
    desired(says, &json!({ "status": there }), Some(2), &conditions, "T")
}

fn truths(listener: &Value) -> Vec<String> {
    let conditions = listener["conditions"].as_array().unwrap();
    let of = |one: &Value| format!("{} {} {}", text(one, "type"), text(one, "status"), text(one, "reason"));
    conditions.iter().map(of).collect()
}

#[test]
fn a_gateway_that_is_programmed_says_where_it_is_reached() {
    let listeners = json!([{"name": "mesh", "port": 15008, "protocol": "HBONE"}]);
    let documents = [gateway(&listeners), service()];
    let first = said(&documents, true, &json!({})).unwrap();
    let addresses =
        json!([{"type": "IPAddress", "value": "10.96.0.7"}, {"type": "IPAddress", "value": "fd00::7"}]);
    assert_eq!(first["addresses"], addresses);
    let listener = &first["listeners"][0];
    assert_eq!((text(listener, "name"), &listener["attachedRoutes"]), ("mesh", &json!(0)));
    assert_eq!(listener["supportedKinds"].as_array().unwrap().len(), ROUTES.len());
    assert_eq!(
        truths(listener),
        ["Accepted True Accepted", "Programmed True Programmed", "ResolvedRefs True ResolvedRefs"]
    );
    assert_eq!(listener["conditions"][0]["observedGeneration"], 2);

    assert_eq!(said(&documents, true, &first), None, "the same is not written again");
    let fewer = said(&documents, false, &first).unwrap();
    assert_eq!(fewer["addresses"], json!([]), "nobody answers there");
    assert_eq!(truths(&fewer["listeners"][0])[1], "Programmed False Pending");
}

#[test]
fn listeners_that_are_of_no_use_say_why() {
    let listener =
        |name: &str, port: u16, protocol: &str| json!({"name": name, "port": port, "protocol": protocol});
    let mut picky = listener("mesh", 15008, "HBONE");
    picky["allowedRoutes"] = json!({"kinds": [{"kind": "GRPCRoute"}, {"kind": "UDPRoute"}]});
    let listeners = json!([
        picky,
        listener("web", 80, "HTTP"),
        listener("other", 15009, "HBONE"),
        listener("twice", 15008, "HBONE")
    ]);
    let said = said(&[gateway(&listeners), service()], true, &json!({})).unwrap();
    let expected = [
        ["Accepted True Accepted", "Programmed True Programmed", "ResolvedRefs False InvalidRouteKinds"],
        ["Accepted False UnsupportedProtocol", "Programmed False Invalid", "ResolvedRefs True ResolvedRefs"],
        ["Accepted False PortUnavailable", "Programmed False Invalid", "ResolvedRefs True ResolvedRefs"],
        ["Accepted False PortUnavailable", "Programmed False Invalid", "ResolvedRefs True ResolvedRefs"],
    ];
    for (at, expected) in expected.into_iter().enumerate() {
        assert_eq!(truths(&said["listeners"][at]), expected, "listener {at}");
    }
    let kinds = &said["listeners"][0]["supportedKinds"];
    assert_eq!(kinds, &json!([{"group": GROUP, "kind": "GRPCRoute"}]));
}

#[test]
fn of_a_gateway_of_another_class_nothing_is_said() {
    let mut foreign = gateway(&json!([{"name": "web", "port": 80, "protocol": "HTTP"}]));
    foreign["spec"]["gatewayClassName"] = "other".into();
    let status = said(&[foreign, service()], true, &json!({})).unwrap();
    assert_eq!((&status["addresses"], &status["listeners"]), (&Value::Null, &Value::Null));
}
