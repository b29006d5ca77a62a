//! The objects of a run, as values. Pure.

use anyhow::{Context, Result};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Namespace, Service, ServiceAccount};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::Size;
use crate::pod::ports;

/// On every object of a run.
pub(super) const OURS: &str = "app.kubernetes.io/part-of=ambit-bench";

/// Of all clients together, so many connections are kept for requests.
const KEPT_PER_CLIENT: u64 = 2;

pub(super) fn server_name(identity: u32) -> String {
    format!("server-{identity}")
}

pub(super) fn client_name(identity: u32) -> String {
    format!("client-{identity}")
}

pub(super) fn account_name(identity: u32) -> String {
    format!("id-{identity}")
}

pub(super) fn namespace(name: &str, is_enrolled: bool) -> Namespace {
    let mut namespace = Namespace::default();
    namespace.metadata.name = Some(name.to_owned());
    let mut labels = vec![("app.kubernetes.io/part-of".to_owned(), "ambit-bench".to_owned())];
    if is_enrolled {
        labels.push((MODE.to_owned(), "ambient".to_owned()));
    }
    namespace.metadata.labels = Some(labels.into_iter().collect());
    namespace
}

/// The patch of a namespace that enrols it or takes it out.
pub(super) fn enrolment(is_enrolled: bool) -> Value {
    let value = is_enrolled.then_some("ambient");
    json!({"metadata": {"labels": {MODE: value}}})
}

const MODE: &str = "istio.io/dataplane-mode";

pub(super) fn account(identity: u32) -> Result<ServiceAccount> {
    named_account(&account_name(identity))
}

pub(super) fn named_account(name: &str) -> Result<ServiceAccount> {
    parsed(json!({"metadata": metadata(name, "account"), "automountServiceAccountToken": false}))
}

pub(super) fn service(app: &str) -> Result<Service> {
    let port = |name: &str, port: u16| json!({"name": name, "port": port, "targetPort": port});
    parsed(json!({
        "metadata": metadata(app, "server"),
        "spec": {
            "selector": {"app": app},
            "ports": [port("http", ports::HTTP), port("tcp-echo", ports::ECHO)],
        },
    }))
}

pub(super) fn server(name: &str, account: &str, image: &str, replicas: u32) -> Result<Deployment> {
    deployment(name, "server", account, replicas, json!({"image": image, "args": ["serve"]}))
}

pub(super) fn client(name: &str, account: &str, image: &str, arguments: &[String]) -> Result<Deployment> {
    let arguments: Vec<&str> =
        [&["load"][..], &arguments.iter().map(String::as_str).collect::<Vec<_>>()].concat();
    deployment(name, "client", account, 1, json!({"image": image, "args": arguments}))
}

/// What a client is to do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load<'a> {
    pub(super) size: &'a Size,
    pub(super) identity: u32,
    /// Addresses of the Services.
    pub(super) targets: &'a [String],
}

impl Load<'_> {
    /// The share of one client.
    pub(super) fn arguments(self) -> Vec<String> {
        let size = self.size;
        let clients = u64::from(size.identities);
        // Half of the requests on new connections, half on kept ones.
        let new_every_ms = (2_000 * clients / u64::from(size.requests_per_second)).max(1);
        let kept_every_ms = new_every_ms * KEPT_PER_CLIENT;
        let open = size.connections / size.identities
            + u32::from(self.identity < size.connections % size.identities);
        let mut arguments = vec![
            format!("--new-every-ms={new_every_ms}"),
            format!("--kept={KEPT_PER_CLIENT}"),
            format!("--kept-every-ms={kept_every_ms}"),
            format!("--open={open}"),
            format!("--timeout-ms={}", size.timeout_ms),
        ];
        for address in self.targets {
            arguments.push(format!("--http={}", at(address, ports::HTTP)));
            arguments.push(format!("--echo={}", at(address, ports::ECHO)));
        }
        arguments
    }
}

