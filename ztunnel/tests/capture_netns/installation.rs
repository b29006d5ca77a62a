//! What is installed in a pod, and what is left when it is removed.

use std::collections::BTreeSet;

use ztunnel::capture::rules::Exclusions;
use ztunnel::capture::{Backend, EnrollError, enroll, remove, stop_capturing};

use crate::network::*;

/// Policy routing in both families.
fn routing(network: &Network) -> [String; 2] {
    ["-4", "-6"].map(|family| {
        let rules = network.in_pod(&format!("ip {family} rule"));
        let routes = network.in_pod(&format!("ip {family} route show table all"));
        let ours =
            |text: &str| text.lines().filter(|line| line.contains("15008")).collect::<Vec<_>>().join("\n");
        format!("{}\n{}", ours(&rules), ours(&routes)).replace("  ", " ").replace('\t', " ")
    })
}

#[test]
fn the_nftables_table_reads_as_designed() {
    let network = Network::new();
    let exclusions = Exclusions {
        inbound_ports: BTreeSet::from([9090]),
        inbound_sources: BTreeSet::from(["192.0.2.0/24".parse().unwrap()]),
        outbound_ports: BTreeSet::from([25, 587]),
        outbound_destinations: BTreeSet::from([
            "198.51.100.7/32".parse().unwrap(),
            "2001:db8::/32".parse().unwrap(),
        ]),
    };
    network.enroll_excluding(Backend::Nftables, exclusions);
    let secret = format!("{:#010x}", marks().socket());
    let listing = network.in_pod("nft -s -y list ruleset").replace(&secret, "SECRET");
    // Versions of nft differ in how they write flags.
    let listing =
        listing.replace("tcp flags & (fin | syn | rst | ack) == syn", "tcp flags syn / fin,syn,rst,ack");
    assert_eq!(listing, include_str!("table.nft"));
}

#[test]
fn the_routing_policy_covers_both_families() {
    for backend in BACKENDS {
        let network = Network::new();
        network.enroll(backend);
        let [v4, v6] = routing(&network);
        assert_eq!(
            v4,
            "15008: from all fwmark 0x616d6269 lookup 15008\nlocal default dev lo table 15008 proto static scope host "
        );
        assert_eq!(
            v6,
            "15008: from all fwmark 0x616d6269 lookup 15008\nlocal default dev lo table 15008 proto static metric 1024 pref medium"
        );
    }
}

#[test]
fn enrolling_twice_changes_nothing() {
    for backend in BACKENDS {
        let network = Network::new();
        let state = || {
            network.enroll(backend);
            (network.rules(), routing(&network))
        };
        assert_eq!(state(), state(), "{backend}");
    }
}

#[test]
fn a_routing_rule_of_an_earlier_version_is_replaced() {
    let network = Network::new();
    for family in ["-4", "-6"] {
        network.in_pod(&format!("ip {family} rule add fwmark 0x7 lookup 7 pref 15008"));
    }
    network.enroll(Backend::Nftables);
    for rules in routing(&network) {
        assert!(rules.starts_with("15008: from all fwmark 0x616d6269 lookup 15008\n"), "{rules}");
        assert!(!rules.contains("0x7 "), "{rules}");
    }
}

#[test]
fn nothing_is_left_when_a_pod_has_left() {
    for backend in BACKENDS {
        let network = Network::new();
        let before = (routing(&network), conntrack(&network));
        network.enroll(backend).conntrack.unwrap();
        assert_ne!((routing(&network), conntrack(&network)), before);
        stop_capturing(&network.pod).unwrap();
        remove(&network.pod).unwrap();
        assert_eq!((routing(&network), conntrack(&network)), before, "{backend}");
        // iptables keeps its own tables with empty chains.
        let rules = network.rules();
        assert!(!rules.contains("AMBIT_") && !rules.contains("ambit"), "{backend}: {rules}");
        if backend == Backend::Nftables {
            assert_eq!(rules, "");
        }
        remove(&network.pod).unwrap();
        stop_capturing(&network.pod).unwrap();
    }
}

/// Read after a connection was tracked: the settings do not exist before.
fn conntrack(network: &Network) -> String {
    ["tcp_be_liberal", "tcp_timeout_close_wait", "tcp_timeout_fin_wait"]
        .map(|name| network.in_pod(&format!("cat /proc/sys/net/netfilter/nf_conntrack_{name}")))
        .concat()
}

#[test]
fn conntrack_settings_of_the_pods_owner_are_kept() {
    let network = Network::new();
    let setting = "/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_close_wait";
    network.pod.run(|| std::fs::write(setting, "77")).unwrap().unwrap();
    network.enroll(Backend::Nftables).conntrack.unwrap();
    assert_eq!(conntrack(&network), "1\n77\n432000\n");
    remove(&network.pod).unwrap();
    assert_eq!(conntrack(&network), "0\n77\n120\n");
}

#[test]
fn a_change_of_backend_leaves_no_rules_of_the_other() {
    let network = Network::new();
    network.enroll(Backend::Iptables);
    network.enroll(Backend::Nftables);
    let rules = network.rules();
    assert!(!rules.contains("AMBIT_") && rules.contains("table inet ambit"), "{rules}");
    network.enroll(Backend::Iptables);
    let rules = network.rules();
    assert!(rules.contains("AMBIT_") && !rules.contains("table inet ambit"), "{rules}");
}

#[test]
fn a_pod_of_another_mesh_is_left_alone() {
    for command in [
        "iptables -t nat -N ISTIO_OUTPUT",
        "iptables-legacy -t nat -N ISTIO_OUTPUT",
        "ip6tables-legacy -t mangle -N ISTIO_PRERT",
        "nft add table inet istio-ambient-nat; add chain inet istio-ambient-nat prerouting",
        "iptables -t nat -N PROXY_INIT_REDIRECT",
    ] {
        for backend in BACKENDS {
            let network = Network::new();
            network.in_pod(command);
            let before = network.rules();
            let refused = enroll(&network.pod, &rules(), backend);
            assert!(matches!(refused, Err(EnrollError::Foreign { .. })), "{command}: {refused:?}");
            assert_eq!(network.rules(), before);
        }
    }
}

#[test]
fn a_pod_without_ipv6_is_captured_for_ipv4() {
    for backend in BACKENDS {
        let network = Network::new();
        network.in_pod("sysctl -q net.ipv6.conf.all.disable_ipv6=1");
        let agent = Agent::start(&network);
        network.enroll(backend);
        assert_eq!(routing(&network)[1], "\n");
        let _client = connect(&network.pod, network.outside_address(Family::V4, 80)).unwrap();
        accept(&agent.outbound);
        remove(&network.pod).unwrap();
    }
}

#[test]
fn without_lo_the_error_says_so() {
    let network = Network::new();
    network.in_pod("ip link set lo down");
    let refused = enroll(&network.pod, &rules(), Backend::Nftables).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "the kernel refused to add the IPv6 route through lo: check that lo is up in the pod"
    );
}

#[test]
fn the_backend_is_found_by_trying() {
    assert_eq!(Backend::detect().unwrap(), Backend::Nftables);
}
