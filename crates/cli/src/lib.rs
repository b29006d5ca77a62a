//! The command `ambit`: what an administrator does with an installation, and what a team
//! asks of its configuration.

#![warn(missing_docs)]

mod apply;
pub mod args;
pub mod check;
pub mod configuration;
pub mod explain;
pub mod install;
pub mod lint;
pub mod manifests;
pub mod policy_test;
mod rollout;
pub mod status;
mod table;
pub mod uninstall;
pub mod version;

/// The namespace of the mesh.
const NAMESPACE: &str = "ambit-system";

/// What every object of an installation is labelled with.
const PART_OF: &str = "app.kubernetes.io/part-of=ambit";
