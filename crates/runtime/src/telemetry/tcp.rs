//! Istio's TCP metrics, with Istio's labels.
//!
//! **Direction of bytes.** Istio's names look from the client's request, at both ends alike:
//! `istio_tcp_received_bytes_total` counts what went from client to server ("received during
//! request") and `istio_tcp_sent_bytes_total` what went from server to client, whether `reporter` is
//! `source` or `destination` (istio/istio#32399; the table in kiali/kiali#6760 shows all four). The
//! methods here are named by request and response so that nobody has to remember that. The access log
//! looks from its own workload instead: see [`super::access_log`].

use std::sync::Arc;

use ambit_mesh::decide::ResponseFlag;
use metrics::{Counter, Gauge, Label, counter, describe_counter, describe_gauge, gauge};

mod cache;
mod labels;

pub use labels::{ConnectionLabels, Reporter, SecurityPolicy};

const OPENED: &str = "istio_tcp_connections_opened_total";
const CLOSED: &str = "istio_tcp_connections_closed_total";
const FAILED: &str = "istio_tcp_connections_failed_total";
const RECEIVED_BYTES: &str = "istio_tcp_received_bytes_total";
const SENT_BYTES: &str = "istio_tcp_sent_bytes_total";
const SOCKETS_OPEN: &str = "istio_tcp_sockets_open";
const RESPONSE_FLAGS: &str = "response_flags";

/// Counts one open connection. It is counted as closed by [`close`](Self::close), or without a flag
/// when dropped, as happens when a drain cuts it off.
///
/// While it lives it holds its label set's series, so that they stay however long it is quiet: what it
/// carries counts, and is a step from a value that was seen. Some time after the set's last connection
/// they end together, and start again at 0 with the next one. Counters of closes with a flag are not
/// held and end one by one, so the difference of opened and closed is not what is open: that is
/// `istio_tcp_sockets_open`.
#[derive(Debug)]
#[must_use = "the connection counts as closed when this is dropped"]
pub struct ConnectionMetrics {
    series: Arc<Series>,
    flag: ResponseFlag,
}

impl ConnectionMetrics {
    /// Counts an opened connection. A label set that this thread has seen lately costs one look into
    /// a map of the thread's own.
    pub fn open(labels: &ConnectionLabels<'_>) -> Self {
        let series = cache::series(labels);
        series.opened.increment(1);
        series.sockets_open.increment(1.0);
        Self { series, flag: ResponseFlag::None }
    }

    /// Counts a connection that was refused or could not be made, and so was never open.
    pub fn failed(labels: &ConnectionLabels<'_>, flag: ResponseFlag) {
        cache::series(labels).flagged(FAILED, flag).increment(1);
    }

    /// Counts octets from client to server.
    pub fn record_request_bytes(&self, count: u64) {
        self.series.received_bytes.increment(count);
    }

    /// Counts octets from server to client.
    pub fn record_response_bytes(&self, count: u64) {
        self.series.sent_bytes.increment(count);
    }

    /// Counts the connection as closed, and how.
    pub fn close(mut self, flag: ResponseFlag) {
        self.flag = flag;
    }
}

impl Drop for ConnectionMetrics {
    fn drop(&mut self) {
        self.series.sockets_open.decrement(1.0);
        if self.flag == ResponseFlag::None {
            self.series.closed.increment(1);
        } else {
            self.series.flagged(CLOSED, self.flag).increment(1);
        }
    }
}

/// The handles of one label set.
#[derive(Debug)]
struct Series {
    opened: Counter,
    /// Closed without a flag.
    closed: Counter,
    received_bytes: Counter,
    sent_bytes: Counter,
    sockets_open: Gauge,
    /// All labels but `response_flags`.
    labels: Vec<Label>,
}

impl Series {
    fn new(labels: &ConnectionLabels<'_>) -> Self {
        let reporter = labels.reporter.as_str();
        let labels = labels.to_labels();
        let unflagged = with_flag(&labels, ResponseFlag::None);
        Self {
            opened: counter!(OPENED, unflagged.clone()),
            closed: counter!(CLOSED, unflagged.clone()),
            received_bytes: counter!(RECEIVED_BYTES, unflagged.clone()),
            sent_bytes: counter!(SENT_BYTES, unflagged),
            sockets_open: gauge!(SOCKETS_OPEN, "reporter" => reporter),
            labels,
        }
    }

    /// The counter with a flag other than none: rare, so it is fetched when needed.
    fn flagged(&self, name: &'static str, flag: ResponseFlag) -> Counter {
        counter!(name, with_flag(&self.labels, flag))
    }
}

fn with_flag(labels: &[Label], flag: ResponseFlag) -> Vec<Label> {
    labels.iter().cloned().chain([Label::new(RESPONSE_FLAGS, flag.as_str())]).collect()
}

/// Registers the help texts.
pub(super) fn describe() {
    describe_counter!(OPENED, "TCP connections opened.");
    describe_counter!(CLOSED, "TCP connections closed.");
    describe_counter!(FAILED, "TCP connections that were refused or could not be made.");
    describe_counter!(RECEIVED_BYTES, "Octets that went from client to server, at both reporters.");
    describe_counter!(SENT_BYTES, "Octets that went from server to client, at both reporters.");
    describe_gauge!(SOCKETS_OPEN, "TCP connections open now.");
}

#[cfg(test)]
mod tests;
