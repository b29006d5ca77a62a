//! What is measured: the cases, and the readings that one measurement of each yields.

use std::fmt;
use std::str::FromStr;

use anyhow::{Result, anyhow};
use serde::{Deserialize, Serialize};

use crate::lane::Path;
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
    /// Bulk data on one connection from a pod of the mesh to a server outside of it.
    Passthrough,
    /// Paced requests while bulk data goes through the same tunnel, and while it goes through another.
    Fairness,
    /// The same requests as in the case of 64 connections, while the configuration of something else
    /// changes many times a second and while it does not.
    Churn,
    /// Bulk data and paced requests between nodes whose packets take so many milliseconds there and
    /// back, and are lost now and then.
    Delayed { millis: u16 },
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
    pub(crate) const USUAL: [Self; 14] = [
        Self::BULK_ONE,
        bulk(1, Spread::Together, Direction::Receive),
        Self::BULK_EIGHT_APART,
        Self::HTTP_ONE,
        Self::HTTP_SIXTY_FOUR,
        Self::PACED[0],
        Self::PACED[1],
        Self::PACED[2],
        Self::ConnectionsWarm,
        Self::ConnectionsCold,
        Self::Passthrough,
        Self::Fairness,
        Self::MemoryIdle,
        Self::MemoryPerConnection,
    ];

    /// What shows in few minutes how the paths compare.
    pub(crate) const QUICK: [Self; 5] =
        [Self::BULK_ONE, Self::HTTP_ONE, Self::HTTP_SIXTY_FOUR, Self::ConnectionsWarm, Self::MemoryIdle];

    /// Rates that every path keeps up with on a small machine.
    pub(crate) const PACED: [Self; 3] = [paced(500, 1), paced(2000, 8), paced(8000, 32)];

    /// A data centre and a continent.
    pub(crate) const DELAYED: [Self; 2] = [Self::Delayed { millis: 1 }, Self::Delayed { millis: 30 }];

    /// Every case there is, in the order in which they are taken.
    pub(crate) fn all() -> Vec<Self> {
        let streams = [1, 2, 8, 64];
        let of_each = |streams| {
            [Direction::Send, Direction::Receive].into_iter().flat_map(move |direction| {
                // One stream is the same together and apart.
                let apart = (streams > 1).then_some(bulk(streams, Spread::Apart, direction));
                [bulk(streams, Spread::Together, direction)].into_iter().chain(apart)
            })
        };
        let usual =
            Self::USUAL.into_iter().filter(|case| !matches!(case, Self::Bulk { .. } | Self::Delayed { .. }));
        let mut all: Vec<Self> = streams.into_iter().flat_map(of_each).chain(usual).collect();
        all.extend([Self::Churn].into_iter().chain(Self::DELAYED));
        all
    }

    /// Whether the case can be taken on a path: Envoy has no way but through a tunnel, and nothing but its
    /// pool decides whether two connections to one address share one.
    pub(crate) fn exists_on(self, path: Path) -> bool {
        match self {
            Self::Passthrough | Self::Fairness => path != Path::Envoy,
            Self::Bulk { .. }
            | Self::Http { .. }
            | Self::Paced(_)
            | Self::ConnectionsWarm
            | Self::ConnectionsCold
            | Self::Churn
            | Self::Delayed { .. }
            | Self::MemoryIdle
            | Self::MemoryPerConnection => true,
        }
    }

    /// Whether it is measured again and again; memory is read once.
    pub(crate) fn is_taken_in_rounds(self) -> bool {
        match self {
            Self::MemoryIdle | Self::MemoryPerConnection => false,
            Self::Bulk { .. }
            | Self::Http { .. }
            | Self::Paced(_)
            | Self::ConnectionsWarm
            | Self::ConnectionsCold
            | Self::Passthrough
            | Self::Fairness
            | Self::Churn
            | Self::Delayed { .. } => true,
        }
    }
}

const fn paced(per_second: u32, connections: u16) -> Case {
    Case::Paced(Pace { per_second, connections })
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
            Self::Passthrough => f.write_str("passthrough"),
            Self::Fairness => f.write_str("fairness"),
            Self::Churn => f.write_str("churn"),
            Self::Delayed { millis } => write!(f, "delay-{millis}ms"),
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
    Latency999,
    Connections,
    CpuPerTenThousand,
    /// While bulk data goes through the same tunnel, through another one, and the ratio of the two.
    LatencySameTunnel,
    LatencyOtherTunnel,
    LatencySameToOther,
    ThroughputSameTunnel,
    ThroughputOtherTunnel,
    /// With and without changes of the configuration, and the ratio of the two.
    RequestsChurning,
    RequestsQuiet,
    RequestsChurningToQuiet,
    LatencyChurning,
    LatencyQuiet,
    /// Changes that reached the agent.
    ChangesSeen,
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
            Self::Latency999 => "latency_p99.9",
            Self::LatencySameTunnel => "latency_p99_same_tunnel",
            Self::LatencyOtherTunnel => "latency_p99_other_tunnel",
            Self::LatencySameToOther => "latency_p99_same_to_other",
            Self::ThroughputSameTunnel => "throughput_same_tunnel",
            Self::ThroughputOtherTunnel => "throughput_other_tunnel",
            Self::RequestsChurning => "requests_churning",
            Self::RequestsQuiet => "requests_quiet",
            Self::RequestsChurningToQuiet => "requests_churning_to_quiet",
            Self::LatencyChurning => "latency_p99_churning",
            Self::LatencyQuiet => "latency_p99_quiet",
            Self::ChangesSeen => "changes_seen",
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
            Self::Throughput | Self::ThroughputSameTunnel | Self::ThroughputOtherTunnel => "Gbit/s",
            Self::CpuPerGigabyte | Self::CpuPerTenThousand => "s",
            Self::Requests
            | Self::Connections
            | Self::RequestsChurning
            | Self::RequestsQuiet
            | Self::ChangesSeen => "1/s",
            Self::LatencyMedian
            | Self::Latency99
            | Self::Latency999
            | Self::LatencySameTunnel
            | Self::LatencyOtherTunnel
            | Self::LatencyChurning
            | Self::LatencyQuiet => "us",
            Self::LatencySameToOther | Self::RequestsChurningToQuiet => "x",
            Self::ClientProportional
            | Self::ServerProportional
            | Self::ClientAnonymous
            | Self::ServerAnonymous => "bytes",
        }
    }

    pub(crate) fn better(self) -> Better {
        match self {
            Self::Throughput
            | Self::ThroughputSameTunnel
            | Self::ThroughputOtherTunnel
            | Self::Requests
            | Self::Connections
            | Self::RequestsChurning
            | Self::RequestsQuiet
            | Self::RequestsChurningToQuiet
            | Self::ChangesSeen => Better::Higher,
            Self::CpuPerGigabyte
            | Self::CpuPerTenThousand
            | Self::LatencyMedian
            | Self::Latency99
            | Self::Latency999
            | Self::LatencySameTunnel
            | Self::LatencyOtherTunnel
            | Self::LatencySameToOther
            | Self::LatencyChurning
            | Self::LatencyQuiet
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
        for named in Case::USUAL.into_iter().chain(Case::QUICK) {
            assert!(all.contains(&named), "{named}");
        }
    }

    #[test]
    fn names_say_streams_destinations_and_direction() {
        let names = Case::all().iter().map(Case::to_string).collect::<Vec<_>>();
        for name in ["bulk-1", "bulk-2-receive", "bulk-8-to-8", "bulk-64-to-64-receive", "delay-30ms"] {
            assert!(names.iter().any(|other| other == name), "{name}: {names:?}");
        }
    }
}
