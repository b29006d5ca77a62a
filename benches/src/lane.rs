//! The paths: two pods each, a client's and a server's on different nodes, and what is between
//! them.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use ambit_tests::apps::{self, NGINX};
use ambit_tests::mesh::Mesh;
use ambit_tests::pod::Pod;
use anyhow::{Result, ensure};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::pin::{End, Processors};
use crate::proxies::{Carried, Proxies};

/// A way from the client to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
pub(crate) enum Path {
    /// No proxy.
    Plain,
    /// A plain relay in each pod.
    Relay,
    /// The same with mutual TLS between the two.
    RelayTls,
    /// Envoy in each pod, HBONE between them.
    Envoy,
    /// Istio's ztunnel for each pod, HBONE between them; only where the reader has the program.
    #[value(hide = true)]
    Istio,
    /// Ambit's agent on each node, HBONE between them.
    Ambit,
}

impl Path {
    pub(crate) const ALL: [Self; 6] =
        [Self::Plain, Self::Relay, Self::RelayTls, Self::Envoy, Self::Istio, Self::Ambit];

    /// Others' proxies that do the same work: the better one of them is who has to be beaten.
    pub(crate) const HBONE_PEERS: [Self; 2] = [Self::Envoy, Self::Istio];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Relay => "relay",
            Self::RelayTls => "relay-tls",
            Self::Envoy => "envoy",
            Self::Istio => "istio",
            Self::Ambit => "ambit",
        }
    }
}

