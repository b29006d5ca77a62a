//! Weights while they are edited, and subsets of a VirtualService.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::{self, ScopedJoinHandle};

use ambit_tests::echo::{self, Asked, CALL, HTTP, HTTP2, Session, Speaks};
use ambit_tests::mesh::Mesh;
use ambit_tests::mesh::fabric::Families;
use ambit_tests::pod::Pod;
use ambit_tests::wait::{self, SOON};
use anyhow::{Context, Result, anyhow, ensure};
use serde_json::Value;

use super::place::Place;

/// The share of the second version, edit by edit.
const EDITS: [u32; 12] = [10, 50, 0, 100, 90, 30, 0, 70, 100, 20, 60, 100];

fn edited(second: u32) -> String {
    let route = |kind: &str, port: u16, backend: u16| {
        format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: {kind}\nmetadata: {{name: edited, namespace: mesh}}\n\
             spec:\n  parentRefs: [{{group: '', kind: Service, name: echo, port: {port}}}]\n  rules:\n  - backendRefs:\n    \
             - {{name: echo-v1, port: {backend}, weight: {}}}\n    - {{name: echo-v2, port: {backend}, weight: {second}}}\n",
            100 - second
        )
    };
    format!("{}---\n{}", route("HTTPRoute", 80, HTTP), route("GRPCRoute", HTTP2, HTTP2))
}

/// So many requests of each sort are made between two edits.
const BETWEEN_EDITS: u32 = 20;

/// Requests of one sort, which are made until all edits are.
#[derive(Default)]
struct Load {
    made: AtomicU32,
    done: AtomicBool,
}

impl Load {
    fn goes_on(&self) -> bool {
        self.made.fetch_add(1, Ordering::Relaxed);
        !self.done.load(Ordering::Relaxed)
    }

    /// Waits until so many more are made.
    fn wait_for(&self, more: u32) -> Result<()> {
        let made = || self.made.load(Ordering::Relaxed);
        let enough = made() + more;
        wait::until_true(format!("{more} more requests"), SOON, || made() >= enough).map(drop)
    }
}

/// Asks over one connection.
fn keep_asking(client: &Pod, to: SocketAddr, speaks: Speaks, load: &Load) -> Result<()> {
    let mut session = Session::open(client, to, speaks)?;
    let asked = Asked::get("echo", CALL);
    while load.goes_on() {
        let answer = match speaks {
            Speaks::Http1 => session.ask(&asked),
            Speaks::Http2 => session.call(&asked),
        };
        answer.and_then(|answer| answer.reached()).with_context(|| format!("request {:?}", load.made))?;
    }
    Ok(())
}

/// The same with a connection for each request.
fn keep_coming(client: &Pod, to: SocketAddr, load: &Load) -> Result<()> {
    while load.goes_on() {
        let mut session = Session::open(client, to, Speaks::Http1)?;
        let answer = session.ask(&Asked::get("echo", "/"));
        answer.and_then(|answer| answer.reached()).with_context(|| format!("connection {:?}", load.made))?;
    }
    Ok(())
}

pub(crate) fn weights_that_are_edited_under_load_lose_nothing() -> Result<()> {
    let place = Place::open()?;
    let client = place.pod("mesh/echo-v1")?;
    let (http, grpc) = (place.address("echo", 80)?, place.address("echo", HTTP2)?);
    let loads = [Load::default(), Load::default(), Load::default()];
    let edits = || {
        for second in EDITS {
            place.mesh.apply("edited.yaml", &edited(second))?;
            in_force(client, http, second)?;
            loads.iter().try_for_each(|load| load.wait_for(BETWEEN_EDITS))?;
        }
        Ok(())
    };
    thread::scope(|scope| {
        let [one, two, three] = &loads;
        let threads = [
            scope.spawn(|| keep_asking(client, http, Speaks::Http1, one)),
            scope.spawn(|| keep_asking(client, grpc, Speaks::Http2, two)),
            scope.spawn(|| keep_coming(client, http, three)),
        ];
        let edited: Result<()> = edits();
        loads.iter().for_each(|load| load.done.store(true, Ordering::Relaxed));
        let join = |thread: ScopedJoinHandle<'_, Result<()>>| {
            thread.join().map_err(|_| anyhow!("the load panicked"))?
        };
        let asked: Result<()> = threads.into_iter().try_for_each(join);
        asked.and(edited)
    })
}

