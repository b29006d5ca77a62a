//! One resource as a response carries it: unpacked, converted, and named by what it turned out
//! to be.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use ambit_mesh::address::ServiceName;
use ambit_mesh::http::{HttpChange, HttpPolicy, Route, RouteName, Subset, SubsetName};
use ambit_mesh::mesh::Mesh;
use ambit_mesh::policy::{AuthorizationPolicy, PolicyName};
use ambit_mesh::service::Service;
use ambit_mesh::snapshot::Change;
use ambit_mesh::workload::{Workload, WorkloadUid};
use ambit_proto::ambit::node::v1 as node;
use ambit_proto::ambit::waypoint::v1;
use ambit_proto::envoy::service::discovery::v3::Resource;
use ambit_proto::istio::workload::{self as proto, address::Type};
use prost::{DecodeError, Message};

use super::authorization::{self, InvalidAuthorization};
use super::mesh::{self, InvalidMesh};
use super::service::{self, InvalidService};
use super::waypoint::{self, InvalidWaypointResource};
use super::workload::{self, InvalidWorkload};
use crate::ResourceType;

/// A converted resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received {
    /// A workload.
    Workload(Arc<Workload>),
    /// A service.
    Service(Arc<Service>),
    /// A policy.
    Policy(Arc<AuthorizationPolicy>),
    /// The mesh as a whole.
    Mesh(Arc<Mesh>),
    /// A route.
    Route(Arc<Route>),
    /// A policy of waypoints.
    HttpPolicy(Arc<HttpPolicy>),
    /// A subset.
    Subset(Arc<Subset>),
}

/// What was received under a resource's name.
///
/// The names of workloads and services do not tell them apart: this is remembered from the
/// resource itself, so that a removal removes what was there and nothing else.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ResourceName {
    /// A workload.
    Workload(WorkloadUid),
    /// A service.
    Service(ServiceName),
    /// A policy.
    Policy(PolicyName),
    /// The mesh as a whole.
    Mesh,
    /// A route.
    Route(RouteName),
    /// A policy of waypoints.
    HttpPolicy(PolicyName),
    /// A subset.
    Subset(SubsetName),
}

impl Received {
    /// Unpacks and converts a resource.
    ///
    /// # Errors
    /// When the resource cannot be used; the error says where and why.
    pub fn decode(kind: ResourceType, resource: &Resource) -> Result<Self, InvalidResource> {
        let body = resource.resource.as_ref().ok_or(InvalidResource::Missing)?;
        if body.type_url != kind.type_url() {
            return Err(InvalidResource::TypeUrl { type_url: body.type_url.clone() });
        }
        let received = match kind {
            ResourceType::Address => address(&body.value)?,
            ResourceType::Authorization => Self::Policy(Arc::new(authorization::decode(&body.value)?)),
            ResourceType::Mesh => {
                Self::Mesh(Arc::new(mesh::from_proto(&node::Mesh::decode(body.value.as_slice())?)?))
            }
            ResourceType::Route => {
                Self::Route(Arc::new(waypoint::route::from_proto(&whole::<v1::Route>(&body.value)?)?))
            }
            ResourceType::HttpPolicy => {
                Self::HttpPolicy(Arc::new(waypoint::policy::from_proto(&whole::<v1::Policy>(&body.value)?)?))
            }
            ResourceType::Subset => {
                Self::Subset(Arc::new(waypoint::subset::from_proto(&whole::<v1::Subset>(&body.value)?)?))
            }
        };
        let own_name = received.name().to_string();
        if own_name != resource.name {
            return Err(InvalidResource::Name { own_name });
        }
        Ok(received)
    }

    /// Its name.
    pub fn name(&self) -> ResourceName {
        match self {
            Self::Workload(workload) => ResourceName::Workload(workload.uid.clone()),
            Self::Service(service) => ResourceName::Service(service.name.clone()),
            Self::Policy(policy) => ResourceName::Policy(policy.name.clone()),
            Self::Mesh(_) => ResourceName::Mesh,
            Self::Route(route) => ResourceName::Route(route.name.clone()),
            Self::HttpPolicy(policy) => ResourceName::HttpPolicy(policy.name.clone()),
            Self::Subset(subset) => ResourceName::Subset(subset.name.clone()),
        }
    }

