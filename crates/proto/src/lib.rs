//! Generated protocol-buffer and gRPC code; the sources, with their comments, are in `proto/`.
//!
//! Modules mirror packages. Nothing here is written by hand.

#![forbid(unsafe_code)]

/// Istio's.
pub mod istio {
    /// Package `istio.workload`: workloads and services.
    #[expect(clippy::large_enum_variant, reason = "generated; an address lives only while it is converted")]
    pub mod workload {
        tonic::include_proto!("istio.workload");
    }

    /// Package `istio.security`: layer-4 authorization policies.
    pub mod security {
        tonic::include_proto!("istio.security");
    }

    /// Version 1 of Istio's services.
    pub mod v1 {
        /// Package `istio.v1.auth`: the certificate authority.
        pub mod auth {
            tonic::include_proto!("istio.v1.auth");
        }
    }
}

/// Envoy's.
pub mod envoy {
    /// Envoy's services.
    pub mod service {
        /// Discovery services.
        pub mod discovery {
            /// Package `envoy.service.discovery.v3`: delta xDS.
            pub mod v3 {
                tonic::include_proto!("envoy.service.discovery.v3");
            }
        }
    }

    /// Envoy's configuration.
    pub mod config {
        /// Common parts.
        pub mod core {
            /// Package `envoy.config.core.v3`: the client's node.
            pub mod v3 {
                tonic::include_proto!("envoy.config.core.v3");
            }
        }
    }
}

/// Google's.
pub mod google {
    /// Package `google.rpc`: status of a call.
    pub mod rpc {
        tonic::include_proto!("google.rpc");
    }
}

/// Our own.
pub mod ambit {
    /// Nodes.
    pub mod node {
        /// Package `ambit.node.v1`: what the agents of nodes learn about the mesh as a whole.
        pub mod v1 {
            tonic::include_proto!("ambit.node.v1");
        }
    }

    /// Waypoints.
    pub mod waypoint {
        /// Package `ambit.waypoint.v1`: routes and policies of waypoints.
        pub mod v1 {
            tonic::include_proto!("ambit.waypoint.v1");
        }
    }

    /// Workloads.
    pub mod workload {
        /// Package `ambit.workload.v1`: extensions of `istio.workload.Workload`.
        pub mod v1 {
            tonic::include_proto!("ambit.workload.v1");
        }
    }
}
