//! The command line and environment of the agent: every setting, its unit, default and meaning.

use std::convert::Infallible;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use ambit_mesh::identity::TrustDomain;
use ambit_runtime::config::{CommonFlags, parse_duration, serialize_duration};
use clap::{Args, Parser, Subcommand, ValueEnum};
use ipnet::IpNet;
use serde::Serialize;

/// The node agent of Ambit.
#[derive(Debug, Parser)]
#[command(name = "ztunnel", version, about, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the program can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the agent of this node until SIGTERM.
    Run(Box<RunConfig>),
    /// Close one pod before any agent runs: install the redirection, so that nothing leaves in clear.
    Capture(CaptureConfig),
    /// Remove every redirection that an agent left on this node.
    Uninstall(UninstallConfig),
    /// Serve a call of the container runtime, which describes it in the environment (CNI), or bring the
    /// plugin into the node's network configuration and out of it.
    Cni(CniArguments),
}

/// Settings of `ztunnel run`.
#[derive(Debug, Clone, Args, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct RunConfig {
    /// Name of the node this agent runs on, as in `Node.metadata.name`.
    #[arg(long, env = "AMBIT_NODE", value_name = "NAME")]
    pub node: String,
    /// Identifier of the cluster, as in `Workload.cluster_id`.
    #[arg(long, env = "AMBIT_CLUSTER_ID", default_value = "Kubernetes", value_name = "NAME")]
    pub cluster_id: String,
    /// Trust domain of the mesh: certificates of another are refused.
    #[arg(long, env = "AMBIT_TRUST_DOMAIN", default_value = "cluster.local", value_name = "NAME")]
    #[serde(serialize_with = "as_text")]
    pub trust_domain: TrustDomain,
    /// Directory for what must outlive a restart; best on a tmpfs, readable by root only.
    #[arg(long, env = "AMBIT_STATE_DIR", default_value = "/run/ambit", value_name = "DIR")]
    pub state_dir: PathBuf,
    /// Where this process runs, as its container's next process will, too: the UID of the agent's pod.
    /// An agent does not hand over to the place that it has replaced.
    #[arg(long, env = "AMBIT_INSTANCE", value_name = "UID")]
    pub instance: Option<String>,
    /// Control plane.
    #[command(flatten)]
    #[serde(flatten)]
    pub control: ControlConfig,
    /// The end.
    #[command(flatten)]
    #[serde(flatten)]
    pub end: EndConfig,
    /// Capture.
    #[command(flatten)]
    #[serde(flatten)]
    pub capture: CaptureSettings,
    /// The CNI plugin.
    #[command(flatten)]
    #[serde(flatten)]
    pub cni: CniSettings,
    /// Data path.
    #[command(flatten)]
    #[serde(flatten)]
    pub data_path: DataPathConfig,
    /// Admin, metrics, readiness, logs.
    #[command(flatten)]
    #[serde(flatten)]
    pub common: CommonFlags,
}

/// Where configuration and certificates come from.
#[derive(Debug, Clone, Args, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct ControlConfig {
    /// Address of control: xDS and certificates.
    #[arg(
        long,
        env = "AMBIT_XDS_ADDRESS",
        default_value = "https://control.ambit-system.svc:15012",
        value_name = "URL"
    )]
    pub xds_address: String,
    /// PEM file with the roots that control's certificate must chain to. Read again for every
    /// connection.
    #[arg(
        long,
        env = "AMBIT_XDS_ROOT_FILE",
        default_value = "/var/run/secrets/ambit/root-cert.pem",
        value_name = "FILE"
    )]
    pub xds_root_file: PathBuf,
    /// File with the bearer token that proves which node this is. Read again for every connection.
    #[arg(
        long,
        env = "AMBIT_TOKEN_FILE",
        default_value = "/var/run/secrets/ambit/token",
        value_name = "FILE"
    )]
    pub token_file: PathBuf,
    /// Life of certificates to ask for.
    #[arg(long, env = "AMBIT_CERTIFICATE_TTL", default_value = "24h", value_parser = parse_duration, value_name = "DURATION")]
    #[serde(serialize_with = "serialize_duration")]
    pub certificate_ttl: Duration,
}

