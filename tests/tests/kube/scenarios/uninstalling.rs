//! Control tells the agents that the mesh is being uninstalled, also when its own account goes first.

use std::time::Duration;

use ambit_mesh::snapshot::Snapshot;
use ambit_tests::cluster::control::Control;
use ambit_tests::cluster::kinds::{CLUSTER_ROLE_BINDINGS, CRDS, NAMESPACES, SERVICE_ACCOUNTS};
use ambit_tests::observer::Observer;
use anyhow::{Context, Result, ensure};
use kube::api::DeleteParams;

use super::mesh::{Mesh, SOON, START};

/// As `kubectl delete -k` does it.
pub(crate) async fn the_namespace_of_the_mesh_goes_with_everything(mesh: &Mesh<'_>) -> Result<()> {
    let (_control, mut agent) = started(mesh).await?;
    take_account(mesh).await?;
    mesh.place.delete(NAMESPACES, &mesh.namespace).await?;
    told(&mut agent).await
}

/// As Helm does it, which deletes control before the definitions. Where others use the cluster too, their
/// mesh would be uninstalled with it: only the double is told to.
pub(crate) async fn the_definition_goes_while_control_ends(mesh: &Mesh<'_>) -> Result<()> {
    if mesh.place.double.is_none() {
        eprintln!("not tried here: it would uninstall the cluster's own mesh");
        return Ok(());
    }
    let (control, mut agent) = started(mesh).await?;
    control.terminate()?;
    take_account(mesh).await?;
    mesh.place.delete(CRDS, "proxyreports.ambit.dev").await?;
    told(&mut agent).await
}

async fn started(mesh: &Mesh<'_>) -> Result<(Control, Observer)> {
    let control = mesh.control("control-a")?;
    control.ready(START).await?;
    let mut agent = mesh.observe(&control).await?;
    agent.synced(START).await?;
    let stands = |snapshot: &Snapshot| {
        ensure!(!snapshot.mesh().context("nothing is known of the mesh")?.is_being_uninstalled());
        Ok(())
    };
    agent.until("the mesh to be known", SOON, stands).await?;
    // Also after the answer to the first question that control asks of itself.
    agent.throughout("the mesh to stand", Duration::from_secs(1), stands).await?;
    Ok((control, agent))
}

/// What control may do, and who it is.
async fn take_account(mesh: &Mesh<'_>) -> Result<()> {
    mesh.gate.dismiss();
    let now = DeleteParams::default();
    let bindings = CLUSTER_ROLE_BINDINGS.api(mesh.place.client.clone(), "");
    bindings.delete(&format!("ambit-control-{}", mesh.namespace), &now).await?;
    SERVICE_ACCOUNTS.api(mesh.place.client.clone(), &mesh.namespace).delete("control", &now).await?;
    Ok(())
}

async fn told(agent: &mut Observer) -> Result<()> {
    let (_, took) = agent
        .until("the agents to be told", SOON, |snapshot| {
            ensure!(
                snapshot.mesh().context("nothing is known of the mesh")?.is_being_uninstalled(),
                "not told"
            );
            Ok(())
        })
        .await?;
    eprintln!("the agents were told after {took:.1?}");
    ensure!(took < Duration::from_secs(3), "an agent may have ended by then: {took:?}");
    Ok(())
}
