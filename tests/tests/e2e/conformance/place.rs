//! The mesh that cases are held in: two namespaces, two versions of one application, and a waypoint.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use ambit_tests::echo::{self, HTTP, HTTP2};
use ambit_tests::mesh::Mesh;
use ambit_tests::mesh::fabric::Families;
use ambit_tests::pod::Pod;
use ambit_tests::wait::{self, SOON};
use ambit_tests::waypoint::Waypoint;
use anyhow::{Context, Result};

/// The namespace of the services; its waypoint takes what is sent to them.
pub(super) const MESH: &str = "mesh";

/// A namespace of clients alone.
pub(super) const CONSUMER: &str = "consumer";

pub(super) struct Place {
    pub(super) mesh: Mesh,
    pub(super) waypoint: Waypoint,
    pods: BTreeMap<String, Pod>,
}

impl Place {
    pub(super) fn open() -> Result<Self> {
        let mesh = Mesh::of_nodes(["n1", "n2"])?;
        let mut pods = BTreeMap::new();
        for namespace in [MESH, CONSUMER] {
            mesh.ambient_namespace(namespace)?;
        }
        for (name, version, node) in
            [("mesh/echo-v1", "v1", "n1"), ("mesh/echo-v2", "v2", "n2"), ("consumer/echo-v1", "v1", "n2")]
        {
            let pod = mesh.pod_with(name, node, Families::Dual, |object| {
                object.labels.push(("serves".to_owned(), "echo".to_owned()));
                object.labels.push(("version".to_owned(), version.to_owned()));
            })?;
            echo::serve(&pod)?;
            pods.insert(name.to_owned(), pod);
        }
        for (service, last, version) in SERVICES {
            mesh.apply(&format!("service-{service}.yaml"), &service_yaml(service, last, version))?;
        }
        mesh.gateway("mesh/waypoint")?;
        mesh.use_waypoint(MESH, Some("waypoint"))?;
        let waypoint = mesh.waypoint("waypoint", "mesh/waypoint-0", "n2")?;
        mesh.start()?;
        mesh.start_waypoint(&waypoint)?;
        let place = Self { mesh, waypoint, pods };
        let client = place.pod("mesh/echo-v1")?;
        let service = place.address("echo", HTTP)?;
        wait::until("the service to be reached", SOON, || client.get(service)?.expect_ok())?;
        Ok(place)
    }

    pub(super) fn pod(&self, name: &str) -> Result<&Pod> {
        self.pods.get(name).with_context(|| format!("there is no pod {name}"))
    }

    /// Where `<service>[:<port>]`, `pod/<name>:<port>` or `<address>:<port>` is.
    pub(super) fn address(&self, text: &str, default_port: u16) -> Result<SocketAddr> {
        if let Ok(address) = text.parse() {
            return Ok(address);
        }
        let (host, port) = match text.split_once(':') {
            Some((host, port)) => (host, port.parse()?),
            None => (text, default_port),
        };
        if let Some(pod) = host.strip_prefix("pod/") {
            return Ok(self.pod(&format!("{MESH}/{pod}"))?.at(port));
        }
        let service = SERVICES.into_iter().find(|(service, ..)| *service == host);
        let (_, last, _) = service.with_context(|| format!("there is no service {host}"))?;
        Ok(([10, 96, 1, last], port).into())
    }
}

/// Name, last octet of the address, and the version that it selects.
const SERVICES: [(&str, u8, Option<&str>); 3] =
    [("echo", 1, None), ("echo-v1", 2, Some("v1")), ("echo-v2", 3, Some("v2"))];

/// As in the suite: two ports for HTTP, and those of other protocols told by `appProtocol` or their names.
fn service_yaml(name: &str, last: u8, version: Option<&str>) -> String {
    let (selected, grpc) = match version {
        None => (String::new(), ", appProtocol: kubernetes.io/h2c"),
        Some(version) => (format!(", version: {version}"), ""),
    };
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: {MESH}}}\nspec:\n  \
         clusterIP: 10.96.1.{last}\n  clusterIPs: [10.96.1.{last}, 'fd00:96::1:{last}']\n  \
         selector: {{serves: echo{selected}}}\n  ports:\n  \
         - {{name: http, port: 80, targetPort: {HTTP}, appProtocol: http}}\n  \
         - {{name: http-alt, port: {HTTP}, appProtocol: http}}\n  \
         - {{name: https, port: 443, targetPort: 8443}}\n  \
         - {{name: tcp, port: 9090}}\n  \
         - {{name: grpc, port: {HTTP2}{grpc}}}\n"
    )
}