/// How pods are captured.
#[derive(Debug, Clone, Args, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct CaptureSettings {
    /// What installs the redirection.
    #[arg(long, env = "AMBIT_CAPTURE", default_value = "auto", value_enum)]
    pub capture: CaptureBackend,
    /// Capture pods named by the annotation `ambit.dev/netns`. Only where the author of a pod may
    /// name any network namespace of this node: in directory mode.
    #[arg(long, env = "AMBIT_ALLOW_NETNS_ANNOTATION", conflicts_with = "host_proc")]
    pub allow_netns_annotation: bool,
    /// The node's /proc: pods that already run are found by their processes. Without it only pods are
    /// captured that the CNI plugin tells of.
    #[arg(long, env = "AMBIT_HOST_PROC", value_name = "DIR")]
    pub host_proc: Option<PathBuf>,
    /// The node's own network namespace, such as /host/proc/1/ns/net, for an agent that runs in a
    /// network of its own. Kubelet probes come from there.
    #[arg(long, env = "AMBIT_HOST_NETNS", value_name = "PATH")]
    pub host_netns: Option<PathBuf>,
    /// The cgroup that the kubelet keeps pods in: its setting cgroupRoot.
    #[arg(long, env = "AMBIT_KUBELET_CGROUP_ROOT", default_value = "/", value_name = "PATH")]
    pub kubelet_cgroup_root: String,
}

/// What installs the redirection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CaptureBackend {
    /// nftables where the kernel has it, iptables otherwise.
    Auto,
    /// nftables, through netlink.
    Nftables,
    /// iptables, through `iptables-restore`.
    Iptables,
}

/// How traffic is carried.
#[derive(Debug, Clone, Args, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct DataPathConfig {
    /// Worker threads; 0: one per processor.
    #[arg(long, env = "AMBIT_WORKERS", default_value_t = 0, value_name = "N")]
    pub workers: usize,
    /// Addresses of the mesh's own pods and services: a destination inside that is not known waits
    /// and is then refused, never sent in clear. May be repeated, or separated by commas.
    #[arg(long = "mesh-range", env = "AMBIT_MESH_RANGES", value_delimiter = ',', value_name = "CIDR")]
    #[serde(serialize_with = "as_texts")]
    pub mesh_ranges: Vec<IpNet>,
    /// How long a connection waits for what the agent does not know yet: its first configuration,
    /// its pod's certificate, a destination inside the mesh's ranges.
    #[arg(long, env = "AMBIT_UNKNOWN_WAIT", default_value = "5s", value_parser = parse_duration, value_name = "DURATION")]
    #[serde(serialize_with = "serialize_duration")]
    pub unknown_wait: Duration,
    /// How long connecting to an application or a peer may take, TCP and TLS each.
    #[arg(long, env = "AMBIT_CONNECT_TIMEOUT", default_value = "10s", value_parser = parse_duration, value_name = "DURATION")]
    #[serde(serialize_with = "serialize_duration")]
    pub connect_timeout: Duration,
    /// How long a connection may be silent before it is reset.
    #[arg(long, env = "AMBIT_IDLE_TIMEOUT", default_value = "24h", value_parser = parse_duration, value_name = "DURATION")]
    #[serde(serialize_with = "serialize_duration")]
    pub idle_timeout: Duration,
    /// The same once one side has ended.
    #[arg(long, env = "AMBIT_HALF_CLOSED_TIMEOUT", default_value = "1h", value_parser = parse_duration, value_name = "DURATION")]
    #[serde(serialize_with = "serialize_duration")]
    pub half_closed_timeout: Duration,
    /// How long a tunnel without streams is kept.
    #[arg(long, env = "AMBIT_TUNNEL_IDLE_TIMEOUT", default_value = "5m", value_parser = parse_duration, value_name = "DURATION")]
    #[serde(serialize_with = "serialize_duration")]
    pub tunnel_idle_timeout: Duration,
    /// How long a tunnel may outlive the certificate it was opened with, for streams that last.
    #[arg(long, env = "AMBIT_TUNNEL_GRACE", default_value = "24h", value_parser = parse_duration, value_name = "DURATION")]
    #[serde(serialize_with = "serialize_duration")]
    pub tunnel_grace: Duration,
}

