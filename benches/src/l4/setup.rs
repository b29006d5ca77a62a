//! The paths of the suite: made once, checked before and after.

use std::net::{IpAddr, Ipv4Addr};

use ambit_tests::agent::Agent;
use ambit_tests::apps::NGINX;
use ambit_tests::mesh::{AgentLog, Mesh, Settings as MeshSettings};
use ambit_tests::namespace::Namespace;
use ambit_tests::wait::{self, SOON};
use anyhow::{Context, Result, ensure};

use super::measure::Ground;
use crate::Settings;
use crate::lane::{
    ADDRESSES, CLIENT_NODE, Lane, OWN_ADDRESSES, Path, SERVER_NODE, body, own_address, own_prefix,
};
use crate::load::churn::Churn;
use crate::load::cold;
use crate::pin::Processors;
use crate::proxies::{Proxies, agents, envoy, haproxy, istio};

/// What every path of a part has in common.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stand {
    /// Worker threads of each proxy.
    pub(super) workers: u16,
    pub(super) processors: Processors,
    pub(super) buffers: Buffers,
    /// How many addresses of each server cold connections will go to.
    pub(super) fresh_addresses: u32,
}

/// How much the kernel may keep for a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Buffers {
    /// What the machine is set to.
    OfTheSystem,
    /// More than any delay that is measured fills.
    Large,
}

/// Two nodes, with agents that are not started so far.
///
/// # Errors
/// When the kernel refuses a part of it.
pub(super) fn mesh(stand: Stand) -> Result<Mesh> {
    let mesh_settings = MeshSettings {
        workers: stand.workers.into(),
        agent_log: AgentLog::Written,
        ..MeshSettings::default()
    };
    Mesh::with_settings(mesh_settings, [CLIENT_NODE, SERVER_NODE])
}

/// The paths that are wanted, each with its pods and proxies and one request that has passed.
///
/// # Errors
/// When one does not stand.
pub(super) fn lanes(mesh: &Mesh, settings: &Settings, stand: Stand) -> Result<Vec<Lane>> {
    let Stand { workers, processors, buffers, fresh_addresses } = stand;
    let server_node = settings.server_node();
    let wanted = Path::ALL.into_iter().filter(|path| settings.wants_path(*path));
    // All pods before the first agent, which waits for those that are its own.
    let pods = wanted
        .map(|path| Ok((path, Lane::pods(mesh, path, server_node, processors)?)))
        .collect::<Result<Vec<_>>>()?;
    if buffers == Buffers::Large {
        let of_pods = pods.iter().flat_map(|(_, (client, server))| [client.namespace(), server.namespace()]);
        let of_nodes = mesh.agents().map(Agent::namespace);
        of_pods.chain(of_nodes).try_for_each(|namespace| enlarge_buffers(namespace))?;
    }
    for (path, (_, server)) in &pods {
        if *path == Path::Ambit {
            let addresses = (0..OWN_ADDRESSES).map(|index| IpAddr::from(own_address(*path, index)));
            mesh.change_pod(server, |object| object.addresses.extend(addresses))?;
        }
    }
    let mut lanes = Vec::new();
    for (path, (client, server)) in pods {
        let ends = (&client, &server);
        let proxies: Option<Proxies> = match path {
            Path::Plain => None,
            Path::Relay => Some(haproxy::start(ends, workers, processors)?),
            Path::RelayTls => {
                let to_server = [server.v4().to_string(), own_prefix(path)];
                Some(haproxy::tls::start(ends, &to_server, workers, processors)?)
            }
            Path::Envoy => Some(envoy::start(ends, workers, processors)?),
            Path::Istio => {
                // Its configuration does not change in a run: it knows those of cold connections at once.
                let known = 0..=OWN_ADDRESSES + fresh_addresses;
                let addresses = &known.map(|index| own_address(path, index)).collect::<Vec<_>>();
                Some(istio::start(ends, istio::Setup { addresses, workers, processors })?)
            }
            Path::Ambit => Some(agents::start(mesh, server_node, processors)?),
        };
        let lane = Lane::new(path, (client, server), proxies, processors);
        lane.check().with_context(|| format!("the {path} path does not carry a request"))?;
        lanes.push(lane);
    }
    Ok(lanes)
}

fn enlarge_buffers(namespace: &Namespace) -> Result<()> {
    for direction in ["rmem", "wmem"] {
        namespace.sysctl(&format!("net/ipv4/tcp_{direction}"), "4096 131072 67108864")?;
    }
    Ok(())
}

/// The machine outside of the mesh that passthrough goes to, by its number in the fabric.
const OUTSIDE: u8 = 99;

/// What measurements need beside the paths.
///
/// # Errors
/// When the kernel refuses a part of it.
pub(super) fn ground(mesh: &Mesh, stand: Stand) -> Result<Ground<'_>> {
    Ok(Ground {
        workers: stand.workers,
        outside: mesh.outside_host("outside", OUTSIDE)?,
        outside_address: Ipv4Addr::new(10, 200, 0, OUTSIDE),
        churn: Churn::publish(mesh)?,
    })
}

/// Has control know the addresses that cold connections will go to, and waits until the agents do.
///
/// # Errors
/// When they do not.
pub(super) fn publish_fresh_addresses(mesh: &Mesh, lanes: &[Lane], count: u32) -> Result<()> {
    let first = OWN_ADDRESSES;
    ensure!(first + count < ADDRESSES, "{count} addresses are more than a path has");
    for lane in lanes {
        if lane.path == Path::Ambit {
            let addresses = (first..=first + count).map(|index| IpAddr::from(own_address(lane.path, index)));
            mesh.change_pod(&lane.server, |object| object.addresses.extend(addresses))?;
        }
        // One more than is measured, to see that the last one is known.
        let last = (own_address(lane.path, first + count), NGINX).into();
        let body = body();
        wait::until(format!("{last} to be reached over {}", lane.path), SOON, || {
            lane.client.namespace().inside(|| cold::request(last, &body))
        })?;
    }
    Ok(())
}

/// Checks what can be known only at the end: that nobody saved work.
///
/// # Errors
/// When somebody did.
pub(super) fn check_after(mesh: &Mesh, lanes: &[Lane]) -> Result<()> {
    for lane in lanes {
        match (lane.path, &lane.proxies) {
            (Path::Envoy, Some(proxies)) => envoy::expect_equal_cryptography(proxies)?,
            (Path::RelayTls, Some(_)) => haproxy::tls::expect_equal_cryptography(&lane.server)?,
            (Path::Ambit, Some(_)) => agents::expect_complete_logs(mesh)?,
            (_, None) | (Path::Plain | Path::Relay | Path::Istio, Some(_)) => {}
        }
    }
    Ok(())
}