impl Path {
    /// Whether its proxies speak HBONE to each other.
    pub(crate) fn is_hbone(self) -> bool {
        match self {
            Self::Envoy | Self::Istio | Self::Ambit => true,
            Self::Plain | Self::Relay | Self::RelayTls => false,
        }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What nginx answers: one kibibyte, as in the measurements that Istio publishes.
pub(crate) fn body() -> String {
    "ambit".repeat(204) + "!!!!"
}

/// Where HBONE is spoken.
pub(crate) const HBONE: u16 = 15008;

/// A path that stands, with its two pods.
pub(crate) struct Lane {
    pub(crate) path: Path,
    pub(crate) client: Pod,
    pub(crate) server: Pod,
    /// What is between them; nothing on the plain path.
    pub(crate) proxies: Option<Proxies>,
    /// Where the load and the proxies run.
    pub(crate) processors: Processors,
    used_addresses: u32,
}

impl Lane {
    /// The two pods of a path, with applications in the server's.
    ///
    /// # Errors
    /// When a part of them does not start.
    pub(crate) fn pods(
        mesh: &Mesh,
        path: Path,
        server_node: &str,
        processors: Processors,
    ) -> Result<(Pod, Pod)> {
        match path {
            Path::Ambit => mesh.ambient_namespace(path.name())?,
            Path::Plain | Path::Relay | Path::RelayTls | Path::Envoy | Path::Istio => {
                mesh.plain_namespace(path.name())?
            }
        }
        let client = mesh.pod(&format!("{path}/client"), CLIENT_NODE)?;
        let server = mesh.pod(&format!("{path}/server"), server_node)?;
        for pod in [&client, &server] {
            // Thousands of connections a second use up the ports of a pair of addresses otherwise.
            pod.namespace().sysctl("net/ipv4/ip_local_port_range", "20000 65535")?;
            pod.namespace().sysctl("net/ipv4/tcp_tw_reuse", "1")?;
        }
        processors.on(End::Server, || apps::nginx(&server, &body()))?;
        serve_own_addresses(mesh, &server, path, server_node)?;
        Ok((client, server))
    }

    pub(crate) fn new(
        path: Path,
        (client, server): (Pod, Pod),
        proxies: Option<Proxies>,
        processors: Processors,
    ) -> Self {
        Self { path, client, server, proxies, processors, used_addresses: OWN_ADDRESSES }
    }

    /// Insists on the right answer of nginx, and on its having passed through both proxies.
    ///
    /// # Errors
    /// When either is not so.
    pub(crate) fn check(&self) -> Result<()> {
        let before = self.carried()?;
        self.client.get(self.server.at(NGINX))?.expect_body(&body())?;
        self.expect_carried(before, 1)
    }

    /// How many connections the proxies have carried so far.
    ///
    /// # Errors
    /// When one does not tell.
    pub(crate) fn carried(&self) -> Result<Carried> {
        self.proxies.as_ref().map_or(Ok(Carried::default()), Proxies::carried)
    }

    /// Insists on the proxies having carried so many connections since `before`.
    ///
    /// # Errors
    /// When they have not: then what was measured is not this path.
    pub(crate) fn expect_carried(&self, before: Carried, connections: u64) -> Result<()> {
        self.proxies.as_ref().map_or(Ok(()), |proxies| proxies.expect_carried(before, connections))
    }

    /// How many tunnels are open to the server's pod.
    ///
    /// # Errors
    /// When it cannot be seen.
    pub(crate) fn open_tunnels(&self) -> Result<usize> {
        self.server.namespace().established_on(HBONE)
    }

    /// Addresses of the server that no connection has used.
    pub(crate) fn take_fresh_addresses(&mut self, count: u32) -> Vec<SocketAddr> {
        let first = self.used_addresses;
        self.used_addresses += count;
        (first..self.used_addresses).map(|index| (own_address(self.path, index), NGINX).into()).collect()
    }

    /// Insists on a tunnel to each of these addresses of the server, where there are tunnels at all.
    ///
    /// # Errors
    /// When one of them has none: then they shared one.
    pub(crate) fn expect_tunnels_to(&self, addresses: impl IntoIterator<Item = Ipv4Addr>) -> Result<()> {
        for address in addresses.into_iter().filter(|_| self.path.is_hbone()) {
            let mut looks = (0..LOOKS).map(|_| self.tunnels_to(address));
            let seen = looks.find(|found| !matches!(found, Ok(0))).unwrap_or(Ok(0))?;
            ensure!(seen > 0, "there is no tunnel to {address}");
        }
        Ok(())
    }

    /// How many tunnels are open to an address of the server.
    ///
    /// # Errors
    /// When it cannot be seen.
    pub(crate) fn tunnels_to(&self, address: Ipv4Addr) -> Result<usize> {
        self.server.namespace().established_at(SocketAddrV4::new(address, HBONE))
    }
}

/// How often a table without the socket is read before the socket is missing. The kernel hands its table out in
/// pieces and goes on by counting: a socket that goes away in between has another one passed over.
const LOOKS: usize = 4;

/// Makes the server's pod the owner of all of [`own_address`].
///
/// The nodes route them to it, and it takes any of them for its own; the neighbour tables of a node
/// would not hold as many addresses one by one.
fn serve_own_addresses(mesh: &Mesh, server: &Pod, path: Path, server_node: &str) -> Result<()> {
    let prefix = own_prefix(path);
    server.namespace().ip(&format!("route add local {prefix} dev lo"))?;
    let to_pod = format!("route add {prefix} via {}", server.v4());
    mesh.agent(server_node).namespace().ip(&to_pod)?;
    if server_node == CLIENT_NODE {
        return Ok(());
    }
    let to_node = format!("route add {prefix} via 10.200.0.2");
    mesh.agent(CLIENT_NODE).namespace().ip(&to_node)
}

/// One of many addresses of the server's pod beside that of its interface, of a prefix of its own for
/// each path. To a proxy each is another destination, with a tunnel of its own.
///
/// IPv4, because HAProxy learns where a redirected connection was bound for in that family alone.
pub(crate) fn own_address(path: Path, index: u32) -> Ipv4Addr {
    let prefix = Ipv4Addr::new(10, 10, 64 + 32 * path as u8, 0);
    Ipv4Addr::from(u32::from(prefix) + index)
}

/// The prefix of all of them.
pub(crate) fn own_prefix(path: Path) -> String {
    format!("{}/19", own_address(path, 0))
}

/// So many addresses each path has.
pub(crate) const ADDRESSES: u32 = 1 << 13;

/// So many of them, the first ones, are used again and again: as many as streams go to at once, and
/// those of the case that compares tunnels. The others are for cold connections.
pub(crate) const OWN_ADDRESSES: u32 = 66;

/// Where the clients are.
pub(crate) const CLIENT_NODE: &str = "n1";
/// Where the servers are, unless they are with the clients; its number in the fabric is 2.
pub(crate) const SERVER_NODE: &str = "n2";

/// Insists that every octet that was read belongs to a right answer.
///
/// # Errors
/// When not: then the paths did different work.
pub(crate) fn expect_whole_answers(answers: u64, octets: u64, answer_octets: u64, open: u64) -> Result<()> {
    let (least, most) = (answers * answer_octets, (answers + open) * answer_octets);
    ensure!(
        (least..=most).contains(&octets),
        "{answers} answers of {answer_octets} octets came as {octets} octets: some were not whole"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_never_used_differ_by_path_and_count() {
        let texts = [(Path::Plain, 0, "10.10.64.0"), (Path::Ambit, ADDRESSES - 1, "10.10.255.255")];
        for (path, index, text) in texts {
            assert_eq!(own_address(path, index).to_string(), text);
        }
    }

    #[test]
    fn a_path_has_its_name_on_the_command_line_and_only_some_are_tunnels() {
        for path in Path::ALL {
            assert_eq!(Path::from_str(path.name(), false), Ok(path));
        }
        let tunnels = Path::ALL.into_iter().filter(|path| path.is_hbone()).map(Path::name);
        assert_eq!(tunnels.collect::<Vec<_>>(), ["envoy", "istio", "ambit"]);
        assert!(Path::HBONE_PEERS.into_iter().all(Path::is_hbone));
    }

    #[test]
    fn a_cut_answer_shows_in_the_octets() {
        assert!(expect_whole_answers(10, 1000, 100, 2).is_ok());
        assert!(expect_whole_answers(10, 1150, 100, 2).is_ok());
        assert!(expect_whole_answers(10, 999, 100, 2).is_err());
        assert!(expect_whole_answers(10, 1201, 100, 2).is_err());
    }

    #[test]
    fn the_body_has_one_kibibyte() {
        assert_eq!(body().len(), 1024);
    }
}
