//! A whole mesh on one machine: nodes, pods, services, control and an agent per node.

pub mod fabric;
mod published;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU16;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::agent::Agent;
use crate::cni::{PodSandbox, Runtime};
use crate::configuration::{Configuration, Dataplane, PodObject};
use crate::control::{Control, token_path};
use crate::mesh::fabric::{CONTROL, Fabric, Families, Node, PodAddresses};
use crate::namespace::Namespace;
use crate::pod::Pod;
use crate::sandbox::WORK;
use crate::wait::{self, SOON};

/// What a scenario may change about the programs.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How long a workload's certificate lives.
    pub certificate_life: Duration,
    /// How long an agent waits for open connections when it is asked to end.
    pub drain: Duration,
    /// The capture backend: `auto`, `nftables` or `iptables`.
    pub capture: &'static str,
    /// A plugged-in certificate authority, instead of control's own.
    pub ca_directory: Option<PathBuf>,
    /// Worker threads of an agent and of a waypoint; 0: one per processor.
    pub workers: usize,
    /// What becomes of the logs of agents and waypoints.
    pub agent_log: AgentLog,
    /// How agents find pods.
    pub finding: Finding,
    /// Whether agents have the container runtime of their node call the CNI plugin.
    pub cni: CniPlugin,
}

/// How agents find pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// By the annotation that names their network namespace.
    Annotation,
    /// By the processes of their node: see [`HostProc`](crate::host_proc::HostProc).
    Processes,
}

/// Whether agents install the CNI plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CniPlugin {
    /// They do not: pods are found by their annotation.
    Absent,
    /// They do, and pods can be made by [`Mesh::sandbox`] and the node's runtime.
    Installed,
}

/// What becomes of an agent's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AgentLog {
    /// Every detail is kept in memory, for scenarios to read.
    Kept,
    /// What is logged by default is written to [`Agent::log_file`], at no cost to this process.
    Written,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            certificate_life: Duration::from_secs(24 * 3600),
            drain: Duration::from_secs(5),
            capture: "auto",
            ca_directory: None,
            workers: 0,
            agent_log: AgentLog::Kept,
            finding: Finding::Annotation,
            cni: CniPlugin::Absent,
        }
    }
}

/// By which a pod leaves the mesh that its namespace is in.
pub const DATAPLANE_MODE: &str = "istio.io/dataplane-mode";

/// The mesh.
#[derive(Debug)]
pub struct Mesh {
    settings: Settings,
    fabric: Fabric,
    nodes: BTreeMap<String, Node>,
    agents: BTreeMap<String, Agent>,
    control: Control,
    configuration: Configuration,
    ambient: Mutex<BTreeMap<String, Dataplane>>,
    /// Of namespaces, by namespace and label.
    labels: Mutex<BTreeMap<(String, String), String>>,
    pods: Mutex<Vec<Pod>>,
    runtimes: BTreeMap<String, Runtime>,
    services: AtomicU16,
}

/// A Service by which pods are reached.
#[derive(Clone, Copy, Debug)]
pub struct Service {
    v4: Ipv4Addr,
    v6: Ipv6Addr,
    port: u16,
}

impl Service {
    /// Its virtual IPv4 address and port.
    pub fn v4(&self) -> SocketAddr {
        (self.v4, self.port).into()
    }

    /// Its virtual IPv6 address and port.
    pub fn v6(&self) -> SocketAddr {
        (self.v6, self.port).into()
    }
}

impl Mesh {
    /// Nodes without pods, and programs that are not started so far.
    ///
    /// # Errors
    /// When the kernel refuses a part of it.
    pub fn of_nodes<const N: usize>(names: [&str; N]) -> Result<Self> {
        Self::with_settings(Settings::default(), names)
    }

