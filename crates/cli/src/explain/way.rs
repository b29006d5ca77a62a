//! From the client to its answer: pure, by the functions that the client's node agent calls.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ambit_mesh::address::{NetworkAddress, ServiceName};
use ambit_mesh::decide::{
    OutboundDecision, OutboundRequest, Outcome, Transport, Why, outbound_choices,
    outbound_to_service_choices, outbound_to_workload_choices,
};
use ambit_mesh::identity::SpiffeId;
use ambit_mesh::service::Service;
use ambit_mesh::workload::{
    Locality, NetworkMode, TunnelProtocol, Workload, WorkloadStatus, WorkloadType, WorkloadUid,
};

use super::answer::{Answer, End, EndpointHop, Request, Way};
use super::endpoint::{self, Tunnel};
use super::question::{Question, Sender, SenderKind};
use super::waypoint;
use crate::configuration::{Model, assumed_objects};

/// Why a question has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoAnswer {
    /// The sender cannot have an identity.
    #[error("{sender} cannot be an identity: {why}")]
    Identity {
        /// The sender.
        sender: Sender,
        /// Why.
        why: String,
    },
    /// There is no such pod.
    #[error("there is no pod {sender}")]
    NoPod {
        /// The sender.
        sender: Sender,
    },
    /// Nothing of this name.
    #[error("{host} is no Service of this mesh and no address: write SERVICE.NAMESPACE")]
    NoService {
        /// What was asked for.
        host: String,
    },
    /// The service is reached by no address.
    #[error(
        "{service} has neither an address nor an endpoint with one: --as-deployed assumes what a cluster adds"
    )]
    NoAddress {
        /// The service.
        service: ServiceName,
    },
    /// The port was not said.
    #[error("{service} has several ports ({ports}): write which")]
    Port {
        /// The service.
        service: ServiceName,
        /// Its ports.
        ports: String,
    },
}

/// What becomes of a request.
///
/// # Errors
/// When it cannot be said what is asked.
pub fn explain(model: &Model, question: &Question) -> Result<Answer, NoAnswer> {
    let (client, mut notes) = client(model, &question.from)?;
    let dialled = Dialled::of(model, question, &client)?;
    let authority = question.authority.clone().unwrap_or_else(|| dialled.authority(question));
    let request = Request {
        from: client.identity.to_string(),
        pod: client.is_real.then(|| client.workload.uid.to_string()),
        method: question.method.to_string(),
        authority: authority.clone(),
        target: question.target().to_owned(),
        to: dialled.name.clone(),
        address: dialled.address.to_string(),
    };
    let head = waypoint::RawHead {
        method: question.method.clone(),
        authority,
        target: question.target().to_owned(),
        headers: question.headers.clone(),
    };
    let journey = Journey { model, client: &client, dialled: &dialled, head: &head };
    let (way, ends) = journey.way();
    let assumed = assumed_objects(model.generation().inputs.entries());
    if !assumed.is_empty() {
        notes.push(format!("assumed, as a cluster would add it: {}", assumed.join(", ")));
    }
    notes.extend(model.refused().iter().map(|refused| {
        format!("proxies would refuse {} and keep what they had: {}", refused.name, refused.why)
    }));
    Ok(Answer { request, ends: distinct(ends), way, notes })
}

/// Who sends a request.
pub(super) struct Client {
    pub(super) workload: Arc<Workload>,
    pub(super) identity: SpiffeId,
    /// Whether it is a pod of the mesh, and not one that might be.
    is_real: bool,
}

