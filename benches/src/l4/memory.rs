//! Memory of the proxies: without work, and what an open connection adds.

use std::time::Duration;

use ambit_tests::wait;
use anyhow::Result;

use crate::Settings;
use crate::cases::{Case, Metric, Reading};
use crate::figures::Readings;
use crate::lane::{Lane, Path};
use crate::load::idle;
use crate::proxies::{Proxies, haproxy};
use crate::usage::Memory;

/// After one request, so that the tunnel is there.
///
/// # Errors
/// When a proxy has ended.
pub(super) fn idle(lanes: &[Lane], readings: &mut Readings) -> Result<()> {
    for (lane, proxies) in proxied(lanes) {
        readings.add(Case::MemoryIdle, lane.path, of_both(now(proxies)?));
    }
    Ok(())
}

/// Opens the connections of all paths, lets them be idle together, and shares the growth among them.
///
/// # Errors
/// When a connection does not open, or a proxy ends.
pub(super) fn per_connection(lanes: &[Lane], settings: &Settings, readings: &mut Readings) -> Result<()> {
    let mut open = Vec::new();
    let mut before = Vec::new();
    for (lane, proxies) in proxied(lanes) {
        before.push(now(proxies)?);
        open.push(idle::open(lane, count(lane.path, settings))?);
    }
    let idle_for = Duration::from_secs(settings.idle_seconds.into());
    wait::throughout("the proxies run", idle_for, || {
        proxied(lanes).try_for_each(|(_, proxies)| now(proxies).map(drop))
    })?;
    for ((lane, proxies), before) in proxied(lanes).zip(before) {
        let share = f64::from(count(lane.path, settings));
        let (client, server) = now(proxies)?;
        let grown = (each(client, before.0, share), each(server, before.1, share));
        readings.add(Case::MemoryPerConnection, lane.path, of_both(grown));
    }
    Ok(())
}

/// A relay stays a little below what it accepts.
fn count(path: Path, settings: &Settings) -> u32 {
    let most = match path {
        Path::Relay | Path::RelayTls => haproxy::CONNECTIONS - 500,
        Path::Plain | Path::Envoy | Path::Istio | Path::Ambit => u32::MAX,
    };
    settings.idle_connections.min(most)
}

fn proxied(lanes: &[Lane]) -> impl Iterator<Item = (&Lane, &Proxies)> {
    lanes.iter().filter_map(|lane| Some((lane, lane.proxies.as_ref()?)))
}

/// Memory of the client's proxy and of the server's.
type Both = (Memory, Memory);

fn now(proxies: &Proxies) -> Result<Both> {
    Ok((proxies.client.memory()?, proxies.server.memory()?))
}

fn each(after: Memory, before: Memory, share: f64) -> Memory {
    Memory {
        proportional: (after.proportional - before.proportional) / share,
        anonymous: (after.anonymous - before.anonymous) / share,
    }
}

fn of_both((client, server): Both) -> [Reading; 4] {
    [
        Reading::new(Metric::ClientProportional, client.proportional),
        Reading::new(Metric::ServerProportional, server.proportional),
        Reading::new(Metric::ClientAnonymous, client.anonymous),
        Reading::new(Metric::ServerAnonymous, server.anonymous),
    ]
}
