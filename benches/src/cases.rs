//! What is measured: the cases, and the readings that one measurement of each yields.

use std::fmt;
use std::str::FromStr;

use anyhow::{Result, anyhow};
use serde::{Deserialize, Serialize};

use crate::statistics::Better;

/// A case. Its name is that of the command line and of the figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Case {
    /// Bulk data on so many connections at once.
    Bulk { streams: u16, spread: Spread, direction: Direction },
    /// HTTP requests one after the other on each of so many connections that stay open.
    Http { connections: u16 },
    /// HTTP requests at a fixed rate on connections that stay open.
    Paced(Pace),
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

/// How many addresses of the server the connections go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Spread {
    /// All to one, and through one tunnel where there are any.
    Together,
    /// Each to another, and through a tunnel of its own.
    Apart,
}

/// Which end sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Direction {
    /// The client.
    Send,
    /// The server.
    Receive,
}

/// A fixed rate of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Pace {
    pub(crate) per_second: u32,
    pub(crate) connections: u16,
}

impl Case {
    pub(crate) const BULK_ONE: Self = bulk(1, Spread::Together, Direction::Send);
    pub(crate) const BULK_EIGHT_APART: Self = bulk(8, Spread::Apart, Direction::Send);
    pub(crate) const HTTP_ONE: Self = Self::Http { connections: 1 };
    pub(crate) const HTTP_SIXTY_FOUR: Self = Self::Http { connections: 64 };

    /// What a run takes unless told otherwise.
    pub(crate) const USUAL: [Self; 8] = [
        Self::BULK_ONE,
        bulk(8, Spread::Together, Direction::Send),
        Self::HTTP_ONE,
        Self::HTTP_SIXTY_FOUR,
        Self::ConnectionsWarm,
        Self::ConnectionsCold,
        Self::MemoryIdle,
        Self::MemoryPerConnection,
    ];

    /// Whether it is measured again and again; memory is read once.
    pub(crate) fn is_taken_in_rounds(self) -> bool {
        match self {
            Self::MemoryIdle | Self::MemoryPerConnection => false,
            Self::Bulk { .. }
            | Self::Http { .. }
            | Self::Paced(_)
            | Self::ConnectionsWarm
            | Self::ConnectionsCold => true,
        }
    }

    /// Every case there is.
    pub(crate) fn all() -> Vec<Self> {
        Self::USUAL.to_vec()
    }
}

const fn bulk(streams: u16, spread: Spread, direction: Direction) -> Case {
    Case::Bulk { streams, spread, direction }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bulk { streams, spread, direction } => {
                let to = match spread {
                    Spread::Together => String::new(),
                    Spread::Apart => format!("-to-{streams}"),
                };
                let from_server = match direction {
                    Direction::Send => "",
                    Direction::Receive => "-receive",
                };
                write!(f, "bulk-{streams}{to}{from_server}")
            }
            Self::Http { connections } => write!(f, "http-{connections}"),
            Self::Paced(Pace { per_second, .. }) => write!(f, "paced-{per_second}"),
            Self::ConnectionsWarm => f.write_str("connections-warm"),
            Self::ConnectionsCold => f.write_str("connections-cold"),
            Self::MemoryIdle => f.write_str("memory-idle"),
            Self::MemoryPerConnection => f.write_str("memory-per-connection"),
        }
    }
}

impl FromStr for Case {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> Result<Self> {
        let all = Self::all();
        let names = || all.iter().map(Self::to_string).collect::<Vec<_>>().join(", ");
        let found = all.iter().find(|case| case.to_string() == name);
        found.copied().ok_or_else(|| anyhow!("no case {name}; there are {}", names()))
    }
}

/// What a reading is of. The name and unit are those of the figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
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

    pub(crate) fn better(self) -> Better {
        match self {
            Self::Throughput | Self::Requests | Self::Connections => Better::Higher,
            Self::CpuPerGigabyte
            | Self::CpuPerTenThousand
            | Self::LatencyMedian
            | Self::Latency99
            | Self::ClientProportional
            | Self::ServerProportional
            | Self::ClientAnonymous
            | Self::ServerAnonymous => Better::Lower,
        }
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_is_found_by_its_name_and_no_two_share_one() {
        let all = Case::all();
        for case in &all {
            assert_eq!(case.to_string().parse::<Case>().unwrap(), *case);
            assert_eq!(all.iter().filter(|other| other.to_string() == case.to_string()).count(), 1);
        }
        assert!("bulk-7".parse::<Case>().is_err());
    }
}
