//! Pods that change hands between two agents: giving them to a successor, taking those of a predecessor,
//! and letting all of them go.

use std::sync::Arc;
use std::time::Duration;

use ambit_identity::manager::Issuer;
use ambit_identity::tls::TlsIdentity;
use ambit_mesh::workload::WorkloadUid;
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, timeout, timeout_at};
use tracing::{info, warn};

use super::enroll::{EnrollFailure, redirect, serve};
use super::plan::{Held, Place};
use super::{Managed, PodManager, PodState};
use crate::capture::listener::Listeners;
use crate::capture::rules::CapturePort;
use crate::handover::{ChannelError, GivenPod, Parting, Predecessors, TakenPod, Visit};
use crate::worker::Command;

/// Why a predecessor's pods cannot be served as they were.
#[derive(Debug, thiserror::Error)]
pub enum TakeError {
    /// A pod cannot be served.
    #[error("pod {pod} cannot be served: {reason}")]
    Pod {
        /// The pod.
        pod: WorkloadUid,
        /// Why.
        reason: String,
    },
    /// A certificate is missing.
    #[error(
        "no certificate for {pod} within {seconds} s, and the agent that serves has one: check that control is reachable and that both agents use the same state directory"
    )]
    Certificate {
        /// A pod without.
        pod: WorkloadUid,
        /// How long was waited.
        seconds: u64,
    },
    /// The workers did not take them.
    #[error("the workers cannot accept on all sockets: is the process out of descriptors?")]
    Workers,
}

impl<I: Issuer> PodManager<I> {
    /// Hands all pods to a successor. Until it serves them nothing changes here, and when it never does,
    /// nothing has changed. Nothing is enrolled and nothing released meanwhile.
    pub(super) async fn hand_over(&mut self, visit: Visit) -> Option<Parting> {
        let (to, start) = (visit.program().to_owned(), Instant::now());
        let given = timeout(FREEZE, self.give_all(visit)).await.unwrap_or(Err(ChannelError::Silent));
        match given {
            Ok(parting) => {
                info!(to, pods = self.pods.len(), frozen = ?start.elapsed(), "a successor serves this node's pods");
                Some(parting)
            }
            Err(error) => {
                warn!(to, %error, frozen = ?start.elapsed(), "the successor did not take over: going on as before");
                None
            }
        }
    }

    async fn give_all(&mut self, mut visit: Visit) -> Result<Parting, ChannelError> {
        self.predecessors.any_runs();
        for (uid, pod) in &self.pods {
            let (netns, leaving) = match &pod.state {
                PodState::Captured(netns) => (netns, false),
                PodState::Leaving(netns) => (netns, true),
                // It has no listening sockets: the successor tries by itself.
                PodState::Failed(_) => continue,
            };
            let certificate = self.certificates.subscribe(&pod.held.identity);
            let certified = certificate.borrow().is_some();
            let named = match &pod.held.place {
                Place::Named(path) => Some(path.as_path()),
                Place::Found(_) => None,
            };
            let given = GivenPod {
                workload: uid,
                pod_uid: &pod.held.pod_uid,
                identity: &pod.held.identity,
                netns,
                named,
                leaving,
                certified,
            };
            let listeners = self.lend(uid).await?;
            visit.give(&given, &listeners).await?;
        }
        visit.conclude(&self.predecessors).await
    }

    /// Copies of the pod's listening sockets on all workers.
    async fn lend(&self, uid: &WorkloadUid) -> Result<Listeners, ChannelError> {
        let mut all = Listeners::default();
        for worker in self.workers.iter() {
            let (answer, lent) = oneshot::channel();
            worker.send(Command::Lend(uid.clone(), answer));
            let mut lent = lent.await.map_err(|_| std::io::Error::other("a worker is gone"))??;
            for port in CapturePort::ALL {
                all.of_mut(port).append(lent.of_mut(port));
            }
        }
        Ok(all)
    }

    /// Serves a predecessor's pods beside it: accepts their connections and touches nothing else.
    ///
    /// # Errors
    /// When one of them could not be served as well as the predecessor does. What is served already
    /// goes on, which does no harm.
    pub async fn take_over(&mut self, pods: Vec<TakenPod>) -> Result<(), TakeError> {
        let mut awaited = Vec::new();
        for pod in pods {
            let uid = pod.workload.clone();
            let certificate = self.certificates.subscribe(&pod.identity);
            if pod.certified {
                awaited.push((uid.clone(), certificate.clone()));
            }
            let failed =
                |error: EnrollFailure| TakeError::Pod { pod: uid.clone(), reason: error.to_string() };
            let managed = self.take_pod(pod, &certificate).map_err(failed)?;
            self.pods.insert(uid, managed);
        }
        wait_for_certificates(awaited).await?;
        for worker in self.workers.iter() {
            let (answer, settled) = oneshot::channel();
            worker.send(Command::Settled(answer));
            if !settled.await.unwrap_or(false) {
                return Err(TakeError::Workers);
            }
        }
        Ok(())
    }

