//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use ambit_kube::Access;
use ambit_runtime::config::parse_duration;
use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use control::inputs::Inputs;
use http::{HeaderName, HeaderValue, Method};

use crate::configuration::{MeshArgs, ReadError, read_cluster, read_files};
use crate::explain::{Question, Receiver, Sender, header};

/// The command line of Ambit, a service mesh without sidecars.
#[derive(Debug, Parser)]
#[command(name = "ambit", version, about, max_term_width = 100)]
pub struct Cli {
    /// Which cluster.
    #[command(flatten)]
    pub cluster: ClusterArgs,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Which cluster is meant.
#[derive(Debug, Args)]
pub struct ClusterArgs {
    /// A kubeconfig file; without it that of KUBECONFIG, or ~/.kube/config.
    #[arg(long, global = true, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// A context of the kubeconfig file; without it the current one.
    #[arg(long, global = true, value_name = "NAME")]
    context: Option<String>,
}

impl ClusterArgs {
    /// The way to its API server.
    pub fn access(&self) -> Access {
        Access::Kubeconfig { file: self.kubeconfig.clone(), context: self.context.clone() }
    }
}

/// What the command can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Install Ambit in a cluster, or bring an installation to this version and these settings.
    Install(InstallArgs),
    /// Take Ambit out of a cluster. Every pod goes on working, without the mesh.
    Uninstall(UninstallArgs),
    /// Find out whether a cluster can have the mesh, and whether an installed one is healthy.
    Check(OutputArgs),
    /// Show what is enrolled, connected, in sync and expiring.
    Status(OutputArgs),
    /// Say what becomes of something, and by which objects.
    Explain(ExplainArgs),
    /// Report what of some files would not be enforced, conflicts, or does nothing where it stands.
    ///
    /// Exit status: 0 without an error, 1 with one, 2 where nothing can be read.
    Lint(LintArgs),
    /// Test what becomes of requests.
    Policy(PolicyArgs),
    /// Print the versions of this command and of what the cluster runs.
    Version(VersionArgs),
    /// Write the manifests of an installation as files, for GitOps.
    Manifests(ManifestsArgs),
    /// Print completions for a shell.
    Completions {
        /// The shell.
        shell: Shell,
    },
}

impl Command {
    /// Whether exit status 1 is an answer, so that what could not be asked needs another.
    pub fn answers_by_exit_status(&self) -> bool {
        match self {
            Self::Explain(_) | Self::Lint(_) | Self::Policy(_) => true,
            Self::Install(_)
            | Self::Uninstall(_)
            | Self::Check(_)
            | Self::Status(_)
            | Self::Version(_)
            | Self::Manifests(_)
            | Self::Completions { .. } => false,
        }
    }
}

/// Where a configuration is read from.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("source").required(true).args(["dir", "kubernetes"]))]
pub struct SourceArgs {
    /// A directory of Kubernetes YAML, or a file; may be repeated.
    #[arg(long, value_name = "DIR")]
    pub dir: Vec<PathBuf>,
    /// The cluster of the kubeconfig.
    #[arg(long)]
    pub kubernetes: bool,
    /// What is known of the mesh.
    #[command(flatten)]
    pub mesh: MeshArgs,
}

impl SourceArgs {
    /// Reads it.
    ///
    /// # Errors
    /// When it cannot be read at all.
    pub async fn read(&self, access: &Access) -> Result<Inputs, ReadError> {
        if self.kubernetes {
            return read_cluster(access).await;
        }
        read_files(&self.dir, self.mesh.as_deployed)
    }
}

/// Arguments of `ambit explain`.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// What is to be explained.
    #[command(subcommand)]
    pub what: ExplainCommand,
}

/// What can be explained.
#[derive(Debug, Subcommand)]
pub enum ExplainCommand {
    /// What becomes of a request: waypoint, policies, route, backends and endpoints, or why it is refused.
    ///
    /// Exit status: 0 where the request is served (by an application, or by an answer of its route below
    /// 400), 1 where it is refused, 3 where that is left to chance, 2 where it could not be asked.
    Request(ExplainRequestArgs),
}

/// Arguments of `ambit explain request`.
#[derive(Debug, Args)]
pub struct ExplainRequestArgs {
    /// Where the configuration is.
    #[command(flatten)]
    pub source: SourceArgs,
    /// Who sends it: NAMESPACE/SERVICEACCOUNT, or NAMESPACE/POD. `sa:` or `pod:` before it says which.
    #[arg(long, value_name = "NAMESPACE/NAME")]
    pub from: Sender,
    /// Where to: SERVICE.NAMESPACE or ADDRESS, each with :PORT or without, or a URL with one of them.
    #[arg(long, value_name = "RECEIVER")]
    pub to: Receiver,
    /// The method.
    #[arg(long, default_value = "GET", value_name = "METHOD")]
    pub method: Method,
    /// Path and query; comes before that of a URL.
    #[arg(long, value_name = "PATH")]
    pub path: Option<String>,
    /// A header, NAME:VALUE. May be repeated.
    #[arg(long = "header", short = 'H', value_name = "HEADER", value_parser = header)]
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The Host header, where it differs from what a client makes of the receiver.
    #[arg(long, value_name = "HOST")]
    pub authority: Option<String>,
    /// How to print.
    #[command(flatten)]
    pub output: OutputArgs,
}

