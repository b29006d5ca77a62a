//! What identifies an object: kind, namespace and name, checked as an API server checks them.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use super::kind::{Kind, KnownKind, Scope};

/// What identifies an object.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace; `None` for an object of the cluster.
    pub namespace: Option<Arc<str>>,
    /// Its name.
    pub name: Arc<str>,
}

/// Why an object's head does not identify it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKey {
    /// `kind` is missing or is no word.
    #[error("kind: Required value: an object names its apiVersion and kind, found kind {kind:?}")]
    Kind {
        /// What was read.
        kind: String,
    },
    /// `apiVersion` is missing or malformed.
    #[error("apiVersion: Invalid value: {api_version:?}: expected a version or group/version")]
    ApiVersion {
        /// What was read.
        api_version: String,
    },
    /// `metadata.name` is missing.
    #[error("metadata.name: Required value: name or generateName is required")]
    NoName,
    /// `metadata.name` is not a name.
    #[error(
        "metadata.name: Invalid value: {name:?}: a lowercase RFC 1123 subdomain must consist of lower case \
         alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. \
         'example.com')"
    )]
    Name {
        /// What was read.
        name: String,
    },
    /// A name without dots is asked for: it becomes part of host names.
    #[error(
        "metadata.name: Invalid value: {name:?}: a lowercase RFC 1123 label must consist of lower case \
         alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. \
         'my-name' or '123-abc')"
    )]
    NameLabel {
        /// What was read.
        name: String,
    },
    /// `metadata.namespace` is not a name.
    #[error(
        "metadata.namespace: Invalid value: {namespace:?}: a lowercase RFC 1123 label must consist of lower \
         case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. \
         'my-name' or '123-abc')"
    )]
    Namespace {
        /// What was read.
        namespace: String,
    },
}

impl ObjectKey {
    /// Checks the parts of an object's head. A namespaced object without a namespace is in
    /// `default`, as with kubectl.
    ///
    /// # Errors
    /// When a part is missing or malformed.
    pub fn new(
        api_version: &str,
        kind: &str,
        namespace: Option<&str>,
        name: &str,
    ) -> Result<Self, InvalidKey> {
        Self::checked(parse_kind(api_version, kind)?, namespace, name)
    }

    /// An object of a kind that control understands.
    ///
    /// # Errors
    /// When the name or the namespace is missing or malformed.
    pub fn of(kind: KnownKind, namespace: Option<&str>, name: &str) -> Result<Self, InvalidKey> {
        Self::checked(Kind::Known(kind), namespace, name)
    }

    fn checked(kind: Kind, namespace: Option<&str>, name: &str) -> Result<Self, InvalidKey> {
        check_name(&kind, name)?;
        let namespace = match &kind {
            Kind::Known(known) => match known.scope() {
                Scope::Cluster => None,
                Scope::Namespaced => Some(namespace.unwrap_or("default")),
            },
            Kind::Foreign { .. } => namespace,
        };
        if let Some(namespace) = namespace.filter(|namespace| !is_label(namespace)) {
            return Err(InvalidKey::Namespace { namespace: namespace.to_owned() });
        }
        Ok(Self { kind, namespace: namespace.map(Arc::from), name: name.into() })
    }

    /// `<kind>/[<namespace>/]<name>.<extension>`. All parts were checked to be plain names, so that
    /// it stays below whatever it is appended to.
    pub fn path(&self, extension: &str) -> PathBuf {
        let mut path = PathBuf::from(self.kind.to_string());
        path.extend(self.namespace.as_deref());
        path.push(format!("{}.{extension}", self.name));
        path
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{} {namespace}/{}", self.kind, self.name),
            None => write!(f, "{} {}", self.kind, self.name),
        }
    }
}

fn parse_kind(api_version: &str, kind: &str) -> Result<Kind, InvalidKey> {
    if kind.is_empty() || !kind.chars().all(|c| c.is_ascii_alphanumeric()) {
        return Err(InvalidKey::Kind { kind: kind.to_owned() });
    }
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    if version.is_empty() || version.contains('/') || !(group.is_empty() || is_subdomain(group)) {
        return Err(InvalidKey::ApiVersion { api_version: api_version.to_owned() });
    }
    Ok(Kind::of(group, kind))
}

fn check_name(kind: &Kind, name: &str) -> Result<(), InvalidKey> {
    if name.is_empty() {
        return Err(InvalidKey::NoName);
    }
    let is_part_of_host_names = matches!(kind, Kind::Known(KnownKind::Namespace | KnownKind::Service));
    if is_part_of_host_names && !is_label(name) {
        return Err(InvalidKey::NameLabel { name: name.to_owned() });
    }
    if !is_subdomain(name) {
        return Err(InvalidKey::Name { name: name.to_owned() });
    }
    Ok(())
}

/// RFC 1123 §2.1 in Kubernetes' reading: at most 253 octets of labels joined by dots.
fn is_subdomain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_label_text)
}

fn is_label(text: &str) -> bool {
    text.len() <= 63 && is_label_text(text)
}

fn is_label_text(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    !text.is_empty() && text.chars().all(allowed) && !text.starts_with('-') && !text.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_checked() {
        let ok = |api, kind, namespace, name| ObjectKey::new(api, kind, namespace, name).unwrap().to_string();
        assert_eq!(ok("v1", "Pod", None, "web-0"), "Pod default/web-0");
        assert_eq!(ok("v1", "Node", Some("x"), "n1"), "Node n1");
        assert_eq!(ok("apps/v1", "Deployment", Some("shop"), "web"), "Deployment.apps shop/web");

        let rows = [
            ("", "Pod", None, "a"),
            ("a/b/c", "Pod", None, "a"),
            ("v1", "", None, "a"),
            ("v1", "../Pod", None, "a"),
            ("v1", "Pod", None, ""),
            ("v1", "Pod", None, "../a"),
            ("v1", "Pod", None, "a."),
            ("v1", "Pod", None, "A"),
            ("v1", "Pod", Some("a/b"), "a"),
            ("v1", "Pod", Some(""), "a"),
            ("v1", "Service", None, "a.b"),
            ("../x/v1", "Thing", None, "a"),
        ];
        for (api, kind, namespace, name) in rows {
            let result = ObjectKey::new(api, kind, namespace, name);
            assert!(result.is_err(), "{api:?} {kind:?} {namespace:?} {name:?} was accepted");
        }
    }
}
