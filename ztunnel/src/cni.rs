//! The chained CNI plugin: a pod of the mesh starts when its connections are captured, and not before.
//!
//! The plugin is a short-lived program that the container runtime calls for every pod ([`plugin`]). It
//! hands the pod's network namespace to the node's agent ([`wire`], [`server`]) and waits for the
//! answer. What becomes of a pod when the agent is away is decided ([`verdict`]) from a list that the
//! agent keeps on the host ([`list`]). How the plugin comes into the node's chain, and out of it, is
//! [`install`]'s matter.

pub mod call;
pub mod error;
pub mod install;
pub mod journal;
pub mod list;
pub mod network;
pub mod plugin;
pub mod server;
pub mod upkeep;
pub mod verdict;
pub mod wire;

/// The name of the program that the runtime calls: the agent's own program under another name.
pub const PROGRAM: &str = "ambit-cni";

/// The agent's socket in its state directory.
pub const SOCKET: &str = "cni.sock";
