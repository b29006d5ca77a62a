//! What a user may do, by the Roles and bindings in the store, and what of it was used.
//!
//! Simplified: no aggregation, and whoever may write Roles may write any.

use std::collections::BTreeSet;

use serde_json::Value;

use super::auth::User;
use super::kinds::{RBAC, ResourceId};
use super::request::{Method, Query, Target, Verb};
use super::store::{ObjectName, Store};

/// What a request asks for, as Roles name it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Asked {
    pub(super) verb: Verb,
    pub(super) group: String,
    /// With a subresource behind a slash.
    pub(super) resource: String,
    /// Empty for all of them, and for what is the cluster's.
    pub(super) namespace: String,
    /// Of lists and watches too, where they select one object by its name.
    pub(super) name: String,
}

impl Asked {
    /// What a request asks for; nothing that Roles name for discovery and health.
    pub fn by(method: &str, path: &str, query: &str) -> Option<Self> {
        let method = Method::named(method)?;
        let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
        let target = Target::of_path(&segments).ok()?;
        let query = Query::parse(query);
        Some(Self::new(&target, target.verb(method, &query), &query))
    }

    /// The same request, which is one for this verb too: applying what is not there creates it.
    #[must_use]
    pub fn creating(&self) -> Self {
        Self { verb: Verb::Create, ..self.clone() }
    }

    pub(super) fn new(target: &Target, verb: Verb, query: &Query) -> Self {
        let resource = match &target.subresource {
            Some(subresource) => format!("{}/{subresource}", target.plural),
            None => target.plural.clone(),
        };
        let mut fields = query.text("fieldSelector").split(',');
        let selected = || fields.find_map(|field| field.strip_prefix("metadata.name="));
        let name = target.name.as_deref().or_else(selected).unwrap_or_default().trim_start_matches('=');
        Self {
            verb,
            group: target.group.clone(),
            resource,
            namespace: target.namespace.clone().unwrap_or_default(),
            name: name.to_owned(),
        }
    }
}

/// What a Role gives that none of these requests asked for: `<verb> <resource>.<group>`.
pub fn unused(role: &Value, asked: &[Asked]) -> Vec<String> {
    let namespace = role["metadata"]["namespace"].as_str().unwrap_or_default().to_owned();
    let rules = role["rules"].as_array().into_iter().flatten();
    let mut unused = Vec::new();
    for rule in rules.map(|rule| Rule { role: String::new(), namespace: namespace.clone(), rule }) {
        let is_used = |grant: &(&str, &str, &str)| asked.iter().any(|asked| rule.is_used(*grant, asked));
        let left = rule.grants().into_iter().filter(|grant| !is_used(grant));
        unused.extend(left.map(|(group, resource, verb)| format!("{verb} {resource}.{group}")));
    }
    unused
}

/// What was asked for, and what was refused.
#[derive(Debug, Default)]
pub(super) struct Audit {
    allowed: BTreeSet<(String, Asked)>,
    refused: BTreeSet<(String, Asked)>,
}

/// What became of the permissions of a user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Permissions {
    /// `<verb> <resource>.<group> in <namespace>`: what was answered with 403.
    pub refused: Vec<String>,
    /// `<verb> <resource>.<group> by <role>`: what a Role gives and nobody asked for.
    pub unused: Vec<String>,
}

impl Audit {
    /// Decides, and remembers the decision.
    pub(super) fn authorize(&mut self, store: &Store, user: &User, asked: Asked) -> bool {
        let allowed = user.groups.iter().any(|group| group == "system:masters")
            || rules(store, user).any(|rule| rule.allows(&asked));
        let list = if allowed { &mut self.allowed } else { &mut self.refused };
        list.insert((user.name.clone(), asked));
        allowed
    }

    /// Compares what a user asked for with what its Roles give.
    pub(super) fn permissions(&self, store: &Store, name: &str) -> Permissions {
        let mut permissions = Permissions::default();
        for (_, asked) in self.refused.iter().filter(|(user, _)| user == name) {
            let Asked { verb, group, resource, namespace, .. } = asked;
            permissions.refused.push(format!("{} {resource}.{group} in {namespace:?}", verb.name()));
        }
        let used = |rule: &Rule<'_>, grant| {
            self.allowed.iter().any(|(user, asked)| user == name && rule.is_used(grant, asked))
        };
        for rule in rules(store, &User::new(name, &[])) {
            for (group, resource, verb) in rule.grants() {
                if !used(&rule, (group, resource, verb)) {
                    permissions.unused.push(format!("{verb} {resource}.{group} by {}", rule.role));
                }
            }
        }
        permissions
    }
}

