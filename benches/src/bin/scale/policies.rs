//! One authorization with ever more policies on the workload.
//!
//! Policies are a mixture: principals, prefixes of principals, namespaces, address blocks and ports,
//! seven DENY to one ALLOW. Each connection is of another client, so that neither branches nor
//! caches get used to one.

use std::hint::black_box;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use ambit_mesh::address::Network;
use ambit_mesh::identity::{SpiffeId, TrustDomain};
use ambit_mesh::policy::{
    Action, AuthorizationPolicy, Clause, Connection, Match, Peer, PolicyName, PolicyNames, PolicyScope, Rule,
    StringMatch, authorize,
};
use ambit_mesh::snapshot::{Change, Snapshot, State};
use ambit_mesh::workload::{
    Locality, NetworkMode, TunnelProtocol, Workload, WorkloadStatus, WorkloadType, WorkloadUid,
};
use anyhow::{Result, ensure};
use clap::Args;

use crate::plot::{self, Panel};

/// What a run may change.
#[derive(Clone, Debug, Args)]
pub(crate) struct Settings {
    /// Where to draw the figures over the number of policies, as SVG.
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
}

/// Measures and writes a table.
///
/// # Errors
/// When an answer is wrong, or the table cannot be written.
pub(crate) fn run(settings: &Settings, to: &mut impl Write) -> Result<()> {
    let mut rows = Vec::new();
    writeln!(to, "| policies | allowed (ns) | none allows (ns) | denied (ns) | preparation (ms) |")?;
    writeln!(to, "|---|---|---|---|---|")?;
    for count in [1, 10, 100, 1_000, 10_000] {
        let mut state = State::default();
        let policies: Vec<_> = (0..count).map(policy).chain([gate()]).collect();
        let names = policies.iter().map(|policy| policy.name.clone()).collect();
        state.apply(policies.into_iter().map(|policy| Change::Policy(Arc::new(policy))));
        state.apply([Change::Workload(Arc::new(workload(names)))]);
        let start = Instant::now();
        let snapshot = state.snapshot();
        let preparation = start.elapsed().as_secs_f64() * 1e3;
        let [allowed, refused, denied] = [Case::Allowed, Case::NoneAllows, Case::Denied]
            .map(|case| nanoseconds(&snapshot, &case.connections(count), case));
        let (allowed, refused, denied) = (allowed?, refused?, denied?);
        writeln!(to, "| {count} | {allowed} | {refused} | {denied} | {preparation:.1} |")?;
        rows.push((f64::from(count), [allowed, refused, denied], preparation));
    }
    if let Some(file) = &settings.plot {
        let of_case = |case: usize| rows.iter().map(|(count, ns, _)| (*count, ns[case] as f64)).collect();
        let one = Panel {
            title: "one authorization (ns)",
            size: "policies",
            goal: Some(2_000.0),
            lines: vec![("allowed", of_case(0)), ("none allows", of_case(1)), ("denied", of_case(2))],
            logarithmic: true,
        };
        let preparation = Panel {
            title: "preparation after a change (ms)",
            size: "policies",
            goal: None,
            lines: vec![("", rows.iter().map(|(count, _, preparation)| (*count, *preparation)).collect())],
            logarithmic: true,
        };
        plot::draw(&[one, preparation], file)?;
    }
    Ok(())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Case {
    Allowed,
    NoneAllows,
    Denied,
}

impl Case {
    fn connections(self, policies: u32) -> Vec<Connection> {
        (0..CONNECTIONS).map(|index| self.connection(index, policies)).collect()
    }

    /// Clients that no DENY is about come from another block and other namespaces.
    fn connection(self, index: u32, policies: u32) -> Connection {
        let (namespace, account, port) = match self {
            Self::Allowed => ("trusted".to_owned(), "gate".to_owned(), 8080),
            Self::NoneAllows => (format!("elsewhere-{index}"), "stranger".to_owned(), 8080),
            Self::Denied => {
                // The first kind of policies: DENY of one principal.
                let of = index % policies.div_ceil(KINDS) * KINDS;
                (format!("team-{of}"), format!("account-{of}"), 8080)
            }
        };
        let identity = SpiffeId::new(TrustDomain::default(), &namespace, &account);
        Connection {
            peer: identity.map_or(Peer::Unauthenticated, Peer::Verified),
            source_ip: [172, 16, (index >> 8 & 255) as u8, (index & 255) as u8].into(),
            destination: ([10, 0, 0, 1], port).into(),
            through_waypoint: false,
        }
    }
}

/// The median over rounds of the mean time of one authorization.
fn nanoseconds(snapshot: &Snapshot, connections: &[Connection], case: Case) -> Result<u64> {
    let uid = WorkloadUid(UID.into());
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        let start = Instant::now();
        let mut right = 0;
        for connection in connections {
            // As the data path does it: the workload is looked up in the snapshot.
            let Some(workload) = snapshot.workload(&uid) else { continue };
            let allowed = black_box(authorize(snapshot, workload, black_box(connection))).is_ok();
            right += usize::from(allowed == (case == Case::Allowed));
        }
        let elapsed = start.elapsed();
        ensure!(right == connections.len(), "{case:?}: {right} of {} right", connections.len());
        rounds.push(elapsed.as_nanos() as u64 / connections.len() as u64);
    }
    rounds.sort_unstable();
    Ok(rounds[rounds.len() / 2])
}

