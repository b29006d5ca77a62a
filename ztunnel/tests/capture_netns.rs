//! Capture in real network namespaces, with both backends and both address families.
//!
//! Needs root, and `ip`, `nft` and `iptables`. Every namespace made here has no name and goes away
//! with the test's last descriptor of it.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail by panicking")]

#[path = "capture_netns/arrival.rs"]
mod arrival;
#[path = "capture_netns/connections.rs"]
mod connections;
#[path = "capture_netns/exclusions.rs"]
mod exclusions;
#[path = "capture_netns/installation.rs"]
mod installation;
#[path = "capture_netns/lifecycle.rs"]
mod lifecycle;
#[path = "capture_netns/namespace.rs"]
mod namespace;
#[path = "capture_netns/network.rs"]
mod network;
#[path = "capture_netns/secrecy.rs"]
mod secrecy;
