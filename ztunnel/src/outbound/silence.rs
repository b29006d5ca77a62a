//! An endpoint that was silent is asked in the background whether it is back: clients' connections go to others
//! meanwhile.

use std::rc::Rc;

use ambit_mesh::decide::{OutboundDecision, Transport};
use tokio::task::spawn_local;

use crate::dial::{DialError, TunnelKey, connect, try_tunnel};
use crate::worker::Pod;

/// Suspects the endpoint of this decision, if it has one, until it answers somebody.
pub(super) fn suspect(pod: &Rc<Pod>, decision: &OutboundDecision) {
    let Some(endpoint) = &decision.endpoint else { return };
    let Some(suspicion) = pod.worker.shared.suspects.note(&endpoint.uid) else { return };
    let (pod, next_hop, transport) = (Rc::downgrade(pod), decision.next_hop, decision.transport.clone());
    spawn_local(suspicion.follow_up(move || {
        let (pod, transport) = (pod.upgrade(), transport.clone());
        async move {
            // A pod that is gone has nobody to ask for.
            let Some(pod) = pod else { return true };
            let outcome = match transport {
                Transport::Passthrough => connect(&pod, next_hop).await.map(drop),
                Transport::Hbone { expected, .. } => {
                    let Some(identity) = pod.identity().await else { return true };
                    try_tunnel(&pod, &TunnelKey { next_hop, expected }, &identity).await
                }
            };
            !outcome.as_ref().is_err_and(DialError::is_silence)
        }
    }));
}
