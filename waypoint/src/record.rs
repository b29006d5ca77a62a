//! What is kept of a request or a connection for its line in the access log and for the metrics.
//!
//! It is filled as things become known, and finished in one place.

use std::cell::{Cell, RefCell};
use std::fmt::Display;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use ambit_mesh::address::NetworkAddress;
use ambit_mesh::decide::{OutboundDecision, ResponseFlag, Transport};
use ambit_mesh::http::{Decision, Destination, HttpVerdict, Place};
use ambit_mesh::service::Service;
use ambit_mesh::workload::Workload;
use ambit_runtime::telemetry::access_log::{AccessLog, End};
use ambit_runtime::telemetry::http::RequestMetrics;
use ambit_runtime::telemetry::tcp::{ConnectionLabels, ConnectionMetrics, Reporter, SecurityPolicy};
use http::{HeaderMap, StatusCode, header};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::time::Instant;
use tracing::{Level, info};

use crate::exchange::{Reply, Request};
use crate::head::Refusal;
use crate::ingress::Caller;
use crate::opaque::Meter;
use crate::worker::Worker;

/// The ends of a request or a connection, as far as known.
struct Ends {
    caller: Rc<Caller>,
    source: Option<Arc<Workload>>,
    service: OnceLock<Arc<Service>>,
    endpoint: RefCell<Option<Arc<Workload>>>,
    upstream: RefCell<Option<OutboundDecision>>,
}

impl Ends {
    fn new(worker: &Worker, caller: &Rc<Caller>) -> Self {
        Self {
            caller: Rc::clone(caller),
            source: source(worker, caller),
            service: OnceLock::new(),
            endpoint: RefCell::new(None),
            upstream: RefCell::new(None),
        }
    }

    fn destination(&self, destination: &Destination) {
        match &destination.place {
            Place::Service(service) => {
                let _ = self.service.set(Arc::clone(service));
            }
            Place::Workload(workload) => *self.endpoint.borrow_mut() = Some(Arc::clone(workload)),
        }
    }

    fn endpoint(&self, decision: &OutboundDecision) {
        self.endpoint.borrow_mut().clone_from(&decision.endpoint);
        *self.upstream.borrow_mut() = Some(decision.clone());
    }

    fn labels<'a>(&'a self, endpoint: Option<&'a Workload>) -> ConnectionLabels<'a> {
        ConnectionLabels {
            reporter: Reporter::Waypoint,
            source: self.source.as_deref(),
            source_identity: Some(&self.caller.identity),
            destination: endpoint,
            destination_identity: endpoint.map(|endpoint| &endpoint.identity),
            destination_service: self.service.get().map(|service| &**service),
            security_policy: SecurityPolicy::MutualTls,
        }
    }

    fn upstream_host(&self) -> Option<String> {
        let upstream = self.upstream.borrow();
        upstream.as_ref().map(|decision| match &decision.transport {
            Transport::Hbone { authority, .. } => authority.to_string(),
            Transport::Passthrough => decision.next_hop.to_string(),
        })
    }
}

/// The workload at the client's address, unless its certificate says that it is somebody else.
fn source(worker: &Worker, caller: &Caller) -> Option<Arc<Workload>> {
    let snapshot = worker.shared.snapshots.load()?;
    let network = snapshot.own()?.network.clone();
    let found = snapshot.mesh().workload_by_address(&NetworkAddress { network, ip: caller.client.ip })?;
    (found.identity == caller.identity).then(|| Arc::clone(found))
}

/// One request.
pub struct RequestRecord {
    ends: Ends,
    started: Instant,
    start_time: SystemTime,
    line: RequestLine,
    route: RefCell<Option<String>>,
    verdicts: RefCell<Vec<HttpVerdict>>,
    allowed_by: RefCell<Option<String>>,
    status: Cell<u16>,
    grpc: bool,
    grpc_status: Cell<Option<u16>>,
    flag: Cell<&'static str>,
    details: RefCell<String>,
    error: RefCell<Option<String>>,
    request_bytes: Cell<u64>,
    response_bytes: Cell<u64>,
}

/// What the client sent.
struct RequestLine {
    method: String,
    path: String,
    protocol: &'static str,
    authority: String,
    user_agent: Option<String>,
    request_id: Option<String>,
    forwarded_for: Option<String>,
}

impl RequestRecord {
    pub(crate) fn new(worker: &Worker, caller: &Rc<Caller>, request: &Request) -> Self {
        let text = |name: &str| {
            request.headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
        };
        Self {
            ends: Ends::new(worker, caller),
            started: Instant::now(),
            start_time: SystemTime::now(),
            line: RequestLine {
                method: request.method.to_string(),
                path: request.path.clone(),
                protocol: request.protocol,
                authority: request.authority.clone(),
                user_agent: text(header::USER_AGENT.as_str()),
                request_id: text("x-request-id"),
                forwarded_for: text("x-forwarded-for"),
            },
            route: RefCell::new(None),
            verdicts: RefCell::default(),
            allowed_by: RefCell::new(None),
            status: Cell::new(0),
            grpc: request.is_grpc(),
            grpc_status: Cell::new(None),
            flag: Cell::new("-"),
            details: RefCell::new("via_upstream".to_owned()),
            error: RefCell::new(None),
            request_bytes: Cell::new(0),
            response_bytes: Cell::new(0),
        }
    }