fn at(address: &str, port: u16) -> String {
    if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") }
}

/// The container is completed with what all have; it stands with any PodSecurity level.
fn deployment(
    name: &str,
    role: &str,
    account: &str,
    replicas: u32,
    mut container: Value,
) -> Result<Deployment> {
    container["name"] = json!(role);
    container["imagePullPolicy"] = json!("IfNotPresent");
    container["readinessProbe"] = json!({
        "httpGet": {"path": "/ready", "port": ports::STEER}, "periodSeconds": 2, "timeoutSeconds": 5,
    });
    container["resources"] = json!({"requests": {"cpu": "5m", "memory": "16Mi"}});
    container["securityContext"] = json!({
        "allowPrivilegeEscalation": false,
        "readOnlyRootFilesystem": true,
        "capabilities": {"drop": ["ALL"]},
    });
    let labels = json!({"app": name, "role": role, "app.kubernetes.io/part-of": "ambit-bench"});
    // Clients are spread as one crowd, servers each service for itself.
    let alike = if role == "client" { json!({"role": role}) } else { json!({"app": name}) };
    parsed(json!({
        "metadata": metadata(name, role),
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "serviceAccountName": account,
                    "automountServiceAccountToken": false,
                    "enableServiceLinks": false,
                    "terminationGracePeriodSeconds": 10,
                    "securityContext": {
                        "runAsNonRoot": true, "runAsUser": 65532, "runAsGroup": 65532,
                        "seccompProfile": {"type": "RuntimeDefault"},
                    },
                    "topologySpreadConstraints": [{
                        "maxSkew": 1,
                        "topologyKey": "kubernetes.io/hostname",
                        "whenUnsatisfiable": "ScheduleAnyway",
                        "labelSelector": {"matchLabels": alike},
                    }],
                    "containers": [container],
                },
            },
        },
    }))
}

fn metadata(name: &str, role: &str) -> Value {
    json!({
        "name": name,
        "labels": {"app": name, "role": role, "app.kubernetes.io/part-of": "ambit-bench"},
    })
}

fn parsed<T: DeserializeOwned>(value: Value) -> Result<T> {
    serde_json::from_value(value).context("an object of ours is not of its kind")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(pods: u32, identities: u32) -> Size {
        Size {
            pods,
            identities,
            requests_per_second: 200,
            connections: 25,
            timeout_ms: 3000,
            ready_within: 1,
        }
    }

    #[test]
    fn pods_are_as_many_as_asked_for() {
        for (pods, identities) in [(100, 10), (101, 10), (12, 10), (7, 3)] {
            let size = size(pods, identities);
            let servers: u32 = (0..identities).map(|identity| size.servers(identity)).sum();
            assert_eq!(servers + identities, pods);
        }
    }

    #[test]
    fn clients_share_the_load() {
        let size = size(100, 10);
        let load = |identity| Load { size: &size, identity, targets: &["10.0.0.1".to_owned()] }.arguments();
        // 10 clients, each 10 requests a second on new connections and 10 on two kept ones.
        for argument in ["--new-every-ms=100", "--kept-every-ms=200", "--open=3", "--http=10.0.0.1:8080"] {
            assert!(load(0).contains(&argument.to_owned()), "{argument}: {:?}", load(0));
        }
        assert!(load(5).contains(&"--open=2".to_owned()), "{:?}", load(5));
        assert_eq!(at("fd00::1", 80), "[fd00::1]:80");
    }

    #[test]
    fn objects_are_of_their_kinds() {
        let server = server("server-1", "id-1", "image", 3).unwrap();
        let spec = server.spec.unwrap();
        assert_eq!(spec.replicas, Some(3));
        assert_eq!(spec.template.spec.unwrap().containers[0].args, Some(vec!["serve".to_owned()]));
        assert!(service("server-1").is_ok() && account(1).is_ok());
        assert_eq!(enrolment(false), json!({"metadata": {"labels": {MODE: null}}}));
    }
}
