//! Measurements of work that something else disturbs: bulk data, changes of the configuration, delay.

use std::net::Ipv4Addr;
use std::thread;

use ambit_tests::apps::NGINX;
use anyhow::{Result, anyhow, ensure};

use super::{Turn, load, watched};
use crate::cases::{Direction, Metric, Pace, Reading};
use crate::lane::{Lane, OWN_ADDRESSES, Path, body, own_address};
use crate::load::bulk::Arrived;
use crate::load::churn::Churn;
use crate::load::paced::{self, Answers};
use crate::load::wrk::{self, Connections};

/// The requests that are disturbed: few, so that they take no processor from what disturbs them.
const SMALL: Pace = Pace { per_second: 500, connections: 4 };

/// The same where an answer takes longer: a connection asks again after 80 ms.
const FAR: Pace = Pace { per_second: 200, connections: 16 };

/// Requests to one address of the server, with the bulk to the same address and with the bulk to another
/// one. No other case uses these two addresses.
pub(super) fn fairness(lane: &Lane, turn: Turn, workers: u16) -> Result<Vec<Reading>> {
    let requested = own_address(lane.path, OWN_ADDRESSES - 1);
    let other = own_address(lane.path, OWN_ADDRESSES - 2);
    // Twice as long as others: a p99 is of few requests.
    let with_bulk_to = |address| with_bulk(lane, (requested, SMALL), address, 2 * turn.seconds);
    // Neither of the two always has the machine as the other has left it.
    let (same, apart) = if turn.round.is_multiple_of(2) {
        (with_bulk_to(requested)?, with_bulk_to(other)?)
    } else {
        let apart = with_bulk_to(other)?;
        (with_bulk_to(requested)?, apart)
    };
    lane.expect_tunnels_to([requested, other])?;
    let tunnels = lane.tunnels_to(requested)?;
    // More workers may each have one.
    ensure!(
        !lane.path.is_hbone() || workers > 1 || tunnels == 1,
        "{tunnels} tunnels to {requested}: the requests and the bulk did not have to share one"
    );
    let (same_p99, apart_p99) = (same.0.quantile(0.99)?, apart.0.quantile(0.99)?);
    Ok(vec![
        Reading::new(Metric::LatencySameTunnel, same_p99),
        Reading::new(Metric::LatencyOtherTunnel, apart_p99),
        Reading::new(Metric::LatencySameToOther, same_p99 / apart_p99),
        Reading::new(Metric::ThroughputSameTunnel, same.1.gigabits_per_second()),
        Reading::new(Metric::ThroughputOtherTunnel, apart.1.gigabits_per_second()),
    ])
}

/// Bulk data, and requests through the same tunnel meanwhile.
pub(super) fn delayed(lane: &Lane, seconds: u32) -> Result<Vec<Reading>> {
    let address = lane.server.v4();
    // Twice as long as others: it takes a while until the pipe is full.
    let (answers, arrived) = with_bulk(lane, (address, FAR), address, 2 * seconds)?;
    Ok(vec![
        Reading::new(Metric::Throughput, arrived.gigabits_per_second()),
        Reading::new(Metric::LatencyMedian, answers.quantile(0.5)?),
        Reading::new(Metric::Latency99, answers.quantile(0.99)?),
    ])
}

/// Paced requests to one address and one bulk stream to another or the same, at the same time.
fn with_bulk(
    lane: &Lane,
    (requests, pace): (Ipv4Addr, Pace),
    bulk: Ipv4Addr,
    seconds: u32,
) -> Result<(Answers, Arrived)> {
    let load = load(lane, &[bulk], Direction::Send);
    let body = body();
    let work = || {
        thread::scope(|scope| {
            let sending = scope.spawn(|| load.run(seconds));
            let to = (requests, NGINX).into();
            let answers = paced::run(lane.client.namespace(), to, &body, pace, seconds);
            let arrived = sending.join().map_err(|panic| anyhow!("bulk panicked: {panic:?}"))?;
            Ok((answers?, arrived?))
        })
    };
    let (outcome, _) = watched(lane, |_| u64::from(pace.connections) + 1, work)?;
    Ok(outcome)
}

/// Requests on 64 connections, with and without changes.
pub(super) fn churn(churn: &mut Churn<'_>, lane: &Lane, turn: Turn) -> Result<Vec<Reading>> {
    const OPEN: u32 = 64;
    let requests = || {
        let work = || wrk::run(&lane.client, lane.server.at(NGINX), OPEN, Connections::Kept, turn.seconds);
        watched(lane, |_| u64::from(OPEN), work).map(|(made, _)| made)
    };
    let before = changes_seen(lane)?;
    let (churning, quiet) = if turn.round.is_multiple_of(2) {
        (churn.during(requests)?, requests()?)
    } else {
        let quiet = requests()?;
        (churn.during(requests)?, quiet)
    };
    let mut readings = vec![
        Reading::new(Metric::RequestsChurning, churning.per_second()),
        Reading::new(Metric::RequestsQuiet, quiet.per_second()),
        Reading::new(Metric::RequestsChurningToQuiet, churning.per_second() / quiet.per_second()),
        Reading::new(Metric::LatencyChurning, churning.p99),
        Reading::new(Metric::LatencyQuiet, quiet.p99),
    ];
    if let (Some(before), Some(after)) = (before, changes_seen(lane)?) {
        let seen = (after - before) as f64 / f64::from(turn.seconds);
        ensure!(seen >= 2.0, "only {seen} changes a second reached the agent");
        readings.push(Reading::new(Metric::ChangesSeen, seen));
    }
    Ok(readings)
}

/// How many messages with resources have reached the client's agent so far.
fn changes_seen(lane: &Lane) -> Result<Option<u64>> {
    let of_agent = lane.proxies.as_ref().filter(|_| lane.path == Path::Ambit);
    of_agent.map(|proxies| proxies.client.series("istio_xds_message_total", &[])).transpose()
}
