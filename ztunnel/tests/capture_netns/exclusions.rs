//! What the pod's owner leaves out of capture.

use std::collections::BTreeSet;

use ztunnel::capture::rules::Exclusions;
use ztunnel::capture::{EnrollError, enroll};

use crate::network::*;

fn exclusions(inbound: &[&str], outbound: &[&str]) -> Exclusions {
    let ranges = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
    Exclusions {
        inbound_ports: BTreeSet::from([81]),
        outbound_ports: BTreeSet::from([82]),
        inbound_sources: ranges(inbound),
        outbound_destinations: ranges(outbound),
    }
}

#[test]
fn excluded_ports_are_reached_directly() {
    for backend in BACKENDS {
        let network = Network::new();
        let application = serve(&network.pod, 81);
        let server = serve(&network.outside, 82);
        let _agent = Agent::start(&network);
        network.enroll_excluding(backend, exclusions(&[], &[]));
        for family in FAMILIES {
            let mut client = connect(&network.outside, network.pod_address(family, 81)).unwrap();
            exchange(&mut client, &mut accept(&application).0);
            let mut client = connect(&network.pod, network.outside_address(family, 82)).unwrap();
            exchange(&mut client, &mut accept(&server).0);
        }
    }
}

#[test]
fn excluded_ranges_are_reached_directly_and_others_are_not() {
    for backend in BACKENDS {
        for (range, excluded, captured) in
            [("10.9.0.2/31", Family::V4, Family::V6), ("fd09::3/120", Family::V6, Family::V4)]
        {
            let network = Network::new();
            let application = serve(&network.pod, 80);
            let server = serve(&network.outside, 80);
            let agent = Agent::start(&network);
            network.enroll_excluding(backend, exclusions(&[range], &[range]));

            let _inward = connect(&network.outside, network.pod_address(excluded, 80)).unwrap();
            accept(&application);
            let _outward = connect(&network.pod, network.outside_address(excluded, 80)).unwrap();
            accept(&server);

            let _inward = connect(&network.outside, network.pod_address(captured, 80)).unwrap();
            accept(&agent.plaintext);
            let _outward = connect(&network.pod, network.outside_address(captured, 80)).unwrap();
            accept(&agent.outbound);
        }
    }
}

#[test]
fn as_many_exclusions_as_allowed_can_be_installed_and_no_more() {
    let most = u16::try_from(Exclusions::MAXIMUM).unwrap();
    for backend in BACKENDS {
        let network = Network::new();
        let outbound_destinations =
            (0..most).map(|index| format!("2001:db8:{index:x}::/48").parse().unwrap()).collect();
        let mut exclusions = Exclusions { outbound_destinations, ..Exclusions::default() };
        network.enroll_excluding(backend, exclusions.clone());
        exclusions.inbound_ports.insert(80);
        let refused =
            enroll(&network.pod, &ztunnel::capture::rules::RuleSet { exclusions, ..rules() }, backend);
        assert!(matches!(refused, Err(EnrollError::Exclusions { count: 257 })), "{refused:?}");
    }
}