const CONNECTIONS: u32 = 2_000;
const ROUNDS: usize = 15;
const KINDS: u32 = 8;
const UID: &str = "Kubernetes//Pod/shop/web";

fn policy(index: u32) -> AuthorizationPolicy {
    let mut group = Match::default();
    let principal = format!("cluster.local/ns/team-{index}/sa/account-{index}");
    match index % KINDS {
        0 | 1 => group.principals = vec![StringMatch::Exact(principal.into())],
        2 => group.principals = vec![StringMatch::Prefix(format!("cluster.local/ns/team-{index}/").into())],
        3 => group.namespaces = vec![StringMatch::Exact(format!("team-{index}").into())],
        4 => group.source_ips = block(index).into_iter().collect(),
        5 => group.destination_ports = vec![(10_000 + index % 50_000) as u16],
        6 => {
            group.namespaces = vec![StringMatch::Prefix(format!("team-{index}-").into())];
            group.destination_ports = vec![8080];
        }
        _ => {
            group.principals = vec![StringMatch::Exact(principal.into())];
            group.destination_ports = vec![8080];
        }
    }
    let action = if index % KINDS == 7 { Action::Allow } else { Action::Deny };
    of(&format!("policy-{index}"), action, group)
}

/// 10.x.y.z/28, never the clients' own.
fn block(index: u32) -> Option<ipnet::IpNet> {
    format!("10.{}.{}.{}/28", index >> 12 & 255, index >> 4 & 255, (index & 15) << 4).parse().ok()
}

/// What lets the wanted clients in: last in the order of names.
fn gate() -> AuthorizationPolicy {
    let namespaces = vec![StringMatch::Exact("trusted".into())];
    of("zz-gate", Action::Allow, Match { namespaces, ..Match::default() })
}

fn of(name: &str, action: Action, group: Match) -> AuthorizationPolicy {
    AuthorizationPolicy {
        name: PolicyName { namespace: "shop".into(), name: name.into() },
        scope: PolicyScope::WorkloadSelector,
        action,
        rules: vec![Rule { clauses: vec![Clause { any_of: vec![group] }] }],
        dry_run: false,
    }
}

fn workload(authorization_policies: PolicyNames) -> Workload {
    Workload {
        uid: WorkloadUid(UID.into()),
        name: "web".into(),
        namespace: "shop".into(),
        cluster_id: "Kubernetes".into(),
        network: Network::default(),
        addresses: vec![[10, 0, 0, 1].into()],
        hostname: None,
        identity: SpiffeId::new(TrustDomain::default(), "shop", "web").expect("both are plain words"),
        tunnel_protocol: TunnelProtocol::Hbone,
        node: "n1".into(),
        network_mode: NetworkMode::Standard,
        workload_type: WorkloadType::Deployment,
        workload_name: "web".into(),
        canonical_name: "web".into(),
        canonical_revision: "latest".into(),
        waypoint: None,
        waypoint_failure: Default::default(),
        requires_waypoint: false,
        network_gateway: None,
        application_tunnel: None,
        authorization_policies,
        status: WorkloadStatus::Healthy,
        locality: Locality::default(),
        capacity: 1,
        services: Default::default(),
        pod: None,
    }
}
