//! What is to be installed in a pod, as a value. How it is written is the backends' concern:
//! [`nftables`](super::nftables) and [`iptables`](super::iptables).
//!
//! The rules, in words:
//!
//! * **Inbound.** A TCP packet that comes from outside, to an address of the pod, belongs to the
//!   agent's listeners: port 15008 keeps its port, every other goes to 15006. Where no listener is
//!   open, the connection is refused. Connections that were there before stay as they are.
//! * **Outbound.** The first packet of a TCP connection that would leave the pod goes to 15001.
//!   Only the first: conntrack takes packets in the middle of a connection that it has not seen
//!   before for a new one, and redirecting them would reset a running pod's connections.
//! * **The agent's own packets** carry the pod's secret mark and pass. The mark is wiped from them
//!   before they leave, since a packet socket with a filter program could otherwise read it.
//! * **The application's answers** to a connection that the agent made under a client's address go
//!   back to the agent through `lo`, never to the client.
//! * **Ports that are probed** are captured only while the application listens: a probe that does no more than
//!   connect asks the kernel, and an agent's listener would always answer.
//! * Within the pod, over `lo`, nothing is captured.

use std::collections::BTreeSet;

use ipnet::IpNet;

use super::marks::Marks;

/// The redirection of one pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleSet {
    /// How the agent's own packets are known.
    pub marks: Marks,
    /// What is left alone.
    pub exclusions: Exclusions,
    /// Ports that the kubelet calls: on these a connection is refused while the application does not
    /// listen. Only nftables can tell.
    pub probe_ports: BTreeSet<u16>,
    /// Whether the pod's kernel knows IPv6:
    /// [`NetworkNamespace::has_ipv6`](super::netns::NetworkNamespace::has_ipv6).
    pub ipv6: bool,
}

/// Traffic that is not captured, by the wish of the pod's owner.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exclusions {
    /// Ports of the pod on which clients reach the application directly.
    pub inbound_ports: BTreeSet<u16>,
    /// Clients that reach the application directly.
    pub inbound_sources: BTreeSet<IpNet>,
    /// Ports of servers to which the application connects directly.
    pub outbound_ports: BTreeSet<u16>,
    /// Servers to which the application connects directly.
    pub outbound_destinations: BTreeSet<IpNet>,
}

impl Exclusions {
    /// The most exclusions that one pod may have. The rules of a pod are one netlink message batch,
    /// and a batch must fit a socket's send buffer (212,992 octets by default; a rule takes up to
    /// 500).
    pub const MAXIMUM: usize = 256;

    /// How many there are.
    pub fn count(&self) -> usize {
        self.inbound_ports.len()
            + self.inbound_sources.len()
            + self.outbound_ports.len()
            + self.outbound_destinations.len()
    }
}

/// The agent's listening ports in each pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CapturePort {
    /// What the application sends.
    Outbound,
    /// Plain TCP for the application.
    InboundPlaintext,
    /// HBONE for the application.
    InboundHbone,
}

impl CapturePort {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Outbound, Self::InboundPlaintext, Self::InboundHbone];

    /// The port number, as Istio's ambient mode has it.
    pub const fn number(self) -> u16 {
        match self {
            Self::Outbound => 15001,
            Self::InboundPlaintext => 15006,
            Self::InboundHbone => 15008,
        }
    }
}
