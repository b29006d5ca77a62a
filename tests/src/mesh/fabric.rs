//! The places: a bridge that joins the nodes, nodes that route, pods behind them.
//!
//! ```text
//!   pod ── cni0 ─ node ── fabric ── node ─ cni0 ── pod
//!                           │
//!                        control, outsiders
//! ```
//! The bridge is in the sandbox's own network namespace, so that what goes between nodes is seen
//! there and what stays inside a node is not. Nobody translates the virtual addresses of Services:
//! no kube-proxy runs, so that an answer from one is the mesh's doing.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::Result;

use crate::namespace::Namespace;
use crate::process;

/// Where services and pods have their addresses: what agents take as `--mesh-range`.
pub const MESH_RANGES: [&str; 4] = ["10.10.0.0/16", "10.96.0.0/16", "fd00:10::/32", "fd00:96::/64"];

/// The address of control on the fabric.
pub const CONTROL: Ipv4Addr = Ipv4Addr::new(10, 200, 0, 254);

/// The bridge and everything plugged into it.
#[derive(Debug)]
pub struct Fabric {
    plugs: AtomicU16,
}

/// A router with pods behind it.
#[derive(Debug)]
pub struct Node {
    /// Its name in Kubernetes and of its network namespace.
    pub name: String,
    /// Its network.
    pub namespace: Arc<Namespace>,
    /// Its end in the fabric.
    plug: String,
    number: u8,
    pods: AtomicU16,
}

/// The addresses of a pod; a family may be missing.
#[derive(Clone, Copy, Debug)]
pub struct PodAddresses {
    /// IPv4.
    pub v4: Option<Ipv4Addr>,
    /// IPv6.
    pub v6: Option<Ipv6Addr>,
}

/// The address families of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Families {
    /// IPv4 alone.
    V4,
    /// IPv6 alone.
    V6,
    /// Both.
    Dual,
}

impl Fabric {
    /// Makes the bridge.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn create() -> Result<Self> {
        process::run("ip", "link add fabric type bridge".split(' '))?;
        process::run("ip", "addr add 10.200.0.253/24 dev fabric".split(' '))?;
        process::run("ip", "link set fabric up".split(' '))?;
        Ok(Self { plugs: AtomicU16::new(1) })
    }

    /// A place plugged into the fabric that is not a node: `10.200.0.<host>` and `fd00:200::<host>`.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn host(&self, name: &str, host: u8) -> Result<Arc<Namespace>> {
        self.plugged(name, host).map(|(namespace, _)| namespace)
    }

    fn plugged(&self, name: &str, host: u8) -> Result<(Arc<Namespace>, String)> {
        let namespace = Namespace::create(name)?;
        let plug = format!("fab{}", self.plugs.fetch_add(1, Ordering::Relaxed));
        process::run("ip", format!("link add {plug} type veth peer name eth0 netns {name}").split(' '))?;
        process::run("ip", format!("link set {plug} master fabric up").split(' '))?;
        namespace.ip("link set eth0 up")?;
        namespace.ip(&format!("addr add 10.200.0.{host}/24 dev eth0"))?;
        namespace.ip(&format!("addr add fd00:200::{host:x}/64 dev eth0 nodad"))?;
        Ok((namespace, plug))
    }

    /// A node without pods. Who is to reach these is given a route by [`Node::route_from`].
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn node(&self, name: &str, number: u8) -> Result<Node> {
        let (namespace, plug) = self.plugged(name, number)?;
        namespace.sysctl("net/ipv4/ip_forward", "1")?;
        namespace.sysctl("net/ipv6/conf/all/forwarding", "1")?;
        for words in [
            // Without an address of its own a bridge has that of one of its ports, and another one when a pod
            // joins: the bridge plugin's CHECK of an earlier pod would fail by that.
            "link add cni0 address 02:00:00:00:00:01 type bridge",
            "link set cni0 up",
            &format!("addr add 10.10.{number}.1/24 dev cni0"),
            &format!("addr add fd00:10:0:{number:x}::1/64 dev cni0 nodad"),
        ] {
            namespace.ip(words)?;
        }
        Ok(Node { name: name.to_owned(), namespace, plug, number, pods: AtomicU16::new(2) })
    }
}

impl Node {
    /// Takes its plug out of the fabric, or puts it back in.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set_plugged(&self, is_plugged: bool) -> Result<()> {
        let state = if is_plugged { "up" } else { "down" };
        process::run("ip", ["link", "set", &self.plug, state]).map(drop)
    }

    /// Lets `from` reach this node's pods.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn route_from(&self, from: &Namespace) -> Result<()> {
        let number = self.number;
        from.ip(&format!("route add 10.10.{number}.0/24 via 10.200.0.{number}"))?;
        from.ip(&format!("route add fd00:10:0:{number:x}::/64 via fd00:200::{number:x}"))
    }

    /// Where a runtime takes addresses for its pods from, IPv4 and IPv6: the range, and the first of them,
    /// which is behind those that [`Self::pod`] gives.
    pub fn ranges(&self) -> [(String, String); 2] {
        let number = self.number;
        [
            (format!("10.10.{number}.0/24"), format!("10.10.{number}.128")),
            (format!("fd00:10:0:{number:x}::/64"), format!("fd00:10:0:{number:x}::8000")),
        ]
    }

    /// A network namespace for a pod, with addresses of this node's range.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn pod(&self, name: &str, families: Families) -> Result<(Arc<Namespace>, PodAddresses)> {
        let namespace = Namespace::create(name)?;
        let host = self.pods.fetch_add(1, Ordering::Relaxed);
        let number = self.number;
        self.namespace.ip(&format!("link add pod{host} type veth peer name eth0 netns {name}"))?;
        self.namespace.ip(&format!("link set pod{host} master cni0 up"))?;
        namespace.ip("link set eth0 up")?;
        let mut addresses = PodAddresses { v4: None, v6: None };
        if families != Families::V6 {
            let address = Ipv4Addr::new(10, 10, number, u8::try_from(host)?);
            namespace.ip(&format!("addr add {address}/24 dev eth0"))?;
            namespace.ip(&format!("route add default via 10.10.{number}.1"))?;
            addresses.v4 = Some(address);
        }
        if families != Families::V4 {
            let address = Ipv6Addr::new(0xfd00, 0x10, 0, number.into(), 0, 0, 0, host);
            namespace.ip(&format!("addr add {address}/64 dev eth0 nodad"))?;
            namespace.ip(&format!("route add default via fd00:10:0:{number:x}::1"))?;
            addresses.v6 = Some(address);
        }
        Ok((namespace, addresses))
    }
}
