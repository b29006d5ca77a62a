//! Control deploys a waypoint for each Gateway of its class.

use ambit_tests::cluster::kinds::{
    BUDGETS, CONFIG_MAPS, DEPLOYMENTS, EVENTS, GATEWAY_CLASSES, GATEWAYS, Kind, SERVICE_ACCOUNTS, SERVICES,
    WAYPOINTS,
};
use ambit_tests::wait::until_answered;
use anyhow::{Context, Result, ensure};
use kube::ResourceExt;
use kube::api::{DynamicObject, ListParams};
use serde_json::{Value, json};

use super::mesh::{Mesh, SOON, START, WAYPOINT_IMAGE};

/// What a waypoint consists of.
const PARTS: [Kind; 5] = [SERVICE_ACCOUNTS, CONFIG_MAPS, SERVICES, BUDGETS, DEPLOYMENTS];

pub(crate) async fn a_service_says_which_waypoint_it_is_bound_to(mesh: &Mesh<'_>) -> Result<()> {
    mesh.define_gateway_api().await?;
    let bound = |name: &str, waypoint: &str| {
        let ports = json!([{"name": "http", "port": 80}]);
        let metadata = json!({"name": name, "labels": {"istio.io/use-waypoint": waypoint}});
        json!({"metadata": metadata, "spec": {"ports": ports}})
    };
    for (name, waypoint) in [("web", "waypoint"), ("lost", "missing")] {
        mesh.place.create(SERVICES, bound(name, waypoint)).await?;
    }
    gateway(mesh, "waypoint", "ambit-waypoint").await?;
    let control = mesh.control("control-a")?;
    control.ready(START).await?;
    for (name, status, reason) in
        [("web", "True", "WaypointAccepted"), ("lost", "False", "WaypointIsNotReady")]
    {
        until_answered(format!("the status of {name}"), SOON, async || {
            let condition = binding(mesh, name).await?.context("it says nothing")?;
            ensure!(condition["status"] == status && condition["reason"] == reason, "{condition}");
            Ok(())
        })
        .await?;
    }
    let label = json!({"metadata": {"labels": {"istio.io/use-waypoint": null}}});
    mesh.place.merge(SERVICES, "web", label).await?;
    until_answered("the condition to go", SOON, async || {
        let left = binding(mesh, "web").await?;
        ensure!(left.is_none(), "{left:?}");
        Ok(())
    })
    .await?;
    ensure!(binding(mesh, "lost").await?.is_some(), "that of another Service went too");
    Ok(())
}

/// The condition of a Service that says which waypoint it is bound to.
async fn binding(mesh: &Mesh<'_>, name: &str) -> Result<Option<Value>> {
    let service = mesh.place.api(SERVICES).get(name).await?;
    let conditions = service.data["status"]["conditions"].as_array().cloned().unwrap_or_default();
    Ok(conditions.into_iter().find(|condition| condition["type"] == "istio.io/WaypointBound"))
}

