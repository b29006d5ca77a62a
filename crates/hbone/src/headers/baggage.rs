//! The `baggage` field: what a workload is, for the telemetry of the other side.
//!
//! Keys and order are Istio's, and one of our own comes last. Istio writes values as they are; W3C Baggage asks for percent-encoding
//! of what would break the field. Names in Kubernetes hold nothing that needs it, so for them both are
//! the same; other values are encoded here, and decoded when read.

use std::borrow::Cow;
use std::fmt::{self, Write};

use ambit_mesh::workload::{Workload, WorkloadType};

/// Octets of all field lines together that are read; W3C Baggage §3.3.2 asks for at least as many.
const MAX_OCTETS: usize = 8192;
/// List members that are read; W3C Baggage §3.3.2 asks for at least as many.
const MAX_MEMBERS: usize = 64;

const CLUSTER: &str = "k8s.cluster.name";
const NAMESPACE: &str = "k8s.namespace.name";
const SERVICE_NAME: &str = "service.name";
const SERVICE_VERSION: &str = "service.version";
/// Ours: Istio has no word for a pod that has an owner.
const POD: &str = "ambit.pod";
const REGION: &str = "cloud.region";
const ZONE: &str = "cloud.availability_zone";

/// What a workload is. Empty means unknown, and is not written. [`Display`](fmt::Display) writes the
/// field's value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Baggage<'a> {
    /// The cluster it runs in.
    pub cluster: Cow<'a, str>,
    /// Its namespace.
    pub namespace: Cow<'a, str>,
    /// The kind and name of its owner.
    pub owner: Option<(WorkloadType, Cow<'a, str>)>,
    /// The pod's own name.
    pub pod: Cow<'a, str>,
    /// Its canonical service name.
    pub service_name: Cow<'a, str>,
    /// Its canonical service revision.
    pub service_version: Cow<'a, str>,
    /// The region it runs in.
    pub region: Cow<'a, str>,
    /// The zone it runs in.
    pub zone: Cow<'a, str>,
}

impl<'a> Baggage<'a> {
    /// What `workload` is.
    pub fn of(workload: &'a Workload) -> Self {
        Self {
            cluster: Cow::Borrowed(&*workload.cluster_id),
            namespace: Cow::Borrowed(&*workload.namespace),
            owner: Some((workload.workload_type, Cow::Borrowed(&*workload.workload_name))),
            pod: Cow::Borrowed(&*workload.name),
            service_name: Cow::Borrowed(&*workload.canonical_name),
            service_version: Cow::Borrowed(&*workload.canonical_revision),
            region: Cow::Borrowed(&*workload.locality.region),
            zone: Cow::Borrowed(&*workload.locality.zone),
        }
    }

    /// Reads the field's lines. What is not understood, or beyond the limits, is left out; of a key
    /// that is given twice the last value counts.
    pub fn parse(lines: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut octets_left = MAX_OCTETS;
        let mut baggage = Self::default();
        lines
            .into_iter()
            .take_while(|line| {
                let fits = line.len() <= octets_left;
                octets_left = octets_left.saturating_sub(line.len());
                fits
            })
            .filter_map(|line| std::str::from_utf8(line).ok())
            .flat_map(|line| line.split(','))
            .take(MAX_MEMBERS)
            .filter_map(|member| member.split_once('='))
            .for_each(|(key, value)| baggage.set(key.trim(), value));
        baggage
    }

    fn set(&mut self, key: &str, value: &'a str) {
        // W3C Baggage §3.3.1: what follows a semicolon are properties of the member.
        let value = decode(value.split(';').next().unwrap_or_default().trim());
        match key {
            CLUSTER => self.cluster = value,
            NAMESPACE => self.namespace = value,
            POD => self.pod = value,
            SERVICE_NAME => self.service_name = value,
            SERVICE_VERSION => self.service_version = value,
            REGION => self.region = value,
            ZONE => self.zone = value,
            _ => {
                if let Some(kind) = OWNER_KINDS.into_iter().find(|kind| owner_key(*kind) == key) {
                    self.owner = Some((kind, value)).filter(|(_, name)| !name.is_empty());
                }
            }
        }
    }
}

const OWNER_KINDS: [WorkloadType; 4] =
    [WorkloadType::Deployment, WorkloadType::CronJob, WorkloadType::Pod, WorkloadType::Job];

fn owner_key(kind: WorkloadType) -> &'static str {
    match kind {
        WorkloadType::Deployment => "k8s.deployment.name",
        WorkloadType::CronJob => "k8s.cronjob.name",
        WorkloadType::Pod => "k8s.pod.name",
        WorkloadType::Job => "k8s.job.name",
    }
}

impl fmt::Display for Baggage<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (owner_key, owner) = match &self.owner {
            Some((kind, name)) => (owner_key(*kind), &**name),
            None => ("", ""),
        };
        let members = [
            (CLUSTER, &*self.cluster),
            (NAMESPACE, &*self.namespace),
            (owner_key, owner),
            (SERVICE_NAME, &*self.service_name),
            (SERVICE_VERSION, &*self.service_version),
            (REGION, &*self.region),
            (ZONE, &*self.zone),
            (POD, &*self.pod),
        ];
        let mut separator = "";
        for (key, value) in members.into_iter().filter(|(_, value)| !value.is_empty()) {
            write!(f, "{separator}{key}=")?;
            encode(f, value)?;
            separator = ",";
        }
        Ok(())
    }
}

fn encode(f: &mut fmt::Formatter<'_>, value: &str) -> fmt::Result {
    value.bytes().try_for_each(|octet| match octet {
        // W3C Baggage §3.3.1, baggage-octet, but for the percent sign, which begins an encoded one.
        b'%' | b'"' | b',' | b';' | b'\\' => write!(f, "%{octet:02X}"),
        b'!'..=b'~' => f.write_char(char::from(octet)),
        _ => write!(f, "%{octet:02X}"),
    })
}

/// Decodes percent-encoding. What is not well encoded was not meant to be: it stays as it is.
fn decode(value: &str) -> Cow<'_, str> {
    if !value.contains('%') {
        return Cow::Borrowed(value);
    }
    let mut octets = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let Some((octet, after)) = rest.split_first() {
        let encoded = if *octet == b'%' { hex_octet(after) } else { None };
        octets.push(encoded.unwrap_or(*octet));
        rest = if encoded.is_some() { &after[2..] } else { after };
    }
    String::from_utf8(octets).map_or(Cow::Borrowed(value), Cow::Owned)
}

fn hex_octet(digits: &[u8]) -> Option<u8> {
    let digit = |index: usize| char::from(*digits.get(index)?).to_digit(16);
    u8::try_from(digit(0)? * 16 + digit(1)?).ok()
}

#[cfg(test)]
mod tests;
