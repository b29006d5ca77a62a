//! The types of resource that the mesh exchanges.

/// A type of resource; each has a subscription of its own on the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ResourceType {
    /// `istio.workload.Address`: workloads and services.
    Address,
    /// `istio.security.Authorization`: layer-4 policies.
    Authorization,
    /// `ambit.node.v1.Mesh`: the mesh as a whole. Only our own control has it.
    Mesh,
    /// `ambit.waypoint.v1.Route`: routes of waypoints.
    Route,
    /// `ambit.waypoint.v1.Policy`: policies of waypoints.
    HttpPolicy,
    /// `ambit.waypoint.v1.Subset`: named parts of services' endpoints, for waypoints.
    Subset,
}

/// Whose client asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// An agent of a node.
    Node,
    /// A waypoint.
    Waypoint,
}

/// Whether decisions wait for the resources of a type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Without them nothing is decided.
    Required,
    /// They are asked for once the others are there. A server may never have heard of them.
    Supplementary,
}

impl ResourceType {
    /// All of them, in the order in which a client asks for those of its role.
    pub const ALL: [Self; 6] =
        [Self::Address, Self::Authorization, Self::Mesh, Self::Route, Self::HttpPolicy, Self::Subset];

    /// The URL that names the type on the wire.
    pub fn type_url(self) -> &'static str {
        match self {
            Self::Address => "type.googleapis.com/istio.workload.Address",
            Self::Authorization => "type.googleapis.com/istio.security.Authorization",
            Self::Mesh => "type.googleapis.com/ambit.node.v1.Mesh",
            Self::Route => "type.googleapis.com/ambit.waypoint.v1.Route",
            Self::HttpPolicy => "type.googleapis.com/ambit.waypoint.v1.Policy",
            Self::Subset => "type.googleapis.com/ambit.waypoint.v1.Subset",
        }
    }

    /// Whether decisions wait for it.
    pub fn need(self) -> Need {
        match self {
            Self::Address | Self::Authorization | Self::Route | Self::HttpPolicy | Self::Subset => {
                Need::Required
            }
            Self::Mesh => Need::Supplementary,
        }
    }

    /// Whether clients of a role ask for it.
    pub fn is_for(self, role: Role) -> bool {
        match self {
            // A waypoint enforces none of the layer-4 policies: it asks which of them name clients.
            Self::Address | Self::Authorization => true,
            Self::Mesh => role == Role::Node,
            Self::Route | Self::HttpPolicy | Self::Subset => role == Role::Waypoint,
        }
    }

    /// The type of this URL; `None` for a type that the mesh does not exchange.
    pub fn from_type_url(url: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.type_url() == url)
    }
}