fn client(model: &Model, sender: &Sender) -> Result<(Client, Vec<String>), NoAnswer> {
    let settings = model.settings();
    let workloads = || model.generation().translated.workloads.values();
    let is_pod = |workload: &&Arc<Workload>| *workload.namespace == *sender.namespace;
    let by_account = || {
        // A machine behind a Service without selector has no account of its own.
        let mut pods = workloads().filter(is_pod).filter(|workload| workload.uid.0.contains("//Pod/"));
        pods.find(|workload| workload.identity.service_account() == sender.name)
    };
    let by_name = || workloads().filter(is_pod).find(|workload| *workload.name == *sender.name);
    let found = match sender.kind {
        SenderKind::ServiceAccount => by_account(),
        SenderKind::Pod => Some(by_name().ok_or_else(|| NoAnswer::NoPod { sender: sender.clone() })?),
        SenderKind::Either => by_account().or_else(by_name),
    };
    if let Some(workload) = found {
        // Shared with the snapshot, where what it names was prepared.
        let workload = model.snapshot().workload(&workload.uid).unwrap_or(workload).clone();
        let identity = workload.identity.clone();
        return Ok((Client { workload, identity, is_real: true }, Vec::new()));
    }
    let identity = SpiffeId::new(settings.trust_domain.clone(), &sender.namespace, &sender.name)
        .map_err(|error| NoAnswer::Identity { sender: sender.clone(), why: error.to_string() })?;
    let workload = Arc::new(imagined(&identity, model));
    let note = match workload.tunnel_protocol {
        TunnelProtocol::Hbone => format!("no pod runs as {sender}: it is answered as if one did"),
        TunnelProtocol::None => format!(
            "no pod runs as {sender}: it is answered as if one did, in a namespace that is not in the mesh"
        ),
    };
    Ok((Client { workload, identity, is_real: false }, vec![note]))
}

/// A pod that runs as `identity`, in the mesh if its namespace is.
fn imagined(identity: &SpiffeId, model: &Model) -> Workload {
    let settings = model.settings();
    let name: Arc<str> = identity.service_account().into();
    let is_enrolled = model.generation().translated.enrolled_namespaces.contains(identity.namespace());
    Workload {
        uid: WorkloadUid(format!("{}//Pod/{}/{name}", settings.cluster_id, identity.namespace()).into()),
        name: name.clone(),
        namespace: identity.namespace().into(),
        cluster_id: settings.cluster_id.clone(),
        network: settings.network.clone(),
        addresses: Vec::new(),
        hostname: None,
        identity: identity.clone(),
        tunnel_protocol: if is_enrolled { TunnelProtocol::Hbone } else { TunnelProtocol::None },
        node: "".into(),
        network_mode: NetworkMode::Standard,
        workload_type: WorkloadType::Pod,
        workload_name: name.clone(),
        canonical_name: name,
        canonical_revision: "latest".into(),
        waypoint: None,
        waypoint_failure: Default::default(),
        requires_waypoint: false,
        network_gateway: None,
        application_tunnel: None,
        authorization_policies: Default::default(),
        status: WorkloadStatus::Healthy,
        locality: Locality::default(),
        capacity: 1,
        services: Default::default(),
        pod: None,
    }
}

/// What is dialled.
pub(super) struct Dialled {
    pub(super) address: SocketAddr,
    service: Option<Arc<Service>>,
    name: String,
}

impl Dialled {
    fn of(model: &Model, question: &Question, client: &Client) -> Result<Self, NoAnswer> {
        if let Some(ip) = question.to.ip() {
            let port = question.to.port.unwrap_or(80);
            let address = SocketAddr::new(ip.to_canonical(), port);
            return Ok(Self { address, service: None, name: address.to_string() });
        }
        let service = service(model, &question.to.host, &client.workload.namespace)
            .ok_or_else(|| NoAnswer::NoService { host: question.to.host.clone() })?;
        let port = port(service, question.to.port)?;
        let of_endpoint = || {
            // A headless service: DNS tells the addresses of its pods.
            let endpoints = model.snapshot().endpoints(&service.name);
            endpoints.iter().find_map(|endpoint| endpoint.workload.addresses.first().copied())
        };
        let of_service = service.addresses.iter().map(|at| at.ip).min_by_key(IpAddr::is_ipv6);
        let ip = of_service
            .or_else(of_endpoint)
            .ok_or_else(|| NoAnswer::NoAddress { service: service.name.clone() })?;
        let name = format!("Service {}/{} port {port}", service.name.namespace, service.short_name);
        Ok(Self { address: SocketAddr::new(ip, port), service: Some(service.clone()), name })
    }

