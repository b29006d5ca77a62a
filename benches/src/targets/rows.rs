//! The list of targets.

use super::Bound::{AtLeast, AtMost};
use super::Of::{Itself, RatioTo};
use super::{Bound, Of, Row, Wanted};
use crate::cases::{Case, Metric};
use crate::figures::Versus::{BetterPeer, Plain, Relay};

/// All of them, in the order of their list.
pub(super) fn all() -> Vec<Row> {
    let measured =
        [bulk(), keep_alive(), connections(), latency(), processor_time(), memory(), passthrough()];
    [measured.concat(), elsewhere(), delay(), fairness()].concat()
}

fn bulk() -> Vec<Row> {
    let of = |name, case| row(name, case, Metric::Throughput, RatioTo(BetterPeer), AtLeast(1.25));
    vec![
        of("bulk, one stream", Case::BULK_ONE),
        of("bulk, 8 streams to 8 destinations", Case::BULK_EIGHT_APART),
    ]
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
    let one = "p50 and p99 at one connection";
    let of_one = [Metric::LatencyMedian, Metric::Latency99].map(|metric| of(one, Case::HTTP_ONE, metric));
    let fixed = "p50 and p99 at a fixed open-loop rate";
    let of_fixed = Case::PACED
        .into_iter()
        .flat_map(|case| [Metric::LatencyMedian, Metric::Latency99].map(|metric| of(fixed, case, metric)));
    of_one.into_iter().chain(of_fixed).collect()
}

fn processor_time() -> Vec<Row> {
    let (octets, requests) = ("CPU seconds per GB", "CPU seconds per 10,000 requests");
    let of = |name, case, metric| row(name, case, metric, RatioTo(BetterPeer), AtMost(0.75));
    vec![
        of(octets, Case::BULK_ONE, Metric::CpuPerGigabyte),
        of(octets, Case::BULK_EIGHT_APART, Metric::CpuPerGigabyte),
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

fn passthrough() -> Vec<Row> {
    let of = |metric, of, bound| row("plain passthrough", Case::Passthrough, metric, of, bound);
    vec![
        of(Metric::Throughput, RatioTo(Plain), AtLeast(0.75)),
        of(Metric::CpuPerGigabyte, RatioTo(Relay), AtMost(0.6)),
    ]
}

/// "Unharmed" is taken for what fairness allows.
fn delay() -> Vec<Row> {
    let of = |case, metric, bound| row("delay and 0.1 % loss", case, metric, RatioTo(Plain), bound);
    Case::DELAYED
        .into_iter()
        .flat_map(|case| {
            [of(case, Metric::Throughput, AtLeast(0.9)), of(case, Metric::Latency99, AtMost(1.3))]
        })
        .collect()
}

fn fairness() -> Vec<Row> {
    let name = "fairness: p99 beside bulk in the same tunnel, to beside bulk in another";
    vec![row(name, Case::Fairness, Metric::LatencySameToOther, Itself, AtMost(1.3))]
}

fn elsewhere() -> Vec<Row> {
    let of = |row, note| Row { row, wanted: Wanted::Elsewhere, note };
    vec![
        of("no futex wait and no wake of another worker per request", "counted by tests/tests/e2e/costs.rs"),
        of("waypoint, one worker", "scripts/bench l7"),
        of("100,000 workloads in the snapshot", "scripts/bench scale workloads"),
        of("policy evaluation, 10,000 policies", "scripts/bench scale policies"),
    ]
}

fn row(row: &'static str, case: Case, metric: Metric, of: Of, bound: Bound) -> Row {
    Row { row, wanted: Wanted::Figure { case, metric, of, bound }, note: "" }
}
