//! Connections across enrolling, restarting and leaving.

use std::net::TcpStream;

use rand::SeedableRng;
use rand::rngs::SmallRng;
use ztunnel::capture::marks::MarkStore;
use ztunnel::capture::rules::RuleSet;
use ztunnel::capture::{enroll, remove, socket, stop_capturing};

use crate::network::*;

type Pair = (TcpStream, TcpStream);

/// Connections between the pod and the outside, made in either direction.
fn open_connections(network: &Network, each: usize) -> Vec<Pair> {
    let application = serve(&network.pod, 80);
    let server = serve(&network.outside, 80);
    let mut pairs = Vec::new();
    for family in FAMILIES {
        for _ in 0..each {
            let inward = connect(&network.outside, network.pod_address(family, 80)).unwrap();
            pairs.push((inward, accept(&application).0));
            let outward = connect(&network.pod, network.outside_address(family, 80)).unwrap();
            pairs.push((outward, accept(&server).0));
        }
    }
    pairs
}

fn exchange_all(pairs: &mut [Pair]) {
    for (a, b) in pairs {
        exchange(a, b);
    }
}

/// Half of them are idle while the pod is enrolled and speak only after it has left.
#[test]
fn open_connections_survive_enrolling_and_leaving() {
    for backend in BACKENDS {
        let network = Network::new();
        let mut pairs = open_connections(&network, 25);
        let (busy, idle) = pairs.split_at_mut(50);
        exchange_all(busy);
        let agent = Agent::start(&network);
        network.enroll(backend);
        exchange_all(busy);
        stop_capturing(&network.pod).unwrap();
        exchange_all(busy);
        remove(&network.pod).unwrap();
        drop(agent);
        exchange_all(busy);
        exchange_all(idle);
        for (a, mut b) in pairs {
            drop(a);
            assert_eq!(std::io::Read::read(&mut b, &mut [0]).unwrap(), 0, "the end arrives");
        }
    }
}

#[test]
fn captured_connections_survive_the_first_phase_of_leaving_and_new_ones_pass() {
    for backend in BACKENDS {
        let network = Network::new();
        let agent = Agent::start(&network);
        network.enroll(backend);
        let mut pairs = capture_connections(&network, &agent);
        exchange_all(&mut pairs);
        stop_capturing(&network.pod).unwrap();
        exchange_all(&mut pairs);
        exchange_all(&mut open_connections(&network, 1));
        assert!(!is_ready(&agent.outbound) && !is_ready(&agent.plaintext));
        exchange_all(&mut pairs);
        stop_capturing(&network.pod).unwrap();
        exchange_all(&mut pairs);
    }
}

/// One of each kind in each family: to the agent from either side, and from the agent to the
/// application.
fn capture_connections(network: &Network, agent: &Agent) -> Vec<Pair> {
    let application = serve(&network.pod, 443);
    let mut pairs = Vec::new();
    for family in FAMILIES {
        let outward = connect(&network.pod, network.outside_address(family, 80)).unwrap();
        pairs.push((outward, accept(&agent.outbound).0));
        for (port, listener) in [(80, &agent.plaintext), (15008, &agent.hbone)] {
            let inward = connect(&network.outside, network.pod_address(family, port)).unwrap();
            pairs.push((inward, accept(listener).0));
        }
        let client = network.outside_address(family, 0).ip();
        let destination = network.pod_address(family, 443);
        let forwarded = socket::connect_application(&network.pod, &marks(), client, destination).unwrap();
        pairs.push((connected(forwarded).unwrap(), accept(&application).0));
    }
    pairs
}

#[test]
fn a_pod_that_left_can_be_enrolled_again() {
    for backend in BACKENDS {
        let network = Network::new();
        let agent = Agent::start(&network);
        for _ in 0..2 {
            network.enroll(backend);
            exchange_all(&mut capture_connections(&network, &agent));
            stop_capturing(&network.pod).unwrap();
            network.enroll(backend);
            exchange_all(&mut capture_connections(&network, &agent));
            stop_capturing(&network.pod).unwrap();
            remove(&network.pod).unwrap();
        }
    }
}

/// A restarted agent finds its marks, so the rules say what they said and connections that the
/// old process handed over go on.
#[test]
fn a_restarted_agent_adopts_the_rules() {
    for backend in BACKENDS {
        let state = tempfile::tempdir().unwrap();
        let network = Network::new();
        let agent = Agent::start(&network);
        let listing = |seed| {
            let store = MarkStore::open(state.path()).unwrap();
            let marks = store.load_or_create("uid", &mut SmallRng::seed_from_u64(seed)).unwrap();
            enroll(&network.pod, &RuleSet { marks, ..rules() }, backend).unwrap();
            network.rules()
        };
        let first = listing(1);
        let outward = connect(&network.pod, network.outside_address(Family::V4, 80)).unwrap();
        let mut pairs = [(outward, accept(&agent.outbound).0)];
        assert_eq!(listing(2), first, "{backend}");
        exchange_all(&mut pairs);
        MarkStore::open(state.path()).unwrap().forget("uid").unwrap();
        assert_ne!(listing(3), first, "{backend}");
        exchange_all(&mut pairs);
    }
}

#[test]
fn an_agent_that_comes_late_finds_a_closed_pod_and_opens_it() {
    for backend in BACKENDS {
        let network = Network::new();
        network.enroll(backend);
        let destination = network.outside_address(Family::V6, 80);
        assert!(is_refused(&connect(&network.pod, destination)));
        let agent = Agent::start(&network);
        let _client = connect(&network.pod, destination).unwrap();
        accept(&agent.outbound);
        agent.stop();
        assert!(is_refused(&connect(&network.pod, destination)));
    }
}
