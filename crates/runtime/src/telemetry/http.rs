//! Istio's HTTP metrics, with Istio's labels.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::rc::Rc;
use std::time::{Duration, Instant};

use metrics::{Counter, Histogram, Label, counter, describe_counter, describe_histogram, histogram};

use super::tcp::ConnectionLabels;

const REQUESTS: &str = "istio_requests_total";
const DURATION: &str = "istio_request_duration_milliseconds";
const REQUEST_BYTES: &str = "istio_request_bytes";
const RESPONSE_BYTES: &str = "istio_response_bytes";
const REQUEST_MESSAGES: &str = "istio_request_messages_total";
const RESPONSE_MESSAGES: &str = "istio_response_messages_total";

/// One request that has ended.
#[derive(Clone, Copy, Debug)]
pub struct RequestMetrics<'a> {
    /// Where it came from and went to.
    pub connection: ConnectionLabels<'a>,
    /// Whether it was gRPC.
    pub grpc: bool,
    /// The status of the answer; 0 where the client was gone before.
    pub response_code: u16,
    /// The gRPC status of the answer.
    pub grpc_status: Option<u16>,
    /// Envoy's flags, or `-`.
    pub response_flags: &'static str,
    /// From the request's head to the end of the answer.
    pub duration: Duration,
    /// Octets of the request's body.
    pub request_bytes: u64,
    /// Octets of the answer's body.
    pub response_bytes: u64,
    /// Messages of the request; of gRPC alone.
    pub request_messages: u64,
    /// Messages of the answer; of gRPC alone.
    pub response_messages: u64,
}

impl RequestMetrics<'_> {
    /// Counts it. A label set that this thread has seen lately costs one look into a map.
    pub fn record(&self) {
        let series = CACHE.with_borrow_mut(|cache| cache.series(self));
        series.requests.increment(1);
        series.duration.record(self.duration.as_secs_f64() * 1000.0);
        #[expect(clippy::cast_precision_loss, reason = "sizes beyond 2^53 octets have one bucket")]
        {
            series.request_bytes.record(self.request_bytes as f64);
            series.response_bytes.record(self.response_bytes as f64);
        }
        if let Some(messages) = &series.messages {
            messages.request.increment(self.request_messages);
            messages.response.increment(self.response_messages);
        }
    }

    fn labels(&self) -> Vec<Label> {
        let mut labels = self.connection.to_labels();
        labels.retain(|label| label.key() != "request_protocol");
        labels.push(Label::new("request_protocol", if self.grpc { "grpc" } else { "http" }));
        labels.push(Label::new("response_code", self.response_code.to_string()));
        labels.push(Label::new("response_flags", self.response_flags));
        if self.grpc {
            let status = self.grpc_status.map(|status| status.to_string()).unwrap_or_default();
            labels.push(Label::new("grpc_response_status", status));
        }
        labels
    }
}

/// The handles of one label set.
struct Series {
    requests: Counter,
    duration: Histogram,
    request_bytes: Histogram,
    response_bytes: Histogram,
    messages: Option<Messages>,
    /// Where the texts of labels stand tells them apart from others for as long as these are kept.
    _labels: Vec<Label>,
}

/// The same of gRPC alone.
struct Messages {
    request: Counter,
    response: Counter,
}

/// A thread's handles. All are let go together, well before a series of theirs could end under them.
struct Cache {
    seed: RandomState,
    since: Instant,
    series: HashMap<u64, Rc<Series>>,
}

thread_local! {
    static CACHE: RefCell<Cache> =
        RefCell::new(Cache { seed: RandomState::new(), since: Instant::now(), series: HashMap::new() });
}

impl Cache {
    fn series(&mut self, request: &RequestMetrics<'_>) -> Rc<Series> {
        let now = Instant::now();
        if now.duration_since(self.since) > RENEWAL || self.series.len() >= MAX_CACHED {
            self.series.clear();
            self.since = now;
        }
        let mut hasher = self.seed.build_hasher();
        request.connection.fingerprint(&self.seed).hash(&mut hasher);
        (request.grpc, request.response_code, request.grpc_status, request.response_flags).hash(&mut hasher);
        let entry = self.series.entry(hasher.finish());
        Rc::clone(entry.or_insert_with(|| {
            let labels = request.labels();
            let messages = request.grpc.then(|| Messages {
                request: counter!(REQUEST_MESSAGES, labels.clone()),
                response: counter!(RESPONSE_MESSAGES, labels.clone()),
            });
            Rc::new(Series {
                messages,
                requests: counter!(REQUESTS, labels.clone()),
                duration: histogram!(DURATION, labels.clone()),
                request_bytes: histogram!(REQUEST_BYTES, labels.clone()),
                response_bytes: histogram!(RESPONSE_BYTES, labels.clone()),
                _labels: labels,
            })
        }))
    }
}

/// A tenth of the time after which an unchanged series ends, or less.
const RENEWAL: Duration = Duration::from_secs(30);

/// Label sets that a thread remembers.
const MAX_CACHED: usize = 1024;

/// Registers the help texts.
pub(super) fn describe() {
    describe_counter!(REQUESTS, "Requests that have ended.");
    describe_counter!(REQUEST_MESSAGES, "Messages of gRPC requests that have ended.");
    describe_counter!(RESPONSE_MESSAGES, "Messages of answers to gRPC requests.");
    describe_histogram!(DURATION, "From a request's head to the end of its answer, in milliseconds.");
    describe_histogram!(REQUEST_BYTES, "Octets of requests' bodies.");
    describe_histogram!(RESPONSE_BYTES, "Octets of answers' bodies.");
}
