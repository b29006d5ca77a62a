//! An endpoint that was silent is asked in the background whether it is back: its client's connections go to others
//! meanwhile.

use std::rc::Rc;

use ambit_mesh::decide::{OutboundDecision, Transport};
use ambit_runtime::suspects::Asked;
use tokio::task::spawn_local;

use crate::dial::{TunnelKey, connect, try_tunnel};
use crate::worker::Pod;

/// Suspects the endpoint of this decision, if it has one, until it answers.
pub(super) fn suspect(pod: &Rc<Pod>, decision: &OutboundDecision) {
    let Some(endpoint) = &decision.endpoint else { return };
    let Some(suspicion) = pod.suspects.note(&endpoint.uid) else { return };
    let (pod, next_hop, transport) = (Rc::downgrade(pod), decision.next_hop, decision.transport.clone());
    spawn_local(suspicion.follow_up(move || {
        let (pod, transport) = (pod.upgrade(), transport.clone());
        async move {
            let Some(pod) = pod else { return Asked::Nobody };
            let outcome = match transport {
                Transport::Passthrough => connect(&pod, next_hop).await.map(drop),
                Transport::Hbone { expected, .. } => {
                    let Some(identity) = pod.identity().await else { return Asked::Nobody };
                    try_tunnel(&pod, &TunnelKey { next_hop, expected }, &identity).await
                }
            };
            match outcome {
                Err(error) if error.is_silence() => Asked::Silent,
                Ok(()) | Err(_) => Asked::Answered,
            }
        }
    }));
}
