//! The command line: every flag with its environment variable, default and unit.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use ambit_kube::Access;
use ambit_mesh::address::Network;
use ambit_mesh::identity::TrustDomain;
use ambit_runtime::config::{Check, CommonFlags, InvalidConfig, parse_duration, serialize_duration};
use clap::{Parser, Subcommand};
use ipnet::{AddrParseError, IpNet};
use serde::{Serialize, Serializer};

use crate::ca::current::Origin;
use crate::ca::lifetime::Lifetimes;
use crate::kube::Replica;
use crate::kube::token_review::decide::{Account, Rules};
use crate::kube::waypoints::desired::Common;
use crate::translate::{CLUSTER_DOMAIN, NetnsAnnotation, Settings};

/// The control service of Ambit: reads configuration, serves xDS and certificates to the agents of
/// the nodes.
#[derive(Debug, Parser, Serialize)]
#[command(version, args_conflicts_with_subcommands = true)]
#[serde(rename_all = "kebab-case")]
pub struct Flags {
    /// What to do instead of serving.
    #[command(subcommand)]
    #[serde(skip)]
    pub command: Option<Command>,
    /// Directory of Kubernetes YAML (*.yaml, *.yml, with subdirectories). It is watched. Either this
    /// or --kubernetes is needed.
    #[arg(long, env = "AMBIT_CONFIG", value_name = "DIR")]
    pub config: Option<PathBuf>,
    /// Read the configuration from a Kubernetes API server: as the ServiceAccount of the pod that
    /// control runs in, unless --kubeconfig or --context is given.
    #[arg(long, env = "AMBIT_KUBERNETES")]
    pub kubernetes: bool,
    /// The kubeconfig file that says where the API server is.
    #[arg(long, env = "AMBIT_KUBECONFIG", value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig file; without it the current one.
    #[arg(long, env = "AMBIT_CONTEXT", value_name = "NAME")]
    pub context: Option<String>,
    /// The namespace in which the mesh itself is installed.
    #[arg(long, env = "AMBIT_NAMESPACE", value_name = "NAME", default_value = "ambit-system")]
    pub namespace: String,
    /// The pod that control runs in; its ProxyReport and its place in the election are named so.
    /// Without it the machine's name and the process's number.
    #[arg(long, env = "AMBIT_POD_NAME", value_name = "NAME")]
    pub pod_name: Option<String>,
    /// The UID of that pod: with the pod goes what belongs to it.
    #[arg(long, env = "AMBIT_POD_UID", value_name = "UID", requires = "pod_name")]
    pub pod_uid: Option<String>,
    /// Print everything that is wrong with the configuration, with file and line, and exit: with 1
    /// if anything is not in force as written.
    #[arg(long)]
    pub check: bool,
    /// Directory for what control keeps: roots and keys, tokens, statuses. Needed with --config.
    #[arg(long, env = "AMBIT_STATE", value_name = "DIR")]
    pub state: Option<PathBuf>,
    /// Where xDS and certificates are served.
    #[arg(long, env = "AMBIT_XDS_ADDRESS", value_name = "IP:PORT", default_value = "[::]:15012")]
    pub xds_address: SocketAddr,
    /// DNS names and IP addresses by which agents reach that address. Repeat or separate by commas.
    #[arg(
        long,
        env = "AMBIT_XDS_NAME",
        value_name = "NAME",
        value_delimiter = ',',
        default_value = "control.ambit-system.svc"
    )]
    pub xds_name: Vec<String>,
    /// The trust domain of every identity.
    #[arg(long, env = "AMBIT_TRUST_DOMAIN", value_name = "NAME", default_value = "cluster.local")]
    #[serde(serialize_with = "serialize_text")]
    pub trust_domain: TrustDomain,
    /// The name of the cluster.
    #[arg(long, env = "AMBIT_CLUSTER_ID", value_name = "NAME", default_value = "Kubernetes")]
    pub cluster_id: String,
    /// The network that all addresses belong to, in a mesh of several networks.
    #[arg(long, env = "AMBIT_NETWORK", value_name = "NAME", default_value = "")]
    pub network: String,
    /// Addresses of the mesh's own pods and services, beside those that nodes say: agents refuse a
    /// destination inside that nobody knows. Repeat or separate by commas.
    #[arg(long = "mesh-range", env = "AMBIT_MESH_RANGES", value_name = "CIDR")]
    pub mesh_ranges: Vec<Ranges>,
    /// Directory of a CA to issue from: root-cert.pem, ca-cert.pem, ca-key.pem, cert-chain.pem, or
    /// cert-manager's tls.crt, tls.key, ca.crt. It is watched. Without it control keeps a root of its
    /// own: in the state directory, or on Kubernetes in the Secret ambit-ca, unless there is a Secret
    /// cacerts.
    #[arg(long, env = "AMBIT_CA_DIR", value_name = "DIR")]
    pub ca_dir: Option<PathBuf>,
    /// On Kubernetes: the audience of the tokens that callers show; one of these. Repeat or separate by
    /// commas.
    #[arg(
        long,
        env = "AMBIT_TOKEN_AUDIENCE",
        value_name = "AUDIENCE",
        value_delimiter = ',',
        default_value = "ambit-ca"
    )]
    pub token_audience: Vec<String>,
    /// On Kubernetes: the ServiceAccount of the node agents; ztunnel of the mesh's own namespace unless
    /// given. Repeat or separate by commas.
    #[arg(long, env = "AMBIT_AGENT_SERVICE_ACCOUNT", value_name = "NAMESPACE/NAME", value_delimiter = ',')]
    pub agent_service_account: Vec<Account>,
    /// On Kubernetes: deploy a waypoint for each Gateway of class ambit-waypoint.
    #[arg(long, env = "AMBIT_DEPLOY_WAYPOINTS")]
    pub deploy_waypoints: bool,
    /// The image of the waypoints that are deployed.
    #[arg(long, env = "AMBIT_WAYPOINT_IMAGE", value_name = "IMAGE")]
    pub waypoint_image: Option<String>,
    /// When nodes pull that image: IfNotPresent, Always or Never.
    #[arg(
        long,
        env = "AMBIT_WAYPOINT_IMAGE_PULL_POLICY",
        value_name = "POLICY",
        default_value = "IfNotPresent"
    )]
    pub waypoint_image_pull_policy: String,
    /// The life of a certificate for which none is asked.
    #[arg(long, env = "AMBIT_DEFAULT_CERTIFICATE_TTL", value_name = "DURATION", default_value = "24h", value_parser = parse_duration)]
    #[serde(serialize_with = "serialize_duration")]
    pub default_certificate_ttl: Duration,
    /// The longest life of a certificate.
    #[arg(long, env = "AMBIT_MAX_CERTIFICATE_TTL", value_name = "DURATION", default_value = "24h", value_parser = parse_duration)]
    #[serde(serialize_with = "serialize_duration")]
    pub max_certificate_ttl: Duration,
    /// The shortest life of a certificate.
    #[arg(long, env = "AMBIT_MIN_CERTIFICATE_TTL", value_name = "DURATION", default_value = "30s", value_parser = parse_duration)]
    #[serde(serialize_with = "serialize_duration")]
    pub min_certificate_ttl: Duration,
    /// Honour the annotation ambit.dev/netns on pods. Whoever can write pods can then point the
    /// agents, which are root, at any network namespace of their nodes.
    #[arg(long, env = "AMBIT_ALLOW_NETNS_ANNOTATION")]
    pub allow_netns_annotation: bool,
    /// What all programs have.
    #[command(flatten)]
    #[serde(flatten)]
    pub common: CommonFlags,
}

