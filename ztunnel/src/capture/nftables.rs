//! The first backend: one nftables table of our own, written in one transaction that either
//! happens or does not, and that leaves the same table however often it is repeated.
//!
//! What the rules are is in `ruleset`; all functions act on the network namespace the thread is
//! in.

mod expression;
mod ruleset;

use std::collections::BTreeSet;

use nix::errno::Errno;
use nix::sys::socket::SockProtocol;

use super::netlink::{Attributes, Message, Refused, Socket};
use super::rules::RuleSet;
use expression::Expression;
use ruleset::{Chain, Rule};

/// The table's name, in family `inet`: both address families in one.
pub const TABLE: &str = "ambit";

/// Makes the table what `rules` says.
pub(super) fn install(rules: &RuleSet) -> Result<(), Refused> {
    execute(installation(rules))
}

/// Empties the chains that take new connections. The chains and the rest of the table stay:
/// without them the kernel would stop translating the connections that are open.
pub(super) fn stop_capturing() -> Result<(), Refused> {
    match execute(Chain::CAPTURING.into_iter().map(flush).collect()) {
        Err(refused) if refused.is(&[Errno::ENOENT]) => Ok(()),
        result => result,
    }
}

/// Removes the table, if it is there.
pub(super) fn remove() -> Result<(), Refused> {
    // Adding it first makes its removal succeed whether it was there or not.
    match execute(vec![add_table(), remove_table()]) {
        // A kernel without nf_tables has none of it: nfnetlink answers EINVAL, or EOPNOTSUPP.
        Err(refused) if refused.is(&[Errno::EINVAL, Errno::EOPNOTSUPP, Errno::EPROTONOSUPPORT]) => Ok(()),
        result => result,
    }
}

/// Every chain of the namespace as (table, chain), whoever made it.
pub(super) fn chains() -> Result<Vec<(String, String)>, Refused> {
    let request =
        message("list chains", libc::NFT_MSG_GETCHAIN, libc::NLM_F_DUMP, libc::AF_UNSPEC, &Attributes::new());
    let mut chains = Vec::new();
    let listed = Socket::open(SockProtocol::NetlinkNetFilter)?.dump(&request, |body| {
        let name = |kind| expression::text_attribute(body.get(GENERIC_HEADER..).unwrap_or_default(), kind);
        chains.extend(name(NFTA_CHAIN_TABLE).zip(name(NFTA_CHAIN_NAME)));
    });
    match listed {
        Err(refused) if refused.is(&[Errno::EINVAL, Errno::EOPNOTSUPP]) => Ok(Vec::new()),
        result => result.map(|()| chains),
    }
}

/// Whether every chain of our table has rules: somebody else may have removed them.
pub(super) fn is_in_place() -> Result<bool, Refused> {
    let ours = Attributes::new().text(NFTA_RULE_TABLE, TABLE);
    let request = message("list rules", libc::NFT_MSG_GETRULE, libc::NLM_F_DUMP, FAMILY_INET, &ours);
    let mut chains = BTreeSet::new();
    let listed = Socket::open(SockProtocol::NetlinkNetFilter)?.dump(&request, |body| {
        let name = |kind| expression::text_attribute(body.get(GENERIC_HEADER..).unwrap_or_default(), kind);
        chains.extend(name(NFTA_RULE_CHAIN).filter(|_| name(NFTA_RULE_TABLE).as_deref() == Some(TABLE)));
    });
    match listed {
        Err(refused) if refused.is(&[Errno::ENOENT, Errno::EINVAL, Errno::EOPNOTSUPP]) => Ok(false),
        result => result.map(|()| Chain::ALL.iter().all(|chain| chains.contains(chain.name()))),
    }
}

// linux/netfilter/nf_tables.h
const NFTA_TABLE_NAME: u16 = 1;
const NFTA_CHAIN_TABLE: u16 = 1;
const NFTA_CHAIN_NAME: u16 = 3;
const NFTA_CHAIN_HOOK: u16 = 4;
const NFTA_CHAIN_TYPE: u16 = 7;
const NFTA_HOOK_HOOKNUM: u16 = 1;
const NFTA_HOOK_PRIORITY: u16 = 2;
const NFTA_RULE_TABLE: u16 = 1;
const NFTA_RULE_CHAIN: u16 = 2;
const NFTA_RULE_EXPRESSIONS: u16 = 4;
const NFTA_LIST_ELEM: u16 = 1;
/// linux/netfilter.h NFPROTO_INET
const FAMILY_INET: i32 = 1;
/// Octets of struct nfgenmsg: family, version, resource.
const GENERIC_HEADER: usize = 4;

