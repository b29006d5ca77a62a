//! Single expressions of nftables rules as netlink attributes. All work on one register.
//!
//! Formats and numbers: `linux/netfilter/nf_tables.h`.

use crate::capture::netlink::{Attributes, attributes};

/// One step of a rule. A match that fails ends the rule; the next rule is tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Expression {
    /// Loads a property of the packet.
    LoadMeta(MetaKey),
    /// Sets a property of the packet to the loaded value.
    SetMeta(MetaKey),
    /// Loads a property of the packet's connection.
    LoadCt(CtKey),
    /// Sets a property of the packet's connection to the loaded value.
    SetCt(CtKey),
    /// Loads octets of the packet.
    LoadPayload {
        /// Counted from the start of which header.
        header: Header,
        /// From which octet.
        offset: u32,
        /// How many.
        length: u32,
    },
    /// Loads a property of the socket that the packet would reach, listening or connected. Goes on only
    /// if there is one.
    LoadSocket,
    /// Loads the kind of the destination address: local, unicast, ...
    LoadDestinationType,
    /// Loads this value.
    Value(Vec<u8>),
    /// Clears the bits of the loaded value that are not set here.
    Mask(Vec<u8>),
    /// Goes on only if the loaded value is this.
    Equals(Vec<u8>),
    /// Goes on only if the loaded value is not this.
    Differs(Vec<u8>),
    /// Translates the destination to this host and the loaded port.
    Redirect,
    /// Gives the packet to its transparent socket: an open connection's, or the listener's on the
    /// loaded port. Goes on only if there is one.
    Tproxy,
    /// Answers with a TCP reset.
    RejectWithReset,
    /// Ends the rule.
    Verdict(Verdict),
}

/// A property of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MetaKey {
    Mark,
    Iif,
    Oif,
    Family,
    L4Protocol,
}

/// A property of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CtKey {
    Direction,
    Mark,
}

/// A part of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Header {
    Network,
    Transport,
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Accept,
    Return,
    Jump(&'static str),
}

const REGISTER: u32 = libc::NFT_REG_1.cast_unsigned();
const VERDICT_REGISTER: u32 = libc::NFT_REG_VERDICT.cast_unsigned();

const NFTA_EXPR_NAME: u16 = 1;
const NFTA_EXPR_DATA: u16 = 2;
const NFTA_META_DREG: u16 = 1;
const NFTA_META_KEY: u16 = 2;
const NFTA_META_SREG: u16 = 3;
const NFTA_CT_DREG: u16 = 1;
const NFTA_CT_KEY: u16 = 2;
const NFTA_CT_SREG: u16 = 4;
const NFTA_PAYLOAD_DREG: u16 = 1;
const NFTA_PAYLOAD_BASE: u16 = 2;
const NFTA_PAYLOAD_OFFSET: u16 = 3;
const NFTA_PAYLOAD_LEN: u16 = 4;
const NFTA_SOCKET_KEY: u16 = 1;
const NFTA_SOCKET_DREG: u16 = 2;
/// Which property does not matter; this one is told of every socket, also of one in TIME-WAIT.
const NFT_SOCKET_TRANSPARENT: i32 = 0;
const NFTA_FIB_DREG: u16 = 1;
const NFTA_FIB_RESULT: u16 = 2;
const NFTA_FIB_FLAGS: u16 = 3;
const NFT_FIB_RESULT_ADDRTYPE: u32 = 3;
const NFTA_FIB_F_DADDR: u32 = 2;
const NFTA_BITWISE_SREG: u16 = 1;
const NFTA_BITWISE_DREG: u16 = 2;
const NFTA_BITWISE_LEN: u16 = 3;
const NFTA_BITWISE_MASK: u16 = 4;
const NFTA_BITWISE_XOR: u16 = 5;
const NFTA_CMP_SREG: u16 = 1;
const NFTA_CMP_OP: u16 = 2;
const NFTA_CMP_DATA: u16 = 3;
const NFTA_IMMEDIATE_DREG: u16 = 1;
const NFTA_IMMEDIATE_DATA: u16 = 2;
const NFTA_DATA_VALUE: u16 = 1;
const NFTA_DATA_VERDICT: u16 = 2;
const NFTA_VERDICT_CODE: u16 = 1;
const NFTA_VERDICT_CHAIN: u16 = 2;
const NFTA_REDIR_REG_PROTO_MIN: u16 = 1;
const NFTA_REDIR_FLAGS: u16 = 3;
/// linux/netfilter/nf_nat.h: a port is given.
const NF_NAT_RANGE_PROTO_SPECIFIED: u32 = 2;
const NFTA_TPROXY_FAMILY: u16 = 1;
const NFTA_TPROXY_REG_PORT: u16 = 3;
/// Both families, which the kernel allows as long as no address is given.
const NFPROTO_UNSPEC: u32 = 0;
const NFTA_REJECT_TYPE: u16 = 1;
const NFTA_REJECT_ICMP_CODE: u16 = 2;
/// linux/netfilter.h NF_ACCEPT
const NF_ACCEPT: i32 = 1;

