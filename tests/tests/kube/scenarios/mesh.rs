//! The mesh of a scenario: a namespace for control, one for what is enrolled, a node, and a gate between
//! control and the API server.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use ambit_proto::envoy::config::core::v3::Node as XdsNode;
use ambit_tests::kube_gate::Gate;
use ambit_tests::observer::Observer;
use ambit_tests::wait::until_answered;
use ambit_tests::{log, process, sandbox};
use ambit_xds::client::Config;
use ambit_xds::session::Interest;
use anyhow::{Context, Result};
use kube::ResourceExt;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::role::Role;
use crate::place::{CONTRACT, Place};
use ambit_tests::cluster::control::Control;
use ambit_tests::cluster::crowd::Where;
use ambit_tests::cluster::kinds::{
    CONFIG_MAPS, CRDS, DESTINATION_RULES, GATEWAY_CLASSES, GATEWAYS, GRPC_ROUTES, HTTP_ROUTES, Kind, LEASES,
    NAMESPACES, NODES, PEER_AUTHENTICATIONS, PODS, POLICIES, PROXY_REPORTS, SERVICE_ACCOUNTS,
    SERVICE_ENTRIES, TCP_ROUTES, TLS_ROUTES, VIRTUAL_SERVICES, WAYPOINTS, definition,
};
use ambit_tests::cluster::node::{LEASE_NAMESPACE, Node};
use ambit_tests::cluster::token::{self, BoundTo};
use ambit_tests::cluster::{unique, write_kubeconfig};

/// How long a start may take on a machine that does other things.
pub(crate) const START: Duration = Duration::from_secs(60);

/// How long a change may take to reach a proxy; it takes milliseconds.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// Lines of each replica's log that the report of a failure shows.
const TAIL: usize = 60;

/// The image of waypoints, which nobody runs here.
pub(crate) const WAYPOINT_IMAGE: &str = "registry.example/waypoint:1";

/// The audience of the agents' tokens.
const AUDIENCE: &str = "ambit-ca";

/// A mesh.
pub(crate) struct Mesh<'a> {
    pub(crate) place: &'a Place,
    pub(crate) gate: Gate,
    pub(crate) role: Role,
    /// Where control is.
    pub(crate) namespace: String,
    pub(crate) node: Node,
    kubeconfig: PathBuf,
}

impl<'a> Mesh<'a> {
    pub(crate) async fn make(place: &'a Place) -> Result<Self> {
        let namespace = unique("ambit-mesh");
        let node = unique("ambit-node");
        place.remove_later(NODES, "", &node);
        place.remove_later(LEASES, LEASE_NAMESPACE, &node);
        place.remove_later(NAMESPACES, "", &namespace);
        place
            .create(NAMESPACES, json!({"metadata": {"name": namespace, "labels": {CONTRACT: "true"}}}))
            .await?;
        for account in ["control", "ztunnel"] {
            let accounts = SERVICE_ACCOUNTS.api(place.client.clone(), &namespace);
            let account = SERVICE_ACCOUNTS.object(json!({"metadata": {"name": account}}))?;
            accounts.create(&Default::default(), &account).await?;
        }
        let role = Role::grant(place, &namespace).await?;
        let token = token::request(&place.client, (&namespace, "control"), &[], None).await?;
        let gate = Gate::open(place.access_with(&token)?)?;
        let kubeconfig = write_kubeconfig(place.directory(), "gate", &gate.url())?;
        let node = Node::make(&place.client, &node, "10.64.0.0/24").await?;
        let mesh = Self { place, gate, role, namespace, node, kubeconfig };
        mesh.agent_pod().await?;
        mesh.define_own_kinds().await?;
        Ok(mesh)
    }

    /// The last that the replicas said.
    pub(crate) fn logs(&self) -> String {
        log::tails_of(&self.namespace, TAIL)
    }

    /// Creates an object in control's namespace.
    pub(crate) async fn create(&self, kind: Kind, object: Value) -> Result<()> {
        let api = kind.api(self.place.client.clone(), &self.namespace);
        api.create(&Default::default(), &kind.object(object)?).await?;
        Ok(())
    }

    /// Defines Ambit's own kinds as an installation does, unless the cluster has them.
    async fn define_own_kinds(&self) -> Result<()> {
        let definitions = process::succeed(Command::new(sandbox::built_program("control")?).arg("crds"))?;
        for text in definitions.split("\n---\n").filter(|text| text.contains("apiVersion")) {
            let definition: Value = serde_saphyr::from_str(text)?;
            let name = definition["metadata"]["name"].as_str().context("a definition without a name")?;
            let kinds = [PROXY_REPORTS, WAYPOINTS];
            let is_it = |kind: &Kind| name == format!("{}.{}", kind.plural, kind.group);
            let kind = kinds.into_iter().find(is_it).with_context(|| format!("{name} is not known here"))?;
            if self.place.api(CRDS).get_opt(name).await?.is_none() {
                self.place.define(kind, definition).await?;
            }
        }
        Ok(())
    }

