//! A network between the nodes that takes time and loses packets: by the kernel's own emulation where it
//! has one, and by a line of this program where not.

use std::time::{Duration, Instant};

use ambit_tests::apps::NGINX;
use ambit_tests::mesh::Mesh;
use ambit_tests::process;
use anyhow::{Context, Result, ensure};
use nix::ifaddrs::getifaddrs;

use self::line::{Line, Nature};
use crate::lane::{CLIENT_NODE, Lane, SERVER_NODE};

mod line;

/// One packet of a thousand.
const ONE_LOST_OF: u32 = 1000;

/// The pipe to be filled. One that this program can carry packet by packet beside everything else.
const BITS_PER_SECOND: u64 = 200_000_000;

/// The interface of a node that leads to the other ones.
const UPLINK: &str = "eth0";

/// The network between the nodes.
pub(super) struct Network<'a> {
    mesh: &'a Mesh,
    means: Means,
}

/// How it is made slow.
enum Means {
    /// By netem at the uplink of each node.
    Kernel,
    /// By a line between the server's node and the bridge that joins the nodes.
    Program { plug: String, line: Option<Line> },
}

impl<'a> Network<'a> {
    /// Takes the network between the nodes in hand; so far packets take no time.
    ///
    /// # Errors
    /// When neither means is to be had.
    pub(super) fn between_nodes(mesh: &'a Mesh) -> Result<Self> {
        let means = if has_netem() {
            Means::Kernel
        } else {
            let plug = make_place_for_line(mesh)?;
            Means::Program { plug, line: None }
        };
        // What is delayed and lost is packets of the network's size, not what hardware would cut.
        for node in [CLIENT_NODE, SERVER_NODE] {
            let mut command = mesh.agent(node).namespace().command("ethtool");
            process::succeed(command.args(["-K", UPLINK]).args(NO_OFFLOADS))?;
        }
        let mut network = Self { mesh, means };
        network.set_round_trip(0)?;
        Ok(network)
    }

    /// What makes it slow, for people.
    pub(super) fn describe(&self) -> String {
        let by = match self.means {
            Means::Kernel => "the kernel's netem",
            Means::Program { .. } => "a line of this program, since the kernel has no netem",
        };
        format!(
            "delay, loss of one packet of {ONE_LOST_OF} in each direction and a rate of {} Mbit/s are made by {by}",
            BITS_PER_SECOND / 1_000_000
        )
    }

    /// Makes packets take so many milliseconds there and back.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(super) fn set_round_trip(&mut self, millis: u16) -> Result<()> {
        let one_way = Duration::from_millis(millis.into()) / 2;
        let nature = Nature { bits_per_second: BITS_PER_SECOND, one_way, one_lost_of: ONE_LOST_OF };
        match &mut self.means {
            Means::Kernel => set_netem(self.mesh, nature),
            Means::Program { plug, line } => {
                // The one before ends before another one takes its frames.
                drop(line.take());
                *line = Some(Line::between(plug, LINE, nature)?);
                Ok(())
            }
        }
    }

    /// Insists on a connection without proxies taking as long as is said, and not much longer.
    ///
    /// # Errors
    /// When it does not.
    pub(super) fn check(&self, lane: &Lane, millis: u16) -> Result<()> {
        let round_trip = Duration::from_millis(millis.into());
        let connect = || {
            let start = Instant::now();
            lane.client.connect(lane.server.at(NGINX))?;
            Ok::<_, anyhow::Error>(start.elapsed())
        };
        // The first one asks for hardware addresses too, and any one may be lost.
        let took = (0..5).map(|_| connect()).collect::<Result<Vec<_>>>()?;
        let least = took.into_iter().min().unwrap_or_default();
        ensure!(
            (round_trip..round_trip + SLACK).contains(&least),
            "a connection takes {least:?} with a round trip of {round_trip:?}"
        );
        if let Means::Program { line: Some(line), .. } = &self.means {
            ensure!(line.carried() > 0, "the line carries nothing");
        }
        Ok(())
    }
}

/// What a busy machine may add to a round trip.
const SLACK: Duration = Duration::from_millis(20);

const NO_OFFLOADS: [&str; 6] = ["tx", "off", "tso", "off", "gso", "off"];

fn has_netem() -> bool {
    let tried = process::run("tc", "qdisc add dev lo root netem delay 1ms".split(' '));
    tried.and_then(|_| process::run("tc", "qdisc del dev lo root".split(' '))).is_ok()
}

fn set_netem(mesh: &Mesh, nature: Nature) -> Result<()> {
    for node in [CLIENT_NODE, SERVER_NODE] {
        let namespace = mesh.agent(node).namespace().name();
        let words = format!(
            "-n {namespace} qdisc replace dev {UPLINK} root netem delay {}us loss {}% rate {}bit limit {}",
            nature.one_way.as_micros(),
            100.0 / f64::from(nature.one_lost_of),
            nature.bits_per_second,
            nature.room()
        );
        process::run("tc", words.split(' '))?;
    }
    Ok(())
}

/// The end of the line on the bridge's side; its peer is plugged into the bridge.
const LINE: &str = "line0";
const LINE_PLUG: &str = "line1";

/// Unplugs the server's node from the bridge, and plugs in what the line leads to. Returns the interface
/// that was unplugged.
fn make_place_for_line(mesh: &Mesh) -> Result<String> {
    let shown =
        process::run("ip", ["-n", mesh.agent(SERVER_NODE).namespace().name(), "-o", "link", "show", UPLINK])?;
    let peer = peer_index(&shown).with_context(|| format!("the peer of {shown}"))?;
    let has_index = |entry: &nix::ifaddrs::InterfaceAddress| {
        entry.address.and_then(|address| Some(address.as_link_addr()?.ifindex())) == Some(peer)
    };
    let plug = getifaddrs()?.find(has_index).context("the server's node is not plugged in")?.interface_name;
    for words in [
        format!("link add {LINE} type veth peer name {LINE_PLUG}"),
        format!("link set {LINE} up"),
        format!("link set {LINE_PLUG} master fabric up"),
        format!("link set {plug} nomaster"),
    ] {
        process::run("ip", words.split(' '))?;
    }
    process::run("ethtool", ["-K", LINE_PLUG].into_iter().chain(NO_OFFLOADS))?;
    Ok(plug)
}

/// Of `7: eth0@if12: <BROADCAST,...`.
fn peer_index(shown: &str) -> Option<usize> {
    let (_, rest) = shown.split_once("@if")?;
    rest.split(':').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peer_of_an_interface_is_found() {
        assert_eq!(peer_index("7: eth0@if12: <BROADCAST,MULTICAST,UP> mtu 1500"), Some(12));
        assert_eq!(peer_index("1: lo: <LOOPBACK,UP> mtu 65536"), None);
    }
}
