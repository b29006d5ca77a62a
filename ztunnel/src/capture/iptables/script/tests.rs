use std::collections::BTreeSet;

use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::*;
use crate::capture::marks::Marks;
use crate::capture::rules::Exclusions;

fn rules() -> RuleSet {
    let exclusions = Exclusions {
        inbound_ports: BTreeSet::from([9090]),
        inbound_sources: BTreeSet::from(["192.0.2.9/24".parse().unwrap()]),
        outbound_ports: BTreeSet::from([25]),
        outbound_destinations: BTreeSet::from(["2001:db8::/32".parse().unwrap()]),
    };
    RuleSet {
        marks: Marks::random(&mut SmallRng::seed_from_u64(7)),
        exclusions,
        probe_ports: BTreeSet::new(),
        ipv6: true,
    }
}

fn hidden(script: &str) -> String {
    script.replace(&format!("{:#010x}", rules().marks.socket()), "SECRET")
}

const INSTALLED_V4: &str = "\
*mangle
:AMBIT_OUTPUT - [0:0]
:AMBIT_POSTROUTING - [0:0]
-A AMBIT_OUTPUT -o lo -m mark --mark SECRET -j CONNMARK --set-xmark 0x616d6269/0xffffffff
-A AMBIT_OUTPUT -m conntrack --ctdir REPLY -m connmark --mark 0x616d6269 -j MARK --set-xmark 0x616d6269/0xffffffff
-A AMBIT_POSTROUTING -m mark --mark SECRET -j MARK --set-xmark 0x0/0xffffffff
-I OUTPUT 1 -j AMBIT_OUTPUT
-I POSTROUTING 1 -j AMBIT_POSTROUTING
COMMIT
*nat
:AMBIT_INBOUND - [0:0]
:AMBIT_OUTBOUND - [0:0]
-A AMBIT_INBOUND -i lo -j RETURN
-A AMBIT_INBOUND -m addrtype ! --dst-type LOCAL -j RETURN
-A AMBIT_INBOUND -p tcp --dport 9090 -j RETURN
-A AMBIT_INBOUND -s 192.0.2.0/24 -j RETURN
-A AMBIT_INBOUND -p tcp --dport 15008 -j RETURN
-A AMBIT_INBOUND -p tcp --syn -j REDIRECT --to-ports 15006
-A AMBIT_OUTBOUND -m mark --mark SECRET -j RETURN
-A AMBIT_OUTBOUND -o lo -j RETURN
-A AMBIT_OUTBOUND -p tcp --dport 25 -j RETURN
-A AMBIT_OUTBOUND -p tcp --syn -j REDIRECT --to-ports 15001
-I PREROUTING 1 -j AMBIT_INBOUND
-I OUTPUT 1 -j AMBIT_OUTBOUND
COMMIT
";

#[test]
fn a_fresh_pod_gets_chains_rules_and_calls() {
    assert_eq!(hidden(&installation(&rules(), Family::V4, "")), INSTALLED_V4);
}

#[test]
fn ranges_go_to_the_program_of_their_family() {
    let script = installation(&rules(), Family::V6, "");
    assert!(script.contains("-A AMBIT_OUTBOUND -d 2001:db8::/32 -j RETURN\n"));
    assert!(!script.contains("192.0.2.0"));
}

/// As `iptables-save` writes a pod in which everything is installed.
const SAVED: &str = "\
# Generated
*nat
:PREROUTING ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:AMBIT_INBOUND - [0:0]
:AMBIT_OUTBOUND - [0:0]
-A PREROUTING -j AMBIT_INBOUND
-A OUTPUT -j AMBIT_OUTBOUND
-A AMBIT_OUTBOUND -o lo -j RETURN
COMMIT
*mangle
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:AMBIT_OUTPUT - [0:0]
:AMBIT_POSTROUTING - [0:0]
-A OUTPUT -j AMBIT_OUTPUT
-A POSTROUTING -j AMBIT_POSTROUTING
COMMIT
";

#[test]
fn repeating_adds_no_second_call() {
    let script = installation(&rules(), Family::V4, SAVED);
    assert!(!script.contains("-I "), "{script}");
    let without_one = SAVED.replace("-A OUTPUT -j AMBIT_OUTBOUND\n", "");
    let script = installation(&rules(), Family::V4, &without_one);
    assert_eq!(script.matches("-I ").count(), 1, "{script}");
    assert!(script.contains("-I OUTPUT 1 -j AMBIT_OUTBOUND\n"));
}

#[test]
fn stopping_empties_the_capturing_chains_alone() {
    assert_eq!(stop(SAVED).unwrap(), "*nat\n:AMBIT_INBOUND - [0:0]\n:AMBIT_OUTBOUND - [0:0]\nCOMMIT\n");
    assert_eq!(stop(""), None);
}

#[test]
fn removal_takes_calls_before_chains_and_only_what_is_there() {
    assert_eq!(
        removal(SAVED).unwrap(),
        "\
*mangle
:AMBIT_OUTPUT - [0:0]
:AMBIT_POSTROUTING - [0:0]
-D OUTPUT -j AMBIT_OUTPUT
-D POSTROUTING -j AMBIT_POSTROUTING
-X AMBIT_OUTPUT
-X AMBIT_POSTROUTING
COMMIT
*nat
:AMBIT_INBOUND - [0:0]
:AMBIT_OUTBOUND - [0:0]
-D PREROUTING -j AMBIT_INBOUND
-D OUTPUT -j AMBIT_OUTBOUND
-X AMBIT_INBOUND
-X AMBIT_OUTBOUND
COMMIT
"
    );
    let partial = "*nat\n:AMBIT_INBOUND - [0:0]\nCOMMIT\n";
    assert_eq!(removal(partial).unwrap(), "*nat\n:AMBIT_INBOUND - [0:0]\n-X AMBIT_INBOUND\nCOMMIT\n");
    assert_eq!(removal("*nat\n:OUTPUT ACCEPT [0:0]\nCOMMIT\n"), None);
}
