//! The rules of a pod as text for `iptables-restore`. What they are for is in
//! [`rules`](crate::capture::rules).
//!
//! Inbound differs from nftables: xt_TPROXY drops the packets of a connection that is not its own,
//! and a SYN for which there is no listener, so connections would be neither kept nor refused.
//! REDIRECT does both; the client's address stays, and the destination is asked of conntrack.

use std::fmt::Write;

use ipnet::IpNet;

use super::{CHAIN_PREFIX, Family};
use crate::capture::marks::REROUTE_MARK;
use crate::capture::rules::{CapturePort, RuleSet};

/// A chain of ours and the one that calls it.
struct Chain {
    table: &'static str,
    name: &'static str,
    caller: &'static str,
}

const OUTPUT: Chain = Chain { table: "mangle", name: "AMBIT_OUTPUT", caller: "OUTPUT" };
const POSTROUTING: Chain = Chain { table: "mangle", name: "AMBIT_POSTROUTING", caller: "POSTROUTING" };
const INBOUND: Chain = Chain { table: "nat", name: "AMBIT_INBOUND", caller: "PREROUTING" };
const OUTBOUND: Chain = Chain { table: "nat", name: "AMBIT_OUTBOUND", caller: "OUTPUT" };

/// Every chain; those of one table follow each other.
const CHAINS: [Chain; 4] = [OUTPUT, POSTROUTING, INBOUND, OUTBOUND];
/// Those that take new connections, all in one table.
const CAPTURING: [Chain; 2] = [INBOUND, OUTBOUND];

/// What makes the chains what `rules` says; `saved` is what `iptables-save` wrote.
pub(super) fn installation(rules: &RuleSet, family: Family, saved: &str) -> String {
    let mangle = [own_packets(rules), calls("mangle", saved)].concat();
    let nat = [inbound(rules, family), outbound(rules, family), calls("nat", saved)].concat();
    [table("mangle", &mangle), table("nat", &nat)].concat()
}

/// What empties the capturing chains, if there are any in `saved`.
pub(super) fn stop(saved: &str) -> Option<String> {
    let present = CAPTURING.iter().filter(|chain| is_present(chain, saved));
    // Naming a chain empties it.
    let lines: Vec<_> = present.map(|chain| declaration(chain.name)).collect();
    (!lines.is_empty()).then(|| section("nat", &lines))
}

/// What removes all our chains, if there are any in `saved`.
pub(super) fn removal(saved: &str) -> Option<String> {
    let mut script = String::new();
    for table in ["mangle", "nat"] {
        let present: Vec<_> =
            CHAINS.iter().filter(|chain| chain.table == table && is_present(chain, saved)).collect();
        let mut lines: Vec<_> = present.iter().map(|chain| declaration(chain.name)).collect();
        lines.extend(
            present
                .iter()
                .filter(|chain| is_called(chain, saved))
                .map(|chain| format!("-D {} -j {}", chain.caller, chain.name)),
        );
        lines.extend(present.iter().map(|chain| format!("-X {}", chain.name)));
        if !lines.is_empty() {
            script.push_str(&section(table, &lines));
        }
    }
    (!script.is_empty()).then_some(script)
}

fn own_packets(rules: &RuleSet) -> Vec<String> {
    let mark = format!("{:#010x}", rules.marks.socket());
    let reroute = format!("{REROUTE_MARK:#010x}");
    vec![
        append(&OUTPUT, &format!("-o lo -m mark --mark {mark} -j CONNMARK --set-xmark {reroute}/0xffffffff")),
        append(
            &OUTPUT,
            &format!(
                "-m conntrack --ctdir REPLY -m connmark --mark {reroute} -j MARK --set-xmark {reroute}/0xffffffff"
            ),
        ),
        append(&POSTROUTING, &format!("-m mark --mark {mark} -j MARK --set-xmark 0x0/0xffffffff")),
    ]
}