/// What nobody may reach tells that an edit is in force; of others the share cannot be told so soon.
fn in_force(client: &Pod, to: SocketAddr, second: u32) -> Result<()> {
    let other = match second {
        0 => "echo-v2",
        100 => "echo-v1",
        _ => return Ok(()),
    };
    let mut session = Session::open(client, to, Speaks::Http1)?;
    wait::until(format!("a share of {second} %"), SOON, || {
        (0..20).try_for_each(|_| {
            let pod = session.ask(&Asked::get("echo", "/"))?.reached()?.pod;
            ensure!(pod != other, "{pod} is reached");
            Ok(())
        })
    })
    .map(drop)
}

/// Objects of a team that comes from Istio, as they stand in its decision record (`shared/seeds`).
const TEAM: &str = include_str!("team.yaml");

/// What defines the subsets that the team's VirtualService names.
const SUBSETS: &str = "apiVersion: networking.istio.io/v1beta1\nkind: DestinationRule\nmetadata:\n  name: api-gateway\n\
                       spec:\n  host: api-gateway\n  subsets:\n  - name: stable\n    labels: {version: stable}\n  \
                       - name: canary\n    labels: {version: canary}\n";

pub(crate) fn a_teams_istio_objects_work_unchanged() -> Result<()> {
    let mesh = Mesh::of_nodes(["n1", "n2"])?;
    for namespace in ["default", "phoenix-guardian"] {
        mesh.ambient_namespace(namespace)?;
    }
    let client = mesh.pod("default/client", "n1")?;
    for (version, node) in [("stable", "n1"), ("canary", "n2")] {
        let pod = mesh.pod_with(&format!("default/{version}"), node, Families::Dual, |object| {
            object.labels.push(("serves".to_owned(), "api-gateway".to_owned()));
            object.labels.push(("version".to_owned(), version.to_owned()));
        })?;
        echo::serve(&pod)?;
    }
    let service = mesh.service_selecting("default/api-gateway", 80, HTTP, ("serves", "api-gateway"))?;
    mesh.service_selecting("default/encounter-service", 80, HTTP, ("serves", "nothing"))?;
    mesh.gateway("default/waypoint")?;
    mesh.use_waypoint("default", Some("waypoint"))?;
    let waypoint = mesh.waypoint("waypoint", "default/waypoint-0", "n2")?;
    mesh.start()?;
    mesh.start_waypoint(&waypoint)?;
    for version in ["v1beta1", "v1"] {
        let of_version = |text: &str| text.replace("/v1beta1", &format!("/{version}"));
        mesh.apply("team.yaml", &of_version(TEAM))?;
        mesh.apply("subsets.yaml", &of_version(SUBSETS))?;
        wait::until(format!("what is said of the objects in {version}"), SOON, || {
            said_of(&mesh.control().statuses()?)
        })?;
        wait::until(format!("the canary of {version}"), SOON, || {
            shares_hold(&client, service.v4()).with_context(|| version)
        })?;
        for file in ["team.yaml", "subsets.yaml"] {
            mesh.withdraw(file)?;
        }
        wait::until("the route to be gone", SOON, || {
            let routes = &waypoint.config_dump()?["routes"];
            ensure!(routes.as_array().is_some_and(Vec::is_empty), "{routes}");
            Ok(())
        })?;
    }
    Ok(())
}

/// All are accepted, and what is not carried out is reported.
fn said_of(texts: &[String]) -> Result<()> {
    let statuses: Vec<Value> = texts.iter().filter_map(|text| serde_json::from_str(text).ok()).collect();
    let of_team = |status: &&Value| status["file"] == "team.yaml";
    let accepted = statuses.iter().filter(of_team).filter(|status| status["accepted"] == true);
    ensure!(accepted.count() == 3, "not all three objects are accepted: {statuses:?}");
    for (kind, expected) in [
        ("DestinationRule", "trafficPolicy.connectionPool, trafficPolicy.outlierDetection"),
        ("VirtualService", ""),
        ("PeerAuthentication", ""),
    ] {
        let status = statuses.iter().filter(of_team).find(|status| status["kind"] == kind);
        let notes = status.with_context(|| format!("there is no status of the {kind}"))?["notes"].to_string();
        ensure!(notes.contains(expected), "the {kind} says {notes}");
        ensure!(kind == "DestinationRule" || notes == "null", "the {kind} says {notes}");
    }
    Ok(())
}

/// 90 to 10, over 2000 requests of one connection: within six standard deviations.
fn shares_hold(client: &Pod, service: SocketAddr) -> Result<()> {
    let mut session = Session::open(client, service, Speaks::Http1)?;
    let mut counted = BTreeMap::<String, u32>::new();
    for _ in 0..2000 {
        *counted.entry(session.ask(&Asked::get("api-gateway", "/"))?.reached()?.pod).or_default() += 1;
    }
    let canary = counted.get("canary").copied().unwrap_or_default();
    ensure!((120..=280).contains(&canary), "{counted:?}");
    Ok(())
}
