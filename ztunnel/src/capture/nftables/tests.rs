use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;

use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::*;
use crate::capture::marks::Marks;
use crate::capture::rules::Exclusions;

fn rules() -> RuleSet {
    let exclusions = Exclusions {
        inbound_ports: BTreeSet::from([9090]),
        inbound_sources: BTreeSet::from(["192.0.2.0/24".parse().unwrap()]),
        outbound_ports: BTreeSet::from([25]),
        outbound_destinations: BTreeSet::from(["2001:db8::/32".parse().unwrap()]),
    };
    RuleSet {
        marks: Marks::random(&mut SmallRng::seed_from_u64(7)),
        exclusions,
        probe_ports: [8080].into(),
        ipv6: true,
    }
}

/// What the bytes mean to the kernel is compared in the tests of real namespaces.
#[test]
fn the_transaction_is_written_as_before() {
    let mut text = String::new();
    for message in transaction(installation(&rules())) {
        let body: Vec<_> = message.body.iter().map(|byte| format!("{byte:02x}")).collect();
        writeln!(text, "{}\n  type {:#06x} flags {:#06x}", message.purpose, message.kind, message.flags)
            .unwrap();
        for line in body.chunks(32) {
            writeln!(text, "  {}", line.concat()).unwrap();
        }
    }
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/capture/nftables/transaction.golden");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&golden, &text).unwrap();
    }
    assert_eq!(text, std::fs::read_to_string(golden).unwrap(), "run with UPDATE=1 and review the difference");
}

#[test]
fn only_the_last_change_is_acknowledged_and_the_fences_stand_outside() {
    let acknowledged = u16::try_from(libc::NLM_F_ACK).unwrap();
    let batch = transaction(installation(&rules()));
    let flagged: Vec<_> =
        batch.iter().enumerate().filter(|(_, message)| message.flags & acknowledged != 0).collect();
    assert_eq!(flagged.len(), 1);
    assert_eq!(flagged[0].0, batch.len() - 2);
    assert_eq!(i32::from(batch[0].kind), libc::NFNL_MSG_BATCH_BEGIN);
    assert_eq!(i32::from(batch[batch.len() - 1].kind), libc::NFNL_MSG_BATCH_END);
}

/// Rules are added only to chains that were emptied before, or repeating would double them.
#[test]
fn every_chain_is_emptied_before_it_is_filled() {
    let purposes: Vec<_> = installation(&rules()).into_iter().map(|message| message.purpose).collect();
    let first_rule = purposes.iter().position(|purpose| purpose.starts_with("add rule")).unwrap();
    for chain in Chain::ALL {
        let flush = format!("flush chain {}", chain.name());
        assert!(purposes.iter().position(|purpose| *purpose == flush).unwrap() < first_rule);
    }
}
