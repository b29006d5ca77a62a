//! One encoded resource.

use std::fmt::Write;
use std::net::IpAddr;
use std::sync::Arc;

use ambit_mesh::address::{Network, NetworkAddress};
use ambit_mesh::http::{HttpPolicy, Route, Subset};
use ambit_mesh::mesh::Mesh;
use ambit_mesh::policy::AuthorizationPolicy;
use ambit_mesh::service::Service;
use ambit_mesh::workload::{NetworkMode, Workload};
use ambit_proto::envoy::service::discovery::v3 as discovery;
use ambit_proto::istio::workload::{Address, address::Type};
use aws_lc_rs::digest::{SHA256, digest};
use prost::Message;
use prost_types::Any;

use super::audience::Audience;
use crate::ResourceType;
use crate::convert::{authorization, mesh, service, waypoint, workload};

/// A resource with its name, and a version that is the digest of its content.
///
/// Because the version depends on the content alone, a client that comes back to a restarted
/// server is sent only what has really changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    kind: ResourceType,
    name: Arc<str>,
    version: Arc<str>,
    aliases: Vec<Arc<str>>,
    audience: Audience,
    body: Vec<u8>,
}

impl Resource {
    /// Encodes a workload. Its addresses are its aliases, unless they are its node's.
    pub fn workload(from: &Workload) -> Self {
        let own_addresses: &[IpAddr] = match from.network_mode {
            NetworkMode::Standard => &from.addresses,
            NetworkMode::HostNetwork => &[],
        };
        let aliases = own_addresses.iter().map(|&ip| alias(&from.network, ip)).collect();
        let body = Address { r#type: Some(Type::Workload(workload::to_proto(from))) };
        Self::new(ResourceType::Address, &from.uid.0, aliases, &body)
    }

    /// Encodes a service. Its virtual addresses are its aliases.
    pub fn service(from: &Service) -> Self {
        let aliases = from.addresses.iter().map(|address| alias(&address.network, address.ip)).collect();
        let body = Address { r#type: Some(Type::Service(service::to_proto(from))) };
        Self::new(ResourceType::Address, &from.name.to_string(), aliases, &body)
    }

    /// Encodes a policy.
    pub fn policy(from: &AuthorizationPolicy) -> Self {
        let body = authorization::to_proto(from);
        Self::new(ResourceType::Authorization, &from.name.to_string(), Vec::new(), &body)
    }

    /// Encodes the mesh as a whole.
    pub fn mesh(from: &Mesh) -> Self {
        Self::new(ResourceType::Mesh, mesh::NAME, Vec::new(), &mesh::to_proto(from))
    }

    /// Encodes a route.
    pub fn route(from: &Route) -> Self {
        let body = waypoint::route::to_proto(from);
        Self::new(ResourceType::Route, &from.name.to_string(), Vec::new(), &body)
    }

    /// Encodes a policy of waypoints.
    pub fn http_policy(from: &HttpPolicy) -> Self {
        let body = waypoint::policy::to_proto(from);
        Self::new(ResourceType::HttpPolicy, &from.name.to_string(), Vec::new(), &body)
    }

    /// Encodes a subset.
    pub fn subset(from: &Subset) -> Self {
        let body = waypoint::subset::to_proto(from);
        Self::new(ResourceType::Subset, &from.name.to_string(), Vec::new(), &body)
    }

    fn new(kind: ResourceType, name: &str, aliases: Vec<Arc<str>>, body: &impl Message) -> Self {
        let body = body.encode_to_vec();
        let audience = Audience::Everybody;
        Self { kind, name: name.into(), version: version(&body), aliases, audience, body }
    }

    /// The same for these clients alone.
    #[must_use]
    pub fn to(self, audience: Audience) -> Self {
        Self { audience, ..self }
    }

    /// Who it is for.
    pub fn audience(&self) -> &Audience {
        &self.audience
    }

    /// Its type.
    pub fn kind(&self) -> ResourceType {
        self.kind
    }

    /// Its name: a workload's uid, `<namespace>/<hostname>` of a service,
    /// `<namespace>/<name>` of a policy, `<kind>/<namespace>/<name>` of a route,
    /// `<namespace>/<hostname>/<name>` of a subset, or `mesh`.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Its version: equal exactly where the content is.
    pub fn version(&self) -> &Arc<str> {
        &self.version
    }

    /// `<network>/<ip>`: other names under which a client can ask for it.
    pub fn aliases(&self) -> &[Arc<str>] {
        &self.aliases
    }

    /// About how many octets of a response it takes.
    pub(crate) fn octets(&self) -> usize {
        self.body.len() + self.name.len() + self.version.len()
    }

    /// The resource as a response carries it.
    pub fn to_proto(&self) -> discovery::Resource {
        discovery::Resource {
            version: self.version.to_string(),
            resource: Some(Any { type_url: self.kind.type_url().into(), value: self.body.clone() }),
            name: self.name.to_string(),
            aliases: self.aliases.iter().map(ToString::to_string).collect(),
        }
    }
}

fn alias(network: &Network, ip: IpAddr) -> Arc<str> {
    NetworkAddress { network: network.clone(), ip }.to_string().into()
}

/// 128 bits of SHA-256: no two contents that anyone can make share a version.
fn version(body: &[u8]) -> Arc<str> {
    let digest = digest(&SHA256, body);
    let mut text = String::with_capacity(32);
    for octet in &digest.as_ref()[..16] {
        write!(text, "{octet:02x}").expect("writing to a String does not fail");
    }
    text.into()
}
