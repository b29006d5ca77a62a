//! The rules of a pod as nftables expressions. What they are for is in [`rules`](crate::capture::rules).

use std::net::IpAddr;

use ipnet::IpNet;

use super::expression::{CtKey, Expression, Header, MetaKey, Verdict};
use crate::capture::marks::REROUTE_MARK;
use crate::capture::rules::{CapturePort, RuleSet};

/// The chains of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Chain {
    /// Where packets come in.
    Prerouting,
    /// What becomes of connections from outside.
    Inbound,
    /// Marks of packets made in the pod; a change of mark routes a packet anew.
    Output,
    /// Where a connection made in the pod may be redirected.
    Dstnat,
    /// What becomes of connections to the outside.
    Outbound,
    /// The last place before a packet is seen outside.
    Postrouting,
}

/// Where a chain is called from.
pub(super) struct Hook {
    pub(super) kind: &'static str,
    /// linux/netfilter.h enum nf_inet_hooks
    pub(super) number: u32,
    /// linux/netfilter_ipv4.h enum nf_ip_hook_priorities
    pub(super) priority: i32,
}

impl Chain {
    pub(super) const ALL: [Self; 6] =
        [Self::Prerouting, Self::Inbound, Self::Output, Self::Dstnat, Self::Outbound, Self::Postrouting];

    /// Those that take new connections; all others serve connections that are open, too.
    pub(super) const CAPTURING: [Self; 2] = [Self::Inbound, Self::Outbound];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Prerouting => "prerouting",
            Self::Inbound => "inbound",
            Self::Output => "output",
            Self::Dstnat => "dstnat",
            Self::Outbound => "outbound",
            Self::Postrouting => "postrouting",
        }
    }

    pub(super) fn hook(self) -> Option<Hook> {
        match self {
            Self::Prerouting => Some(Hook { kind: "filter", number: 0, priority: -150 }),
            Self::Output => Some(Hook { kind: "route", number: 3, priority: -150 }),
            Self::Dstnat => Some(Hook { kind: "nat", number: 3, priority: -100 }),
            Self::Postrouting => Some(Hook { kind: "filter", number: 4, priority: 100 }),
            Self::Inbound | Self::Outbound => None,
        }
    }
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) chain: Chain,
    /// What the rule says, for errors.
    pub(super) meaning: String,
    pub(super) expressions: Vec<Expression>,
}

/// All rules, in order.
pub(super) fn rules(set: &RuleSet) -> Vec<Rule> {
    [inbound(set), own_packets(set), outbound(set)].concat()
}

fn inbound(set: &RuleSet) -> Vec<Rule> {
    use Chain::{Inbound, Prerouting};
    let hbone = CapturePort::InboundHbone.number();
    let mut rules = vec![
        rule(Prerouting, "capture what comes in", [jump(Inbound)]),
        rule(Inbound, "leave lo alone", [loopback(MetaKey::Iif), ret()]),
        rule(Inbound, "only TCP", [not_tcp(), ret()]),
        rule(Inbound, "only to the pod itself", [not_local(), ret()]),
    ];
    for port in &set.exclusions.inbound_ports {
        rules.push(rule(Inbound, format!("exclude port {port}"), [port_is(*port), ret()]));
    }
    for source in &set.exclusions.inbound_sources {
        rules.push(rule(Inbound, format!("exclude clients {source}"), [within(source, Side::Source), ret()]));
    }
    // A probe that only connects asks whether the application listens, and must not be answered by
    // the agent's listener.
    for port in &set.probe_ports {
        let capture = [port_is(*port), vec![Expression::LoadSocket], tproxy(CapturePort::InboundPlaintext)];
        let capture = [capture.concat(), accept()];
        rules.push(rule(Inbound, format!("port {port}, if the application listens"), capture));
        let refuse = [port_is(*port), first_packet(), vec![Expression::RejectWithReset]];
        rules.push(rule(Inbound, format!("port {port}, if it does not"), refuse));
    }
    // tproxy gives up, and the next rule is tried, when the packet belongs to a connection of
    // somebody else, or when no listener is open.
    rules.extend([
        rule(Inbound, "HBONE", [port_is(hbone), tproxy(CapturePort::InboundHbone), accept()]),
        rule(
            Inbound,
            "everything else",
            [port_is_not(hbone), tproxy(CapturePort::InboundPlaintext), accept()],
        ),
        rule(Inbound, "refuse while the agent is away", [first_packet(), vec![Expression::RejectWithReset]]),
    ]);
    rules
}

/// The order matters: the mark is needed by the chain at priority -100 and gone after it.
fn own_packets(set: &RuleSet) -> Vec<Rule> {
    use Chain::{Output, Postrouting};
    let reroute = || vec![Expression::Value(REROUTE_MARK.to_ne_bytes().to_vec())];
    let set_connection_mark = [reroute(), vec![Expression::SetCt(CtKey::Mark)]].concat();
    let set_packet_mark = [reroute(), vec![Expression::SetMeta(MetaKey::Mark)]].concat();
    let wipe = vec![Expression::Value(vec![0; 4]), Expression::SetMeta(MetaKey::Mark)];
    vec![
        rule(
            Output,
            "remember connections to the application",
            [loopback(MetaKey::Oif), agents_mark(set), set_connection_mark, accept()],
        ),
        rule(
            Output,
            "lead the application's answers back",
            [answer(), connection_mark_is(REROUTE_MARK), set_packet_mark],
        ),
        rule(Postrouting, "wipe the agent's mark", [agents_mark(set), wipe]),
    ]
}