    pub(crate) fn destination(&self, destination: &Destination) {
        self.ends.destination(destination);
    }

    /// Host name of the service that was called.
    pub(crate) fn service_host(&self) -> Option<&str> {
        self.ends.service.get().map(|service| &*service.name.hostname)
    }

    pub(crate) fn decided(&self, decision: &Decision) {
        *self.route.borrow_mut() =
            decision.route.as_ref().map(|route| format!("{}[{}]", route.name, route.rule));
        self.verdicts.borrow_mut().clone_from(&decision.verdicts);
        if let ambit_mesh::http::Outcome::Forward(forward) = &decision.outcome {
            *self.allowed_by.borrow_mut() = Some(forward.permit.allowed_by().to_string());
        }
    }

    pub(crate) fn endpoint(&self, decision: &OutboundDecision) {
        self.ends.endpoint(decision);
    }

    pub(crate) fn answered(&self, status: StatusCode, headers: &HeaderMap) {
        self.status.set(status.as_u16());
        self.trailers(headers);
    }

    /// gRPC's status is in the trailers, or with an answer without a body in the headers.
    pub(crate) fn trailers(&self, trailers: &HeaderMap) {
        let status = trailers.get("grpc-status").and_then(|status| status.to_str().ok()?.parse().ok());
        if status.is_some() {
            self.grpc_status.set(status);
        }
    }

    pub(crate) fn replied(&self, reply: &Reply, grpc_status: Option<u16>) {
        self.status.set(reply.status.as_u16());
        self.grpc_status.set(grpc_status);
        self.flag.set(reply.flag);
        self.details.borrow_mut().clone_from(&reply.details);
        self.error.borrow_mut().clone_from(&reply.error);
        self.response_bytes.set(reply.body.len() as u64);
    }

    pub(crate) fn request_bytes(&self, octets: u64) {
        self.request_bytes.set(octets);
    }

    pub(crate) fn response_counter(&self) -> &Cell<u64> {
        &self.response_bytes
    }

    /// It did not end as it should.
    pub(crate) fn cut(&self, flag: &'static str, why: &str) {
        self.flag.set(flag);
        *self.error.borrow_mut() = Some(why.to_owned());
    }

    /// It is over.
    pub(crate) fn finish(&self) {
        let endpoint = self.ends.endpoint.borrow();
        let labels = self.ends.labels(endpoint.as_deref());
        RequestMetrics {
            connection: labels,
            grpc: self.grpc,
            response_code: self.status.get(),
            grpc_status: self.grpc_status.get(),
            response_flags: self.flag.get(),
            duration: self.started.elapsed(),
            request_bytes: self.request_bytes.get(),
            response_bytes: self.response_bytes.get(),
        }
        .record();
        self.log_verdicts();
        if self.error.borrow().is_some() {
            self.emit_warning(endpoint.as_deref());
        } else if tracing::enabled!(target: "access", Level::INFO) {
            self.emit_info(endpoint.as_deref());
        }
    }

    fn log_verdicts(&self) {
        for verdict in self.verdicts.borrow().iter() {
            info!(
                policy = %verdict.policy, action = verdict.action.as_str(), dry_run = verdict.dry_run,
                rule = verdict.rule, matched = verdict.rule.is_some(),
                src.identity = %self.ends.caller.identity, path = self.line.path,
                "policy that does not decide"
            );
        }
    }
}

/// The level of an event is part of its call site, so there are two of them.
macro_rules! request_line {
    ($name:ident, $level:expr) => {
        impl RequestRecord {
            fn $name(&self, endpoint: Option<&Workload>) {
                let caller = &self.ends.caller;
                let start = OffsetDateTime::from(self.start_time).format(&Rfc3339).unwrap_or_default();
                let service = self.ends.service.get();
                tracing::event!(
                    target: "access",
                    parent: None,
                    $level,
                    start_time = start,
                    method = self.line.method,
                    path = self.line.path,
                    protocol = self.line.protocol,
                    response_code = self.status.get(),
                    response_flags = self.flag.get(),
                    response_code_details = self.details.borrow().as_str(),
                    grpc_status = self.grpc_status.get(),
                    bytes_received = self.request_bytes.get(),
                    bytes_sent = self.response_bytes.get(),
                    duration = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
                    x_forwarded_for = self.line.forwarded_for.as_deref(),
                    user_agent = self.line.user_agent.as_deref(),
                    request_id = self.line.request_id.as_deref(),
                    authority = self.line.authority,
                    upstream_host = self.ends.upstream_host(),
                    upstream_cluster = service.map(|service| &*service.name.hostname),
                    downstream_local_address = %caller.local,
                    downstream_remote_address = %caller.address,
                    route_name = self.route.borrow().as_deref(),
                    src.workload = self.ends.source.as_ref().map(|workload| &*workload.name),
                    src.namespace = caller.identity.namespace(),
                    src.identity = %caller.identity,
                    dst.addr = %caller.authority,
                    dst.workload = endpoint.map(|workload| &*workload.name),
                    dst.namespace = endpoint.map(|workload| &*workload.namespace),
                    allowed_by = self.allowed_by.borrow().as_deref(),
                    error = self.error.borrow().as_deref(),
                    "request complete"
                );
            }
        }
    };
}

