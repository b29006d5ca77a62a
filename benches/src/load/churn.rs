//! Configuration that changes while something else is measured: pods of a service that nobody calls
//! become ready and unready.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use ambit_tests::configuration::{Dataplane, PodObject, ServiceObject};
use ambit_tests::mesh::Mesh;
use anyhow::{Result, anyhow};

use crate::lane::SERVER_NODE;

/// The service and its pods. They have objects and no network.
pub(crate) struct Churn<'a> {
    mesh: &'a Mesh,
    pods: Vec<PodObject>,
}

const PODS: u8 = 50;
/// Between two changes: more than control waits for another one, so that each is told on its own.
const PAUSE: Duration = Duration::from_millis(40);
const NAMESPACE: &str = "churn";

impl<'a> Churn<'a> {
    /// Publishes them, all ready.
    ///
    /// # Errors
    /// When an object cannot be written.
    pub(crate) fn publish(mesh: &'a Mesh) -> Result<Self> {
        mesh.set_dataplane(NAMESPACE, Dataplane::Unset)?;
        mesh.configuration().service(&ServiceObject {
            namespace: NAMESPACE.to_owned(),
            name: "called-by-nobody".to_owned(),
            addresses: vec![IpAddr::from([10, 96, 0, 250])],
            port: (80, 8080),
            selector: ("churns".to_owned(), "yes".to_owned()),
            protocol: None,
        })?;
        let pods: Vec<PodObject> = (0..PODS).map(pod).collect();
        pods.iter().try_for_each(|pod| mesh.configuration().pod(pod))?;
        Ok(Self { mesh, pods })
    }

    /// Does the work while the pods change, one after the other and many times a second.
    ///
    /// # Errors
    /// Those of the work, and when an object cannot be written.
    pub(crate) fn during<T>(&mut self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let done = AtomicBool::new(false);
        let (mesh, pods) = (self.mesh, &mut self.pods);
        thread::scope(|scope| {
            let changing = scope.spawn(|| change_until(&done, mesh, pods));
            let outcome = work();
            done.store(true, Ordering::Relaxed);
            changing.join().map_err(|panic| anyhow!("churn panicked: {panic:?}"))??;
            outcome
        })
    }
}

fn change_until(done: &AtomicBool, mesh: &Mesh, pods: &mut [PodObject]) -> Result<()> {
    loop {
        for pod in &mut *pods {
            if done.load(Ordering::Relaxed) {
                return Ok(());
            }
            pod.ready = !pod.ready;
            mesh.configuration().pod(pod)?;
            thread::sleep(PAUSE);
        }
    }
}

fn pod(number: u8) -> PodObject {
    PodObject {
        namespace: NAMESPACE.to_owned(),
        name: format!("pod-{number}"),
        uid: format!("00000000-0000-4000-9000-{number:012}"),
        node: SERVER_NODE.to_owned(),
        service_account: "churn".to_owned(),
        labels: vec![("churns".to_owned(), "yes".to_owned())],
        annotations: vec![("ambit.dev/purpose".to_owned(), "churn".to_owned())],
        addresses: vec![Ipv4Addr::new(10, 10, 60, number + 1).into()],
        ready: true,
        terminating: false,
        probe_port: None,
    }
}
