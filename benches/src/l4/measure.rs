//! One measurement of one case on one path, and the checks that it measured what it says.

use anyhow::{Context, Result, ensure};

use crate::cases::{Case, Metric, Reading};
use crate::lane::Lane;
use crate::load::wrk::{self, Connections};
use crate::load::{bulk, cold};
use crate::pin::End;

/// Connections of one measurement of the cold case.
pub(crate) const COLD_CONNECTIONS: u32 = 500;

/// Connections at once in the case of a warm tunnel.
const AT_ONCE: u32 = 32;

/// Takes one measurement.
///
/// # Errors
/// When the work fails, or did not go the way that is measured.
pub(crate) fn take(lane: &mut Lane, case: Case, seconds: u32) -> Result<Vec<Reading>> {
    let processors = lane.processors;
    // The load is the client's.
    processors.on(End::Client, || take_here(lane, case, seconds))
}

fn take_here(lane: &mut Lane, case: Case, seconds: u32) -> Result<Vec<Reading>> {
    match case {
        Case::Bulk { streams, .. } => bulk(lane, streams.into(), seconds),
        Case::Http { connections } => requests(lane, connections.into(), seconds),
        Case::Paced(_) => unreachable!(),
        Case::ConnectionsWarm => warm(lane, seconds),
        Case::ConnectionsCold => cold(lane),
        Case::MemoryIdle | Case::MemoryPerConnection => unreachable!("memory is not taken in rounds"),
    }
}

fn bulk(lane: &Lane, streams: u32, seconds: u32) -> Result<Vec<Reading>> {
    // iperf3 has a connection of its own to agree on what to do.
    let (sent, cpu) = watched(lane, |_| u64::from(streams) + 1, || bulk::run(lane, streams, seconds))?;
    let throughput = Reading::new(Metric::Throughput, sent.bits_per_second / 1e9);
    Ok(with_cpu([throughput], Metric::CpuPerGigabyte, cpu, sent.octets / 1e9))
}

fn requests(lane: &Lane, open: u32, seconds: u32) -> Result<Vec<Reading>> {
    let work = || wrk::run(lane, open, Connections::Kept, seconds);
    let (made, cpu) = watched(lane, |_| u64::from(open), work)?;
    let readings = [
        Reading::new(Metric::Requests, made.per_second()),
        Reading::new(Metric::LatencyMedian, made.p50),
        Reading::new(Metric::Latency99, made.p99),
    ];
    Ok(with_cpu(readings, Metric::CpuPerTenThousand, cpu, made.requests as f64 / 1e4))
}

fn warm(lane: &Lane, seconds: u32) -> Result<Vec<Reading>> {
    let work = || wrk::run(lane, AT_ONCE, Connections::ClosedAfterEach, seconds);
    let (made, cpu) = watched(lane, |made| made.requests, work)?;
    let readings = [Reading::new(Metric::Connections, made.per_second())];
    Ok(with_cpu(readings, Metric::CpuPerTenThousand, cpu, made.requests as f64 / 1e4))
}

fn cold(lane: &mut Lane) -> Result<Vec<Reading>> {
    let addresses = lane.take_fresh_addresses(COLD_CONNECTIONS);
    let tunnels_before = lane.open_tunnels()?;
    let (took, cpu) = watched(lane, |_| u64::from(COLD_CONNECTIONS), || cold::run(lane, &addresses))?;
    let tunnels = lane.open_tunnels()?.saturating_sub(tunnels_before);
    ensure!(
        !lane.path.is_hbone() || tunnels >= addresses.len(),
        "{} connections to as many addresses opened {tunnels} tunnels",
        addresses.len()
    );
    let rate = Reading::new(Metric::Connections, f64::from(COLD_CONNECTIONS) / took.as_secs_f64());
    Ok(with_cpu([rate], Metric::CpuPerTenThousand, cpu, f64::from(COLD_CONNECTIONS) / 1e4))
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
