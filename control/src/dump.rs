//! What was translated, as JSON: for the admin pages, and for the tests to compare.

use ambit_mesh::http::{Filters, HttpPolicy, Parent, Route, RouteRule, Subset, Timeouts};
use ambit_mesh::policy::{AuthorizationPolicy, Clause, Match, PolicyScope, Rule, StringMatch};
use ambit_mesh::service::{LoadBalancing, PortMapping, Service, WaypointFailure};
use ambit_mesh::workload::{PodBinding, Workload};
use serde_json::{Map, Value, json};

use crate::translate::{Condition, Translated};

/// Everything that was translated. Fields that hold nothing are left out.
pub fn translated(translated: &Translated) -> Value {
    let identities = translated.identities.by_node.iter();
    let notes = translated.notes.0.iter();
    object([
        ("workloads", translated.workloads.values().map(|of| workload(of)).collect()),
        ("services", translated.services.values().map(|of| service(of)).collect()),
        ("policies", translated.policies.values().map(|of| policy(of)).collect()),
        ("routes", translated.for_waypoints.routes.values().map(|of| route(of)).collect()),
        ("subsets", translated.for_waypoints.subsets.values().map(|of| subset(of)).collect()),
        ("waypointPolicies", translated.for_waypoints.policies.values().map(|of| http_policy(of)).collect()),
        ("meshRanges", texts(&translated.mesh_ranges)),
        ("enrolledNamespaces", texts(&translated.enrolled_namespaces)),
        ("identities", identities.map(|(node, ids)| (node.to_string(), texts(ids))).collect()),
        (
            "notes",
            notes.map(|(key, notes)| (key.to_string(), notes.iter().map(note).collect::<Value>())).collect(),
        ),
        (
            "conditions",
            translated
                .conditions
                .0
                .iter()
                .map(|(key, of)| (key.to_string(), of.iter().map(condition).collect::<Value>()))
                .collect(),
        ),
    ])
}

/// `Accepted=False Conflicted for Service/shop/web: why`.
fn condition(condition: &Condition) -> Value {
    let Condition { parent, kind, status, reason, message } = condition;
    let parent = parent.as_ref().map_or_else(String::new, |parent| format!(" for {parent}"));
    let status = if *status { "True" } else { "False" };
    Value::String(format!("{kind}={status} {reason}{parent}: {message}"))
}

fn route(route: &Route) -> Value {
    let parent = |parent: &Parent| match parent.port {
        Some(port) => Value::String(format!("{}:{port}", parent.service)),
        None => text(&parent.service),
    };
    object([
        ("name", text(&route.name)),
        ("parents", route.parents.iter().map(parent).collect()),
        ("rules", route.rules.iter().map(route_rule).collect()),
    ])
}

fn subset(subset: &Subset) -> Value {
    object([("name", text(&subset.name)), ("members", texts(&subset.members))])
}

/// The matches and what is done, as the vocabulary writes itself.
fn route_rule(rule: &RouteRule) -> Value {
    let changes = (rule.filters != Filters::default()).then(|| debug(&rule.filters));
    let timeouts = (rule.timeouts != Timeouts::default()).then(|| debug(&rule.timeouts));
    object([
        ("name", text(&rule.name.as_deref().unwrap_or_default())),
        ("matches", rule.matches.iter().map(debug).collect()),
        ("action", debug(&rule.action)),
        ("filters", changes.unwrap_or_default()),
        ("timeouts", timeouts.unwrap_or_default()),
    ])
}

fn http_policy(policy: &HttpPolicy) -> Value {
    object([
        ("name", text(&policy.name)),
        ("action", debug(&policy.action)),
        ("targets", policy.targets.iter().map(debug).collect()),
        // Kept when empty: a policy without rules never matches.
        ("rules", json!(policy.rules.iter().map(debug).collect::<Vec<_>>())),
        ("dryRun", if policy.dry_run { Value::Bool(true) } else { Value::Null }),
    ])
}

fn note(note: &crate::translate::Note) -> Value {
    Value::String(format!("{:?}: {}", note.reason, note.message))
}

fn workload(workload: &Workload) -> Value {
    let services = workload.services.iter();
    let locality = &workload.locality;
    object([
        ("uid", text(&workload.uid)),
        ("addresses", texts(&workload.addresses)),
        ("network", text(&workload.network)),
        ("identity", text(&workload.identity)),
        ("tunnel", debug(&workload.tunnel_protocol)),
        ("networkMode", debug(&workload.network_mode)),
        ("status", debug(&workload.status)),
        ("node", text(&workload.node)),
        ("workload", Value::String(format!("{:?} {}", workload.workload_type, workload.workload_name))),
        ("canonical", Value::String(format!("{} {}", workload.canonical_name, workload.canonical_revision))),
        (
            "locality",
            object([
                ("region", text(&locality.region)),
                ("zone", text(&locality.zone)),
                ("subzone", text(&locality.subzone)),
            ]),
        ),
        ("policies", texts(workload.authorization_policies.iter())),
        (
            "services",
            services
                .map(|(name, ports)| (name.to_string(), ports.iter().map(port).collect::<Value>()))
                .collect(),
        ),
        ("waypoint", workload.waypoint.as_deref().map(text).unwrap_or_default()),
        ("waypointFailure", failure(workload.waypoint_failure)),
        ("requiresWaypoint", if workload.requires_waypoint { Value::Bool(true) } else { Value::Null }),
        ("pod", workload.pod.as_deref().map(pod).unwrap_or_default()),
    ])
}