/// A rule as it is bound: where it holds.
struct Rule<'a> {
    role: String,
    /// Empty for everywhere.
    namespace: String,
    rule: &'a Value,
}

impl<'a> Rule<'a> {
    fn allows(&self, asked: &Asked) -> bool {
        let has = |field: &str, wanted: &str| self.list(field).any(|value| value == wanted || value == "*");
        let names = self.list("resourceNames").count();
        (self.namespace.is_empty() || self.namespace == asked.namespace)
            && has("apiGroups", &asked.group)
            && has("resources", &asked.resource)
            && has("verbs", asked.verb.name())
            && (names == 0 || self.list("resourceNames").any(|name| name == asked.name))
    }

    /// Whether a request needs this grant of the rule: group, resource, verb.
    fn is_used(&self, (group, resource, verb): (&str, &str, &str), asked: &Asked) -> bool {
        asked.verb.name() == verb && asked.group == group && asked.resource == resource && self.allows(asked)
    }

    fn grants(&self) -> Vec<(&'a str, &'a str, &'a str)> {
        let mut grants = Vec::new();
        for group in self.list("apiGroups") {
            for resource in self.list("resources") {
                grants.extend(self.list("verbs").map(|verb| (group, resource, verb)));
            }
        }
        grants
    }

    fn list(&self, field: &str) -> impl Iterator<Item = &'a str> {
        self.rule[field].as_array().into_iter().flatten().filter_map(Value::as_str)
    }
}

fn rules<'a>(store: &'a Store, user: &User) -> impl Iterator<Item = Rule<'a>> {
    let user = user.clone();
    let bindings = ["clusterrolebindings", "rolebindings"]
        .into_iter()
        .flat_map(|plural| store.all(&ResourceId::new(RBAC, plural)));
    bindings.filter(move |(_, binding)| names_user(&binding.value, &user)).flat_map(|(name, binding)| {
        let reference = &binding.value["roleRef"];
        let of_cluster = reference["kind"] == "ClusterRole";
        let plural = if of_cluster { "clusterroles" } else { "roles" };
        let role = ObjectName {
            namespace: if of_cluster { String::new() } else { name.namespace.clone() },
            name: reference["name"].as_str().unwrap_or_default().into(),
        };
        let found = store.get(&ResourceId::new(RBAC, plural), &role);
        let rules = found.and_then(|found| found.value["rules"].as_array()).into_iter().flatten();
        let namespace = name.namespace.clone();
        rules.map(move |rule| Rule { role: role.name.clone(), namespace: namespace.clone(), rule })
    })
}

fn names_user(binding: &Value, user: &User) -> bool {
    binding["subjects"].as_array().into_iter().flatten().any(|subject| {
        let name = subject["name"].as_str().unwrap_or_default();
        match subject["kind"].as_str() {
            Some("ServiceAccount") => {
                let namespace = subject["namespace"].as_str().unwrap_or_default();
                user.name == format!("system:serviceaccount:{namespace}:{name}")
            }
            Some("Group") => user.groups.iter().any(|group| group == name),
            Some(_) | None => user.name == name,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_roles_give_is_allowed_and_counted() {
        let mut store = Store::default();
        let mut put = |plural: &str, namespace: &str, value: Value| {
            let name = ObjectName { namespace: namespace.into(), name: "r".into() };
            store.commit(&ResourceId::new(RBAC, plural), name, Some(value));
        };
        put(
            "roles",
            "shop",
            json!({"rules": [
                {"apiGroups": [""], "resources": ["pods", "pods/status"], "verbs": ["get"]},
                {"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["ca"], "verbs": ["get"]},
            ]}),
        );
        let subject = json!({"kind": "ServiceAccount", "name": "control", "namespace": "mesh"});
        put("rolebindings", "shop", json!({"roleRef": {"kind": "Role", "name": "r"}, "subjects": [subject]}));
        let user = User::new("system:serviceaccount:mesh:control", &[]);
        let mut audit = Audit::default();
        for (resource, namespace, name, allowed) in [
            ("pods", "shop", "web", true),
            ("pods", "other", "web", false),
            ("secrets", "shop", "ca", true),
            ("secrets", "shop", "password", false),
        ] {
            let asked = Asked {
                verb: Verb::Get,
                group: String::new(),
                resource: resource.into(),
                namespace: namespace.into(),
                name: name.into(),
            };
            assert_eq!(audit.authorize(&store, &user, asked), allowed, "{resource} {namespace} {name}");
        }
        let permissions = audit.permissions(&store, &user.name);
        assert_eq!(permissions.refused.len(), 2);
        assert_eq!(permissions.unused, ["get pods/status. by r"]);
    }
}
