//! The test harness: nodes and pods as Linux network namespaces, the real programs and real
//! applications in them, and what went over the wire between them.
//!
//! It builds the places, writes the Kubernetes YAML, starts and faults the programs and reads what
//! they publish. It makes no claims: those are in the scenarios (`tests/e2e/`) and the demo.

#![deny(unsafe_code)]
#![warn(missing_docs)]

pub mod agent;
pub mod api_server;
pub mod apps;
pub mod certificates;
pub mod cluster;
pub mod cni;
pub mod configuration;
pub mod control;
pub mod echo;
pub mod envoy;
pub mod explain;
pub mod handover;
pub mod host_proc;
pub mod http;
pub mod kube_api;
pub mod kube_gate;
pub mod load;
pub mod log;
pub mod mesh;
pub mod namespace;
pub mod observer;
pub mod pod;
pub mod process;
pub mod sandbox;
pub mod trace;
pub mod traffic;
pub mod wait;
pub mod waypoint;
pub mod wire;