    fn take_pod(
        &self,
        pod: TakenPod,
        certificate: &watch::Receiver<Option<Arc<TlsIdentity>>>,
    ) -> Result<Managed, EnrollFailure> {
        let TakenPod { workload, pod_uid, identity, netns, named, leaving, listeners, .. } = pod;
        let netns = Arc::new(netns);
        let place = named.map_or_else(|| Place::Found(netns.id()), Place::Named);
        // What is left alone shows when the pods are compared with what should be.
        let (exclusions, probe_ports) = Default::default();
        let held = Held { pod_uid, identity, exclusions, probe_ports, place };
        let state = if leaving {
            PodState::Leaving(netns)
        } else {
            let workers = &self.workers;
            serve(&self.settings, &workload, &held.pod_uid, &netns, certificate, workers, listeners)?;
            PodState::Captured(netns)
        };
        Ok(Managed { held, state })
    }

    /// The pods that were taken are this agent's own now. What `predecessors` have redirected is left to
    /// them until they end.
    pub fn own(&mut self, predecessors: Predecessors) {
        self.predecessors.extend(predecessors);
        self.inherited = self.pods.keys().cloned().collect();
        info!(pods = self.pods.len(), "pods taken over from the agent before");
    }

    /// Replaces the rules that an agent of another version may have written, once it is known what is
    /// left alone in each pod.
    pub(super) fn renew_inherited(&mut self) {
        for uid in std::mem::take(&mut self.inherited) {
            let Some(Managed { held, state: PodState::Captured(netns) }) = self.pods.get(&uid) else {
                continue;
            };
            if let Err(error) = redirect(&self.settings, &uid, held, netns) {
                warn!(workload = %uid, %error, "the pod keeps the rules of the agent before");
            }
        }
    }

    /// Lets every pod go, as when all of them leave the mesh: new connections pass by from now on, open
    /// ones may end within the time, and then nothing of ours is left in any pod. Returns the pods of
    /// which something is left.
    pub async fn release_all(&mut self, within: Duration) -> Vec<WorkloadUid> {
        let deadline = Instant::now() + within;
        let uids: Vec<WorkloadUid> = self.pods.keys().cloned().collect();
        uids.iter().for_each(|uid| self.release(uid.clone()));
        let mut upkeep = tokio::time::interval(RELEASE_UPKEEP);
        while timeout_at(deadline, upkeep.tick()).await.is_ok() && self.any_leaving() {
            self.finish_leaving().await;
        }
        // What is open now is cut: without the rules, its next octets would leave the pod in clear.
        self.cut_leaving().await;
        self.pods.keys().cloned().collect()
    }

    fn any_leaving(&self) -> bool {
        self.pods.values().any(|pod| matches!(pod.state, PodState::Leaving(_)))
    }

    async fn cut_leaving(&mut self) {
        let leaving = self.pods.extract_if(.., |_, pod| matches!(pod.state, PodState::Leaving(_)));
        let leaving: Vec<(WorkloadUid, Managed)> = leaving.collect();
        for (uid, _) in &leaving {
            self.tell_workers(|| Command::Remove(uid.clone()));
        }
        for (uid, pod) in leaving {
            let PodState::Leaving(netns) = &pod.state else { continue };
            let cut = timeout(CUT, self.closed(&uid)).await;
            let cleared = self.clear(netns, &pod.held);
            if let Err(error) = cleared {
                warn!(workload = %uid, %error, "the pod's rules could not be removed: run `ztunnel uninstall` on this node");
                self.pods.insert(uid, pod);
            } else {
                info!(workload = %uid, all_closed = cut.is_ok(), "pod left the mesh");
            }
        }
    }

    /// Waits until no connection of a pod is open any more.
    async fn closed(&self, uid: &WorkloadUid) {
        let mut look = tokio::time::interval(Duration::from_millis(10));
        while self.open_connections(uid).await > 0 {
            look.tick().await;
        }
    }
}

/// Waits until there is a certificate for each.
async fn wait_for_certificates(
    awaited: Vec<(WorkloadUid, watch::Receiver<Option<Arc<TlsIdentity>>>)>,
) -> Result<(), TakeError> {
    let deadline = Instant::now() + CERTIFICATES;
    for (pod, mut certificate) in awaited {
        if !matches!(timeout_at(deadline, certificate.wait_for(Option::is_some)).await, Ok(Ok(_))) {
            return Err(TakeError::Certificate { pod, seconds: CERTIFICATES.as_secs() });
        }
    }
    Ok(())
}

/// How long a successor may keep pods from being enrolled and released: longer than it waits itself for
/// certificates.
const FREEZE: Duration = Duration::from_secs(20);

/// For certificates that are not in the store: control is asked for them.
const CERTIFICATES: Duration = Duration::from_secs(10);

/// How often pods on their way out are looked at when all of them leave.
const RELEASE_UPKEEP: Duration = Duration::from_millis(100);

/// For connections that were told to end now.
const CUT: Duration = Duration::from_secs(1);