/// How the agent ends.
#[derive(Debug, Clone, Args, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct EndConfig {
    /// How long open connections may finish after SIGTERM when no other agent has taken over: nobody
    /// accepts new ones meanwhile.
    #[arg(long, env = "AMBIT_DRAIN_TIMEOUT", default_value = "25s", value_parser = parse_duration, value_name = "DURATION")]
    #[serde(serialize_with = "serialize_duration")]
    pub drain_timeout: Duration,
    /// The same when another agent has taken over.
    #[arg(long, env = "AMBIT_HANDOVER_DRAIN_TIMEOUT", default_value = "10m", value_parser = parse_duration, value_name = "DURATION")]
    #[serde(serialize_with = "serialize_duration")]
    pub handover_drain_timeout: Duration,
    /// Whether, after SIGTERM without another agent, the API server is asked if the mesh was
    /// uninstalled, and which one: `auto` is the one of the cluster this runs in, if any.
    #[arg(long, env = "AMBIT_UNINSTALL_CHECK", default_value = "auto", value_name = "auto|off|URL")]
    pub uninstall_check: UninstallCheck,
    /// How long it is asked before the agent takes no new connections and ends.
    #[arg(long, env = "AMBIT_UNINSTALL_WAIT", default_value = "20s", value_parser = parse_duration, value_name = "DURATION")]
    #[serde(serialize_with = "serialize_duration")]
    pub uninstall_wait: Duration,
    /// File with the bearer token for the API server. Read again for every question.
    #[arg(
        long,
        env = "AMBIT_API_TOKEN_FILE",
        default_value = "/var/run/secrets/kubernetes.io/serviceaccount/token",
        value_name = "FILE"
    )]
    pub api_token_file: PathBuf,
    /// PEM file with the roots that the API server's certificate must chain to.
    #[arg(
        long,
        env = "AMBIT_API_ROOT_FILE",
        default_value = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt",
        value_name = "FILE"
    )]
    pub api_root_file: PathBuf,
}

/// Whether and where it is asked if the mesh was uninstalled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum UninstallCheck {
    /// In the cluster that this process runs in, if it runs in one.
    Auto,
    /// Nowhere.
    Off,
    /// At this address.
    At(String),
}

impl FromStr for UninstallCheck {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "auto" => Self::Auto,
            "off" => Self::Off,
            address => Self::At(address.to_owned()),
        })
    }
}

/// How pods are captured before they start.
#[derive(Debug, Clone, Args, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct CniSettings {
    /// Directory of network configurations that the container runtime reads, usually
    /// /etc/cni/net.d: the CNI plugin is put into the one it uses, and kept there.
    #[arg(long, env = "AMBIT_CNI_CONF_DIR", requires = "cni_bin_dir", value_name = "DIR")]
    pub cni_conf_dir: Option<PathBuf>,
    /// Directory in which the container runtime looks for plugins, usually /opt/cni/bin.
    #[arg(long, env = "AMBIT_CNI_BIN_DIR", requires = "cni_conf_dir", value_name = "DIR")]
    pub cni_bin_dir: Option<PathBuf>,
    /// What the plugin is told.
    #[command(flatten)]
    #[serde(flatten)]
    pub plugin: CniPluginSettings,
}

/// What the CNI plugin is told.
#[derive(Debug, Clone, Args, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct CniPluginSettings {
    /// The network configuration to extend. Without it: the first one by name, as container runtimes
    /// choose.
    #[arg(long, env = "AMBIT_CNI_CONF_NAME", value_name = "FILE")]
    pub cni_conf_name: Option<String>,
    /// Directory of the host that survives a reboot, usually /var/lib/ambit: the list of enrolled
    /// namespaces is kept there too, so that their pods do not start uncaptured before an agent runs.
    #[arg(long, env = "AMBIT_CNI_STATE_DIR", value_name = "DIR")]
    pub cni_state_dir: Option<PathBuf>,
    /// How long the start of a pod may wait for being captured.
    #[arg(long, env = "AMBIT_CNI_TIMEOUT", default_value = "20s", value_parser = parse_duration, value_name = "DURATION")]
    #[serde(serialize_with = "serialize_duration")]
    pub cni_timeout: Duration,
    /// Namespaces that the cluster cannot do without: their pods start even if the list is damaged and
    /// no agent runs. May be repeated, or separated by commas.
    #[arg(
        long = "cni-system-namespace",
        env = "AMBIT_CNI_SYSTEM_NAMESPACES",
        value_delimiter = ',',
        default_value = "kube-system",
        value_name = "NAME"
    )]
    pub cni_system_namespaces: Vec<String>,
    /// The namespace that the mesh itself runs in: its pods always start.
    #[arg(long, env = "AMBIT_NAMESPACE", default_value = "ambit-system", value_name = "NAME")]
    pub namespace: String,
}