    /// `Host`, as clients of HTTP make it of a URL: without the port that is the scheme's own.
    fn authority(&self, question: &Question) -> String {
        match self.address.port() {
            80 => question.to.host.clone(),
            port => format!("{}:{port}", question.to.host),
        }
    }
}

/// The service of a host name, as DNS would find it from a pod of `namespace`.
fn service<'m>(model: &'m Model, host: &str, namespace: &str) -> Option<&'m Arc<Service>> {
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    let domain = [".svc.cluster.local", ".svc.cluster", ".svc"];
    let short = domain.iter().find_map(|end| host.strip_suffix(end)).unwrap_or(&host);
    let (name, namespace) = short.split_once('.').unwrap_or((short, namespace));
    let hostname: Arc<str> = format!("{name}.{namespace}.svc.cluster.local").into();
    let own = ServiceName { namespace: namespace.into(), hostname };
    model.snapshot().service(&own)
}

fn port(service: &Service, asked: Option<u16>) -> Result<u16, NoAnswer> {
    let ports: Vec<u16> = service.ports.iter().map(|mapping| mapping.service_port).collect();
    match (asked, ports.as_slice()) {
        (Some(port), _) => Ok(port),
        (None, [only]) => Ok(*only),
        (None, ports) if ports.contains(&80) => Ok(80),
        (None, ports) => Err(NoAnswer::Port {
            service: service.name.clone(),
            ports: ports.iter().map(u16::to_string).collect::<Vec<_>>().join(", "),
        }),
    }
}

/// What the steps of an answer read.
#[derive(Clone, Copy)]
struct Journey<'a> {
    model: &'a Model,
    client: &'a Client,
    dialled: &'a Dialled,
    head: &'a waypoint::RawHead,
}

