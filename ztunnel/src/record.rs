//! What is kept of one connection for its line in the access log and for the metrics.
//!
//! It is filled as the connection becomes known, and finished in one place: every connection ends in
//! [`Record::finish`] or [`Record::fail`].

use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ambit_hbone::relay::{RelayCause, RelayEnd};
use ambit_mesh::address::NetworkAddress;
use ambit_mesh::decide::{InboundDecision, OutboundDecision, ResponseFlag, Transport};
use ambit_mesh::identity::SpiffeId;
use ambit_mesh::policy::{Action, AllowedBy, Permit};
use ambit_mesh::service::Service;
use ambit_mesh::snapshot::Snapshot;
use ambit_mesh::workload::Workload;
use ambit_runtime::telemetry::access_log::{AccessLog, End};
use ambit_runtime::telemetry::tcp::{ConnectionLabels, ConnectionMetrics, Reporter, SecurityPolicy};
use tokio::time::Instant;
use tracing::info;

use crate::flows::StopReason;
use crate::splice::{SpliceCause, SpliceEnd};

/// One connection, from accept to its end.
pub struct Record {
    reporter: Reporter,
    started: Instant,
    source_address: SocketAddr,
    destination_address: SocketAddr,
    hbone_authority: Option<SocketAddr>,
    source: Option<Arc<Workload>>,
    destination: Option<Arc<Workload>>,
    service: Option<Arc<Service>>,
    source_identity: Option<SpiffeId>,
    destination_identity: Option<SpiffeId>,
    /// Whether it was let through as the kubelet's. A flag, since this is kept for every connection.
    is_probe: bool,
    open: Option<ConnectionMetrics>,
}

/// What a connection carried, and how it ended.
#[derive(Debug)]
pub struct Carried {
    /// Octets from client to server.
    pub request_bytes: u64,
    /// Octets from server to client.
    pub response_bytes: u64,
    /// What cut it short, if anything did.
    pub cut: Option<Cut>,
}

/// What cut a connection short.
#[derive(Debug)]
pub struct Cut {
    /// In words.
    pub error: String,
    /// For the metrics.
    pub flag: ResponseFlag,
}

impl Record {
    /// A connection that a pod of this node opened.
    pub fn outbound(source: SocketAddr, destination: SocketAddr) -> Self {
        Self::new(Reporter::Source, source, destination)
    }

    /// A connection to a pod of this node. `local` is the address that it came to.
    pub fn inbound(source: SocketAddr, local: SocketAddr) -> Self {
        Self::new(Reporter::Destination, source, local)
    }

    fn new(reporter: Reporter, source_address: SocketAddr, destination_address: SocketAddr) -> Self {
        Self {
            reporter,
            started: Instant::now(),
            source_address,
            destination_address,
            hbone_authority: None,
            source: None,
            destination: None,
            service: None,
            source_identity: None,
            destination_identity: None,
            is_probe: false,
            open: None,
        }
    }

    /// The pod that opened it.
    pub fn source(&mut self, workload: &Arc<Workload>) {
        self.source = Some(Arc::clone(workload));
    }

    /// Where it goes. The last decision counts.
    pub fn decided(&mut self, decision: &OutboundDecision) {
        self.destination.clone_from(&decision.endpoint);
        self.service.clone_from(&decision.service);
        self.destination_address = decision.next_hop;
        match &decision.transport {
            Transport::Hbone { authority, .. } => {
                self.hbone_authority = Some(*authority);
                self.source_identity = self.source.as_ref().map(|workload| workload.identity.clone());
                self.destination_identity =
                    decision.endpoint.as_ref().map(|workload| workload.identity.clone());
            }
            Transport::Passthrough => {
                self.hbone_authority = None;
                self.source_identity = None;
                self.destination_identity = None;
            }
        }
    }

    /// Who the client has proven to be.
    pub fn peer(&mut self, identity: &SpiffeId) {
        self.source_identity = Some(identity.clone());
    }

    /// Which workload takes it, and which one opened it as far as its address tells.
    pub fn inbound_decided(&mut self, snapshot: &Snapshot, decision: &InboundDecision) {
        let workload = &decision.workload;
        self.source = source_of(snapshot, workload, self.source_address.ip(), self.source_identity.as_ref());
        if self.source_identity.is_some() {
            self.hbone_authority = Some(decision.connection.destination);
            self.destination_identity = Some(workload.identity.clone());
        }
        self.destination = Some(Arc::clone(workload));
        self.service.clone_from(&decision.service);
    }

    /// Keeps what let it through, and logs what policies on trial would have said.
    pub fn permitted(&mut self, permit: &Permit) {
        self.is_probe = matches!(permit.allowed_by(), AllowedBy::KubeletProbe);
        for verdict in permit.dry_run() {
            let action = match verdict.action {
                Action::Allow => "ALLOW",
                Action::Deny => "DENY",
            };
            info!(
                policy = %verdict.policy, action, rule = verdict.rule, matched = verdict.rule.is_some(),
                src.addr = %self.source_address, src.identity = self.source_identity.as_ref().map(tracing::field::display),
                dst.addr = %permit.destination(),
                "policy on trial (dry run)"
            );
        }
    }

    /// It was a probe that only connected.
    pub fn probed(&mut self) {
        self.is_probe = true;
    }

    /// The connection is established in both directions.
    pub fn opened(&mut self) {
        self.open = Some(ConnectionMetrics::open(&self.labels()));
    }