impl Expression {
    /// The expression as one element of a rule's list.
    pub(super) fn encode(&self) -> Attributes {
        let (name, data) = match self {
            Self::LoadMeta(key) => ("meta", keyed(NFTA_META_KEY, key.number(), NFTA_META_DREG)),
            Self::SetMeta(key) => ("meta", keyed(NFTA_META_KEY, key.number(), NFTA_META_SREG)),
            Self::LoadCt(key) => ("ct", keyed(NFTA_CT_KEY, key.number(), NFTA_CT_DREG)),
            Self::SetCt(key) => ("ct", keyed(NFTA_CT_KEY, key.number(), NFTA_CT_SREG)),
            Self::LoadPayload { header, offset, length } => ("payload", payload(*header, *offset, *length)),
            Self::LoadSocket => ("socket", keyed(NFTA_SOCKET_KEY, NFT_SOCKET_TRANSPARENT, NFTA_SOCKET_DREG)),
            Self::LoadDestinationType => ("fib", destination_type()),
            Self::Value(value) => ("immediate", immediate(REGISTER, &data_value(value))),
            Self::Mask(mask) => ("bitwise", bitwise(mask)),
            Self::Equals(value) => ("cmp", compare(libc::NFT_CMP_EQ, value)),
            Self::Differs(value) => ("cmp", compare(libc::NFT_CMP_NEQ, value)),
            Self::Redirect => ("redir", redirect()),
            Self::Tproxy => ("tproxy", tproxy()),
            Self::RejectWithReset => ("reject", reset()),
            Self::Verdict(verdict) => ("immediate", immediate(VERDICT_REGISTER, &verdict.encode())),
        };
        Attributes::new().text(NFTA_EXPR_NAME, name).nested(NFTA_EXPR_DATA, &data)
    }
}

impl MetaKey {
    fn number(self) -> i32 {
        match self {
            Self::Mark => libc::NFT_META_MARK,
            Self::Iif => libc::NFT_META_IIF,
            Self::Oif => libc::NFT_META_OIF,
            Self::Family => libc::NFT_META_NFPROTO,
            Self::L4Protocol => libc::NFT_META_L4PROTO,
        }
    }
}

impl CtKey {
    fn number(self) -> i32 {
        match self {
            Self::Direction => libc::NFT_CT_DIRECTION,
            Self::Mark => libc::NFT_CT_MARK,
        }
    }
}

impl Header {
    fn number(self) -> i32 {
        match self {
            Self::Network => libc::NFT_PAYLOAD_NETWORK_HEADER,
            Self::Transport => libc::NFT_PAYLOAD_TRANSPORT_HEADER,
        }
    }
}