impl ExplainRequestArgs {
    /// What is asked.
    pub fn question(&self) -> Question {
        Question {
            from: self.from.clone(),
            to: self.to.clone(),
            method: self.method.clone(),
            target: self.path.clone(),
            authority: self.authority.clone(),
            headers: self.headers.clone(),
        }
    }
}

/// Arguments of `ambit lint`.
#[derive(Debug, Args)]
pub struct LintArgs {
    /// Directories of Kubernetes YAML, and files.
    #[arg(required = true, value_name = "DIR")]
    pub paths: Vec<PathBuf>,
    /// Fail also on warnings.
    #[arg(long)]
    pub strict: bool,
    /// What is known of the mesh.
    #[command(flatten)]
    pub mesh: MeshArgs,
    /// How to print.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Arguments of `ambit policy`.
#[derive(Debug, Args)]
pub struct PolicyArgs {
    /// What is to be done.
    #[command(subcommand)]
    pub what: PolicyCommand,
}

/// What can be done with policies.
#[derive(Debug, Subcommand)]
pub enum PolicyCommand {
    /// Run a table of requests with what is expected of each: see docs/policy-tests.md.
    ///
    /// Exit status: 0 where all is as expected, 1 where something is not, 2 where it cannot be read.
    Test(PolicyTestArgs),
}

/// Arguments of `ambit policy test`.
#[derive(Debug, Args)]
pub struct PolicyTestArgs {
    /// The table.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// A directory of Kubernetes YAML, or a file, in place of the one that the table names; may be repeated.
    #[arg(long, value_name = "DIR")]
    pub dir: Vec<PathBuf>,
    /// What is known of the mesh.
    #[command(flatten)]
    pub mesh: MeshArgs,
    /// How to print.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Settings of an installation.
#[derive(Debug, Args)]
pub struct SettingsArgs {
    /// A file of settings, as Helm reads them; `ambit manifests values` prints all with their
    /// defaults. May be repeated: later files come before earlier ones.
    #[arg(long = "values", short = 'f', value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// One setting; comes before all files. May be repeated.
    #[arg(long = "set", value_name = "PATH=VALUE")]
    pub assignments: Vec<String>,
}

/// Arguments of `ambit install`.
#[derive(Debug, Args)]
pub struct InstallArgs {
    /// Settings.
    #[command(flatten)]
    pub settings: SettingsArgs,
    /// A file of CustomResourceDefinitions (Gateway API's, Istio's) to install as well: those that the
    /// cluster has already are left as they are.
    #[arg(long, value_name = "FILE")]
    pub crds: Vec<PathBuf>,
    /// Ask the API server what would become of it, and change nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// How long control and the agents of all nodes may take to be ready.
    #[arg(long, default_value = "3m", value_parser = parse_duration, value_name = "DURATION")]
    pub wait: Duration,
}

/// Arguments of `ambit uninstall`.
#[derive(Debug, Args)]
pub struct UninstallArgs {
    /// How long the agents may take to let every pod go.
    #[arg(long, default_value = "5m", value_parser = parse_duration, value_name = "DURATION")]
    pub wait: Duration,
}

/// How to print.
#[derive(Debug, Args)]
pub struct OutputArgs {
    /// A table for people, or JSON for programs.
    #[arg(long, short, value_enum, default_value = "table")]
    pub output: Output,
}

/// A form of output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// Columns.
    Table,
    /// One JSON document.
    Json,
}

/// Arguments of `ambit version`.
#[derive(Debug, Args)]
pub struct VersionArgs {
    /// How to print.
    #[command(flatten)]
    pub output: OutputArgs,
    /// Only this command's own version: do not ask a cluster.
    #[arg(long)]
    pub client: bool,
}

/// Arguments of `ambit manifests`.
#[derive(Debug, Args)]
pub struct ManifestsArgs {
    /// In which form.
    #[command(subcommand)]
    pub form: ManifestForm,
}

/// A form of the manifests.
#[derive(Debug, Subcommand)]
pub enum ManifestForm {
    /// Every setting with its default and its meaning, on standard output.
    Values,
    /// One stream of YAML documents, on standard output.
    Yaml(SettingsArgs),
    /// A directory for `kubectl apply -k`.
    Kustomize {
        /// Settings.
        #[command(flatten)]
        settings: SettingsArgs,
        /// The directory. It is made where it does not exist.
        #[arg(long, value_name = "DIR")]
        output: PathBuf,
    },
    /// The templates of the Helm chart.
    Chart {
        /// The chart's directory.
        #[arg(long, value_name = "DIR")]
        output: PathBuf,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn arguments_are_consistent_and_documented() {
        let command = Cli::command();
        command.clone().debug_assert();
        for subcommand in command.get_subcommands() {
            assert!(subcommand.get_about().is_some(), "{} has no help", subcommand.get_name());
            for argument in subcommand.get_arguments() {
                assert!(argument.get_help().is_some(), "{} has no help", argument.get_id());
            }
        }
    }
}
