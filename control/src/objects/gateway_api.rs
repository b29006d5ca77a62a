//! Kinds of the Gateway API, as far as a mesh uses them.
//!
//! Matches are read strictly: a condition that is not understood would widen what a rule takes.

pub mod connection_route;
pub mod gateway;
pub mod grpc_route;
pub mod http_route;
pub mod parts;

pub use connection_route::ConnectionRoute;
pub use gateway::Gateway;
pub use grpc_route::GrpcRoute;
pub use http_route::HttpRoute;
