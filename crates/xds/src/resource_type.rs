//! The types of resource that the mesh exchanges.

/// A type of resource; each has a subscription of its own on the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ResourceType {
    /// `istio.workload.Address`: workloads and services.
    Address,
    /// `istio.security.Authorization`: layer-4 policies.
    Authorization,
}

impl ResourceType {
    /// All of them, in the order in which a client asks for them.
    pub const ALL: [Self; 2] = [Self::Address, Self::Authorization];

    /// The URL that names the type on the wire.
    pub fn type_url(self) -> &'static str {
        match self {
            Self::Address => "type.googleapis.com/istio.workload.Address",
            Self::Authorization => "type.googleapis.com/istio.security.Authorization",
        }
    }

    /// The type of this URL; `None` for a type that the mesh does not exchange.
    pub fn from_type_url(url: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.type_url() == url)
    }
}
