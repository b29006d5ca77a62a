//! What is measured: the cases, and the readings that one measurement of each yields.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// A case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Case {
    /// Bulk data on one connection.
    #[value(name = "bulk-1")]
    #[serde(rename = "bulk-1")]
    BulkOne,
    /// Bulk data on eight connections.
    #[value(name = "bulk-8")]
    #[serde(rename = "bulk-8")]
    BulkEight,
    /// HTTP requests one after the other on one connection.
    #[value(name = "http-1")]
    #[serde(rename = "http-1")]
    HttpOne,
    /// HTTP requests on 64 connections that stay open.
    #[value(name = "http-64")]
    #[serde(rename = "http-64")]
    HttpSixtyFour,
    /// A new connection for each HTTP request, 32 at once; the tunnel is open.
    ConnectionsWarm,
    /// A new connection for each HTTP request, 32 at once, each to an address of the server that was
    /// not used before: a TLS handshake each where there is TLS.
    ConnectionsCold,
    /// Memory of the proxies before they have work.
    MemoryIdle,
    /// Memory of the proxies that an open, idle connection takes.
    MemoryPerConnection,
}

impl Case {
    /// The name it has on the command line and in the figures.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::BulkOne => "bulk-1",
            Self::BulkEight => "bulk-8",
            Self::HttpOne => "http-1",
            Self::HttpSixtyFour => "http-64",
            Self::ConnectionsWarm => "connections-warm",
            Self::ConnectionsCold => "connections-cold",
            Self::MemoryIdle => "memory-idle",
            Self::MemoryPerConnection => "memory-per-connection",
        }
    }
}

/// What a reading is of. The name and unit are those of the figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Metric {
    Throughput,
    CpuPerGigabyte,
    Requests,
    LatencyMedian,
    Latency99,
    Connections,
    CpuPerTenThousand,
    ClientProportional,
    ServerProportional,
    ClientAnonymous,
    ServerAnonymous,
}

impl Metric {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Throughput => "throughput",
            Self::CpuPerGigabyte => "cpu_per_gigabyte",
            Self::Requests => "requests",
            Self::LatencyMedian => "latency_p50",
            Self::Latency99 => "latency_p99",
            Self::Connections => "connections",
            Self::CpuPerTenThousand => "cpu_per_10k_requests",
            Self::ClientProportional => "client_proportional_set",
            Self::ServerProportional => "server_proportional_set",
            Self::ClientAnonymous => "client_anonymous",
            Self::ServerAnonymous => "server_anonymous",
        }
    }

    pub(crate) fn unit(self) -> &'static str {
        match self {
            Self::Throughput => "Gbit/s",
            Self::CpuPerGigabyte | Self::CpuPerTenThousand => "s",
            Self::Requests | Self::Connections => "1/s",
            Self::LatencyMedian | Self::Latency99 => "us",
            Self::ClientProportional
            | Self::ServerProportional
            | Self::ClientAnonymous
            | Self::ServerAnonymous => "bytes",
        }
    }
}

/// One number that one measurement yielded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Reading {
    pub(crate) metric: Metric,
    pub(crate) value: f64,
}

impl Reading {
    pub(crate) fn new(metric: Metric, value: f64) -> Self {
        Self { metric, value }
    }
}