impl Verdict {
    fn encode(self) -> Attributes {
        let code = match self {
            Self::Accept => NF_ACCEPT,
            Self::Return => libc::NFT_RETURN,
            Self::Jump(_) => libc::NFT_JUMP,
        };
        let mut verdict = Attributes::new().big_endian(NFTA_VERDICT_CODE, code.cast_unsigned());
        if let Self::Jump(chain) = self {
            verdict = verdict.text(NFTA_VERDICT_CHAIN, chain);
        }
        Attributes::new().nested(NFTA_DATA_VERDICT, &verdict)
    }
}

fn keyed(key_attribute: u16, key: i32, register_attribute: u16) -> Attributes {
    Attributes::new().big_endian(key_attribute, key.cast_unsigned()).big_endian(register_attribute, REGISTER)
}

fn payload(header: Header, offset: u32, length: u32) -> Attributes {
    Attributes::new()
        .big_endian(NFTA_PAYLOAD_DREG, REGISTER)
        .big_endian(NFTA_PAYLOAD_BASE, header.number().cast_unsigned())
        .big_endian(NFTA_PAYLOAD_OFFSET, offset)
        .big_endian(NFTA_PAYLOAD_LEN, length)
}

fn destination_type() -> Attributes {
    Attributes::new()
        .big_endian(NFTA_FIB_DREG, REGISTER)
        .big_endian(NFTA_FIB_RESULT, NFT_FIB_RESULT_ADDRTYPE)
        .big_endian(NFTA_FIB_FLAGS, NFTA_FIB_F_DADDR)
}

fn data_value(value: &[u8]) -> Attributes {
    Attributes::new().bytes(NFTA_DATA_VALUE, value)
}

fn immediate(register: u32, data: &Attributes) -> Attributes {
    Attributes::new().big_endian(NFTA_IMMEDIATE_DREG, register).nested(NFTA_IMMEDIATE_DATA, data)
}

fn bitwise(mask: &[u8]) -> Attributes {
    let length = u32::try_from(mask.len()).expect("a register has 16 octets");
    Attributes::new()
        .big_endian(NFTA_BITWISE_SREG, REGISTER)
        .big_endian(NFTA_BITWISE_DREG, REGISTER)
        .big_endian(NFTA_BITWISE_LEN, length)
        .nested(NFTA_BITWISE_MASK, &data_value(mask))
        .nested(NFTA_BITWISE_XOR, &data_value(&vec![0; mask.len()]))
}

fn compare(operation: i32, value: &[u8]) -> Attributes {
    Attributes::new()
        .big_endian(NFTA_CMP_SREG, REGISTER)
        .big_endian(NFTA_CMP_OP, operation.cast_unsigned())
        .nested(NFTA_CMP_DATA, &data_value(value))
}

fn redirect() -> Attributes {
    Attributes::new()
        .big_endian(NFTA_REDIR_REG_PROTO_MIN, REGISTER)
        .big_endian(NFTA_REDIR_FLAGS, NF_NAT_RANGE_PROTO_SPECIFIED)
}

fn tproxy() -> Attributes {
    Attributes::new()
        .big_endian(NFTA_TPROXY_FAMILY, NFPROTO_UNSPEC)
        .big_endian(NFTA_TPROXY_REG_PORT, REGISTER)
}

fn reset() -> Attributes {
    Attributes::new()
        .big_endian(NFTA_REJECT_TYPE, libc::NFT_REJECT_TCP_RST.cast_unsigned())
        .bytes(NFTA_REJECT_ICMP_CODE, &[0])
}

/// The text of the attribute `kind`, without its final NUL.
pub(super) fn text_attribute(bytes: &[u8], kind: u16) -> Option<String> {
    let (_, value) = attributes(bytes).find(|attribute| attribute.0 == kind)?;
    Some(String::from_utf8_lossy(value.strip_suffix(b"\0")?).into_owned())
}
