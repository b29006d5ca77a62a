//! What waypoints learn beside workloads and services: routes, policies and subsets.

pub mod policy;
mod policy_to_proto;
pub mod route;
mod route_to_proto;
pub mod subset;

use ambit_mesh::address::ServiceName;
use ambit_mesh::http::{InvalidPattern, InvalidTemplate};

use super::ports::InvalidPort;

/// Why a route, a policy or a subset cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidWaypointResource {
    /// Something that must be set is not, or holds a value of a later version.
    #[error(
        "{field} is missing or not known here: check that control and this waypoint have the same version"
    )]
    Field {
        /// Which.
        field: &'static str,
    },
    /// A port is impossible.
    #[error(transparent)]
    Port(#[from] InvalidPort),
    /// A status is impossible.
    #[error("status {status}: a status of HTTP is between 200 and 599")]
    Status {
        /// It.
        status: u32,
    },
    /// A block of addresses is none.
    #[error("{text:?} is not a block of addresses such as 10.0.0.0/8")]
    Block {
        /// What was received.
        text: String,
    },
    /// An expression is none.
    #[error(transparent)]
    Pattern(#[from] InvalidPattern),
    /// A path template is none.
    #[error(transparent)]
    Template(#[from] InvalidTemplate),
    /// The name of a header is none.
    #[error("{name:?} cannot be the name of a header")]
    HeaderName {
        /// What was received.
        name: String,
    },
    /// The value of a header is none.
    #[error("the value of header {name} cannot be one")]
    HeaderValue {
        /// The header.
        name: String,
    },
    /// A method is none.
    #[error("{method:?} cannot be a method")]
    Method {
        /// What was received.
        method: String,
    },
}

type Read<T> = Result<T, InvalidWaypointResource>;

/// What must be set.
fn required<T>(value: Option<T>, field: &'static str) -> Read<T> {
    value.ok_or(InvalidWaypointResource::Field { field })
}

fn non_empty<'a>(text: &'a str, field: &'static str) -> Read<&'a str> {
    required((!text.is_empty()).then_some(text), field)
}

/// What is absent where it is empty.
fn optional(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

fn service(namespace: &str, hostname: &str) -> Read<ServiceName> {
    Ok(ServiceName {
        namespace: non_empty(namespace, "namespace")?.into(),
        hostname: non_empty(hostname, "hostname")?.into(),
    })
}

/// 0 is none.
fn optional_port(port: u32) -> Read<Option<u16>> {
    if port == 0 { Ok(None) } else { Ok(Some(super::ports::port(port)?)) }
}

fn header_name(name: &str) -> Read<http::HeaderName> {
    name.parse().map_err(|_| InvalidWaypointResource::HeaderName { name: name.into() })
}

fn all<'a, A: 'a, B>(values: &'a [A], read: impl Fn(&'a A) -> Read<B>) -> Read<Vec<B>> {
    values.iter().map(read).collect()
}

#[cfg(test)]
pub(crate) mod tests;