/// What control can do instead of serving.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Print the CustomResourceDefinitions that Ambit owns, as YAML.
    Crds,
}

/// What control is to do: exactly one of these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Print the definitions of our own kinds, and end.
    Crds,
    /// Report what is wrong with a directory, and end.
    Check {
        /// The directory.
        config: PathBuf,
    },
    /// Serve what a directory says.
    Directory(DirectoryMode),
    /// Serve what an API server says.
    Kubernetes(KubernetesMode),
}

/// Where everything is when control reads a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryMode {
    /// The configuration.
    pub config: PathBuf,
    /// What control keeps.
    pub state: PathBuf,
}

/// Where everything is when control reads an API server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KubernetesMode {
    /// The API server.
    pub access: Access,
    /// Which of its replicas this is, and the mesh's own namespace.
    pub replica: Replica,
    /// What control keeps on disk, if anything.
    pub state: Option<PathBuf>,
}

impl Flags {
    /// What control is to do.
    ///
    /// # Errors
    /// When the flags ask for nothing, or for several things at once.
    pub fn mode(&self) -> Result<Mode, InvalidConfig> {
        if let Some(Command::Crds) = self.command {
            return Ok(Mode::Crds);
        }
        let mut problems = Vec::new();
        let mut refuse = |is_wrong: bool, problem: &str| {
            if is_wrong {
                problems.push(problem.to_owned());
            }
        };
        refuse(self.config.is_some() == self.kubernetes, "either --config DIR or --kubernetes is needed");
        if self.kubernetes {
            refuse(self.check, "--check reads a directory: name it with --config");
            refuse(
                self.deploy_waypoints && self.waypoint_image.as_deref().is_none_or(str::is_empty),
                "--deploy-waypoints needs --waypoint-image",
            );
            refuse(
                self.allow_netns_annotation,
                "--allow-netns-annotation cannot be used with --kubernetes: whoever can write pods there is \
                 not trusted with the nodes",
            );
        } else {
            refuse(self.kubeconfig.is_some(), "--kubeconfig needs --kubernetes");
            refuse(self.deploy_waypoints, "--deploy-waypoints needs --kubernetes");
            refuse(self.context.is_some(), "--context needs --kubernetes");
            refuse(self.state.is_none() && !self.check, "--state DIR is needed with --config");
        }
        if !problems.is_empty() {
            return Err(InvalidConfig { problems });
        }
        Ok(match (&self.config, &self.state) {
            (Some(config), _) if self.check => Mode::Check { config: config.clone() },
            (Some(config), Some(state)) => {
                Mode::Directory(DirectoryMode { config: config.clone(), state: state.clone() })
            }
            // A directory without state was refused above.
            (Some(_), None) | (None, _) => Mode::Kubernetes(KubernetesMode {
                access: self.access(),
                replica: self.replica(),
                state: self.state.clone(),
            }),
        })
    }

