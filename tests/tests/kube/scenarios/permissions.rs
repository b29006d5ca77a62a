//! Whether control asks for everything that its Role gives. That it is enough is seen to in every scenario.

use ambit_tests::cluster::crowd::Pod;
use ambit_tests::cluster::kinds::{
    DEPLOYMENTS, EVENTS, GATEWAY_CLASSES, GATEWAYS, GRPC_ROUTES, HTTP_ROUTES, PEER_AUTHENTICATIONS, POLICIES,
    SERVICES, TCP_ROUTES, TLS_ROUTES,
};
use ambit_tests::wait::until_answered;
use anyhow::{Context, Result, ensure};
use kube::ResourceExt;
use kube::api::ListParams;
use serde_json::{Value, json};

use super::mesh::{Mesh, SOON, START};

pub(crate) async fn the_shipped_role_is_used_whole(mesh: &Mesh<'_>) -> Result<()> {
    mesh.define_policies().await?;
    mesh.define_gateway_api().await?;
    // An installation before may have left it.
    if mesh.place.api(GATEWAY_CLASSES).get_opt("ambit-waypoint").await?.is_some() {
        GATEWAY_CLASSES
            .api(mesh.place.client.clone(), "")
            .delete("ambit-waypoint", &Default::default())
            .await?;
    }
    mesh.enrol(true).await?;
    mesh.pods().run_all([Pod::numbered(0)]).await?;
    // Two pods with one address: something that only an Event can tell.
    let twin = Pod { name: "twin".into(), ..Pod::numbered(0) };
    mesh.pods().run(&twin, &json!({"metadata": {"annotations": {EXCLUDED: "no port"}}})).await?;
    let deny = json!({"action": "DENY", "rules": [{"to": [{"operation": {"ports": ["9999"]}}]}]});
    mesh.place.create(POLICIES, json!({"metadata": {"name": "p"}, "spec": deny})).await?;
    let strict = json!({"metadata": {"name": "default"}, "spec": {"mtls": {"mode": "STRICT"}}});
    mesh.place.create(PEER_AUTHENTICATIONS, strict).await?;
    let listener = json!({"name": "mesh", "port": 15008, "protocol": "HBONE"});
    let waypoint = json!({"gatewayClassName": "ambit-waypoint", "listeners": [listener]});
    mesh.place.create(GATEWAYS, json!({"metadata": {"name": "waypoint"}, "spec": waypoint})).await?;
    let ports = json!([{"name": "http", "port": 80}, {"name": "grpc", "port": 81}, {"name": "tls", "port": 82}, {"name": "tcp", "port": 83}]);
    let bound = json!({"name": "web", "labels": {"istio.io/use-waypoint": "waypoint"}});
    mesh.place.create(SERVICES, json!({"metadata": bound, "spec": {"ports": ports}})).await?;
    for (kind, port) in [(HTTP_ROUTES, 80), (GRPC_ROUTES, 81), (TLS_ROUTES, 82), (TCP_ROUTES, 83)] {
        let parent = json!({"group": "", "kind": "Service", "name": "web", "port": port});
        let spec =
            json!({"parentRefs": [parent], "rules": [{"backendRefs": [{"name": "web", "port": port}]}]});
        let mut route = json!({"metadata": {"name": "web"}, "spec": spec});
        if kind.kind == TLS_ROUTES.kind {
            route["spec"]["hostnames"] = json!(["web.example"]);
        }
        mesh.place.create(kind, route).await?;
    }
    let control = mesh.control("control-a")?;
    control.ready(START).await?;
    let mut observer = mesh.observe(&control).await?;
    observer.synced(START).await?;
    for (kind, name) in [(POLICIES, "p"), (PEER_AUTHENTICATIONS, "default")] {
        until_answered(format!("a status of {}", kind.kind), SOON, async || {
            let object = mesh.place.api(kind).get(name).await?;
            let conditions = &object.data["status"]["conditions"];
            ensure!(
                conditions.as_array().is_some_and(|list| !list.is_empty()),
                "{} has none",
                object.name_any()
            );
            Ok(())
        })
        .await?;
    }
    until_answered("an Event", SOON, async || {
        let events = mesh.place.api(EVENTS).list(&ListParams::default()).await?;
        ensure!(!events.items.is_empty(), "nothing was told");
        Ok(())
    })
    .await?;
    until_answered("the waypoint", SOON, async || {
        mesh.place.api(DEPLOYMENTS).get_opt("waypoint").await?.context("it is not deployed")
    })
    .await?;
    for kind in [HTTP_ROUTES, GRPC_ROUTES, TLS_ROUTES, TCP_ROUTES] {
        until_answered(format!("a status of {}", kind.kind), SOON, async || {
            let route = mesh.place.api(kind).get("web").await?;
            ensure!(
                route.data["status"]["parents"][0]["conditions"][0]["type"] == "Accepted",
                "{}",
                route.data
            );
            Ok(())
        })
        .await?;
    }
    until_answered("a status of the Service", SOON, async || {
        let service = mesh.place.api(SERVICES).get("web").await?;
        ensure!(
            service.data["status"]["conditions"][0]["type"] == "istio.io/WaypointBound",
            "{}",
            service.data
        );
        Ok(())
    })
    .await?;
    // Its report and its Lease go when it ends as it is told to.
    control.terminate()?;
    control.process().wait_for_end(SOON)?;
    // What a Role gives and nobody needs is what an attacker gets.
    until_answered("every permission to be used", SOON, async || {
        let unused = mesh.role.unused(&mesh.gate.passed());
        ensure!(unused.is_empty(), "nothing asked for:\n{}", unused.join("\n"));
        Ok::<Value, anyhow::Error>(Value::Null)
    })
    .await?;
    Ok(())
}

/// Its value has to be ports.
const EXCLUDED: &str = "ambit.dev/exclude-inbound-ports";
