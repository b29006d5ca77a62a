//! `ambit install`: applies the manifests, and waits until what they describe runs.

use std::path::PathBuf;

use ambit_kube::{Access, ConnectError};
use kube::Client;

use crate::apply::{self, ApplyError, Manifest};
use crate::args::{InstallArgs, SettingsArgs};
use crate::manifests::{self, Source, TemplateError, Values, ValuesError};
use crate::rollout::{self, RolloutError};

/// Why an installation did not come about.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each variant is its message")]
pub enum InstallError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Template(#[from] TemplateError),
    #[error(transparent)]
    Values(#[from] ValuesError),
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{} holds a {kind}: --crds takes CustomResourceDefinitions only", path.display())]
    NoCrd { path: PathBuf, kind: String },
    #[error(transparent)]
    Apply(#[from] ApplyError),
    #[error(transparent)]
    Rollout(#[from] RolloutError),
}

/// Installs, or brings what is installed to this version and these settings.
///
/// # Errors
/// When the API server refuses an object, or what was installed does not become ready in time.
pub async fn run(access: &Access, args: &InstallArgs) -> Result<(), InstallError> {
    let manifests = manifests(&args.settings)?;
    let client = ambit_kube::connect(access).await?;
    for path in &args.crds {
        install_absent_crds(&client, path, args.dry_run).await?;
    }
    for manifest in &manifests {
        // In a trial the namespace does not come into being, and nothing in it can be tried.
        manifest.apply(&client, args.dry_run).await?;
        say(&format!("{} {}", manifest.label(), if args.dry_run { "would be applied" } else { "applied" }));
    }
    if args.dry_run {
        return Ok(());
    }
    rollout::wait(&client, args.wait).await?;
    say("Ambit is installed. Next: kubectl label namespace NAME istio.io/dataplane-mode=ambient");
    Ok(())
}

/// The objects of an installation with these settings, in the order of their application.
///
/// # Errors
/// When the settings cannot be used.
pub fn manifests(settings: &SettingsArgs) -> Result<Vec<Manifest>, InstallError> {
    let values = values(settings)?;
    let mut all = Vec::new();
    for source in manifests::sources()?.iter().filter(|source: &&Source| source.applies(&values)) {
        all.extend(apply::parse(&source.render(&values)?)?);
    }
    Ok(all)
}

/// The defaults, with what files and then assignments say otherwise.
///
/// # Errors
/// When a file cannot be read, or names settings that do not exist.
pub fn values(settings: &SettingsArgs) -> Result<Values, InstallError> {
    let mut values = Values::defaults()?;
    for path in &settings.files {
        values.merge(&read(path)?)?;
    }
    for assignment in &settings.assignments {
        values.set(assignment)?;
    }
    Ok(values)
}

/// Definitions that the cluster has belong to whoever installed them, and may be newer.
async fn install_absent_crds(client: &Client, path: &PathBuf, dry_run: bool) -> Result<(), InstallError> {
    for definition in apply::parse(&read(path)?)? {
        if definition.kind.kind != "CustomResourceDefinition" {
            return Err(InstallError::NoCrd { path: path.clone(), kind: definition.kind.kind });
        }
        if definition.exists(client).await? {
            say(&format!("{} is there already: left as it is", definition.label()));
        } else {
            definition.apply(client, dry_run).await?;
            say(&format!("{} applied", definition.label()));
        }
    }
    Ok(())
}

fn read(path: &PathBuf) -> Result<String, InstallError> {
    std::fs::read_to_string(path).map_err(|source| InstallError::Read { path: path.clone(), source })
}

#[expect(clippy::print_stdout, reason = "what it does is the command's output")]
fn say(line: &str) {
    println!("{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(assignments: &[&str]) -> Vec<String> {
        let assignments = assignments.iter().map(|text| (*text).to_owned()).collect();
        let settings = SettingsArgs { files: Vec::new(), assignments };
        manifests(&settings).unwrap().iter().map(Manifest::label).collect()
    }

    #[test]
    fn the_default_settings_make_a_whole_installation() {
        let labels = labels(&[]);
        assert_eq!(labels.first().map(String::as_str), Some("Namespace ambit-system"));
        for wanted in ["Deployment ambit-system/control", "DaemonSet ambit-system/ztunnel"] {
            assert!(labels.iter().any(|label| label == wanted), "{wanted} is missing in {labels:?}");
        }
    }

    #[test]
    fn settings_choose_what_is_installed() {
        let has = |labels: &[String], kind: &str| labels.iter().any(|label| label.starts_with(kind));
        assert!(has(&labels(&[]), "NetworkPolicy") && !has(&labels(&[]), "PodMonitor"));
        let other = labels(&["networkPolicy.enabled=false", "podMonitor.enabled=true"]);
        assert!(!has(&other, "NetworkPolicy") && has(&other, "PodMonitor"));
    }
}