    fn replica(&self) -> Replica {
        let name = self.pod_name.clone().unwrap_or_else(Replica::name_of_process);
        Replica { name, uid: self.pod_uid.clone(), namespace: self.namespace.clone() }
    }

    fn access(&self) -> Access {
        match (&self.kubeconfig, &self.context) {
            (None, None) => Access::InCluster,
            (file, context) => Access::Kubeconfig { file: file.clone(), context: context.clone() },
        }
    }

    /// What holds for the whole mesh.
    pub fn settings(&self) -> Settings {
        Settings {
            cluster_id: self.cluster_id.as_str().into(),
            network: Network(self.network.as_str().into()),
            trust_domain: self.trust_domain.clone(),
            mesh_ranges: self.mesh_ranges.iter().flat_map(|ranges| ranges.0.iter().copied()).collect(),
            netns_annotation: match self.allow_netns_annotation {
                true => NetnsAnnotation::Honoured,
                false => NetnsAnnotation::Ignored,
            },
        }
    }

    /// Where the authority's key comes from.
    pub fn authority(&self) -> Origin {
        self.ca_dir.clone().map_or(Origin::OwnRoot, Origin::PluggedIn)
    }

    /// Whose tokens count on Kubernetes.
    pub fn token_rules(&self, namespace: &str) -> Rules {
        let mut agents: BTreeSet<_> = self.agent_service_account.iter().cloned().collect();
        if agents.is_empty() {
            agents.insert(Account { namespace: namespace.into(), name: "ztunnel".into() });
        }
        Rules { audiences: self.token_audience.clone(), agents }
    }

    /// By which names control is reached: those that were given, and on Kubernetes those of its Service.
    pub fn serving_names(&self) -> Vec<String> {
        let mut names = self.xds_name.clone();
        if self.kubernetes {
            let service = format!("control.{}.svc", self.namespace);
            names.extend([format!("{service}.{CLUSTER_DOMAIN}"), service]);
        }
        names.sort_unstable();
        names.dedup();
        names
    }

    /// What waypoints are deployed with from `namespace`, where that is wanted.
    pub fn waypoints(&self, namespace: &str) -> Option<Common> {
        let image = self.waypoint_image.clone().filter(|_| self.deploy_waypoints)?;
        Some(Common {
            image,
            image_pull_policy: self.waypoint_image_pull_policy.clone(),
            xds_address: format!("https://control.{namespace}.svc:{}", self.xds_address.port()),
            token_audience: self.token_audience.first().cloned().unwrap_or_default(),
            trust_domain: self.trust_domain.to_string(),
            cluster_id: self.cluster_id.clone(),
        })
    }

    /// How long certificates live.
    ///
    /// # Errors
    /// When the bounds are not in order.
    pub fn lifetimes(&self) -> Result<Lifetimes, InvalidConfig> {
        let (shortest, default, longest) =
            (self.min_certificate_ttl, self.default_certificate_ttl, self.max_certificate_ttl);
        let mut check = Check::default();
        let lifetimes = check.ok("--default-certificate-ttl", Lifetimes::new(shortest, default, longest));
        check.finish().map(|()| lifetimes.expect("a missing value is a problem, which finish reports"))
    }
}

/// Ranges with commas between them. An empty text is an empty list: a manifest writes it where nothing is
/// set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ranges(Vec<IpNet>);

impl Serialize for Ranges {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(ToString::to_string))
    }
}

impl FromStr for Ranges {
    type Err = AddrParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let ranges = text.split(',').map(str::trim).filter(|range| !range.is_empty());
        ranges.map(str::parse).collect::<Result<_, _>>().map(Self)
    }
}

