//! The list of targets.

use super::Bound::{AtLeast, AtMost};
use super::Of::{Itself, RatioTo};
use super::{Bound, Of, Row, Wanted};
use crate::cases::{Case, Metric};
use crate::figures::Versus::{BetterPeer, Relay};

/// All of them, in the order of their list.
pub(super) fn all() -> Vec<Row> {
    [bulk(), keep_alive(), connections(), latency(), processor_time(), memory(), elsewhere()].concat()
}

fn bulk() -> Vec<Row> {
    vec![row("bulk, one stream", Case::BULK_ONE, Metric::Throughput, RatioTo(BetterPeer), AtLeast(1.25))]
}

fn keep_alive() -> Vec<Row> {
    let name = "keep-alive HTTP, 64 connections";
    let of = |of, bound| row(name, Case::HTTP_SIXTY_FOUR, Metric::Requests, of, bound);
    vec![of(RatioTo(BetterPeer), AtLeast(1.8)), of(RatioTo(Relay), AtLeast(1.0))]
}

fn connections() -> Vec<Row> {
    let (warm, cold) = ("new connections, warm tunnel", "new connections, cold");
    let of = |name, case, of, bound| row(name, case, Metric::Connections, of, bound);
    vec![
        of(warm, Case::ConnectionsWarm, RatioTo(BetterPeer), AtLeast(1.8)),
        of(warm, Case::ConnectionsWarm, RatioTo(Relay), AtLeast(1.0)),
        of(cold, Case::ConnectionsCold, RatioTo(BetterPeer), AtLeast(1.5)),
    ]
}

fn latency() -> Vec<Row> {
    let of = |name, case, metric| row(name, case, metric, RatioTo(BetterPeer), AtMost(1.0));
    vec![
        of("p50 at one connection", Case::HTTP_ONE, Metric::LatencyMedian),
        of("p99 at one connection", Case::HTTP_ONE, Metric::Latency99),
    ]
}

fn processor_time() -> Vec<Row> {
    let (octets, requests) = ("CPU seconds per GB", "CPU seconds per 10,000 requests");
    let of = |name, case, metric| row(name, case, metric, RatioTo(BetterPeer), AtMost(0.75));
    vec![
        of(octets, Case::BULK_ONE, Metric::CpuPerGigabyte),
        of(requests, Case::HTTP_SIXTY_FOUR, Metric::CpuPerTenThousand),
        of(requests, Case::HTTP_ONE, Metric::CpuPerTenThousand),
        of(requests, Case::ConnectionsWarm, Metric::CpuPerTenThousand),
    ]
}

/// MB and KB are 10^6 and 10^3 octets, the stricter reading.
fn memory() -> Vec<Row> {
    let idle = "memory, idle agent, one pod, two workers";
    let each = "memory per idle captured connection";
    let of = |name, case, metric, most| row(name, case, metric, Itself, AtMost(most));
    vec![
        of(idle, Case::MemoryIdle, Metric::ClientAnonymous, 3e6),
        of(idle, Case::MemoryIdle, Metric::ServerAnonymous, 3e6),
        of(idle, Case::MemoryIdle, Metric::ClientProportional, 10e6),
        of(idle, Case::MemoryIdle, Metric::ServerProportional, 10e6),
        of(each, Case::MemoryPerConnection, Metric::ClientAnonymous, 4e3),
        of(each, Case::MemoryPerConnection, Metric::ServerAnonymous, 4e3),
    ]
}

fn elsewhere() -> Vec<Row> {
    let of = |row, note| Row { row, wanted: Wanted::Elsewhere, note };
    vec![
        of(
            "no futex wait and no wake of another worker per request",
            "counted, not timed: a guard of the test suite",
        ),
        of("waypoint, one worker", "needs the waypoint; not on the layer-4 path"),
        of("100,000 workloads in the snapshot", "not on the path of a connection; not in this suite"),
        of("policy evaluation, 10,000 policies", "a function of values; not in this suite"),
    ]
}

fn row(row: &'static str, case: Case, metric: Metric, of: Of, bound: Bound) -> Row {
    Row { row, wanted: Wanted::Figure { case, metric, of, bound }, note: "" }
}
