//! The labels of a connection, from what the mesh knows of its ends.

use std::fmt::{Display, Write};

use ambit_mesh::identity::SpiffeId;
use ambit_mesh::service::Service;
use ambit_mesh::workload::Workload;
use metrics::Label;

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
}

impl Reporter {
    /// Istio's text of the label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Destination => "destination",
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
    pub(super) fn to_labels(self) -> Vec<Label> {
        let mut labels = Vec::with_capacity(28);
        self.visit(|name, value| labels.push(Label::new(name, value.to_string())));
        labels
    }

    /// Writes a text that two label sets share only if they are equal.
    pub(super) fn write_key(&self, key: &mut String) {
        self.visit(|name, value| {
            let start = key.len();
            // Writing to a String does not fail. Names tell apart which localities are known, lengths
            // where a value ends.
            let _value = write!(key, "{value}");
            let _length = write!(key, "={name}{};", key.len() - start);
        });
    }

    fn visit(&self, mut label: impl FnMut(&'static str, &dyn Display)) {
        label("reporter", &self.reporter.as_str());
        let source = self.source;
        label("source_workload", &known(source.map(|workload| &*workload.workload_name)));
        label("source_canonical_service", &known(source.map(|workload| &*workload.canonical_name)));
        label("source_canonical_revision", &known(source.map(|workload| &*workload.canonical_revision)));
        label("source_workload_namespace", &known(source.map(|workload| &*workload.namespace)));
        label("source_principal", principal(&self.source_identity));
        label("source_app", &known(source.map(|workload| &*workload.canonical_name)));
        label("source_version", &known(source.map(|workload| &*workload.canonical_revision)));
        label("source_cluster", &known(source.map(|workload| &*workload.cluster_id)));

        let service = self.destination_service;
        label("destination_service", &known(service.map(|service| &*service.name.hostname)));
        label("destination_service_namespace", &known(service.map(|service| &*service.name.namespace)));
        label("destination_service_name", &known(service.map(|service| &*service.short_name)));

        let destination = self.destination;
        label("destination_workload", &known(destination.map(|workload| &*workload.workload_name)));
        label("destination_canonical_service", &known(destination.map(|workload| &*workload.canonical_name)));
        label(
            "destination_canonical_revision",
            &known(destination.map(|workload| &*workload.canonical_revision)),
        );
        label("destination_workload_namespace", &known(destination.map(|workload| &*workload.namespace)));
        label("destination_principal", principal(&self.destination_identity));
        label("destination_app", &known(destination.map(|workload| &*workload.canonical_name)));
        label("destination_version", &known(destination.map(|workload| &*workload.canonical_revision)));
        label("destination_cluster", &known(destination.map(|workload| &*workload.cluster_id)));

        label("request_protocol", &"tcp");
        label("connection_security_policy", &self.security_policy.as_str());

        for (names, workload) in [
            (["source_region", "source_zone"], source),
            (["destination_region", "destination_zone"], destination),
        ] {
            let Some(locality) = workload.map(|workload| &workload.locality) else { continue };
            for (name, value) in names.into_iter().zip([&locality.region, &locality.zone]) {
                if !value.is_empty() {
                    label(name, value);
                }
            }
        }
    }
}

fn known(value: Option<&str>) -> &str {
    value.filter(|value| !value.is_empty()).unwrap_or(UNKNOWN)
}

fn principal<'a>(identity: &'a Option<&SpiffeId>) -> &'a dyn Display {
    match identity {
        Some(identity) => identity,
        None => &UNKNOWN,
    }
}