fn installation(rules: &RuleSet) -> Vec<Message> {
    let mut messages = vec![add_table()];
    messages.extend(Chain::ALL.map(add_chain));
    messages.extend(Chain::ALL.map(flush));
    messages.extend(ruleset::rules(rules).iter().map(add_rule));
    messages
}

fn execute(changes: Vec<Message>) -> Result<(), Refused> {
    Socket::open(SockProtocol::NetlinkNetFilter)?.execute(&transaction(changes))
}

/// Wraps the changes so that all happen at once or none does; the last one is acknowledged, which
/// tells that the kernel came to the end.
fn transaction(mut changes: Vec<Message>) -> Vec<Message> {
    if let Some(last) = changes.last_mut() {
        last.flags |= u16::try_from(libc::NLM_F_ACK).expect("netlink flags are 16 bits");
    }
    let resource = u16::try_from(libc::NFNL_SUBSYS_NFTABLES).expect("subsystems are 8 bits").to_be_bytes();
    let fence = |purpose, kind| {
        let kind = u16::try_from(kind).expect("message types are 16 bits");
        Message::new(purpose, kind, 0, &[0, 0, resource[0], resource[1]])
    };
    let mut batch =
        vec![fence("begin a transaction: the agent needs CAP_NET_ADMIN", libc::NFNL_MSG_BATCH_BEGIN)];
    batch.append(&mut changes);
    batch.push(fence("commit the transaction", libc::NFNL_MSG_BATCH_END));
    batch
}

fn add_table() -> Message {
    let attributes = Attributes::new().text(NFTA_TABLE_NAME, TABLE);
    change(format!("add table inet {TABLE}"), libc::NFT_MSG_NEWTABLE, libc::NLM_F_CREATE, &attributes)
}

fn remove_table() -> Message {
    let attributes = Attributes::new().text(NFTA_TABLE_NAME, TABLE);
    change(format!("delete table inet {TABLE}"), libc::NFT_MSG_DELTABLE, 0, &attributes)
}

fn add_chain(chain: Chain) -> Message {
    let mut attributes = Attributes::new().text(NFTA_CHAIN_TABLE, TABLE).text(NFTA_CHAIN_NAME, chain.name());
    if let Some(hook) = chain.hook() {
        let place = Attributes::new()
            .big_endian(NFTA_HOOK_HOOKNUM, hook.number)
            .big_endian(NFTA_HOOK_PRIORITY, hook.priority.cast_unsigned());
        attributes = attributes.nested(NFTA_CHAIN_HOOK, &place).text(NFTA_CHAIN_TYPE, hook.kind);
    }
    let purpose = format!("add chain {}", chain.name());
    change(purpose, libc::NFT_MSG_NEWCHAIN, libc::NLM_F_CREATE, &attributes)
}

fn flush(chain: Chain) -> Message {
    let attributes = Attributes::new().text(NFTA_RULE_TABLE, TABLE).text(NFTA_RULE_CHAIN, chain.name());
    change(format!("flush chain {}", chain.name()), libc::NFT_MSG_DELRULE, 0, &attributes)
}

fn add_rule(rule: &Rule) -> Message {
    let list = rule
        .expressions
        .iter()
        .map(Expression::encode)
        .fold(Attributes::new(), |list, expression| list.nested(NFTA_LIST_ELEM, &expression));
    let attributes = Attributes::new()
        .text(NFTA_RULE_TABLE, TABLE)
        .text(NFTA_RULE_CHAIN, rule.chain.name())
        .nested(NFTA_RULE_EXPRESSIONS, &list);
    let purpose = format!("add rule \"{}\" to chain {}", rule.meaning, rule.chain.name());
    change(purpose, libc::NFT_MSG_NEWRULE, libc::NLM_F_CREATE | libc::NLM_F_APPEND, &attributes)
}

fn change(purpose: String, kind: i32, flags: i32, attributes: &Attributes) -> Message {
    message(purpose, kind, flags, FAMILY_INET, attributes)
}

fn message(
    purpose: impl Into<String>,
    kind: i32,
    flags: i32,
    family: i32,
    attributes: &Attributes,
) -> Message {
    let kind = u16::try_from(libc::NFNL_SUBSYS_NFTABLES << 8 | kind).expect("message types are 16 bits");
    let family = u8::try_from(family).expect("families are 8 bits");
    Message::new(purpose, kind, flags, &[family, 0, 0, 0]).with(attributes)
}

#[cfg(test)]
mod tests;
