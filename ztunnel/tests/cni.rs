//! The CNI plugin called as a container runtime calls it, against an agent whose answers the test gives.
//!
//! Needs root and `nft`: pods are network namespaces.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail by panicking")]

#[path = "cni/agent.rs"]
mod agent;
#[path = "cni/runtime.rs"]
mod runtime;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::SmallRng;
use ztunnel::capture::marks::Marks;
use ztunnel::capture::rules::{Exclusions, RuleSet};
use ztunnel::capture::{Backend, enroll};
use ztunnel::cni::list::write_file;
use ztunnel::cni::server::Server;
use ztunnel::pods::arrival::{Arrived, Checked};

use agent::{Agent, Event};
use runtime::{Outcome, Runtime};

/// What no test here waits out.
const PROMPT: Duration = Duration::from_secs(10);

fn captured(event: Event) {
    match event {
        Event::Arrival(arrival) => drop(arrival.answer.send(Arrived::Captured)),
        Event::Check(check) => drop(check.answer.send(Checked::Captured)),
        Event::Departure(_) => {}
    }
}

#[test]
fn a_captured_pod_starts_with_the_result_that_was_there() {
    let runtime = Runtime::new("shop/web");
    let agent = Agent::start(&runtime.socket(), captured);
    assert_eq!(runtime.call("ADD").output(), runtime.previous_result());
    assert!(runtime.in_pod("ip -o link show lo up").contains("lo"), "it was down, as the kernel makes it");
    let [(uid, Some(namespace))] = &agent.seen()[..] else { panic!("{:?}", agent.seen()) };
    assert_eq!((uid.as_str(), *namespace), ("uid-of-shop/web", runtime.namespace_id()));
}

#[test]
fn the_plugin_is_known_by_its_name_by_its_environment_and_as_a_command() {
    let runtime = Runtime::new("shop/web");
    let _agent = Agent::start(&runtime.socket(), captured);
    let named = runtime.directory().join("ambit-cni");
    fs::copy(runtime::PROGRAM, &named).unwrap();
    for command in [Command::new(&named), Command::new(runtime::PROGRAM), {
        let mut command = Command::new(runtime::PROGRAM);
        command.arg("cni");
        command
    }] {
        assert_eq!(runtime.call_by(command, "ADD").output(), runtime.previous_result());
    }
}

#[test]
fn what_the_agent_says_decides() {
    let runtime = Runtime::new("shop/web");
    runtime.list(&["shop"]);
    for (answer, expected) in [
        (Arrived::NotEnrolled, Ok(())),
        (Arrived::Unknown, Err((11, "control has not told"))),
        (Arrived::Failed("its ports are taken".to_owned()), Err((100, "its ports are taken"))),
    ] {
        let answer = std::sync::Mutex::new(Some(answer));
        let _agent = Agent::start(&runtime.socket(), move |event| match event {
            Event::Arrival(arrival) => drop(arrival.answer.send(answer.lock().unwrap().take().unwrap())),
            Event::Check(_) | Event::Departure(_) => panic!("it was an ADD"),
        });
        match expected {
            Ok(()) => assert_eq!(runtime.call("ADD").output(), runtime.previous_result()),
            Err((code, part)) => runtime.call("ADD").expect_error(code, part),
        }
    }
}

#[test]
fn without_an_agent_enrolled_pods_fail_after_the_wait_and_others_start_at_once() {
    for (pod, list, expected) in [
        ("shop/web", Some(&["shop"][..]), Err("the node agent ztunnel is not running on this node")),
        ("plain/web", Some(&["shop"]), Ok(())),
        ("ambit-system/ztunnel-x", Some(&["shop", "ambit-system"]), Ok(())),
        ("shop/web", None, Ok(())),
    ] {
        let runtime = Runtime::new(pod);
        if let Some(list) = list {
            runtime.list(list);
        }
        let started = Instant::now();
        let outcome = runtime.call("ADD");
        let took = started.elapsed();
        match expected {
            Ok(()) => assert_eq!(outcome.output(), runtime.previous_result(), "{pod}"),
            Err(part) => {
                outcome.expect_error(11, part);
                assert!(took >= runtime::TIMEOUT - Duration::from_millis(500), "{pod} failed after {took:?}");
            }
        }
        assert!(took < runtime::TIMEOUT + PROMPT, "{pod} took {took:?}");
        assert!(expected.is_err() || took < runtime::TIMEOUT, "{pod} waited: {took:?}");
    }
}

