//! What becomes of a request, hop by hop: what people and programs read.

use serde::Serialize;

/// The whole answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Answer {
    /// What was asked.
    pub request: Request,
    /// How it may end, each way once, the most likely first. Several where a choice is left to chance.
    pub ends: Vec<End>,
    /// How it goes.
    pub way: Way,
    /// What else is to be known.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// What was asked, with what it was understood as.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Request {
    /// Who sends it: an identity.
    pub from: String,
    /// The pod that was taken for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// The method.
    pub method: String,
    /// `Host`.
    pub authority: String,
    /// Path and query.
    pub target: String,
    /// What is called.
    pub to: String,
    /// The address that is dialled.
    pub address: String,
}

/// How a request ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "end", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum End {
    /// The application answers it.
    Reaches {
        /// The workload.
        workload: String,
        /// The Service or workload that it was routed to.
        backend: String,
    },
    /// The mesh answers it.
    Answered {
        /// The status of HTTP.
        status: u16,
        /// The status of gRPC, for a request of gRPC; HTTP's is then 200.
        #[serde(skip_serializing_if = "Option::is_none")]
        grpc_status: Option<u16>,
        /// Why.
        reason: String,
    },
    /// The connection is reset, without an answer.
    Reset {
        /// Why.
        reason: String,
    },
}

impl End {
    /// The status that the client reads, where the mesh says it.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Answered { grpc_status: Some(_), .. } => Some(200),
            Self::Answered { status, .. } => Some(*status),
            Self::Reaches { .. } | Self::Reset { .. } => None,
        }
    }

    /// Whether the request gets what it asks for: the application, or an answer that its route gives.
    pub fn is_served(&self) -> bool {
        match self {
            Self::Reaches { .. } => true,
            Self::Answered { status, .. } => *status < 400,
            Self::Reset { .. } => false,
        }
    }
}

/// How a request goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "way", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Way {
    /// Nowhere: the client's node agent refuses it.
    Refused {
        /// Why.
        reason: String,
    },
    /// Out of the mesh, as it is.
    Outside {
        /// Why.
        reason: String,
    },
    /// To an endpoint, without a waypoint.
    Direct {
        /// Why no waypoint is passed.
        reason: String,
        /// The endpoints that it may reach.
        endpoints: Vec<EndpointHop>,
    },
    /// Through a waypoint.
    Waypoint(Box<WaypointHop>),
}

/// What becomes of it at a waypoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WaypointHop {
    /// The Gateway.
    pub gateway: String,
    /// The instance that was asked.
    pub instance: String,
    /// How many instances may take it.
    pub instances: usize,
    /// As whom the client is seen.
    pub client: String,
    /// As what the connection is read.
    pub protocol: String,
    /// Every policy that guards the destination here, and what it says.
    pub policies: Vec<PolicySays>,
    /// What allowed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allowed_by: Option<String>,
    /// The route that takes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<RouteHop>,
    /// How it ends here, where nothing is forwarded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end: Option<End>,
    /// Where it is forwarded to, by weight.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub backends: Vec<Share>,
}

/// What one policy says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicySays {
    /// `<namespace>/<name>`.
    pub policy: String,
    /// What a match of it means.
    pub action: String,
    /// Whether it is on trial.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
    /// The position of the rule that matches, from 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<usize>,
    /// What that means.
    pub says: Says,
    /// Whether this is what decided.
    pub decides: bool,
}

/// What one policy means for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Says {
    /// No rule matches.
    Nothing,
    /// It allows it.
    Allows,
    /// It denies it.
    Denies,
    /// It would allow it, and is on trial.
    WouldAllow,
    /// It would deny it, and is on trial.
    WouldDeny,
    /// It asks for a record.
    Audits,
}

/// The rule that takes a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteHop {
    /// `<kind>/<namespace>/<name>`.
    pub route: String,
    /// The rule's position, from 0.
    pub rule: usize,
    /// The rule's own name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule_name: Option<String>,
    /// The position of the match in the rule, from 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub r#match: Option<usize>,
    /// What the match asks for.
    pub conditions: String,
}

/// One backend and its share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Share {
    /// Its weight.
    pub weight: u32,
    /// Of so much.
    pub of: u64,
    /// `<namespace>/<service>:<port>`, or what stands in its place.
    pub backend: String,
    /// The subset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subset: Option<String>,
    /// What is sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sends: Option<Sends>,
    /// How it ends here, where it goes no further.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end: Option<End>,
    /// The endpoints that may take it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<EndpointHop>,
    /// The waypoint that the backend is bound to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub through: Option<Box<WaypointHop>>,
}

/// What a waypoint sends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Sends {
    /// Path and query.
    pub target: String,
    /// `Host`.
    pub authority: String,
    /// What differs from what came.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rewritten: Vec<String>,
    /// Changes of the request's headers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub request_headers: Vec<String>,
    /// Changes of the answer's headers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub response_headers: Vec<String>,
    /// How long it may take, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// How long one try may take, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub try_timeout_ms: Option<u64>,
}

/// An endpoint, and what its node's agent says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointHop {
    /// The workload.
    pub workload: String,
    /// Its address and port.
    pub address: String,
    /// Its weight among the endpoints.
    pub weight: u32,
    /// How it is reached.
    pub carried: Carried,
    /// As whom the client is seen.
    pub client: String,
    /// Every policy of layer 4 that applies to it, and what it says.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<PolicySays>,
    /// What allowed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allowed_by: Option<String>,
    /// How it ends.
    pub end: End,
}

/// How an endpoint is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Carried {
    /// In mutual TLS to its node's agent, which asks its policies.
    Hbone,
    /// In plain text to its node's agent, which asks its policies of a client without identity.
    PlainCaptured,
    /// In plain text to the application: nobody asks a policy.
    Plain,
}
