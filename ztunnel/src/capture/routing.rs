//! Policy routing in a pod: packets with the reroute mark are delivered inside the pod, whatever
//! their destination.
//!
//! Which packets get the mark is decided by the rules. All functions act on the network namespace
//! the thread is in. Formats: rtnetlink(7), `linux/fib_rules.h`.

use std::fs;

use nix::errno::Errno;
use nix::sys::socket::SockProtocol;

use super::marks::REROUTE_MARK;
use super::netlink::{Attributes, Message, Refused, Socket, attributes, read_u32};

/// The priority of our routing rule: before those of the main table (32766), after those of local
/// addresses (0). A rule of this priority is ours.
pub const PRIORITY: u32 = 15008;
/// The number of our routing table.
pub const TABLE: u32 = 15008;

#[derive(Clone, Copy)]
enum Family {
    V4,
    V6,
}

/// Makes the rule and the route, and removes what an earlier version may have left.
pub(super) fn install() -> Result<(), Refused> {
    let socket = Socket::open(SockProtocol::NetlinkRoute)?;
    for family in families() {
        tolerate(&[Errno::EEXIST], socket.execute(&[add_route(family)]))?;
        tolerate(&[Errno::EEXIST], socket.execute(&[add_rule(family)]))?;
        for stale in stale_rules(&socket, family)? {
            tolerate(&[Errno::ENOENT], socket.execute(&[stale]))?;
        }
    }
    Ok(())
}

/// Brings `lo` up, without which there is no route through it.
pub(super) fn raise_loopback() -> Result<(), Refused> {
    Socket::open(SockProtocol::NetlinkRoute)?.execute(&[loopback_up()])
}

/// Removes the rule and the route, if they are there.
pub(super) fn remove() -> Result<(), Refused> {
    let socket = Socket::open(SockProtocol::NetlinkRoute)?;
    for family in families() {
        for rule in rules_of_ours(&socket, family)? {
            tolerate(&[Errno::ENOENT], socket.execute(&[delete_rule(family, rule)]))?;
        }
        tolerate(&[Errno::ESRCH, Errno::ENOENT], socket.execute(&[delete_route(family)]))?;
    }
    Ok(())
}