#[test]
fn with_a_damaged_list_only_what_the_node_needs_starts() {
    for (pod, starts) in [("plain/web", false), ("kube-system/dns", true), ("ambit-system/control", true)] {
        let runtime = Runtime::new(pod);
        runtime.list(&["shop"]);
        runtime.damage_lists();
        let outcome = runtime.call("ADD");
        if starts {
            assert_eq!(outcome.output(), runtime.previous_result(), "{pod}");
        } else {
            outcome.expect_error(11, "is damaged");
        }
    }
}

#[test]
fn the_copy_that_survives_a_reboot_counts_until_an_agent_is_back() {
    let runtime = Runtime::new("shop/web");
    runtime.list(&["shop"]);
    fs::remove_dir_all(runtime.run()).unwrap();
    runtime.call("ADD").expect_error(11, "enrolled namespace");
    fs::create_dir(runtime.run()).unwrap();
    let _agent = Agent::start(&runtime.socket(), captured);
    assert_eq!(runtime.call("ADD").output(), runtime.previous_result());
}

#[test]
fn an_agent_that_comes_within_the_wait_is_waited_for() {
    let runtime = Runtime::new("shop/web");
    runtime.list(&["shop"]);
    let adding = runtime.begin("ADD");
    let _agent = Agent::start(&runtime.socket(), captured);
    assert_eq!(Outcome::of(adding).output(), runtime.previous_result());
}

#[test]
fn an_agent_that_ends_half_way_is_asked_again_when_it_is_back() {
    let runtime = Runtime::new("shop/web");
    runtime.list(&["shop"]);
    let (asked, was_asked) = std::sync::mpsc::channel();
    let first = Agent::start(&runtime.socket(), move |event| {
        // Kept, so that the question stays open until this agent is gone.
        asked.send(event).unwrap();
    });
    let adding = runtime.begin("ADD");
    let open = was_asked.recv_timeout(PROMPT).unwrap();
    drop(first);
    drop(open);
    let _second = Agent::start(&runtime.socket(), captured);
    assert_eq!(Outcome::of(adding).output(), runtime.previous_result());
}

