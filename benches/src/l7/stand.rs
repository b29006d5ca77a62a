//! What every stage stands on: two nodes with agents, and for each way a client, a server behind a Service,
//! and the waypoint with its configuration.

use std::fmt::Write;

use ambit_tests::apps::{self, NGINX};
use ambit_tests::mesh::{AgentLog, Mesh, Service, Settings as MeshSettings};
use ambit_tests::pod::Pod;
use ambit_tests::waypoint::Waypoint;
use anyhow::{Context, Result};

use super::way::{Lane, Running, Way};
use super::{Settings, Stage, envoy};
use crate::lane::{CLIENT_NODE, SERVER_NODE, body};
use crate::pin::{End, Processors};

/// The port of the Services.
const PORT: u16 = 80;

/// The pods of a way before anything runs.
struct Pods {
    way: Way,
    client: Pod,
    server: Pod,
    service: Service,
    waypoint: Option<Waypoint>,
}

/// All of it. It ends with this value.
pub(super) struct Stand {
    pub(super) lanes: Vec<Lane>,
    pub(super) mesh: Mesh,
    _waypoints: Vec<Waypoint>,
}

/// Two nodes, and all ways with one request that has passed.
///
/// # Errors
/// When a part of it does not stand.
pub(super) fn lanes(settings: &Settings, stage: Stage, processors: Processors) -> Result<Stand> {
    let mesh_settings = MeshSettings {
        workers: settings.workers.into(),
        agent_log: AgentLog::Written,
        ..MeshSettings::default()
    };
    let mesh = Mesh::with_settings(mesh_settings, [CLIENT_NODE, SERVER_NODE])?;
    // All pods before the first agent, which waits for those that are its own.
    let pods = Way::ALL.map(|way| Pods::new(&mesh, way, processors));
    configure(&mesh, stage)?;
    mesh.start_control()?;
    for (end, node) in [(End::Client, CLIENT_NODE), (End::Server, SERVER_NODE)] {
        processors.on(end, || mesh.agent(node).start())?;
    }
    mesh.wait_until_captured()?;
    let (mut lanes, mut waypoints) = (Vec::new(), Vec::new());
    for pods in pods {
        let Pods { way, client, server, service, waypoint } = pods?;
        let running = processors.on(End::Server, || {
            let start = |waypoint| start(&mesh, waypoint, (way, &client, &server), settings, stage);
            waypoint.as_ref().map(start).transpose()
        })?;
        let lane = Lane { way, client, service, waypoint: running };
        lane.check().with_context(|| format!("{way} does not carry a request"))?;
        lanes.push(lane);
        waypoints.extend(waypoint);
    }
    Ok(Stand { mesh, lanes, _waypoints: waypoints })
}

impl Pods {
    fn new(mesh: &Mesh, way: Way, processors: Processors) -> Result<Self> {
        mesh.ambient_namespace(way.name())?;
        let client = mesh.pod(&format!("{way}/client"), CLIENT_NODE)?;
        let server = mesh.pod(&format!("{way}/server"), SERVER_NODE)?;
        processors.on(End::Server, || apps::nginx(&server, &body()))?;
        let service = mesh.http_service(&format!("{way}/server"), PORT, NGINX)?;
        let waypoint = match way {
            Way::Direct => None,
            Way::Envoy | Way::Ambit => {
                mesh.gateway(&format!("{way}/{GATEWAY}"))?;
                mesh.use_waypoint(way.name(), Some(GATEWAY))?;
                Some(mesh.waypoint(GATEWAY, &format!("{way}/{GATEWAY}-0"), SERVER_NODE)?)
            }
        };
        Ok(Self { way, client, server, service, waypoint })
    }
}

/// The Gateways' name.
const GATEWAY: &str = "waypoint";

fn start(
    mesh: &Mesh,
    waypoint: &Waypoint,
    (way, client, server): (Way, &Pod, &Pod),
    settings: &Settings,
    stage: Stage,
) -> Result<Running> {
    match way {
        Way::Ambit => {
            mesh.start_waypoint(waypoint)?;
            Ok(Running {
                namespace: waypoint.pod().namespace().clone(),
                pid: waypoint.pid()?,
                page: (15020, "/metrics"),
                counter: ("istio_requests_total", &["response_code=\"200\""]),
                _proxy: None,
            })
        }
        Way::Direct | Way::Envoy => {
            let running = envoy::start(waypoint.pod(), (client, server), settings.workers, stage)?;
            mesh.change_pod(waypoint.pod(), |object| object.ready = true)?;
            Ok(running)
        }
    }
}

/// Writes the routes and policies for Ambit's waypoint; Envoy's are in its own configuration.
fn configure(mesh: &Mesh, stage: Stage) -> Result<()> {
    let mut yaml = String::new();
    if stage.routes > 0 {
        for number in 0..stage.routes {
            route(
                &mut yaml,
                &format!("other-{number}"),
                &format!("{{type: Exact, value: /other-{number}}}"),
            )?;
        }
        route(&mut yaml, "rest", "{type: PathPrefix, value: /}")?;
    }
    let mut left = stage.rules;
    for policy in 0.. {
        let rules = left.min(RULES_OF_A_POLICY);
        if rules == 0 {
            break;
        }
        left -= rules;
        write!(
            yaml,
            "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: allow-{policy}, \
             namespace: ambit}}\nspec:\n  targetRefs: [{{group: \"\", kind: Service, name: server}}]\n  rules:\n"
        )?;
        for rule in 0..rules {
            let number = policy * RULES_OF_A_POLICY + rule;
            // The last one of all is the one that allows.
            let (principal, path) = if left == 0 && rule + 1 == rules {
                ("cluster.local/ns/ambit/sa/client".to_owned(), "/*".to_owned())
            } else {
                (other_principal(number), other_path(number))
            };
            writeln!(
                yaml,
                "  - {{from: [{{source: {{principals: [\"{principal}\"]}}}}], to: [{{operation: {{methods: [GET], \
                 paths: [\"{path}\"]}}}}]}}"
            )?;
        }
    }
    mesh.apply("stage.yaml", &yaml)
}

/// As many as one AuthorizationPolicy may have.
const RULES_OF_A_POLICY: u32 = 512;

/// Whom a rule allows that does not allow the client.
pub(super) fn other_principal(number: u32) -> String {
    format!("cluster.local/ns/other/sa/account-{number}")
}

/// What it allows.
pub(super) fn other_path(number: u32) -> String {
    format!("/other-{number}/*")
}

fn route(yaml: &mut String, name: &str, path: &str) -> Result<()> {
    write!(
        yaml,
        "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: {name}, namespace: ambit}}\n\
         spec:\n  parentRefs: [{{group: \"\", kind: Service, name: server}}]\n  rules:\n  - matches: [{{path: {path}}}]\n    \
         backendRefs: [{{name: server, port: {PORT}}}]\n"
    )
    .context("a route as text")
}
