//! Generates the messages and services of `proto/`, without a protoc on the machine.

use std::error::Error;

const ROOT: &str = "proto";

const FILES: [&str; 8] = [
    "istio/workload/workload.proto",
    "istio/security/authorization.proto",
    "istio/v1/auth/ca.proto",
    "envoy/service/discovery/v3/discovery.proto",
    "ambit/workload/v1/extensions.proto",
    "ambit/node/v1/mesh.proto",
    "ambit/waypoint/v1/route.proto",
    "ambit/waypoint/v1/policy.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={ROOT}");
    let descriptors = protox::compile(FILES, [ROOT])?;
    tonic_prost_build::configure()
        // Maps in the order of their keys: equal messages have equal encodings, which the versions
        // of resources rest on.
        .btree_map(".")
        .compile_fds(descriptors)?;
    Ok(())
}
