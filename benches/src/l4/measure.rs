//! One measurement of one case on one path, and the checks that it measured what it says.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use ambit_tests::apps::NGINX;
use ambit_tests::namespace::Namespace;
use anyhow::{Context, Result, ensure};

use crate::cases::{Case, Direction, Metric, Pace, Reading, Spread};
use crate::lane::{Lane, Path, body, own_address};
use crate::load::bulk::{self, Bulk};
use crate::load::churn::Churn;
use crate::load::wrk::{self, Connections};
use crate::load::{cold, paced};
use crate::pin::End;
use crate::proxies::istio;

mod disturbed;

/// Connections of one measurement of the cold case.
pub(crate) const COLD_CONNECTIONS: u32 = 500;

/// Connections at once in the case of a warm tunnel.
const AT_ONCE: u32 = 32;

/// What measurements need beside the paths.
pub(crate) struct Ground<'a> {
    /// Worker threads of each proxy.
    pub(crate) workers: u16,
    /// A machine outside of the mesh, and its address.
    pub(crate) outside: Arc<Namespace>,
    pub(crate) outside_address: Ipv4Addr,
    /// What changes where changes are measured.
    pub(crate) churn: Churn<'a>,
}

/// Which measurement this is of its case and path, and how long it takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Turn {
    pub(crate) round: u32,
    pub(crate) seconds: u32,
}

/// Takes one measurement.
///
/// # Errors
/// When the work fails, or did not go the way that is measured.
pub(crate) fn take(ground: &mut Ground<'_>, lane: &mut Lane, case: Case, turn: Turn) -> Result<Vec<Reading>> {
    let processors = lane.processors;
    // The load is the client's.
    processors.on(End::Client, || match case {
        Case::Bulk { streams, spread, direction } => bulk(lane, streams, spread, direction, turn.seconds),
        Case::Http { connections } => requests(lane, connections.into(), turn.seconds),
        Case::Paced(pace) => paced(lane, pace, turn.seconds),
        Case::ConnectionsWarm => warm(lane, turn.seconds),
        Case::ConnectionsCold => cold(lane),
        Case::Passthrough => passthrough(ground, lane, turn.seconds),
        Case::Fairness => disturbed::fairness(lane, turn, ground.workers),
        Case::Churn => disturbed::churn(&mut ground.churn, lane, turn),
        Case::Delayed { .. } => disturbed::delayed(lane, turn.seconds),
        Case::MemoryIdle | Case::MemoryPerConnection => unreachable!("memory is not taken in rounds"),
    })
}

fn bulk(
    lane: &Lane,
    streams: u16,
    spread: Spread,
    direction: Direction,
    seconds: u32,
) -> Result<Vec<Reading>> {
    let own = (0..u32::from(streams)).map(|index| own_address(lane.path, index));
    let addresses: Vec<Ipv4Addr> = match spread {
        Spread::Together => own.map(|_| lane.server.v4()).collect(),
        Spread::Apart => own.collect(),
    };
    let load = load(lane, &addresses, direction);
    let (sent, cpu) = watched(lane, |_| u64::from(streams), || load.run(seconds))?;
    lane.expect_tunnels_to(addresses)?;
    let throughput = Reading::new(Metric::Throughput, sent.gigabits_per_second());
    Ok(with_cpu([throughput], Metric::CpuPerGigabyte, cpu, sent.octets / 1e9))
}

fn load<'a>(lane: &'a Lane, to: &[Ipv4Addr], direction: Direction) -> Bulk<'a> {
    Bulk {
        client: lane.client.namespace(),
        server: lane.server.namespace(),
        to: to.iter().map(|address| SocketAddr::from((*address, bulk::PORT))).collect(),
        direction,
        processors: lane.processors,
        may_reset: lane.path == Path::Envoy,
    }
}

fn requests(lane: &Lane, open: u32, seconds: u32) -> Result<Vec<Reading>> {
    let work = || wrk::run(&lane.client, lane.server.at(NGINX), open, Connections::Kept, seconds);
    let (made, cpu) = watched(lane, |_| u64::from(open), work)?;
    let readings = [
        Reading::new(Metric::Requests, made.per_second()),
        Reading::new(Metric::LatencyMedian, made.p50),
        Reading::new(Metric::Latency99, made.p99),
    ];
    Ok(with_cpu(readings, Metric::CpuPerTenThousand, cpu, made.requests as f64 / 1e4))
}