fn serialize_text<S: Serializer>(value: &impl std::fmt::Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn flags_are_consistent_and_documented() {
        let command = Flags::command();
        command.clone().debug_assert();
        for argument in command.get_arguments() {
            let id = argument.get_id();
            assert!(argument.get_help().is_some(), "{id} has no help");
            assert!(argument.get_env().is_some() || id == "check", "{id} has no environment variable");
        }
    }

    #[test]
    fn exactly_one_source_of_configuration_is_chosen() {
        let mode = |arguments: &[&str]| {
            let mode = Flags::try_parse_from([&["control"], arguments].concat()).unwrap().mode();
            mode.map_err(|error| error.problems.len())
        };
        let directory = DirectoryMode { config: "c".into(), state: "s".into() };
        assert_eq!(mode(&["--config", "c", "--state", "s"]), Ok(Mode::Directory(directory)));
        assert_eq!(mode(&["--config", "c", "--check"]), Ok(Mode::Check { config: "c".into() }));
        let kubernetes = |access, state: Option<&str>| {
            let (name, namespace) = ("control-a".to_owned(), "ambit-system".to_owned());
            let replica = Replica { name, uid: None, namespace };
            Ok(Mode::Kubernetes(KubernetesMode { access, replica, state: state.map(PathBuf::from) }))
        };
        let kubernetes_mode =
            |arguments: &[&str]| mode(&[&["--kubernetes", "--pod-name", "control-a"], arguments].concat());
        assert_eq!(mode(&["crds"]), Ok(Mode::Crds));
        assert_eq!(kubernetes_mode(&[]), kubernetes(Access::InCluster, None));
        assert_eq!(kubernetes_mode(&["--state", "s"]), kubernetes(Access::InCluster, Some("s")));
        let named = Access::Kubeconfig { file: Some("k".into()), context: Some("x".into()) };
        assert_eq!(kubernetes_mode(&["--kubeconfig", "k", "--context", "x"]), kubernetes(named, None));

        assert_eq!(mode(&["--state", "s"]), Err(1));
        assert_eq!(mode(&["--config", "c"]), Err(1));
        assert_eq!(mode(&["--config", "c", "--kubernetes"]), Err(1));
        assert_eq!(mode(&["--config", "c", "--state", "s", "--kubeconfig", "k", "--context", "x"]), Err(2));
        assert_eq!(mode(&["--kubernetes", "--check", "--allow-netns-annotation"]), Err(2));
    }

    #[test]
    fn agents_and_names_follow_the_namespace_unless_given() {
        let flags = |arguments: &[&str]| Flags::try_parse_from([&["control"], arguments].concat()).unwrap();
        let plain = flags(&["--kubernetes", "--namespace", "mesh", "--xds-name", "10.0.0.1"]);
        assert_eq!(plain.serving_names(), ["10.0.0.1", "control.mesh.svc", "control.mesh.svc.cluster.local"]);
        let Rules { audiences, agents } = plain.token_rules("mesh");
        assert_eq!(
            (audiences, agents),
            (vec!["ambit-ca".to_owned()], ["mesh/ztunnel".parse().unwrap()].into())
        );

        let given = flags(&[
            "--kubernetes",
            "--agent-service-account=istio-system/ztunnel,mesh/agent",
            "--token-audience=ambit-ca,istio-ca",
        ]);
        let Rules { audiences, agents } = given.token_rules("mesh");
        assert_eq!(audiences, ["ambit-ca", "istio-ca"]);
        assert!(agents.contains(&"istio-system/ztunnel".parse().unwrap()) && agents.len() == 2);
        assert_eq!(flags(&["--config", "c"]).serving_names(), ["control.ambit-system.svc"]);
        assert!(Flags::try_parse_from(["control", "--agent-service-account=ztunnel"]).is_err());
    }

    #[test]
    fn ranges_may_be_many_or_none() {
        let ranges = |argument: &str| {
            let flags = Flags::try_parse_from(["control", "--kubernetes", "--mesh-range", argument]);
            flags.map(|flags| flags.settings().mesh_ranges.len())
        };
        assert_eq!(ranges("").unwrap(), 0);
        assert_eq!(ranges("10.0.0.0/8, fd00::/8").unwrap(), 2);
        assert!(ranges("10.0.0.0").is_err());
    }

    #[test]
    fn lifetimes_out_of_order_are_refused() {
        let parse = |arguments: &[&str]| {
            Flags::try_parse_from([&["control", "--config", "c", "--state", "s"], arguments].concat())
                .unwrap()
        };
        assert!(parse(&[]).lifetimes().is_ok());
        assert!(parse(&["--default-certificate-ttl", "48h"]).lifetimes().is_err());
    }
}