    /// The same, with other settings of the programs.
    ///
    /// # Errors
    /// When the kernel refuses a part of it.
    pub fn with_settings<const N: usize>(settings: Settings, names: [&str; N]) -> Result<Self> {
        let fabric = Fabric::create()?;
        let configuration = Configuration::create(Path::new(WORK).join("configuration"))?;
        let control = Control::new(
            fabric.host("control", CONTROL.octets()[3])?,
            configuration.directory(),
            settings.clone(),
        );
        let mut nodes = BTreeMap::new();
        let mut agents = BTreeMap::new();
        let mut runtimes = BTreeMap::new();
        for (number, name) in (1..).zip(names) {
            let node = fabric.node(name, number)?;
            for other in nodes.values() {
                join(other, &node)?;
            }
            node.route_from(control.namespace())?;
            configuration.node(name)?;
            if settings.cni == CniPlugin::Installed {
                let [v4, v6] = node.ranges();
                let ranges = [(&*v4.0, &*v4.1), (&*v6.0, &*v6.1)];
                runtimes.insert(name.to_owned(), Runtime::new(Arc::clone(&node.namespace), ranges)?);
            }
            agents.insert(name.to_owned(), Agent::new(name, Arc::clone(&node.namespace), settings.clone()));
            nodes.insert(name.to_owned(), node);
        }
        Ok(Self {
            settings,
            fabric,
            nodes,
            agents,
            control,
            configuration,
            ambient: Mutex::default(),
            labels: Mutex::default(),
            pods: Mutex::default(),
            runtimes,
            services: AtomicU16::new(10),
        })
    }

    /// A pod of both address families, named `<namespace>/<name>`, whose ServiceAccount has its name.
    ///
    /// # Errors
    /// When the kernel refuses a part of it.
    pub fn pod(&self, name: &str, node: &str) -> Result<Pod> {
        self.pod_with(name, node, Families::Dual, |_| {})
    }

    /// A pod that differs from the usual one.
    ///
    /// # Errors
    /// When the kernel refuses a part of it.
    pub fn pod_with(
        &self,
        name: &str,
        node: &str,
        families: Families,
        change: impl FnOnce(&mut PodObject),
    ) -> Result<Pod> {
        let (namespace, short) = name.split_once('/').context("a pod is named namespace/name")?;
        let node = self.nodes.get(node).with_context(|| format!("no node {node}"))?;
        let (place, addresses) = node.pod(&format!("{namespace}-{short}"), families)?;
        let uid = format!("00000000-0000-4000-8000-{:012}", lock(&self.pods).len() + 1);
        let mut object = PodObject {
            namespace: namespace.to_owned(),
            name: short.to_owned(),
            uid,
            node: node.name.clone(),
            service_account: short.to_owned(),
            labels: Vec::new(),
            annotations: vec![("ambit.dev/netns".to_owned(), place.path().display().to_string())],
            addresses: addresses
                .v4
                .map(IpAddr::from)
                .into_iter()
                .chain(addresses.v6.map(IpAddr::from))
                .collect(),
            ready: true,
            terminating: false,
            probe_port: None,
        };
        change(&mut object);
        self.configuration.pod(&object)?;
        let pod = Pod::new(place, addresses, object);
        lock(&self.pods).push(pod.clone());
        Ok(pod)
    }

    /// A pod that is scheduled to a node and has no network so far: the node's runtime makes it.
    ///
    /// # Errors
    /// When the kernel refuses its namespace.
    pub fn sandbox(&self, name: &str, node: &str) -> Result<PodSandbox> {
        let (namespace, short) = name.split_once('/').context("a pod is named namespace/name")?;
        let number = lock(&self.pods).len() + 1;
        let place = Namespace::create(&format!("{namespace}-{short}-{number}"))?;
        let object = PodObject {
            namespace: namespace.to_owned(),
            name: short.to_owned(),
            uid: format!("00000000-0000-4000-8000-{number:012}"),
            node: node.to_owned(),
            service_account: short.to_owned(),
            labels: Vec::new(),
            annotations: Vec::new(),
            addresses: Vec::new(),
            ready: false,
            terminating: false,
            probe_port: None,
        };
        self.configuration.pod(&object)?;
        let addresses = PodAddresses { v4: None, v6: None };
        lock(&self.pods).push(Pod::new(Arc::clone(&place), addresses, object.clone()));
        let id = format!("sandbox-{number}");
        Ok(PodSandbox { id, namespace: place, pod: name.to_owned(), uid: object.uid })
    }

    /// Has the runtime of its node make the network of a pod, and publishes it as running.
    ///
    /// # Errors
    /// When the runtime fails, with a [`PluginError`](crate::cni::PluginError) as the cause.
    pub fn start_sandbox(&self, sandbox: &PodSandbox, node: &str) -> Result<Pod> {
        let addresses = self.runtime(node).add(sandbox)?;
        self.publish_sandbox(sandbox, &addresses)
    }

