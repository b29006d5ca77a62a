//! The labels of a connection, from what the mesh knows of its ends.

use std::hash::{BuildHasher, Hash, Hasher};
use std::mem;
use std::sync::Arc;

use ambit_mesh::identity::SpiffeId;
use ambit_mesh::service::Service;
use ambit_mesh::workload::Workload;
use metrics::{Label, SharedString};

/// What Istio writes for a label whose value is not known.
const UNKNOWN: &str = "unknown";

/// Where a connection comes from and goes to, as far as known.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionLabels<'a> {
    /// Which end reports.
    pub reporter: Reporter,
    /// The client.
    pub source: Option<&'a Workload>,
    /// Who the client has proven to be.
    pub source_identity: Option<&'a SpiffeId>,
    /// The server.
    pub destination: Option<&'a Workload>,
    /// Who the server has proven to be, or on its own node is.
    pub destination_identity: Option<&'a SpiffeId>,
    /// The service that was asked for.
    pub destination_service: Option<&'a Service>,
    /// How the connection between the nodes is secured.
    pub security_policy: SecurityPolicy,
}

/// Which end of a connection reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reporter {
    /// The client's node: outbound.
    Source,
    /// The server's node: inbound.
    Destination,
    /// A waypoint between the two.
    Waypoint,
}

impl Reporter {
    /// Istio's text of the label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Destination => "destination",
            Self::Waypoint => "waypoint",
        }
    }
}

/// How the connection between the nodes is secured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecurityPolicy {
    /// By mutual TLS.
    MutualTls,
    /// Not by the mesh; the application may do it.
    Unknown,
}

impl SecurityPolicy {
    /// Istio's text of the label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MutualTls => "mutual_tls",
            Self::Unknown => UNKNOWN,
        }
    }
}

impl ConnectionLabels<'_> {
    /// All labels but `response_flags`, which is known only at the end.
    pub(in crate::telemetry) fn to_labels(self) -> Vec<Label> {
        let mut labels = Vec::with_capacity(28);
        self.visit(|name, value| labels.extend(value.to_shared().map(|value| Label::new(name, value))));
        labels
    }

    /// A number that stands for the labels in a map whose entries keep what [`Self::to_labels`] made of
    /// them. It has 64 bits and a secret seed, so that two sets share it neither by chance nor by design.
    pub(in crate::telemetry) fn fingerprint(&self, seed: &impl BuildHasher) -> u64 {
        let mut hasher = seed.build_hasher();
        self.visit(|_, value| value.hash(&mut hasher));
        hasher.finish()
    }

    /// Calls `label` for each label that there can be, always in the same order.
    fn visit(&self, mut label: impl FnMut(&'static str, Value<'_>)) {
        label("reporter", Value::Fixed(self.reporter.as_str()));
        let source = self.source;
        label("source_workload", known(source.map(|workload| &workload.workload_name)));
        label("source_canonical_service", known(source.map(|workload| &workload.canonical_name)));
        label("source_canonical_revision", known(source.map(|workload| &workload.canonical_revision)));
        label("source_workload_namespace", known(source.map(|workload| &workload.namespace)));
        label("source_principal", principal(self.source_identity));
        label("source_app", known(source.map(|workload| &workload.canonical_name)));
        label("source_version", known(source.map(|workload| &workload.canonical_revision)));
        label("source_cluster", known(source.map(|workload| &workload.cluster_id)));

        let service = self.destination_service;
        label("destination_service", known(service.map(|service| &service.name.hostname)));
        label("destination_service_namespace", known(service.map(|service| &service.name.namespace)));
        label("destination_service_name", known(service.map(|service| &service.short_name)));

        let destination = self.destination;
        label("destination_workload", known(destination.map(|workload| &workload.workload_name)));
        label("destination_canonical_service", known(destination.map(|workload| &workload.canonical_name)));
        label(
            "destination_canonical_revision",
            known(destination.map(|workload| &workload.canonical_revision)),
        );
        label("destination_workload_namespace", known(destination.map(|workload| &workload.namespace)));
        label("destination_principal", principal(self.destination_identity));
        label("destination_app", known(destination.map(|workload| &workload.canonical_name)));
        label("destination_version", known(destination.map(|workload| &workload.canonical_revision)));
        label("destination_cluster", known(destination.map(|workload| &workload.cluster_id)));

        label("request_protocol", Value::Fixed("tcp"));
        label("connection_security_policy", Value::Fixed(self.security_policy.as_str()));

        let source = source.map(|workload| &workload.locality);
        label("source_region", if_known(source.map(|locality| &locality.region)));
        label("source_zone", if_known(source.map(|locality| &locality.zone)));
        let destination = destination.map(|workload| &workload.locality);
        label("destination_region", if_known(destination.map(|locality| &locality.region)));
        label("destination_zone", if_known(destination.map(|locality| &locality.zone)));
    }
}

/// The value of a label, before it is copied.
enum Value<'a> {
    Fixed(&'static str),
    Text(&'a Arc<str>),
    Identity(&'a SpiffeId),
    /// There is no such label.
    Absent,
}

impl Value<'_> {
    /// The text, shared with the workload or service where possible: there are many series.
    fn to_shared(&self) -> Option<SharedString> {
        match self {
            Self::Fixed(text) => Some(SharedString::const_str(text)),
            Self::Text(text) => Some(SharedString::from_shared(Arc::clone(text))),
            Self::Identity(identity) => Some(SharedString::from_shared(identity.to_string().into())),
            Self::Absent => None,
        }
    }
}

impl Hash for Value<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        mem::discriminant(self).hash(state);
        match self {
            Self::Fixed(text) => text.hash(state),
            // Workloads and services come from one snapshot after another, which share their texts. Where
            // a text stands tells it apart from all others for as long as a label made of it lives.
            Self::Text(text) => Arc::as_ptr(text).hash(state),
            // Identities of peers are read from a certificate each time.
            Self::Identity(identity) => identity.hash(state),
            Self::Absent => {}
        }
    }
}

fn known(text: Option<&Arc<str>>) -> Value<'_> {
    text.filter(|text| !text.is_empty()).map_or(Value::Fixed(UNKNOWN), Value::Text)
}

fn if_known(text: Option<&Arc<str>>) -> Value<'_> {
    text.filter(|text| !text.is_empty()).map_or(Value::Absent, Value::Text)
}

fn principal(identity: Option<&SpiffeId>) -> Value<'_> {
    identity.map_or(Value::Fixed(UNKNOWN), Value::Identity)
}