impl Journey<'_> {
    fn way(self) -> (Way, Vec<End>) {
        if let Some(reason) = self.not_captured() {
            return self.uncaptured(reason);
        }
        let source = &self.client.workload;
        let request = OutboundRequest {
            source,
            destination: self.dialled.address,
            excluded: &[],
            suspects: &[],
            mesh_ranges: &self.model.settings().mesh_ranges,
            waited: true,
        };
        let choices = match outbound_choices(self.model.snapshot(), &request) {
            Ok(choices) => choices,
            Err(outcome) => return refused(&outcome),
        };
        let Some(first) = choices.first() else {
            return refused_because("nothing takes the connection".to_owned());
        };
        match first.why {
            Why::WorkloadWaypoint | Why::ServiceWaypoint => self.through_waypoint(&choices),
            Why::OutsideMesh => outside("the address is not of the mesh: the connection goes on as it is"),
            Why::PassthroughService => outside("the Service asks for connections to go on as they are"),
            Why::Service => self.direct("the Service is bound to no waypoint", &choices),
            Why::Workload => self.direct("the pod is bound to no waypoint", &choices),
        }
    }

    fn through_waypoint(self, choices: &[OutboundDecision]) -> (Way, Vec<End>) {
        let client = waypoint::Seen {
            identity: &self.client.identity,
            ip: self.client.workload.addresses.first().copied(),
        };
        let hop = waypoint::at(self.model, choices, self.dialled.address, &client, self.head, 0);
        match hop {
            Ok((hop, ends)) => (Way::Waypoint(Box::new(hop)), ends),
            Err(reason) => refused_because(reason),
        }
    }

    fn direct(self, reason: &str, choices: &[OutboundDecision]) -> (Way, Vec<End>) {
        let hops: Vec<EndpointHop> = choices.iter().map(|choice| self.endpoint(choice)).collect();
        let ends = hops.iter().map(|hop| hop.end.clone()).collect();
        (Way::Direct { reason: reason.to_owned(), endpoints: hops }, ends)
    }

    fn endpoint(self, choice: &OutboundDecision) -> EndpointHop {
        let tunnel = Tunnel {
            peer: &self.client.identity,
            peer_ip: self.ip(),
            speaks_for: None,
            service: choice.service.as_deref(),
        };
        match choice.transport {
            Transport::Hbone { .. } => endpoint::by_tunnel(self.model.snapshot(), choice, &tunnel),
            Transport::Passthrough => endpoint::in_clear(self.model.snapshot(), choice, self.ip()),
        }
    }

    fn ip(self) -> IpAddr {
        let own = self.client.workload.addresses.first().copied();
        own.unwrap_or(IpAddr::from([0, 0, 0, 0]))
    }

    /// Why the client's connection is not taken by its node's agent.
    fn not_captured(self) -> Option<String> {
        let workload = &self.client.workload;
        if workload.tunnel_protocol == TunnelProtocol::None {
            return Some(format!("{} is not in the mesh", workload.uid));
        }
        let exclusions = workload.pod.as_ref().map(|pod| &pod.exclusions)?;
        let address = self.dialled.address;
        let is_excluded = exclusions.outbound_ports.contains(&address.port())
            || exclusions.outbound_destinations.iter().any(|range| range.contains(&address.ip()));
        is_excluded.then(|| "the pod excludes this destination from capture".to_owned())
    }

    /// Kubernetes' own way: to any endpoint, in clear, past every waypoint.
    fn uncaptured(self, reason: String) -> (Way, Vec<End>) {
        let snapshot = self.model.snapshot();
        let address = self.dialled.address;
        let network = self.client.workload.network.clone();
        let at = NetworkAddress { network, ip: address.ip() };
        let by_address = || snapshot.services_by_address(&at).first();
        let request = OutboundRequest {
            source: &self.client.workload,
            destination: address,
            excluded: &[],
            suspects: &[],
            mesh_ranges: &[],
            waited: true,
        };
        let choices = match (snapshot.workload_by_address(&at), by_address()) {
            (Some(workload), _) => {
                let unbound = Workload { waypoint: None, ..(**workload).clone() };
                outbound_to_workload_choices(snapshot, &request, &Arc::new(unbound))
            }
            (None, Some(service)) => {
                let unbound = Service { waypoint: None, ..(**service).clone() };
                outbound_to_service_choices(snapshot, &request, &Arc::new(unbound))
            }
            (None, None) => return outside("nothing of the mesh is at this address"),
        };
        let choices = match choices {
            Ok(choices) => choices,
            Err(outcome) => return refused(&outcome),
        };
        let passed_by = self.dialled.service.as_ref().is_some_and(|service| service.waypoint.is_some());
        let reason = match passed_by {
            true => format!("{reason}: the Service's waypoint is not passed"),
            false => reason,
        };
        let hops: Vec<EndpointHop> =
            choices.iter().map(|choice| endpoint::in_clear(snapshot, choice, self.ip())).collect();
        let ends = hops.iter().map(|hop| hop.end.clone()).collect();
        (Way::Direct { reason, endpoints: hops }, ends)
    }
}

fn refused(outcome: &Outcome) -> (Way, Vec<End>) {
    refused_because(outcome.to_string())
}

fn refused_because(reason: String) -> (Way, Vec<End>) {
    let ends = vec![End::Reset { reason: reason.clone() }];
    (Way::Refused { reason }, ends)
}

fn outside(reason: &str) -> (Way, Vec<End>) {
    let end = End::Reaches { workload: "outside of the mesh".to_owned(), backend: String::new() };
    (Way::Outside { reason: reason.to_owned() }, vec![end])
}

/// Each once, in the order of their first appearance.
fn distinct(ends: Vec<End>) -> Vec<End> {
    let mut seen: BTreeMap<String, ()> = BTreeMap::new();
    ends.into_iter().filter(|end| seen.insert(format!("{end:?}"), ()).is_none()).collect()
}
