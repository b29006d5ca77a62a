//! What a client is by its node agent's word: for the log and the metrics of clients that are none of those this
//! waypoint is told of. Who it is, its certificate has proved; nothing is decided by the rest.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ambit_hbone::headers::Baggage;
use ambit_mesh::address::Network;
use ambit_mesh::identity::SpiffeId;
use ambit_mesh::policy::PolicyNames;
use ambit_mesh::workload::{
    Locality, NetworkMode, ServicePorts, TunnelProtocol, Workload, WorkloadStatus, WorkloadType, WorkloadUid,
};
use metrics::counter;

/// Octets of a label's value: a name of Kubernetes has fewer.
const LONGEST: usize = 253;

/// How many workloads may be told of under one identity, and of all clients. Each is a set of series: what comes beyond
/// counts as unknown.
const OF_ONE_IDENTITY: usize = 200;
const OF_ALL: usize = 4_000;

/// How long one that nobody is any more may be told of: its series are still there, and texts of their labels may be
/// compared by where they stand.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(1_200);

/// It is looked for that not more often: who tells too much does so again and again.
const FORGETTING_EVERY: Duration = Duration::from_secs(10);

/// A client by its agent's word.
#[derive(Clone, Debug)]
pub struct Claimed {
    /// The workload, as far as labels go.
    pub workload: Arc<Workload>,
    /// The pod.
    pub pod: Option<Arc<str>>,
}

impl Claimed {
    /// What it is called in logs: the pod, or where that was not said the workload.
    pub fn name(&self) -> &str {
        self.pod.as_deref().unwrap_or(&self.workload.workload_name)
    }
}

/// Everything that was said not long ago.
#[derive(Debug, Default)]
pub struct Claims {
    by_identity: HashMap<SpiffeId, HashMap<Texts, Known>>,
    count: usize,
    /// When something was given up last.
    forgot: Option<Instant>,
}

/// What labels are made of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Texts {
    owner: Option<Arc<str>>,
    cluster: Arc<str>,
    service: Arc<str>,
    version: Arc<str>,
    region: Arc<str>,
    zone: Arc<str>,
}

#[derive(Debug)]
struct Known {
    workload: Arc<Workload>,
    said: Instant,
}

impl Texts {
    fn of(baggage: &Baggage<'_>) -> Self {
        Self {
            owner: baggage.owner.as_ref().map(|(_, name)| text(name)),
            cluster: text(&baggage.cluster),
            service: text(&baggage.service_name),
            version: text(&baggage.service_version),
            region: text(&baggage.region),
            zone: text(&baggage.zone),
        }
    }
}

impl Claims {
    /// The client that `baggage` tells of. `None` where it tells nothing, and where too much is told.
    pub fn take(&mut self, baggage: &Baggage<'_>, identity: &SpiffeId, now: Instant) -> Option<Claimed> {
        let pod = Some(text(&baggage.pod)).filter(|pod| !pod.is_empty());
        let texts = Texts::of(baggage);
        if texts == Texts::default() && pod.is_none() {
            return None;
        }
        let known = self.by_identity.get_mut(identity).and_then(|known| known.get_mut(&texts));
        if let Some(known) = known {
            known.said = now;
            return Some(Claimed { workload: Arc::clone(&known.workload), pod });
        }
        let forgot_lately = self.forgot.is_some_and(|at| now.duration_since(at) < FORGETTING_EVERY);
        if !self.has_room(identity) && !forgot_lately {
            self.forget(now);
        }
        if !self.has_room(identity) {
            counter!("ambit_clients_beyond_limit_total").increment(1);
            return None;
        }
        let workload = Arc::new(workload(&texts, identity));
        let known = Known { workload: Arc::clone(&workload), said: now };
        self.by_identity.entry(identity.clone()).or_default().insert(texts, known);
        self.count += 1;
        Some(Claimed { workload, pod })
    }

    fn has_room(&self, identity: &SpiffeId) -> bool {
        let of_identity = self.by_identity.get(identity).map_or(0, HashMap::len);
        self.count < OF_ALL && of_identity < OF_ONE_IDENTITY
    }

    /// Gives up what nobody uses and nobody has said for long.
    fn forget(&mut self, now: Instant) {
        self.forgot = Some(now);
        let stays = |known: &Known| {
            Arc::strong_count(&known.workload) > 1 || now.duration_since(known.said) < FORGOTTEN_AFTER
        };
        self.by_identity.retain(|_, known| {
            known.retain(|_, known| stays(known));
            !known.is_empty()
        });
        self.count = self.by_identity.values().map(HashMap::len).sum();
    }
}

fn text(value: &str) -> Arc<str> {
    if value.len() <= LONGEST { value.into() } else { "".into() }
}

