//! One request.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::fmt::Display;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use ambit_mesh::decide::OutboundDecision;
use ambit_mesh::http::{Decision, Destination, HttpVerdict};
use ambit_mesh::workload::Workload;
use ambit_runtime::telemetry::http::RequestMetrics;
use http::header::{self, HeaderName};
use http::{HeaderMap, StatusCode};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::time::Instant;
use tracing::{Level, field, info};

use super::{Ends, Flow};
use crate::exchange::{Reply, Request};
use crate::ingress::Caller;
use crate::worker::Worker;

/// One request.
pub struct RequestRecord {
    ends: Ends,
    started: Instant,
    start_time: SystemTime,
    /// What the client sent, as policies saw it.
    line: Rc<Request>,
    route: RefCell<Option<String>>,
    verdicts: RefCell<Vec<HttpVerdict>>,
    allowed_by: RefCell<Option<String>>,
    status: Cell<u16>,
    grpc: bool,
    grpc_status: Cell<Option<u16>>,
    flag: Cell<&'static str>,
    details: RefCell<Cow<'static, str>>,
    error: RefCell<Option<String>>,
    transport_failure: RefCell<Option<String>>,
    termination: RefCell<Option<String>>,
    sent: Cell<Option<Instant>>,
    sent_from: Cell<Option<SocketAddr>>,
    service_time: Cell<Option<Duration>>,
    request: Flow,
    response: Flow,
}

impl RequestRecord {
    pub(crate) fn new(worker: &Worker, caller: &Rc<Caller>, request: Rc<Request>) -> Self {
        let grpc = request.is_grpc();
        Self {
            ends: Ends::new(worker, caller),
            started: Instant::now(),
            start_time: SystemTime::now(),
            line: request,
            route: RefCell::new(None),
            verdicts: RefCell::default(),
            allowed_by: RefCell::new(None),
            status: Cell::new(0),
            grpc,
            grpc_status: Cell::new(None),
            flag: Cell::new("-"),
            details: RefCell::new("via_upstream".into()),
            error: RefCell::new(None),
            transport_failure: RefCell::new(None),
            termination: RefCell::new(None),
            sent: Cell::new(None),
            sent_from: Cell::new(None),
            service_time: Cell::new(None),
            request: Flow::new(grpc),
            response: Flow::new(grpc),
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
        self.sent_from.set(None);
        self.ends.endpoint(decision);
    }

    /// An endpoint could not be connected to.
    pub(crate) fn not_connected(&self, error: &dyn Display) {
        *self.transport_failure.borrow_mut() = Some(error.to_string());
    }

    /// The head was sent to an endpoint, from this end of the connection.
    pub(crate) fn sent(&self, local: Option<SocketAddr>) {
        self.sent_from.set(local);
        self.sent.set(Some(Instant::now()));
    }

    pub(crate) fn answered(&self, status: StatusCode, headers: &HeaderMap) {
        self.service_time.set(self.sent.get().map(|sent| sent.elapsed()));
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
        *self.details.borrow_mut() = reply.details.clone().into();
        self.error.borrow_mut().clone_from(&reply.error);
        self.response.restart();
        self.response.set_octets(reply.body.len() as u64);
    }

    /// From client to endpoint.
    pub(crate) fn request(&self) -> &Flow {
        &self.request
    }

    /// From endpoint to client.
    pub(crate) fn response(&self) -> &Flow {
        &self.response
    }

    /// It did not end as it should.
    pub(crate) fn cut(&self, flag: &'static str, why: &str) {
        self.flag.set(flag);
        *self.termination.borrow_mut() = Some(why.to_owned());
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
            request_bytes: self.request.octets(),
            response_bytes: self.response.octets(),
            request_messages: self.request.messages(),
            response_messages: self.response.messages(),
        }
        .record();
        self.log_verdicts();
        if self.error.borrow().is_some() {
            self.emit_warning(endpoint.as_deref());
        } else if tracing::enabled!(target: "access", Level::INFO) {
            self.emit_info(endpoint.as_deref());
        }
    }

    /// What the client said in a header.
    fn header(&self, name: HeaderName) -> Option<Cow<'_, str>> {
        self.line.headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()))
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
                    method = self.line.method.as_str(),
                    path = self.line.path,
                    protocol = self.line.protocol,
                    response_code = self.status.get(),
                    response_flags = self.flag.get(),
                    response_code_details = &**self.details.borrow(),
                    grpc_status = self.grpc_status.get(),
                    connection_termination_details = self.termination.borrow().as_deref(),
                    upstream_transport_failure_reason = self.transport_failure.borrow().as_deref(),
                    bytes_received = self.request.octets(),
                    bytes_sent = self.response.octets(),
                    duration = millis(self.started.elapsed()),
                    upstream_service_time = self.service_time.get().map(millis),
                    x_forwarded_for = self.header(FORWARDED_FOR).as_deref(),
                    user_agent = self.header(header::USER_AGENT).as_deref(),
                    request_id = self.header(REQUEST_ID).as_deref(),
                    authority = self.line.authority,
                    upstream_host = self.ends.upstream_host(),
                    upstream_cluster = service.map(|service| &*service.name.hostname),
                    upstream_local_address = self.sent_from.get().map(field::display),
                    downstream_local_address = %caller.local,
                    downstream_remote_address = %caller.address,
                    route_name = self.route.borrow().as_deref(),
                    src.workload = self.ends.source_name(),
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

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

request_line!(emit_info, Level::INFO);
request_line!(emit_warning, Level::WARN);