/// Whether a rule of ours is there.
pub(super) fn is_present() -> Result<bool, Refused> {
    let socket = Socket::open(SockProtocol::NetlinkRoute)?;
    for family in families() {
        if !rules_of_ours(&socket, family)?.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

// linux/rtnetlink.h, linux/fib_rules.h
const RTA_OIF: u16 = 4;
const RTA_TABLE: u16 = 15;
const FRA_PRIORITY: u16 = 6;
const FRA_FWMARK: u16 = 10;
const FRA_TABLE: u16 = 15;
const FRA_FWMASK: u16 = 16;
const FR_ACT_TO_TBL: u8 = 1;
/// Octets of struct fib_rule_hdr.
const RULE_HEADER: usize = 12;
/// linux/net.h LOOPBACK_IFINDEX
const LOOPBACK_INDEX: u32 = 1;

impl Family {
    fn number(self) -> u8 {
        let number = match self {
            Self::V4 => libc::AF_INET,
            Self::V6 => libc::AF_INET6,
        };
        u8::try_from(number).expect("address families are 8 bits")
    }

    fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }
}

/// IPv6 only where `lo` has it: elsewhere the route cannot exist, and no connection could use it.
fn families() -> Vec<Family> {
    match fs::read_to_string("/proc/sys/net/ipv6/conf/lo/disable_ipv6").as_deref() {
        Ok("0\n") => vec![Family::V4, Family::V6],
        Ok(_) | Err(_) => vec![Family::V4],
    }
}

/// struct ifinfomsg: family, padding, device type, index, flags, which flags to change.
fn loopback_up() -> Message {
    let up = u32::try_from(libc::IFF_UP).expect("interface flags are 32 bits").to_ne_bytes();
    let header = [[0; 4], LOOPBACK_INDEX.to_ne_bytes(), up, up].concat();
    Message::new("bring lo up", libc::RTM_NEWLINK, libc::NLM_F_ACK, &header)
}

/// What tells rules of one priority apart.
#[derive(Clone, Copy, PartialEq, Eq)]
struct RuleKey {
    mark: u32,
    mask: u32,
    table: u32,
}

const WANTED: RuleKey = RuleKey { mark: REROUTE_MARK, mask: u32::MAX, table: TABLE };

fn add_rule(family: Family) -> Message {
    let purpose = format!("add the {} routing rule: the agent needs CAP_NET_ADMIN", family.name());
    let flags = libc::NLM_F_CREATE | libc::NLM_F_EXCL;
    rule(purpose, libc::RTM_NEWRULE, flags, family, WANTED)
}

fn delete_rule(family: Family, key: RuleKey) -> Message {
    rule(format!("delete an {} routing rule", family.name()), libc::RTM_DELRULE, 0, family, key)
}

fn rule(purpose: String, kind: u16, flags: i32, family: Family, key: RuleKey) -> Message {
    let attributes = Attributes::new()
        .native(FRA_PRIORITY, PRIORITY)
        .native(FRA_FWMARK, key.mark)
        .native(FRA_FWMASK, key.mask)
        .native(FRA_TABLE, key.table);
    let header = [family.number(), 0, 0, 0, 0, 0, 0, FR_ACT_TO_TBL, 0, 0, 0, 0];
    Message::new(purpose, kind, flags | libc::NLM_F_ACK, &header).with(&attributes)
}

fn stale_rules(socket: &Socket, family: Family) -> Result<Vec<Message>, Refused> {
    let rules = rules_of_ours(socket, family)?;
    Ok(rules.into_iter().filter(|rule| *rule != WANTED).map(|rule| delete_rule(family, rule)).collect())
}

fn rules_of_ours(socket: &Socket, family: Family) -> Result<Vec<RuleKey>, Refused> {
    let mut header = [0; RULE_HEADER];
    header[0] = family.number();
    let purpose = format!("list {} routing rules", family.name());
    let request = Message::new(purpose, libc::RTM_GETRULE, libc::NLM_F_DUMP, &header);
    let mut rules = Vec::new();
    socket.dump(&request, |body| rules.extend(read_rule(body)))?;
    Ok(rules)
}

/// The rule in an entry of the list, if it has our priority.
fn read_rule(body: &[u8]) -> Option<RuleKey> {
    let bytes = body.get(RULE_HEADER..)?;
    let number = |kind| {
        let (_, value) = attributes(bytes).find(|attribute| attribute.0 == kind)?;
        read_u32(value, 0)
    };
    let key = RuleKey {
        mark: number(FRA_FWMARK).unwrap_or(0),
        mask: number(FRA_FWMASK).unwrap_or(0),
        table: number(FRA_TABLE).unwrap_or(0),
    };
    (number(FRA_PRIORITY) == Some(PRIORITY)).then_some(key)
}

fn add_route(family: Family) -> Message {
    let purpose = format!("add the {} route through lo: check that lo is up in the pod", family.name());
    route(purpose, libc::RTM_NEWROUTE, libc::NLM_F_CREATE | libc::NLM_F_EXCL, family)
}

fn delete_route(family: Family) -> Message {
    route(format!("delete the {} route through lo", family.name()), libc::RTM_DELROUTE, 0, family)
}

/// `local default dev lo table 15008`
fn route(purpose: String, kind: u16, flags: i32, family: Family) -> Message {
    let attributes = Attributes::new().native(RTA_TABLE, TABLE).native(RTA_OIF, LOOPBACK_INDEX);
    let header = [
        family.number(),
        0,
        0,
        0,
        libc::RT_TABLE_UNSPEC,
        libc::RTPROT_STATIC,
        libc::RT_SCOPE_HOST,
        libc::RTN_LOCAL,
        0,
        0,
        0,
        0,
    ];
    Message::new(purpose, kind, flags | libc::NLM_F_ACK, &header).with(&attributes)
}

fn tolerate(errnos: &[Errno], result: Result<(), Refused>) -> Result<(), Refused> {
    match result {
        Err(refused) if refused.is(errnos) => Ok(()),
        result => result,
    }
}