fn workload(texts: &Texts, identity: &SpiffeId) -> Workload {
    let Texts { owner, cluster, service, version, region, zone } = texts.clone();
    let workload_name: Arc<str> = owner.unwrap_or_default();
    Workload {
        uid: WorkloadUid("".into()),
        name: workload_name.clone(),
        namespace: identity.namespace().into(),
        cluster_id: cluster,
        network: Network::default(),
        addresses: Vec::new(),
        hostname: None,
        identity: identity.clone(),
        tunnel_protocol: TunnelProtocol::Hbone,
        node: "".into(),
        network_mode: NetworkMode::Standard,
        workload_type: WorkloadType::Deployment,
        workload_name,
        canonical_name: service,
        canonical_revision: version,
        waypoint: None,
        waypoint_failure: Default::default(),
        requires_waypoint: false,
        network_gateway: None,
        application_tunnel: None,
        authorization_policies: PolicyNames::default(),
        status: WorkloadStatus::Healthy,
        locality: Locality { region, zone, subzone: "".into() },
        capacity: 0,
        services: ServicePorts::default(),
        pod: None,
    }
}

#[cfg(test)]
mod tests {
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;

    fn identity(account: &str) -> SpiffeId {
        format!("spiffe://cluster.local/ns/shop/sa/{account}").parse().unwrap()
    }

    fn told(claims: &mut Claims, value: &str, now: Instant) -> Option<Claimed> {
        claims.take(&Baggage::parse([value.as_bytes()]), &identity("cart"), now)
    }

    #[test]
    fn a_client_is_what_its_agent_says_in_the_namespace_that_it_has_proved() {
        let (mut claims, now) = (Claims::default(), Instant::now());
        let cart = told(
            &mut claims,
            "k8s.cluster.name=east,k8s.namespace.name=bank,k8s.deployment.name=cart,service.name=cart,\
             service.version=v1,cloud.region=r1,cloud.availability_zone=z1,ambit.pod=cart-6f-1",
            now,
        )
        .unwrap();
        assert_eq!(cart.name(), "cart-6f-1");
        let workload = &cart.workload;
        assert_eq!(
            (&*workload.workload_name, &*workload.namespace, &*workload.cluster_id),
            ("cart", "shop", "east")
        );
        assert_eq!((&*workload.canonical_name, &*workload.canonical_revision), ("cart", "v1"));
        assert_eq!((&*workload.locality.region, &*workload.locality.zone), ("r1", "z1"));
        // As agents of others say it.
        let cart = told(&mut claims, "k8s.deployment.name=cart,service.name=cart", now).unwrap();
        assert_eq!((cart.name(), &*cart.workload.cluster_id), ("cart", ""));
        assert!(told(&mut claims, "other=thing", now).is_none());
        let long = format!("service.name={},k8s.pod.name=a", "n".repeat(254));
        let long = told(&mut claims, &long, now).unwrap();
        assert_eq!((&*long.workload.canonical_name, long.name()), ("", "a"));
    }

    #[test]
    fn pods_of_one_workload_are_one_client_to_metrics() {
        let (mut claims, now) = (Claims::default(), Instant::now());
        let mut of = |pod: usize| {
            let value = format!("k8s.deployment.name=cart,ambit.pod=cart-{pod}");
            told(&mut claims, &value, now).unwrap()
        };
        let first = of(0);
        for pod in 1..2 * OF_ONE_IDENTITY {
            assert!(Arc::ptr_eq(&of(pod).workload, &first.workload), "{pod}");
        }
        assert_eq!(of(7).name(), "cart-7");
    }

    #[test]
    fn who_tells_too_much_is_unknown_until_it_is_forgotten() {
        let (mut claims, now) = (Claims::default(), Instant::now());
        let value = |index: usize| format!("service.name=made-up-{index}");
        let kept = told(&mut claims, &value(0), now).unwrap();
        for index in 1..OF_ONE_IDENTITY {
            assert!(told(&mut claims, &value(index), now).is_some());
        }
        let recorder = PrometheusBuilder::new().build_recorder();
        let beyond =
            metrics::with_local_recorder(&recorder, || told(&mut claims, &value(OF_ONE_IDENTITY), now));
        assert!(beyond.is_none(), "too many");
        let rendered = recorder.handle().render();
        assert!(rendered.contains("ambit_clients_beyond_limit_total 1\n"), "{rendered}");
        assert!(told(&mut claims, &value(1), now).is_some(), "known");
        let other = Baggage::parse([&b"service.name=other"[..]]);
        assert!(claims.take(&other, &identity("other"), now).is_some(), "others are counted apart");
        let later = now + FORGOTTEN_AFTER;
        assert!(told(&mut claims, &value(OF_ONE_IDENTITY), later).is_some());
        // What is in use stays where it is.
        let again = told(&mut claims, &value(0), later).unwrap();
        assert!(Arc::ptr_eq(&again.workload, &kept.workload));
    }
}