/// Arguments of `ztunnel cni`.
#[derive(Debug, Clone, Args)]
pub struct CniArguments {
    /// What to do beside serving a call.
    #[command(subcommand)]
    pub command: Option<CniCommand>,
}

/// What can be done about the CNI plugin.
#[derive(Debug, Clone, Subcommand)]
pub enum CniCommand {
    /// Copy this program to where the container runtime finds it, and name it in the network
    /// configuration. An agent with --cni-conf-dir does that by itself.
    Install(CniInstallConfig),
    /// Take the plugin out of every network configuration and remove the program.
    Uninstall(CniDirectories),
}

/// Settings of `ztunnel cni install`.
#[derive(Debug, Clone, Args)]
pub struct CniInstallConfig {
    /// Where the plugin goes.
    #[command(flatten)]
    pub directories: CniDirectories,
    /// What the plugin is told.
    #[command(flatten)]
    pub plugin: CniPluginSettings,
    /// The agent's state directory: its socket is there.
    #[arg(long, env = "AMBIT_STATE_DIR", default_value = "/run/ambit", value_name = "DIR")]
    pub state_dir: PathBuf,
}

/// Where a container runtime has its network plugins.
#[derive(Debug, Clone, Args)]
pub struct CniDirectories {
    /// Directory of network configurations.
    #[arg(long, env = "AMBIT_CNI_CONF_DIR", default_value = "/etc/cni/net.d", value_name = "DIR")]
    pub cni_conf_dir: PathBuf,
    /// Directory of plugins.
    #[arg(long, env = "AMBIT_CNI_BIN_DIR", default_value = "/opt/cni/bin", value_name = "DIR")]
    pub cni_bin_dir: PathBuf,
}

/// Settings of `ztunnel capture`.
#[derive(Debug, Clone, Args)]
pub struct CaptureConfig {
    /// Path of the pod's network namespace.
    #[arg(long, env = "AMBIT_NETNS", value_name = "PATH")]
    pub netns: PathBuf,
    /// UID of the pod, as in `Pod.metadata.uid`: the agent finds its marks by it.
    #[arg(long, env = "AMBIT_POD_UID", value_name = "UID")]
    pub pod_uid: String,
    /// What installs the redirection.
    #[arg(long, env = "AMBIT_CAPTURE", default_value = "auto", value_enum)]
    pub capture: CaptureBackend,
    /// The agent's state directory: it must find the pod's marks there.
    #[arg(long, env = "AMBIT_STATE_DIR", default_value = "/run/ambit", value_name = "DIR")]
    pub state_dir: PathBuf,
}

/// Settings of `ztunnel uninstall`.
#[derive(Debug, Clone, Args)]
pub struct UninstallConfig {
    /// The agent's state directory: it names the pods that were captured by a path.
    #[arg(long, env = "AMBIT_STATE_DIR", default_value = "/run/ambit", value_name = "DIR")]
    pub state_dir: PathBuf,
    /// The node's /proc: the network namespaces of all its processes are looked at.
    #[arg(long, env = "AMBIT_HOST_PROC", value_name = "DIR")]
    pub host_proc: Option<PathBuf>,
    /// The node's own network namespace, which is left alone.
    #[arg(long, env = "AMBIT_HOST_NETNS", value_name = "PATH")]
    pub host_netns: Option<PathBuf>,
}

fn as_text<S: serde::Serializer>(value: &TrustDomain, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

fn as_texts<S: serde::Serializer>(values: &[IpNet], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(values.iter().map(ToString::to_string))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// On Kubernetes the author of a pod must not name another pod's network.
    #[test]
    fn pods_may_not_name_their_network_where_they_are_looked_for() {
        let run = ["ztunnel", "run", "--node", "n1", "--allow-netns-annotation"];
        assert!(Cli::try_parse_from(run).is_ok());
        let refused = Cli::try_parse_from(run.into_iter().chain(["--host-proc", "/host/proc"])).unwrap_err();
        assert_eq!(refused.kind(), clap::error::ErrorKind::ArgumentConflict);
    }
}