    /// Defines kinds of Istio's, unless the cluster has them.
    pub(crate) async fn define_policies(&self) -> Result<()> {
        let kinds = [POLICIES, PEER_AUTHENTICATIONS, VIRTUAL_SERVICES, DESTINATION_RULES, SERVICE_ENTRIES];
        self.define_open(&kinds).await
    }

    /// Defines kinds of the Gateway API, unless the cluster has them.
    pub(crate) async fn define_gateway_api(&self) -> Result<()> {
        self.define_open(&[GATEWAY_CLASSES, GATEWAYS, HTTP_ROUTES, GRPC_ROUTES, TLS_ROUTES, TCP_ROUTES]).await
    }

    async fn define_open(&self, kinds: &[Kind]) -> Result<()> {
        for &kind in kinds {
            let name = format!("{}.{}", kind.plural, kind.group);
            if self.place.api(CRDS).get_opt(&name).await?.is_none() {
                let open = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
                let schema = json!({"type": "object", "properties": {"spec": open, "status": open}});
                self.place.define(kind, definition(kind, &schema)).await?;
            }
        }
        Ok(())
    }

    /// Enrols the place's namespace in the mesh, or takes it out.
    pub(crate) async fn enrol(&self, enrolled: bool) -> Result<()> {
        let mode = if enrolled { json!("ambient") } else { Value::Null };
        let patch = json!({"metadata": {"labels": {"istio.io/dataplane-mode": mode}}});
        self.place.merge(NAMESPACES, &self.place.namespace, patch).await?;
        Ok(())
    }

    /// Where the scenario's pods go.
    pub(crate) fn pods(&self) -> Where {
        Where {
            client: self.place.client.clone(),
            namespace: self.place.namespace.clone(),
            node: self.node.name.clone(),
        }
    }

    /// Starts a replica of control.
    pub(crate) fn control(&self, name: &str) -> Result<Control> {
        let waypoints = ["--deploy-waypoints", "--waypoint-image", WAYPOINT_IMAGE];
        Control::start(name, &self.kubeconfig, &self.namespace, self.place.directory(), &waypoints)
    }

    /// Connects to a replica as the agent of the node does.
    pub(crate) async fn observe(&self, control: &Control) -> Result<Observer> {
        // It has nothing to say of itself.
        let (_, problems) = watch::channel(Vec::new());
        Ok(Observer::start(self.agent_of(control, problems).await?))
    }

    /// The same, with what the agent has to say of itself.
    pub(crate) async fn agent_of(
        &self,
        control: &Control,
        problems: watch::Receiver<Vec<String>>,
    ) -> Result<Config> {
        let (root_file, token_file) = (self.root_file().await?, self.token_file().await?);
        Ok(Config {
            address: control.url()?,
            root_file,
            token_file,
            cluster_id: "Kubernetes".into(),
            node: XdsNode { id: format!("ztunnel~{}", control.name()), ..XdsNode::default() },
            addresses: Interest::Everything,
            role: ambit_xds::Role::Node,
            problems,
        })
    }

    /// What workloads trust, as control publishes it.
    pub(crate) async fn root_file(&self) -> Result<PathBuf> {
        let maps = CONFIG_MAPS.api(self.place.client.clone(), &self.namespace);
        let (map, _) = until_answered("the ConfigMap of the roots", START, async || {
            Ok(maps.get("ambit-ca-root-cert").await?)
        })
        .await?;
        let roots = map.data["data"]["root-cert.pem"].as_str().context("it has no root-cert.pem")?;
        let file = self.place.directory().join("root-cert.pem");
        fs::write(&file, roots)?;
        Ok(file)
    }

    /// A token of the node's agent, as its kubelet would put it into the pod.
    pub(crate) async fn token_file(&self) -> Result<PathBuf> {
        let pods = PODS.api(self.place.client.clone(), &self.namespace);
        let uid = pods.get(AGENT).await?.uid().context("a pod has a UID")?;
        let bound = BoundTo { pod: AGENT.into(), uid };
        let account = (self.namespace.as_str(), "ztunnel");
        let token = token::request(&self.place.client, account, &[AUDIENCE], Some(&bound)).await?;
        let file = self.place.directory().join("token");
        fs::write(&file, token)?;
        Ok(file)
    }

    /// The pod of the node's agent, without a process.
    async fn agent_pod(&self) -> Result<()> {
        let spec = json!({
            "nodeName": self.node.name, "serviceAccountName": "ztunnel", "automountServiceAccountToken": false,
            "containers": [{"name": "c", "image": "none"}], "tolerations": [{"operator": "Exists"}],
        });
        self.create(PODS, json!({"metadata": {"name": AGENT}, "spec": spec})).await?;
        let status =
            json!({"status": {"phase": "Running", "podIP": "10.64.0.2", "podIPs": [{"ip": "10.64.0.2"}]}});
        let pods = PODS.api(self.place.client.clone(), &self.namespace);
        pods.patch_status(AGENT, &Default::default(), &kube::api::Patch::Merge(status)).await?;
        Ok(())
    }
}

const AGENT: &str = "ztunnel-0";
