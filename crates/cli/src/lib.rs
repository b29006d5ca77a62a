//! The command `ambit`: what an administrator does with an installation.

#![warn(missing_docs)]

mod apply;
pub mod args;
pub mod check;
pub mod install;
pub mod manifests;
mod rollout;
pub mod status;
mod table;
pub mod uninstall;
pub mod version;

/// The namespace of the mesh.
const NAMESPACE: &str = "ambit-system";

/// What every object of an installation is labelled with.
const PART_OF: &str = "app.kubernetes.io/part-of=ambit";