pub(crate) async fn a_gateway_is_deployed_and_what_others_made_is_left_alone(mesh: &Mesh<'_>) -> Result<()> {
    mesh.define_gateway_api().await?;
    // Somebody else's, of the name of a waypoint.
    let theirs = json!({"metadata": {"name": "taken", "labels": {"theirs": "yes"}}});
    mesh.place.create(SERVICE_ACCOUNTS, theirs).await?;
    for name in ["taken", "waypoint"] {
        gateway(mesh, name, "ambit-waypoint").await?;
    }
    gateway(mesh, "another", "of-another-controller").await?;
    let control = mesh.control("control-a")?;
    control.ready(START).await?;

    // A waypoint goes with its Gateway, and with the definition of what the Gateway owns.
    let waypoint = deployed(mesh, WAYPOINTS).await?;
    let owner = waypoint.owner_references().first().context("the Waypoint has no owner")?;
    ensure!(owner.kind == "Gateway" && owner.name == "waypoint", "the Waypoint is owned by {owner:?}");
    for kind in PARTS {
        let object = deployed(mesh, kind).await?;
        let owner = object.metadata.owner_references.iter().flatten().next().context("it has no owner")?;
        let is_waypoint = owner.kind == "Waypoint" && owner.api_version == "deploy.ambit.dev/v1alpha1";
        ensure!(
            is_waypoint && owner.uid == waypoint.uid().unwrap_or_default(),
            "{} is owned by {owner:?}",
            kind.kind
        );
    }
    let deployment = deployed(mesh, DEPLOYMENTS).await?;
    ensure!(deployment.data["spec"]["replicas"] == 2, "{}", deployment.data);
    let container = &deployment.data["spec"]["template"]["spec"]["containers"][0];
    ensure!(container["image"] == WAYPOINT_IMAGE, "{container}");
    let class = mesh.place.api(GATEWAY_CLASSES).get("ambit-waypoint").await?;
    ensure!(class.data["spec"]["controllerName"] == "ambit.dev/waypoint", "{}", class.data);
    let owners: Vec<_> = class.metadata.owner_references.iter().flatten().map(|owner| &*owner.name).collect();
    ensure!(owners == ["proxyreports.ambit.dev"], "it does not go with the installation: {owners:?}");

    let gateway = mesh.place.api(GATEWAYS);
    until_answered("the Gateway to be accepted", SOON, async || {
        let conditions = gateway.get("waypoint").await?.data["status"]["conditions"].clone();
        let accepted = conditions.as_array().into_iter().flatten().find(|one| one["type"] == "Accepted");
        ensure!(accepted.is_some_and(|one| one["status"] == "True"), "{conditions}");
        Ok(())
    })
    .await?;

    // Who scales it is not overruled by the next change of the Gateway.
    mesh.place.merge(DEPLOYMENTS, "waypoint", json!({"spec": {"replicas": 4}})).await?;
    let label = json!({"spec": {"infrastructure": {"labels": {"team": "shop"}}}});
    mesh.place.merge(GATEWAYS, "waypoint", label).await?;
    until_answered("the label to be there", SOON, async || {
        let deployment = deployed(mesh, DEPLOYMENTS).await?;
        ensure!(
            deployment.labels().get("team").is_some_and(|team| team == "shop"),
            "{:?}",
            deployment.labels()
        );
        ensure!(deployment.data["spec"]["replicas"] == 4, "the replicas were taken back");
        Ok(())
    })
    .await?;
    // What it was made with goes when the Gateway asks for it no more, and what somebody set stays.
    let label = json!({"spec": {"infrastructure": {"labels": {"team": null, "made-with": null}}}});
    mesh.place.merge(GATEWAYS, "waypoint", label).await?;
    for kind in PARTS {
        until_answered("the labels to go", SOON, async || {
            let labels = deployed(mesh, kind).await?.metadata.labels.unwrap_or_default();
            ensure!(
                !labels.contains_key("made-with") && !labels.contains_key("team"),
                "{}: {labels:?}",
                kind.kind
            );
            Ok(())
        })
        .await?;
    }
    let deployment = deployed(mesh, DEPLOYMENTS).await?;
    ensure!(deployment.data["spec"]["replicas"] == 4, "the replicas were taken back");

    told(mesh, "taken", "ServiceAccount").await?;
    let account = mesh.place.api(SERVICE_ACCOUNTS).get("taken").await?;
    ensure!(
        account.owner_references().is_empty() && account.labels().contains_key("theirs"),
        "it was adopted"
    );
    for name in ["taken", "another"] {
        ensure!(mesh.place.api(DEPLOYMENTS).get_opt(name).await?.is_none(), "{name} was deployed");
    }
    Ok(())
}

