//! What a user may do, by the Roles and bindings in the store, and what of it was used.
//!
//! Simplified: no aggregation, and whoever may write Roles may write any.

use std::collections::BTreeSet;

use serde_json::Value;

use super::auth::User;
use super::kinds::{RBAC, ResourceId};
use super::request::Verb;
use super::store::{ObjectName, Store};

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Attributes {
    pub(super) verb: Verb,
    pub(super) group: String,
    /// With a subresource behind a slash.
    pub(super) resource: String,
    /// Empty for all of them, and for what is the cluster's.
    pub(super) namespace: String,
    pub(super) name: String,
}

/// What was asked for, and what was refused.
#[derive(Debug, Default)]
pub(super) struct Audit {
    allowed: BTreeSet<(String, Attributes)>,
    refused: BTreeSet<(String, Attributes)>,
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
    pub(super) fn authorize(&mut self, store: &Store, user: &User, attributes: Attributes) -> bool {
        let allowed = user.groups.iter().any(|group| group == "system:masters")
            || rules(store, user).any(|rule| rule.allows(&attributes));
        let list = if allowed { &mut self.allowed } else { &mut self.refused };
        list.insert((user.name.clone(), attributes));
        allowed
    }

    /// Compares what a user asked for with what its Roles give.
    pub(super) fn permissions(&self, store: &Store, name: &str) -> Permissions {
        let mut permissions = Permissions::default();
        for (_, asked) in self.refused.iter().filter(|(user, _)| user == name) {
            let Attributes { verb, group, resource, namespace, .. } = asked;
            permissions.refused.push(format!("{} {resource}.{group} in {namespace:?}", verb.name()));
        }
        let used = |rule: &Rule<'_>, verb: &str, group: &str, resource: &str| {
            self.allowed.iter().any(|(user, asked)| {
                user == name
                    && asked.verb.name() == verb
                    && asked.group == group
                    && asked.resource == resource
                    && rule.allows(asked)
            })
        };
        for rule in rules(store, &User::new(name, &[])) {
            for (group, resource, verb) in rule.grants() {
                if !used(&rule, verb, group, resource) {
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
    fn allows(&self, asked: &Attributes) -> bool {
        let has = |field: &str, wanted: &str| self.list(field).any(|value| value == wanted || value == "*");
        let names = self.list("resourceNames").count();
        (self.namespace.is_empty() || self.namespace == asked.namespace)
            && has("apiGroups", &asked.group)
            && has("resources", &asked.resource)
            && has("verbs", asked.verb.name())
            && (names == 0 || self.list("resourceNames").any(|name| name == asked.name))
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
            let asked = Attributes {
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
