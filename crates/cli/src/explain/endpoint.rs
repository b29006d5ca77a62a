//! What an endpoint's node agent says of a connection: pure, by the functions that it calls.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ambit_mesh::address::Authority;
use ambit_mesh::decide::{InboundRequest, InboundTarget, OutboundDecision, Transport, inbound};
use ambit_mesh::identity::SpiffeId;
use ambit_mesh::policy::{Action, Consulted, Denied, Peer, authorize, consulted};
use ambit_mesh::service::Service;
use ambit_mesh::snapshot::Snapshot;
use ambit_mesh::workload::{TunnelProtocol, Workload};

use super::answer::{Carried, End, EndpointHop, PolicySays, Says};

/// Who opens a tunnel to an endpoint.
pub(super) struct Tunnel<'a> {
    pub(super) peer: &'a SpiffeId,
    pub(super) peer_ip: IpAddr,
    /// The client whose request a waypoint carries.
    pub(super) speaks_for: Option<&'a SpiffeId>,
    pub(super) service: Option<&'a Service>,
}

/// A connection in a tunnel.
pub(super) fn by_tunnel(snapshot: &Snapshot, choice: &OutboundDecision, tunnel: &Tunnel<'_>) -> EndpointHop {
    let Transport::Hbone { authority, .. } = choice.transport else {
        return in_clear(snapshot, choice, tunnel.peer_ip);
    };
    let asked = Authority::Address(authority);
    let target = InboundTarget::Connect {
        authority: &asked,
        forwarded_host: tunnel.service.map(|service| &*service.name.hostname),
        original_source: tunnel.speaks_for,
    };
    let peer = Peer::Verified(tunnel.peer.clone());
    let refused = |reason: String| match tunnel.speaks_for {
        // What a waypoint answers that cannot connect.
        Some(_) => End::Answered { status: 503, grpc_status: None, reason },
        None => End::Reset { reason },
    };
    let Some(workload) = &choice.endpoint else { return nowhere(choice) };
    let hop = Hop { snapshot, choice, workload, peer, peer_ip: tunnel.peer_ip, carried: Carried::Hbone };
    hop.judged(target, choice.next_hop, refused)
}

/// A connection in plain text.
pub(super) fn in_clear(snapshot: &Snapshot, choice: &OutboundDecision, client: IpAddr) -> EndpointHop {
    let Some(workload) = &choice.endpoint else { return nowhere(choice) };
    let address = match choice.transport {
        Transport::Hbone { authority, .. } => authority,
        Transport::Passthrough => choice.next_hop,
    };
    let is_excluded =
        workload.pod.as_ref().is_some_and(|pod| pod.exclusions.inbound_ports.contains(&address.port()));
    let is_captured = workload.tunnel_protocol == TunnelProtocol::Hbone && !is_excluded;
    let hop = Hop {
        snapshot,
        choice,
        workload,
        peer: Peer::Unauthenticated,
        peer_ip: client,
        carried: if is_captured { Carried::PlainCaptured } else { Carried::Plain },
    };
    if !is_captured {
        return hop.made(address, "nobody", hop.reaches());
    }
    hop.judged(InboundTarget::Plaintext, address, |reason| End::Reset { reason })
}

struct Hop<'a> {
    snapshot: &'a Snapshot,
    choice: &'a OutboundDecision,
    workload: &'a Arc<Workload>,
    peer: Peer,
    peer_ip: IpAddr,
    carried: Carried,
}

impl Hop<'_> {
    fn judged(
        &self,
        target: InboundTarget<'_>,
        local: SocketAddr,
        refused: impl Fn(String) -> End,
    ) -> EndpointHop {
        let address = match self.choice.transport {
            Transport::Hbone { authority, .. } => authority,
            Transport::Passthrough => self.choice.next_hop,
        };
        let request = InboundRequest {
            workload: &self.workload.uid,
            local,
            target,
            peer: self.peer.clone(),
            peer_ip: self.peer_ip,
        };
        let decision = match inbound(self.snapshot, &request) {
            Ok(decision) => decision,
            Err(error) => return self.made(address, "nobody", refused(error.to_string())),
        };
        let client = match &decision.connection.peer {
            Peer::Verified(identity) => identity.to_string(),
            Peer::Unauthenticated => "a client without identity".to_owned(),
        };
        let asked = consulted(self.snapshot, &decision.workload, &decision.connection);
        let judged = authorize(self.snapshot, &decision.workload, &decision.connection);
        let decided_by = match &judged {
            Ok(permit) => match permit.allowed_by() {
                ambit_mesh::policy::AllowedBy::Rule { policy, .. } => Some(policy.clone()),
                ambit_mesh::policy::AllowedBy::NoAllowPolicy
                | ambit_mesh::policy::AllowedBy::KubeletProbe => None,
            },
            Err(Denied::ByRule { policy, .. } | Denied::PolicyMissing { policy }) => Some(policy.clone()),
            Err(Denied::NoneAllowed { .. } | Denied::AroundWaypoint) => None,
        };
        let policies = asked.iter().map(|says| PolicySays {
            decides: !says.dry_run && says.rule.is_some() && decided_by.as_ref() == Some(&says.policy),
            ..policy_says(says)
        });
        let policies = policies.collect();
        match judged {
            Ok(permit) => EndpointHop {
                policies,
                allowed_by: Some(permit.allowed_by().to_string()),
                ..self.made(address, &client, self.reaches())
            },
            Err(denied) => {
                EndpointHop { policies, ..self.made(address, &client, refused(denied.to_string())) }
            }
        }
    }

    fn reaches(&self) -> End {
        let backend = match &self.choice.service {
            Some(service) => format!("{}/{}", service.name.namespace, service.short_name),
            None => format!("{}/{}", self.workload.namespace, self.workload.name),
        };
        End::Reaches { workload: self.workload.uid.to_string(), backend }
    }

    fn made(&self, address: SocketAddr, client: &str, end: End) -> EndpointHop {
        EndpointHop {
            workload: self.workload.uid.to_string(),
            address: address.to_string(),
            weight: self.workload.capacity,
            carried: self.carried,
            client: client.to_owned(),
            policies: Vec::new(),
            allowed_by: None,
            end,
        }
    }
}

/// An address without a workload that is known.
fn nowhere(choice: &OutboundDecision) -> EndpointHop {
    EndpointHop {
        workload: "unknown".to_owned(),
        address: choice.next_hop.to_string(),
        weight: 1,
        carried: Carried::Plain,
        client: "nobody".to_owned(),
        policies: Vec::new(),
        allowed_by: None,
        end: End::Reaches { workload: choice.next_hop.to_string(), backend: String::new() },
    }
}

fn policy_says(asked: &Consulted) -> PolicySays {
    let says = match (asked.rule, asked.action, asked.dry_run) {
        (None, _, _) => Says::Nothing,
        (Some(_), Action::Allow, false) => Says::Allows,
        (Some(_), Action::Deny, false) => Says::Denies,
        (Some(_), Action::Allow, true) => Says::WouldAllow,
        (Some(_), Action::Deny, true) => Says::WouldDeny,
    };
    PolicySays {
        policy: asked.policy.to_string(),
        action: match asked.action {
            Action::Allow => "ALLOW".to_owned(),
            Action::Deny => "DENY".to_owned(),
        },
        dry_run: asked.dry_run,
        rule: asked.rule,
        says,
        decides: false,
    }
}