#[test]
fn a_successor_takes_the_place_when_it_is_prepared() {
    let runtime = Runtime::new("shop/web");
    let answering = |answer: fn() -> Arrived| {
        move |event| match event {
            Event::Arrival(arrival) => drop(arrival.answer.send(answer())),
            Event::Check(_) | Event::Departure(_) => {}
        }
    };
    let old = Agent::start(&runtime.socket(), answering(|| Arrived::Failed("old".into())));
    let new = Agent::start_unprepared(&runtime.socket(), answering(|| Arrived::Failed("new".into())));
    runtime.call("ADD").expect_error(100, "old");
    new.prepared();
    new.wait_until_in_place(&runtime.socket());
    runtime.call("ADD").expect_error(100, "new");
    drop(old);
    runtime.call("ADD").expect_error(100, "new");
    let names: Vec<_> =
        fs::read_dir(runtime.run()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(
        names.iter().all(|name| !name.to_string_lossy().starts_with("cni.") || name == "cni.sock"),
        "{names:?}"
    );
}

#[test]
fn removing_a_pod_always_succeeds() {
    let runtime = Runtime::new("shop/web");
    for _ in 0..2 {
        assert_eq!(runtime.call("DEL").output(), "", "the agent is away");
    }
    let agent = Agent::start(&runtime.socket(), captured);
    for variable in ["", "CNI_NETNS", "CNI_ARGS", "CNI_IFNAME"] {
        assert_eq!(runtime.call_without(variable, "DEL").output(), "", "without {variable}");
    }
    assert_eq!(runtime.call_with_configuration("nonsense", "DEL").output(), "");
    // As what is asked next is answered, all of that is noted.
    assert_eq!(runtime.call("ADD").output(), runtime.previous_result());
    assert!(agent.seen().contains(&("uid-of-shop/web".to_owned(), None)));
}

#[test]
fn a_check_notices_that_the_rules_were_removed() {
    let runtime = Runtime::new("shop/web");
    runtime.list(&["shop"]);
    runtime.in_pod("ip link set lo up");
    let agent = Agent::start(&runtime.socket(), captured);
    let rules = || RuleSet {
        marks: Marks::random(&mut SmallRng::seed_from_u64(1)),
        exclusions: Exclusions::default(),
        probe_ports: [].into(),
        ipv6: true,
    };
    for backend in [Backend::Nftables, Backend::Iptables] {
        enroll(runtime.namespace(), &rules(), backend).unwrap();
        assert_eq!(runtime.call("CHECK").output(), "", "{backend}");
        runtime.in_pod("nft flush ruleset");
        runtime.call("CHECK").expect_error(101, "was removed");
    }
    for chain in ["inbound", "outbound", "prerouting", "dstnat"] {
        enroll(runtime.namespace(), &rules(), Backend::Nftables).unwrap();
        runtime.in_pod(&format!("nft flush chain inet ambit {chain}"));
        runtime.call("CHECK").expect_error(101, "was removed");
    }
    drop(agent);
    runtime.call("CHECK").expect_error(11, "not running");
    enroll(runtime.namespace(), &rules(), Backend::Nftables).unwrap();
    assert_eq!(runtime.call("CHECK").output(), "", "the agent is away and the rules are there");
}

#[test]
fn the_rest_of_the_protocol_is_answered() {
    let runtime = Runtime::new("shop/web");
    let supported = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];
    let version: serde_json::Value = serde_json::from_str(&runtime.call("VERSION").output()).unwrap();
    assert_eq!(version["cniVersion"], runtime::VERSION);
    assert_eq!(version["supportedVersions"], serde_json::json!(supported));
    // Also while the agent is away: the node's other pods could not start otherwise, nor the agent.
    assert_eq!(runtime.call("STATUS").output(), "");
    assert_eq!(runtime.call("GC").output(), "");
    runtime.call_without("CNI_NETNS", "ADD").expect_error(4, "CNI_NETNS");
    runtime.call("STOP").expect_error(4, "STOP");
    runtime.call_with_configuration("nonsense", "ADD").expect_error(6, "network configuration");
    let alone = runtime.configuration().replace("prevResult", "ignored");
    runtime.call_with_configuration(&alone, "ADD").expect_error(7, "prevResult");
    let future = runtime.configuration().replacen(runtime::VERSION, "9.0.0", 1);
    runtime.call_with_configuration(&future, "ADD").expect_error(1, "9.0.0");
}

#[test]
fn what_is_no_pod_of_kubernetes_starts_and_is_not_asked_for() {
    let runtime = Runtime::new("shop/web");
    runtime.list(&["shop"]);
    let agent = Agent::start(&runtime.socket(), captured);
    assert_eq!(runtime.call_without("CNI_ARGS", "ADD").output(), runtime.previous_result());
    assert!(agent.seen().is_empty());
}

#[test]
fn only_root_is_answered() {
    let runtime = Runtime::new("shop/web");
    runtime.list(&["shop"]);
    let agent = Agent::start(&runtime.socket(), captured);
    // Everything else that keeps others out is taken away.
    for path in [runtime.directory(), &runtime.run()] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    fs::set_permissions(runtime.socket(), fs::Permissions::from_mode(0o666)).unwrap();
    let program = runtime.directory().join("program");
    fs::copy(runtime::PROGRAM, &program).unwrap();
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(program);
    assert_eq!(runtime.call_by(command, "DEL").output(), "");
    // A DEL is answered before it is noted, and an ADD after everything that was asked before it.
    assert_eq!(runtime.call("ADD").output(), runtime.previous_result());
    let [(_, Some(_))] = &agent.seen()[..] else { panic!("{:?}", agent.seen()) };
}

#[tokio::test]
async fn a_server_leaves_nothing_but_its_place() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cni.sock");
    let first = Server::bind(&path).unwrap();
    let second = Server::bind(&path).unwrap();
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
    drop(second);
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    drop(first);
    assert!(path.exists(), "it is refused there, which says that the agent is away");
    assert!(Server::bind(&directory.path().join("absent/cni.sock")).is_err());
    write_file(&directory.path().join("made/cni-list.json"), &Default::default()).unwrap();
}