/// As versions left it that had no Waypoints: the Gateway itself owns everything.
pub(crate) async fn what_its_gateway_owns_is_taken_over(mesh: &Mesh<'_>) -> Result<()> {
    mesh.define_gateway_api().await?;
    gateway(mesh, "waypoint", "ambit-waypoint").await?;
    let uid = mesh.place.api(GATEWAYS).get("waypoint").await?.uid().context("a Gateway has a UID")?;
    let owner = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "name": "waypoint", "uid": uid,
        "controller": true,
    });
    for kind in [SERVICE_ACCOUNTS, CONFIG_MAPS] {
        let metadata = json!({"name": "waypoint", "ownerReferences": [owner]});
        mesh.place.create(kind, json!({"metadata": metadata})).await?;
    }
    let control = mesh.control("control-a")?;
    control.ready(START).await?;
    deployed(mesh, DEPLOYMENTS).await?;
    let waypoint = deployed(mesh, WAYPOINTS).await?.uid().context("a Waypoint has a UID")?;
    for kind in [SERVICE_ACCOUNTS, CONFIG_MAPS] {
        let object = deployed(mesh, kind).await?;
        let owners: Vec<_> =
            object.owner_references().iter().map(|owner| (&*owner.kind, &*owner.uid)).collect();
        ensure!(owners == [("Waypoint", &*waypoint)], "{} is owned by {owners:?}", kind.kind);
    }
    Ok(())
}

pub(crate) async fn what_a_config_map_asks_for_is_deployed(mesh: &Mesh<'_>) -> Result<()> {
    mesh.define_gateway_api().await?;
    let parameters = |name: &str| json!({"parametersRef": {"group": "", "kind": "ConfigMap", "name": name}});
    let patch = "spec: {replicas: 3, template: {spec: {priorityClassName: high, containers: [{name: waypoint, \
                 resources: {limits: {memory: 2Gi}}}]}}}";
    let map = json!({"metadata": {"name": "sizes"}, "data": {"deployment": patch}});
    mesh.place.create(CONFIG_MAPS, map).await?;
    for (name, map) in [("waypoint", "sizes"), ("lost", "missing")] {
        gateway(mesh, name, "ambit-waypoint").await?;
        mesh.place.merge(GATEWAYS, name, json!({"spec": {"infrastructure": parameters(map)}})).await?;
    }
    let control = mesh.control("control-a")?;
    control.ready(START).await?;
    let deployment = deployed(mesh, DEPLOYMENTS).await?;
    let spec = &deployment.data["spec"];
    let pod = &spec["template"]["spec"];
    ensure!(spec["replicas"] == 3 && pod["priorityClassName"] == "high", "{spec}");
    let container = &pod["containers"][0];
    ensure!(container["image"] == WAYPOINT_IMAGE, "{container}");
    ensure!(container["resources"]["limits"]["memory"] == "2Gi", "{container}");
    told(mesh, "lost", "ConfigMap missing").await?;
    ensure!(
        mesh.place.api(DEPLOYMENTS).get_opt("lost").await?.is_none(),
        "it was deployed without its sizes"
    );
    Ok(())
}

/// Waits for the Event of a Gateway that was not deployed.
async fn told(mesh: &Mesh<'_>, gateway: &str, word: &str) -> Result<()> {
    until_answered(format!("an Event of {gateway}"), SOON, async || {
        let events = mesh.place.api(EVENTS).list(&ListParams::default()).await?;
        let is_it = |event: &DynamicObject| {
            event.data["regarding"]["name"] == gateway
                && event.data["reason"] == "WaypointNotDeployed"
                && event.data["note"].as_str().is_some_and(|note| note.contains(word))
        };
        ensure!(events.items.iter().any(is_it), "nothing was told");
        Ok(())
    })
    .await
    .map(drop)
}

async fn gateway(mesh: &Mesh<'_>, name: &str, class: &str) -> Result<()> {
    let listener = json!({"name": "mesh", "port": 15008, "protocol": "HBONE"});
    let spec: Value = json!({
        "gatewayClassName": class, "listeners": [listener],
        "infrastructure": {"labels": {"made-with": "this"}},
    });
    mesh.place.create(GATEWAYS, json!({"metadata": {"name": name}, "spec": spec})).await?;
    Ok(())
}

async fn deployed(mesh: &Mesh<'_>, kind: Kind) -> Result<DynamicObject> {
    let what = format!("the {} of the waypoint", kind.kind);
    let (object, _) = until_answered(what, SOON, async || {
        mesh.place.api(kind).get_opt("waypoint").await?.context("it is not there")
    })
    .await?;
    Ok(object)
}
