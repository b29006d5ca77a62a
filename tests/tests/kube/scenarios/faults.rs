//! An API server that is away, slow, or has forgotten.

use std::collections::BTreeMap;
use std::time::Duration;

use ambit_tests::kube_gate::Way;
use ambit_tests::observer::Observer;
use anyhow::{Result, ensure};

use super::mesh::{Mesh, SOON, START};
use super::pods::{agrees, setting, workloads};
use ambit_tests::cluster::control::Control;
use ambit_tests::cluster::crowd::Pod;

const PODS: usize = 60;

/// A mesh with pods, and a proxy that knows them.
async fn begin(mesh: &Mesh<'_>) -> Result<(Control, Observer)> {
    mesh.enrol(true).await?;
    mesh.pods().run_all((0..PODS).map(Pod::numbered)).await?;
    let control = mesh.control("control-a")?;
    control.ready(START).await?;
    let mut observer = mesh.observe(&control).await?;
    observer.synced(START).await?;
    agrees(mesh, &mut observer, &of(0..PODS), SOON).await?;
    Ok((control, observer))
}

fn of(numbers: impl IntoIterator<Item = usize>) -> BTreeMap<String, String> {
    numbers.into_iter().map(Pod::numbered).map(|pod| (pod.name, pod.ip)).collect()
}

pub(crate) async fn an_outage_takes_nothing_away(mesh: &Mesh<'_>) -> Result<()> {
    // 300 for the five minutes of an upgrade; CI has less patience.
    let span = Duration::from_secs(setting("AMBIT_KUBE_OUTAGE_SECONDS", 20)? as u64);
    let (control, mut observer) = begin(mesh).await?;
    let mut next = 0;
    for way in [Way::Refused, Way::Hanging] {
        mesh.gate.set_way(way);
        // The cluster goes on behind it.
        mesh.pods().end_all((next..next + 10).map(Pod::numbered)).await?;
        mesh.pods().run_all((PODS + next..PODS + next + 10).map(Pod::numbered)).await?;
        let before = of(next..next + PODS);
        observer
            .throughout("what the proxy knows", span, |snapshot| {
                let found = workloads(snapshot, &mesh.place.namespace);
                ensure!(found.keys().copied().eq(before.keys().map(String::as_str)), "{} pods", found.len());
                Ok(())
            })
            .await?;
        mesh.gate.set_way(Way::Open);
        next += 10;
        // Beyond the longest pause between two tries.
        let took = agrees(mesh, &mut observer, &of(next..next + PODS), CATCH_UP).await?;
        eprintln!("{way:?} for {span:?}: caught up {took:.1?} after its end");
        ensure!(control.process().is_running(), "control has ended");
    }
    Ok(())
}

const CATCH_UP: Duration = Duration::from_secs(90);

pub(crate) async fn a_start_waits_for_the_server(mesh: &Mesh<'_>) -> Result<()> {
    mesh.enrol(true).await?;
    mesh.pods().run_all((0..PODS).map(Pod::numbered)).await?;
    mesh.gate.set_way(Way::Refused);
    let control = mesh.control("control-a")?;
    ensure!(control.ready(Duration::from_secs(5)).await.is_err(), "control is ready without a configuration");
    ensure!(control.process().is_running(), "control has ended");
    mesh.gate.set_way(Way::Open);
    control.ready(CATCH_UP).await?;
    let mut observer = mesh.observe(&control).await?;
    observer.synced(START).await?;
    agrees(mesh, &mut observer, &of(0..PODS), SOON).await?;
    Ok(())
}

/// Every watch is cut, and the next ones are told that their revision is gone: everything is listed again.
pub(crate) async fn what_is_forgotten_is_listed_again(mesh: &Mesh<'_>) -> Result<()> {
    let (_control, mut observer) = begin(mesh).await?;
    for round in 0..3 {
        mesh.gate.expire(12);
        let (from, to) = (round * 10, PODS + round * 10);
        let (old, new) = ((from..from + 10).map(Pod::numbered), (to..to + 10).map(Pod::numbered));
        // Those that are in no change are never gone.
        let stay = of(from + 10..to);
        let still_there = |snapshot: &ambit_mesh::snapshot::Snapshot| {
            let found = workloads(snapshot, &mesh.place.namespace);
            let missing = stay.keys().filter(|name| !found.contains_key(name.as_str())).count();
            ensure!(missing == 0, "{missing} pods are missing that nobody removed");
            Ok(())
        };
        let change = async {
            mesh.pods().end_all(old).await?;
            mesh.pods().run_all(new).await
        };
        tokio::pin!(change);
        tokio::select! {
            done = &mut change => done?,
            failed = observer.throughout("what stays", LONG, still_there) => failed?,
        }
        agrees(mesh, &mut observer, &of(from + 10..to + 10), CATCH_UP).await?;
    }
    let expired = mesh.gate.passed().iter().filter(|passed| passed.code == 410).count();
    eprintln!("{} requests passed, {expired} of them answered with 410", mesh.gate.passed().len());
    Ok(())
}

const LONG: Duration = Duration::from_secs(600);

pub(crate) async fn a_busy_server_is_waited_for(mesh: &Mesh<'_>) -> Result<()> {
    mesh.enrol(true).await?;
    mesh.pods().run_all((0..PODS).map(Pod::numbered)).await?;
    mesh.gate.throttle(20, 1);
    mesh.gate.delay(Duration::from_millis(200));
    let control = mesh.control("control-a")?;
    control.ready(CATCH_UP).await?;
    let mut observer = mesh.observe(&control).await?;
    observer.synced(START).await?;
    agrees(mesh, &mut observer, &of(0..PODS), SOON).await?;
    mesh.gate.throttle(20, 1);
    mesh.gate.cut_watches();
    mesh.pods().end_all([Pod::numbered(0)]).await?;
    agrees(mesh, &mut observer, &of(1..PODS), CATCH_UP).await?;
    let throttled = mesh.gate.passed().iter().filter(|passed| passed.code == 429).count();
    ensure!(throttled >= 20, "only {throttled} requests were throttled");
    Ok(())
}
