//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use ambit_kube::Access;
use ambit_runtime::config::parse_duration;
use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

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