fn paced(lane: &Lane, pace: Pace, seconds: u32) -> Result<Vec<Reading>> {
    let (to, body) = (lane.server.at(NGINX), body());
    let work = || paced::run(lane.client.namespace(), to, &body, pace, seconds);
    let (answers, cpu) = watched(lane, |_| u64::from(pace.connections), work)?;
    let readings = [
        Reading::new(Metric::Requests, answers.per_second()),
        Reading::new(Metric::LatencyMedian, answers.quantile(0.5)?),
        Reading::new(Metric::Latency99, answers.quantile(0.99)?),
        Reading::new(Metric::Latency999, answers.quantile(0.999)?),
    ];
    Ok(with_cpu(readings, Metric::CpuPerTenThousand, cpu, answers.answered as f64 / 1e4))
}

fn warm(lane: &Lane, seconds: u32) -> Result<Vec<Reading>> {
    let work =
        || wrk::run(&lane.client, lane.server.at(NGINX), AT_ONCE, Connections::ClosedAfterEach, seconds);
    let (made, cpu) = watched(lane, |made| made.requests, work)?;
    let readings = [Reading::new(Metric::Connections, made.per_second())];
    Ok(with_cpu(readings, Metric::CpuPerTenThousand, cpu, made.requests as f64 / 1e4))
}

fn cold(lane: &mut Lane) -> Result<Vec<Reading>> {
    let addresses = lane.take_fresh_addresses(COLD_CONNECTIONS);
    let tunnels_before = lane.open_tunnels()?;
    let (took, cpu) = watched(lane, |_| u64::from(COLD_CONNECTIONS), || cold::run(lane, &addresses))?;
    if lane.path == Path::Istio {
        // It closes old tunnels for new ones, so that their number does not tell.
        lane.expect_tunnels_to(addresses.iter().rev().take(istio::TUNNELS_KEPT).filter_map(of_v4))?;
    } else {
        let tunnels = lane.open_tunnels()?.saturating_sub(tunnels_before);
        ensure!(
            !lane.path.is_hbone() || tunnels >= addresses.len(),
            "{} connections to as many addresses opened {tunnels} tunnels",
            addresses.len()
        );
    }
    let rate = Reading::new(Metric::Connections, f64::from(COLD_CONNECTIONS) / took.as_secs_f64());
    Ok(with_cpu([rate], Metric::CpuPerTenThousand, cpu, f64::from(COLD_CONNECTIONS) / 1e4))
}

fn of_v4(address: &SocketAddr) -> Option<Ipv4Addr> {
    match address {
        SocketAddr::V4(address) => Some(*address.ip()),
        SocketAddr::V6(_) => None,
    }
}

fn passthrough(ground: &Ground<'_>, lane: &Lane, seconds: u32) -> Result<Vec<Reading>> {
    let load = Bulk { server: &ground.outside, ..load(lane, &[ground.outside_address], Direction::Send) };
    let passed = || lane.proxies.as_ref().map(|proxies| proxies.passed()).transpose();
    let before = passed()?;
    let (sent, cpu) = watched(lane, |_| 0, || load.run(seconds))?;
    let grown = passed()?.zip(before).map(|(after, before)| after - before);
    ensure!(grown.is_none_or(|grown| grown >= 1), "the connection did not go through the client's proxy");
    let throughput = Reading::new(Metric::Throughput, sent.gigabits_per_second());
    Ok(with_cpu([throughput], Metric::CpuPerGigabyte, cpu, sent.octets / 1e9))
}

/// Does the work, and returns with its outcome the seconds of processor time that the proxies took;
/// none on the plain path. Insists on their having carried as many connections as `connections` says.
fn watched<T>(
    lane: &Lane,
    connections: impl FnOnce(&T) -> u64,
    work: impl FnOnce() -> Result<T>,
) -> Result<(T, Option<f64>)> {
    let used = || lane.proxies.as_ref().map(|proxies| proxies.cpu_seconds()).transpose();
    let carried = lane.carried()?;
    let before = used()?;
    let outcome = work()?;
    let cpu = used()?.zip(before).map(|(after, before)| after - before);
    lane.expect_carried(carried, connections(&outcome)).context("not all went through the proxies")?;
    Ok((outcome, cpu))
}

/// Adds the processor time for each of `units` of work.
fn with_cpu<const N: usize>(
    readings: [Reading; N],
    metric: Metric,
    cpu: Option<f64>,
    units: f64,
) -> Vec<Reading> {
    readings.into_iter().chain(cpu.map(|cpu| Reading::new(metric, cpu / units))).collect()
}