request_line!(emit_info, Level::INFO);
request_line!(emit_warning, Level::WARN);

impl Meter for RequestRecord {
    fn forth(&self, octets: u64) {
        self.request_bytes.set(self.request_bytes.get() + octets);
    }

    fn back(&self, octets: u64) {
        self.response_bytes.set(self.response_bytes.get() + octets);
    }

    fn carried(&self) -> u64 {
        self.request_bytes.get() + self.response_bytes.get()
    }
}

/// A head that could not be read.
pub(crate) fn refused_head(caller: &Caller, refusal: Refusal) {
    metrics::counter!("ambit_requests_malformed_total").increment(1);
    tracing::event!(
        target: "access", parent: None, Level::WARN,
        response_code = refusal.status().as_u16(), response_flags = "DPE", error = %refusal,
        downstream_remote_address = %caller.address, src.identity = %caller.identity,
        dst.addr = %caller.authority, "request refused"
    );
}

/// One connection that is no HTTP.
pub struct ConnectionRecord {
    ends: Ends,
    started: Instant,
    open: Option<ConnectionMetrics>,
    request_bytes: Cell<u64>,
    response_bytes: Cell<u64>,
}

impl ConnectionRecord {
    pub(crate) fn new(worker: &Worker, caller: &Rc<Caller>) -> Self {
        Self {
            ends: Ends::new(worker, caller),
            started: Instant::now(),
            open: None,
            request_bytes: Cell::new(0),
            response_bytes: Cell::new(0),
        }
    }

    pub(crate) fn destination(&mut self, destination: &Destination) {
        self.ends.destination(destination);
    }

    pub(crate) fn endpoint(&mut self, decision: &OutboundDecision) {
        self.ends.endpoint(decision);
    }

    pub(crate) fn opened(&mut self) {
        let endpoint = self.ends.endpoint.borrow();
        self.open = Some(ConnectionMetrics::open(&self.ends.labels(endpoint.as_deref())));
    }

    pub(crate) fn fail(self, flag: ResponseFlag, error: &dyn Display) {
        {
            let endpoint = self.ends.endpoint.borrow();
            ConnectionMetrics::failed(&self.ends.labels(endpoint.as_deref()), flag);
        }
        self.emit(Some(&error.to_string()), flag);
    }

    pub(crate) fn finish(mut self) {
        self.close(ResponseFlag::None);
        self.emit(None, ResponseFlag::None);
    }

    pub(crate) fn cut(mut self, flag: ResponseFlag, error: &dyn Display) {
        self.close(flag);
        self.emit(Some(&error.to_string()), flag);
    }

    fn close(&mut self, flag: ResponseFlag) {
        if let Some(open) = self.open.take() {
            open.record_request_bytes(self.request_bytes.get());
            open.record_response_bytes(self.response_bytes.get());
            open.close(flag);
        }
    }

    fn emit(&self, error: Option<&str>, flag: ResponseFlag) {
        let caller = &self.ends.caller;
        let endpoint = self.ends.endpoint.borrow();
        let upstream = self.ends.upstream.borrow();
        let authority = self.ends.upstream_host();
        let end = |address, workload: Option<&Arc<Workload>>| (address, workload.cloned());
        let (source, destination) = (
            end(caller.address, self.ends.source.as_ref()),
            end(upstream.as_ref().map_or(caller.local, |decision| decision.next_hop), endpoint.as_ref()),
        );
        AccessLog {
            reporter: Reporter::Waypoint,
            source: End {
                address: source.0,
                workload: source.1.as_ref().map(|workload| &*workload.name),
                namespace: Some(caller.identity.namespace()),
                identity: Some(&caller.identity),
                cluster: source.1.as_ref().map(|workload| &*workload.cluster_id),
            },
            destination: End {
                address: destination.0,
                workload: destination.1.as_ref().map(|workload| &*workload.name),
                namespace: destination.1.as_ref().map(|workload| &*workload.namespace),
                identity: destination.1.as_ref().map(|workload| &workload.identity),
                cluster: destination.1.as_ref().map(|workload| &*workload.cluster_id),
            },
            hbone_authority: authority.as_deref(),
            service: self.ends.service.get().map(|service| &*service.name.hostname),
            request_bytes: self.request_bytes.get(),
            response_bytes: self.response_bytes.get(),
            duration: self.started.elapsed(),
            error,
            flag,
            bypass: None,
        }
        .emit();
    }
}

impl Meter for ConnectionRecord {
    fn forth(&self, octets: u64) {
        self.request_bytes.set(self.request_bytes.get() + octets);
    }

    fn back(&self, octets: u64) {
        self.response_bytes.set(self.response_bytes.get() + octets);
    }

    fn carried(&self) -> u64 {
        self.request_bytes.get() + self.response_bytes.get()
    }
}