/// Closed goes without saying.
fn failure(failure: WaypointFailure) -> Value {
    match failure {
        WaypointFailure::Closed => Value::Null,
        WaypointFailure::Open => debug(&failure),
    }
}

fn pod(pod: &PodBinding) -> Value {
    let namespace = pod.network_namespace.as_ref().map(|path| path.display().to_string());
    let excluded = &pod.exclusions;
    object([
        ("uid", text(&pod.pod_uid)),
        ("networkNamespace", text(&namespace.unwrap_or_default())),
        ("probePorts", texts(&pod.probe_ports)),
        (
            "excluded",
            object([
                ("inboundPorts", texts(&excluded.inbound_ports)),
                ("outboundPorts", texts(&excluded.outbound_ports)),
                ("outboundRanges", texts(&excluded.outbound_destinations)),
            ]),
        ),
    ])
}

fn service(service: &Service) -> Value {
    object([
        ("name", text(&service.name)),
        ("addresses", texts(&service.addresses)),
        ("ports", service.ports.iter().map(port).collect()),
        ("waypoint", service.waypoint.as_ref().map(text).unwrap_or_default()),
        ("waypointFailure", failure(service.waypoint_failure)),
        ("ipFamilies", debug(&service.ip_families)),
        ("loadBalancing", load_balancing(&service.load_balancing)),
    ])
}

/// `80 -> 8080 Http11`; the target is `?` where it differs between endpoints.
fn port(port: &PortMapping) -> Value {
    let target = port.target_port.map_or_else(|| "?".to_owned(), |port| port.to_string());
    Value::String(format!("{} -> {target} {:?}", port.service_port, port.app_protocol))
}

fn load_balancing(balancing: &LoadBalancing) -> Value {
    if *balancing == LoadBalancing::default() {
        return Value::Null;
    }
    object([
        ("mode", debug(&balancing.mode)),
        ("preference", balancing.routing_preference.iter().map(debug).collect()),
        ("health", debug(&balancing.health_policy)),
    ])
}

fn policy(policy: &AuthorizationPolicy) -> Value {
    let scope = match policy.scope {
        PolicyScope::Global => "mesh",
        PolicyScope::Namespace => "namespace",
        PolicyScope::WorkloadSelector => "workloads that name it",
    };
    object([
        ("name", text(&policy.name)),
        ("scope", Value::String(scope.to_owned())),
        ("action", debug(&policy.action)),
        // Kept when empty: a policy without rules never matches.
        ("rules", json!(policy.rules.iter().map(rule).collect::<Vec<_>>())),
        ("dryRun", if policy.dry_run { Value::Bool(true) } else { Value::Null }),
    ])
}

/// A rule is a list of clauses; an empty one matches everything.
fn rule(rule: &Rule) -> Value {
    let clause = |clause: &Clause| clause.any_of.iter().map(conditions).collect::<Value>();
    json!(rule.clauses.iter().map(clause).collect::<Vec<_>>())
}

fn conditions(conditions: &Match) -> Value {
    let patterns = |patterns: &[StringMatch]| patterns.iter().map(pattern).collect::<Value>();
    let accounts = |names: &[ambit_mesh::policy::ServiceAccountMatch]| {
        let name = |name: &ambit_mesh::policy::ServiceAccountMatch| {
            Value::String(format!("{}/{}", name.namespace, name.service_account))
        };
        names.iter().map(name).collect::<Value>()
    };
    object([
        ("namespaces", patterns(&conditions.namespaces)),
        ("notNamespaces", patterns(&conditions.not_namespaces)),
        ("principals", patterns(&conditions.principals)),
        ("notPrincipals", patterns(&conditions.not_principals)),
        ("serviceAccounts", accounts(&conditions.service_accounts)),
        ("notServiceAccounts", accounts(&conditions.not_service_accounts)),
        ("sourceIps", texts(&conditions.source_ips)),
        ("notSourceIps", texts(&conditions.not_source_ips)),
        ("destinationIps", texts(&conditions.destination_ips)),
        ("notDestinationIps", texts(&conditions.not_destination_ips)),
        ("destinationPorts", texts(&conditions.destination_ports)),
        ("notDestinationPorts", texts(&conditions.not_destination_ports)),
    ])
}

fn pattern(pattern: &StringMatch) -> Value {
    Value::String(match pattern {
        StringMatch::Exact(text) => text.to_string(),
        StringMatch::Prefix(text) => format!("{text}*"),
        StringMatch::Suffix(text) => format!("*{text}"),
        StringMatch::Presence => "*".to_owned(),
    })
}

fn object<const N: usize>(fields: [(&str, Value); N]) -> Value {
    let is_given = |value: &Value| match value {
        Value::Null => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(values) => !values.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
        Value::Bool(_) | Value::Number(_) => true,
    };
    let given = fields.into_iter().filter(|(name, value)| *name == "rules" || is_given(value));
    Value::Object(given.map(|(name, value)| (name.to_owned(), value)).collect::<Map<_, _>>())
}

fn text(value: &impl std::fmt::Display) -> Value {
    Value::String(value.to_string())
}

fn texts<T: std::fmt::Display>(values: impl IntoIterator<Item = T>) -> Value {
    values.into_iter().map(|value| Value::String(value.to_string())).collect()
}

fn debug(value: &impl std::fmt::Debug) -> Value {
    Value::String(format!("{value:?}"))
}
