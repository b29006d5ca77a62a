//! What the control service makes of an API server: scenarios that run the real program.

pub(crate) mod agents;
pub(crate) mod crds;
pub(crate) mod faults;
pub(crate) mod mesh;
pub(crate) mod permissions;
pub(crate) mod pods;
pub(crate) mod replicas;
pub(crate) mod role;
pub(crate) mod uninstalling;
pub(crate) mod waypoints;