    /// Publishes a pod whose network the runtime has made as running.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn publish_sandbox(&self, sandbox: &PodSandbox, addresses: &[IpAddr]) -> Result<Pod> {
        let mut pods = lock(&self.pods);
        let known = pods.iter_mut().find(|pod| pod.object().uid == sandbox.uid);
        let known = known.context("the sandbox is of this mesh")?;
        let mut object = known.object();
        (object.addresses, object.ready) = (addresses.to_vec(), true);
        self.configuration.pod(&object)?;
        let of_family = PodAddresses {
            v4: addresses.iter().find_map(|address| match address {
                IpAddr::V4(address) => Some(*address),
                IpAddr::V6(_) => None,
            }),
            v6: addresses.iter().find_map(|address| match address {
                IpAddr::V6(address) => Some(*address),
                IpAddr::V4(_) => None,
            }),
        };
        *known = Pod::new(Arc::clone(&sandbox.namespace), of_family, object);
        Ok(known.clone())
    }

    /// A machine on the fabric that the mesh knows nothing of, at `10.200.0.<host>`.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn outside_host(&self, name: &str, host: u8) -> Result<Arc<Namespace>> {
        let namespace = self.fabric.host(name, host)?;
        for node in self.nodes.values() {
            node.route_from(&namespace)?;
        }
        Ok(namespace)
    }

    /// Unplugs a node, as one that has lost its power: nobody is told, and nothing is answered.
    ///
    /// # Errors
    /// When there is no such node.
    pub fn unplug(&self, node: &str) -> Result<()> {
        self.node_named(node)?.set_plugged(false)
    }

    /// Plugs it in again.
    ///
    /// # Errors
    /// When there is no such node.
    pub fn plug_in(&self, node: &str) -> Result<()> {
        self.node_named(node)?.set_plugged(true)
    }

    fn node_named(&self, name: &str) -> Result<&Node> {
        self.nodes.get(name).with_context(|| format!("no node {name}"))
    }

    /// Starts control and every agent, and waits until each pod that asks for it is captured.
    ///
    /// # Errors
    /// When one of them does not become ready.
    pub fn start(&self) -> Result<()> {
        self.start_control()?;
        for agent in self.agents.values() {
            agent.launch()?;
        }
        for agent in self.agents.values() {
            agent.wait_until_ready()?;
        }
        self.wait_until_captured()
    }

    /// Starts control, and waits for what agents need of it.
    ///
    /// # Errors
    /// When it does not become ready.
    pub fn start_control(&self) -> Result<()> {
        self.control.start()?;
        for node in self.nodes.keys() {
            let token = token_path(node);
            wait::until_true(format!("the token of {node}"), SOON, || token.exists())?;
        }
        Ok(())
    }

    /// Waits until each pod that asks for the mesh, on a node whose agent runs, is captured.
    ///
    /// # Errors
    /// When one is not.
    pub fn wait_until_captured(&self) -> Result<()> {
        let pods = lock(&self.pods).clone();
        for pod in pods {
            let object = pod.object();
            let ambient = lock(&self.ambient).get(&object.namespace) == Some(&Dataplane::Ambient);
            let is_out = object.labels.iter().any(|(key, value)| key == DATAPLANE_MODE && value == "none");
            if ambient && !is_out && self.agent(&object.node).process().is_ok() {
                pod.wait_until_captured()?;
            }
        }
        Ok(())
    }

    /// The configuration directory.
    pub fn configuration(&self) -> &Configuration {
        &self.configuration
    }

    /// How the programs differ from the usual ones.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Control.
    pub fn control(&self) -> &Control {
        &self.control
    }

    /// The agent of a node.
    ///
    /// # Panics
    /// When there is no such node: the scenario misspelt it.
    pub fn agent(&self, node: &str) -> &Agent {
        self.agents.get(node).unwrap_or_else(|| panic!("no node {node}"))
    }

    /// The container runtime of a node.
    ///
    /// # Panics
    /// When there is none: the scenario did not ask for [`CniPlugin::Installed`].
    pub fn runtime(&self, node: &str) -> &Runtime {
        self.runtimes.get(node).unwrap_or_else(|| panic!("no runtime on {node}"))
    }

    /// The agents of all nodes.
    pub fn agents(&self) -> impl Iterator<Item = &Agent> {
        self.agents.values()
    }
}

fn join(one: &Node, other: &Node) -> Result<()> {
    one.route_from(&other.namespace)?;
    other.route_from(&one.namespace)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