fn inbound(rules: &RuleSet, family: Family) -> Vec<String> {
    let hbone = CapturePort::InboundHbone.number();
    let mut lines = vec![
        append(&INBOUND, "-i lo -j RETURN"),
        append(&INBOUND, "-m addrtype ! --dst-type LOCAL -j RETURN"),
    ];
    for port in &rules.exclusions.inbound_ports {
        lines.push(append(&INBOUND, &format!("-p tcp --dport {port} -j RETURN")));
    }
    for source in of(family, &rules.exclusions.inbound_sources) {
        lines.push(append(&INBOUND, &format!("-s {source} -j RETURN")));
    }
    lines.push(append(&INBOUND, &format!("-p tcp --dport {hbone} -j RETURN")));
    lines.push(append(&INBOUND, &redirect(CapturePort::InboundPlaintext)));
    lines
}

fn outbound(rules: &RuleSet, family: Family) -> Vec<String> {
    let own = format!("-m mark --mark {:#010x} -j RETURN", rules.marks.socket());
    let mut lines = vec![append(&OUTBOUND, &own), append(&OUTBOUND, "-o lo -j RETURN")];
    for port in &rules.exclusions.outbound_ports {
        lines.push(append(&OUTBOUND, &format!("-p tcp --dport {port} -j RETURN")));
    }
    for destination in of(family, &rules.exclusions.outbound_destinations) {
        lines.push(append(&OUTBOUND, &format!("-d {destination} -j RETURN")));
    }
    lines.push(append(&OUTBOUND, &redirect(CapturePort::Outbound)));
    lines
}

/// `--syn`: only the first packet of a connection.
fn redirect(port: CapturePort) -> String {
    format!("-p tcp --syn -j REDIRECT --to-ports {}", port.number())
}

fn of(family: Family, ranges: &std::collections::BTreeSet<IpNet>) -> impl Iterator<Item = IpNet> {
    ranges.iter().map(IpNet::trunc).filter(move |range| match (range, family) {
        (IpNet::V4(_), Family::V4) | (IpNet::V6(_), Family::V6) => true,
        (IpNet::V4(_), Family::V6) | (IpNet::V6(_), Family::V4) => false,
    })
}

/// The calls of our chains that `saved` lacks, each before all other rules.
fn calls(table: &str, saved: &str) -> Vec<String> {
    let missing = CHAINS.iter().filter(|chain| chain.table == table && !is_called(chain, saved));
    missing.map(|chain| format!("-I {} 1 -j {}", chain.caller, chain.name)).collect()
}

/// A table with all our chains, emptied, then `lines`.
fn table(name: &str, lines: &[String]) -> String {
    let chains = CHAINS.iter().filter(|chain| chain.table == name).map(|chain| declaration(chain.name));
    section(name, &chains.chain(lines.iter().cloned()).collect::<Vec<_>>())
}

fn section(table: &str, lines: &[String]) -> String {
    let mut text = String::new();
    writeln!(text, "*{table}\n{}\nCOMMIT", lines.join("\n")).expect("writing to a string cannot fail");
    text
}

fn declaration(chain: &str) -> String {
    debug_assert!(chain.starts_with(CHAIN_PREFIX));
    format!(":{chain} - [0:0]")
}

fn append(chain: &Chain, rule: &str) -> String {
    format!("-A {} {rule}", chain.name)
}

fn is_present(chain: &Chain, saved: &str) -> bool {
    let declared = format!(":{} ", chain.name);
    of_table(chain.table, saved).any(|line| line.starts_with(&declared))
}

fn is_called(chain: &Chain, saved: &str) -> bool {
    let call = format!("-A {} -j {}", chain.caller, chain.name);
    of_table(chain.table, saved).any(|line| line == call)
}

/// The lines of one table of what `iptables-save` wrote.
fn of_table<'a>(table: &'a str, saved: &'a str) -> impl Iterator<Item = &'a str> {
    let begins = move |line: &&str| line.strip_prefix('*') != Some(table);
    saved.lines().skip_while(begins).take_while(|line| *line != "COMMIT")
}

#[cfg(test)]
mod tests;