fn outbound(set: &RuleSet) -> Vec<Rule> {
    use Chain::{Dstnat, Outbound};
    let mut rules = vec![
        rule(Dstnat, "capture what goes out", [jump(Outbound)]),
        rule(Outbound, "the agent's own", [agents_mark(set), ret()]),
        rule(Outbound, "leave lo alone", [loopback(MetaKey::Oif), ret()]),
    ];
    for port in &set.exclusions.outbound_ports {
        rules.push(rule(Outbound, format!("exclude port {port}"), [port_is(*port), ret()]));
    }
    for destination in &set.exclusions.outbound_destinations {
        let matches = within(destination, Side::Destination);
        rules.push(rule(Outbound, format!("exclude servers {destination}"), [matches, ret()]));
    }
    rules.push(rule(Outbound, "new connections", [first_packet(), redirect(CapturePort::Outbound)]));
    rules
}

fn rule<const N: usize>(chain: Chain, meaning: impl Into<String>, parts: [Vec<Expression>; N]) -> Rule {
    Rule { chain, meaning: meaning.into(), expressions: parts.concat() }
}

fn jump(chain: Chain) -> Vec<Expression> {
    vec![Expression::Verdict(Verdict::Jump(chain.name()))]
}

fn ret() -> Vec<Expression> {
    vec![Expression::Verdict(Verdict::Return)]
}

fn accept() -> Vec<Expression> {
    vec![Expression::Verdict(Verdict::Accept)]
}

/// linux/net.h LOOPBACK_IFINDEX: lo is the first interface of every network namespace.
const LOOPBACK_INDEX: u32 = 1;

fn loopback(key: MetaKey) -> Vec<Expression> {
    vec![Expression::LoadMeta(key), Expression::Equals(LOOPBACK_INDEX.to_ne_bytes().to_vec())]
}

/// IANA protocol number of TCP.
const TCP: u8 = 6;

fn tcp() -> Vec<Expression> {
    vec![Expression::LoadMeta(MetaKey::L4Protocol), Expression::Equals(vec![TCP])]
}

fn not_tcp() -> Vec<Expression> {
    vec![Expression::LoadMeta(MetaKey::L4Protocol), Expression::Differs(vec![TCP])]
}

/// linux/rtnetlink.h RTN_LOCAL
const LOCAL: u32 = 2;

fn not_local() -> Vec<Expression> {
    vec![Expression::LoadDestinationType, Expression::Differs(LOCAL.to_ne_bytes().to_vec())]
}

/// RFC 9293 3.1: the destination port is at octet 2.
fn load_port() -> Vec<Expression> {
    [tcp(), vec![Expression::LoadPayload { header: Header::Transport, offset: 2, length: 2 }]].concat()
}

fn port_is(port: u16) -> Vec<Expression> {
    [load_port(), vec![Expression::Equals(port.to_be_bytes().to_vec())]].concat()
}

fn port_is_not(port: u16) -> Vec<Expression> {
    [load_port(), vec![Expression::Differs(port.to_be_bytes().to_vec())]].concat()
}

/// RFC 9293 3.1: the control bits are octet 13. SYN, without FIN, RST and ACK.
fn first_packet() -> Vec<Expression> {
    const FIN_SYN_RST_ACK: u8 = 0x17;
    const SYN: u8 = 0x02;
    let flags = vec![
        Expression::LoadPayload { header: Header::Transport, offset: 13, length: 1 },
        Expression::Mask(vec![FIN_SYN_RST_ACK]),
        Expression::Equals(vec![SYN]),
    ];
    [tcp(), flags].concat()
}

fn agents_mark(set: &RuleSet) -> Vec<Expression> {
    let mark = set.marks.socket().get().to_ne_bytes().to_vec();
    vec![Expression::LoadMeta(MetaKey::Mark), Expression::Equals(mark)]
}

fn connection_mark_is(mark: u32) -> Vec<Expression> {
    vec![Expression::LoadCt(CtKey::Mark), Expression::Equals(mark.to_ne_bytes().to_vec())]
}

/// A packet against the direction in which its connection was made.
fn answer() -> Vec<Expression> {
    const REPLY: u8 = 1;
    vec![Expression::LoadCt(CtKey::Direction), Expression::Equals(vec![REPLY])]
}

fn port_value(port: CapturePort) -> Expression {
    Expression::Value(port.number().to_be_bytes().to_vec())
}

fn tproxy(port: CapturePort) -> Vec<Expression> {
    vec![port_value(port), Expression::Tproxy]
}

fn redirect(port: CapturePort) -> Vec<Expression> {
    vec![port_value(port), Expression::Redirect]
}

#[derive(Clone, Copy)]
enum Side {
    Source,
    Destination,
}

/// The packet's source or destination is in `range`. Offsets: RFC 791 3.1, RFC 8200 3.
fn within(range: &IpNet, side: Side) -> Vec<Expression> {
    // linux/netfilter.h NFPROTO_IPV4, NFPROTO_IPV6
    let (family, offset) = match (range, side) {
        (IpNet::V4(_), Side::Source) => (2, 12),
        (IpNet::V4(_), Side::Destination) => (2, 16),
        (IpNet::V6(_), Side::Source) => (10, 8),
        (IpNet::V6(_), Side::Destination) => (10, 24),
    };
    let mask = octets(range.netmask());
    let length = u32::try_from(mask.len()).expect("an address has 4 or 16 octets");
    vec![
        Expression::LoadMeta(MetaKey::Family),
        Expression::Equals(vec![family]),
        Expression::LoadPayload { header: Header::Network, offset, length },
        Expression::Mask(mask),
        Expression::Equals(octets(range.network())),
    ]
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}