    /// The connection was never established.
    pub fn fail(self, flag: ResponseFlag, error: &dyn Display) {
        ConnectionMetrics::failed(&self.labels(), flag);
        self.emit(0, 0, Some(&error.to_string()), flag);
    }

    /// The connection is over.
    pub fn finish(mut self, carried: Carried) {
        let flag = carried.cut.as_ref().map_or(ResponseFlag::None, |cut| cut.flag);
        if let Some(open) = self.open.take() {
            open.record_request_bytes(carried.request_bytes);
            open.record_response_bytes(carried.response_bytes);
            open.close(flag);
        }
        let error = carried.cut.as_ref().map(|cut| cut.error.as_str());
        self.emit(carried.request_bytes, carried.response_bytes, error, flag);
    }

    fn emit(&self, request_bytes: u64, response_bytes: u64, error: Option<&str>, flag: ResponseFlag) {
        let authority = self.hbone_authority.map(|authority| authority.to_string());
        AccessLog {
            reporter: self.reporter,
            source: end(self.source_address, self.source.as_deref(), self.source_identity.as_ref()),
            destination: end(
                self.destination_address,
                self.destination.as_deref(),
                self.destination_identity.as_ref(),
            ),
            hbone_authority: authority.as_deref(),
            service: self.service.as_ref().map(|service| &*service.name.hostname),
            requested_server_name: None,
            request_bytes,
            response_bytes,
            duration: self.started.elapsed(),
            error,
            flag,
            bypass: self.is_probe.then_some("kubelet probe"),
        }
        .emit();
    }

    fn labels(&self) -> ConnectionLabels<'_> {
        ConnectionLabels {
            reporter: self.reporter,
            source: self.source.as_deref(),
            source_identity: self.source_identity.as_ref(),
            destination: self.destination.as_deref(),
            destination_identity: self.destination_identity.as_ref(),
            destination_service: self.service.as_deref(),
            security_policy: match self.source_identity {
                Some(_) => SecurityPolicy::MutualTls,
                None => SecurityPolicy::Unknown,
            },
        }
    }
}

/// The workload at the client's address, unless the certificate says that it is somebody else: a
/// waypoint or gateway may connect from an address of its own.
fn source_of(
    snapshot: &Snapshot,
    destination: &Workload,
    ip: IpAddr,
    identity: Option<&SpiffeId>,
) -> Option<Arc<Workload>> {
    let address = NetworkAddress { network: destination.network.clone(), ip: ip.to_canonical() };
    let found = snapshot.workload_by_address(&address)?;
    identity.is_none_or(|identity| *identity == found.identity).then(|| Arc::clone(found))
}

fn end<'a>(address: SocketAddr, workload: Option<&'a Workload>, identity: Option<&'a SpiffeId>) -> End<'a> {
    End {
        address,
        workload: workload.map(|workload| &*workload.name),
        namespace: workload.map(|workload| &*workload.namespace),
        identity,
        cluster: workload.map(|workload| &*workload.cluster_id),
    }
}

impl Carried {
    /// Of a connection that ended before anything was sent.
    pub fn nothing() -> Self {
        Self { request_bytes: 0, response_bytes: 0, cut: None }
    }

    /// Of an outbound connection: the application is the client.
    pub fn outbound(end: RelayEnd<StopReason>) -> Self {
        Self {
            request_bytes: end.from_application,
            response_bytes: end.to_application,
            cut: relay_cut(&end.cause),
        }
    }

    /// Of an inbound connection: the application is the server.
    pub fn inbound(end: RelayEnd<StopReason>) -> Self {
        Self {
            request_bytes: end.to_application,
            response_bytes: end.from_application,
            cut: relay_cut(&end.cause),
        }
    }

    /// Of a plain connection, either way: who connected is the client.
    pub fn plain(end: SpliceEnd<StopReason>) -> Self {
        Self {
            request_bytes: end.to_upstream,
            response_bytes: end.to_downstream,
            cut: splice_cut(&end.cause),
        }
    }
}

fn relay_cut(cause: &RelayCause<StopReason>) -> Option<Cut> {
    match cause {
        RelayCause::Finished => None,
        RelayCause::Application(error) => {
            Some(unflagged(format!("the application's connection failed: {error}")))
        }
        RelayCause::Reset(reason) => Some(unflagged(format!("the peer reset the stream: {reason}"))),
        RelayCause::TunnelLost(end) => Some(unflagged(end.to_string())),
        RelayCause::Idle => Some(unflagged(IDLE.into())),
        RelayCause::Stopped(reason) => Some(stop_cut(reason)),
    }
}

fn splice_cut(cause: &SpliceCause<StopReason>) -> Option<Cut> {
    match cause {
        SpliceCause::Finished => None,
        SpliceCause::Downstream(error) => Some(unflagged(format!("the client's connection failed: {error}"))),
        SpliceCause::Upstream(error) => Some(unflagged(format!("the server's connection failed: {error}"))),
        SpliceCause::Idle => Some(unflagged(IDLE.into())),
        SpliceCause::Stopped(reason) => Some(stop_cut(reason)),
    }
}

fn stop_cut(reason: &StopReason) -> Cut {
    match reason {
        StopReason::Denied(denied) => Cut { error: denied.to_string(), flag: ResponseFlag::Denied },
        StopReason::PodGone => unflagged("the pod is gone or was taken out of the mesh".into()),
        StopReason::Drained => unflagged("the proxy is going away and the time to finish was over".into()),
    }
}

fn unflagged(error: String) -> Cut {
    Cut { error, flag: ResponseFlag::None }
}

const IDLE: &str = "nothing was carried for longer than the idle timeout";