    /// That it is now so.
    pub fn into_change(self) -> Change {
        match self {
            Self::Workload(workload) => Change::Workload(workload),
            Self::Service(service) => Change::Service(service),
            Self::Policy(policy) => Change::Policy(policy),
            Self::Mesh(mesh) => Change::Mesh(mesh),
            Self::Route(route) => Change::Http(HttpChange::Route(route)),
            Self::HttpPolicy(policy) => Change::Http(HttpChange::Policy(policy)),
            Self::Subset(subset) => Change::Http(HttpChange::Subset(subset)),
        }
    }
}

impl ResourceName {
    /// That it is gone.
    pub fn into_removal(self) -> Change {
        match self {
            Self::Workload(uid) => Change::RemoveWorkload(uid),
            Self::Service(name) => Change::RemoveService(name),
            Self::Policy(name) => Change::RemovePolicy(name),
            Self::Mesh => Change::RemoveMesh,
            Self::Route(name) => Change::Http(HttpChange::RemoveRoute(name)),
            Self::HttpPolicy(name) => Change::Http(HttpChange::RemovePolicy(name)),
            Self::Subset(name) => Change::Http(HttpChange::RemoveSubset(name)),
        }
    }
}

/// The name on the wire.
impl fmt::Display for ResourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Workload(uid) => uid.fmt(f),
            Self::Service(name) => name.fmt(f),
            Self::Policy(name) => name.fmt(f),
            Self::Mesh => f.write_str(mesh::NAME),
            Self::Route(name) => name.fmt(f),
            Self::HttpPolicy(name) => name.fmt(f),
            Self::Subset(name) => name.fmt(f),
        }
    }
}

/// Decodes a message of which nothing may be left out: a field that this build does not know would be
/// a condition that is dropped. Our own control writes each field once and no defaults, so that a
/// message that loses octets held one.
fn whole<M: Message + Default>(octets: &[u8]) -> Result<M, InvalidResource> {
    let message = M::decode(octets)?;
    if message.encoded_len() != octets.len() {
        return Err(InvalidResource::LaterVersion);
    }
    Ok(message)
}

fn address(octets: &[u8]) -> Result<Received, InvalidResource> {
    match proto::Address::decode(octets)?.r#type.ok_or(InvalidResource::Empty)? {
        Type::Workload(from) => Ok(Received::Workload(Arc::new(workload::from_proto(&from)?))),
        Type::Service(from) => Ok(Received::Service(Arc::new(service::from_proto(&from)?))),
    }
}

/// Why a resource is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidResource {
    /// There is a name and nothing else.
    #[error("it has no body")]
    Missing,
    /// It is not of the type of its response.
    #[error("its body is of type {type_url:?}, not of the type of the response")]
    TypeUrl {
        /// The body's type.
        type_url: String,
    },
    /// It cannot be decoded.
    #[error("it cannot be decoded")]
    Decode(#[from] DecodeError),
    /// An address that is neither a workload nor a service.
    #[error("it is neither a workload nor a service")]
    Empty,
    /// It calls itself differently.
    #[error("it calls itself {own_name:?}")]
    Name {
        /// How.
        own_name: String,
    },
    /// It is not a usable workload.
    #[error("workload")]
    Workload(#[from] InvalidWorkload),
    /// It is not a usable service.
    #[error("service")]
    Service(#[from] InvalidService),
    /// It is not an enforceable policy.
    #[error("policy")]
    Authorization(#[from] InvalidAuthorization),
    /// It holds fields that are not known here.
    #[error("it holds fields of a later version: update this proxy")]
    LaterVersion,
    /// It is not a usable route, policy or subset.
    #[error("waypoint")]
    Waypoint(#[from] InvalidWaypointResource),
    /// It does not say what the mesh is.
    #[error("mesh")]
    Mesh(#[from] InvalidMesh),
}

impl InvalidResource {
    /// The error with all its causes, for one line of text.
    pub fn with_causes(&self) -> String {
        let causes = std::iter::successors(self.source(), |&error| error.source());
        causes.fold(self.to_string(), |text, cause| format!("{text}: {cause}"))
    }
}
