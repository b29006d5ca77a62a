//! ServiceEntry: hosts outside the mesh that have routes and policies like services, at a waypoint.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;

use ambit_tests::explain;
use ambit_tests::mesh::Mesh;
use ambit_tests::pod::{Fetched, Pod};
use ambit_tests::wait::{self, SOON};
use anyhow::{Result, ensure};

/// Last part of the outside host's address, and its port.
const OUTSIDE: (u8, u16) = (101, 8080);

/// What clients dial: an address that no machine has.
const DIALLED: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(240, 240, 0, 7)), 80);

const ENTRY: &str = "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: legacy, namespace: shop}\n\
                     spec:\n  hosts: [legacy.example]\n  addresses: [240.240.0.7]\n  resolution: STATIC\n  \
                     ports: [{number: 80, name: http, protocol: HTTP}]\n  \
                     endpoints: [{address: 10.200.0.101, ports: {http: 8080}}]\n";

const ROUTE: &str = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: legacy, namespace: shop}\n\
                     spec:\n  parentRefs: [{group: networking.istio.io, kind: ServiceEntry, name: legacy}]\n  rules:\n  \
                     - filters:\n    - type: RequestHeaderModifier\n      \
                     requestHeaderModifier: {set: [{name: x-route, value: legacy}]}\n    \
                     backendRefs: [{group: networking.istio.io, kind: Hostname, name: legacy.example, port: 80}]\n";

const POLICY: &str = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: legacy, namespace: shop}\n\
                      spec:\n  targetRefs: [{group: networking.istio.io, kind: ServiceEntry, name: legacy}]\n  \
                      action: DENY\n  rules: [{to: [{operation: {paths: [/admin*]}}]}]\n";

/// By its other address, and where connections go is not the entry's to say: where they were dialled.
const AS_DIALLED: &str = "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: known, namespace: shop}\n\
                          spec:\n  hosts: [known.example]\n  addresses: ['fd00:200::65']\n  resolution: NONE\n  \
                          ports: [{number: 8080, name: http, protocol: HTTP}]\n";

pub(crate) fn a_host_outside_has_routes_and_policies_of_its_own() -> Result<()> {
    let mesh = Mesh::of_nodes(["n1", "n2"])?;
    mesh.ambient_namespace("shop")?;
    let client = mesh.pod("shop/client", "n1")?;
    let outside = mesh.outside_host("legacy", OUTSIDE.0)?;
    let listener = outside.listen(OUTSIDE.1)?;
    thread::spawn(move || answer(&listener));
    mesh.apply("entry.yaml", ENTRY)?;
    mesh.gateway("shop/waypoint")?;
    mesh.use_waypoint("shop", Some("waypoint"))?;
    let waypoint = mesh.waypoint("waypoint", "shop/waypoint-a", "n2")?;
    mesh.start()?;
    mesh.start_waypoint(&waypoint)?;

    let at_waypoint = format!("from {}", waypoint.pod().v4());
    wait::until("the outside host to be reached through the waypoint", SOON, || {
        said(&mesh, &client, DIALLED, "/")?.expect_contains(&at_waypoint)
    })?;
    let position = waypoint.log_position()?;
    mesh.apply("route.yaml", ROUTE)?;
    wait::until("the route to be in force", SOON, || {
        said(&mesh, &client, DIALLED, "/")?.expect_contains("x-route: legacy")
    })?;
    let record = waypoint.wait_for_access(position, |record| record.text("route_name").is_some())?;
    ensure!(record.expect("upstream_cluster")? == "legacy.example", "{record:?}");
    ensure!(record.expect("upstream_host")? == "10.200.0.101:8080", "{record:?}");

    mesh.apply("policy.yaml", POLICY)?;
    wait::until("the policy to be in force", SOON, || {
        let fetched = said(&mesh, &client, DIALLED, "/admin/x")?.0;
        ensure!(fetched.status == Some(403), "{fetched:?}");
        Ok(())
    })?;
    said(&mesh, &client, DIALLED, "/")?.expect_contains("GET / HTTP/1.1")?;

    mesh.apply("known.yaml", AS_DIALLED)?;
    let known: SocketAddr = format!("[fd00:200::65]:{}", OUTSIDE.1).parse()?;
    let at_waypoint = format!("from {}", waypoint.pod().v6());
    wait::until("an address that is dialled to be taken by the waypoint", SOON, || {
        said(&mesh, &client, known, "/")?.expect_contains(&at_waypoint)
    })?;

    // Never around it.
    waypoint.kill()?;
    for at in [DIALLED, known] {
        client.get(at)?.expect_refused()?;
    }
    Ok(())
}

/// What a client was answered, and explained to be.
struct Said(Fetched);

impl Said {
    fn expect_contains(self, text: &str) -> Result<()> {
        ensure!(self.0.status == Some(200) && self.0.body.contains(text), "expected {text:?}: {:?}", self.0);
        Ok(())
    }
}

fn said(mesh: &Mesh, client: &Pod, at: SocketAddr, path: &str) -> Result<Said> {
    let url = format!("http://{at}{path}");
    let fetched = client.curl(&url)?;
    explain::check(mesh, client, ("GET", &url), &[], fetched.status, None)?;
    Ok(Said(fetched))
}

/// Answers each request with who sent it and its head, until the scenario is over.
fn answer(listener: &TcpListener) {
    for stream in listener.incoming() {
        let Ok(stream) = stream else { return };
        thread::spawn(move || serve(&stream));
    }
}

/// A client that goes away is not of interest.
fn serve(stream: &TcpStream) {
    let Ok(client) = stream.peer_addr() else { return };
    let (mut head, mut reader) = (String::new(), BufReader::new(stream));
    while matches!(reader.read_line(&mut head), Ok(octets) if octets > 0) {
        if head.ends_with("\r\n\r\n") {
            let body = format!("from {}\n{head}", client.ip().to_canonical());
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            if (&mut &*stream).write_all(answer.as_bytes()).is_err() {
                return;
            }
            head.clear();
        }
    }
}
