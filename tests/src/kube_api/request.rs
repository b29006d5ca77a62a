//! What a request asks for: verb, kind, object and options, read from method, path and query.

use std::collections::BTreeMap;

use percent_encoding::percent_decode_str;
use serde_json::Value;

use super::auth::User;
use super::errors::ApiError;

/// A request that has been read whole.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) query: Query,
    pub(super) accept: String,
    pub(super) content_type: String,
    pub(super) user_agent: String,
    pub(super) user: User,
    pub(super) body: Value,
}

/// The methods that are understood, which in HTTP have these names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    Get,
    Post,
    Put,
    Patch,
    Delete,
}

impl Method {
    pub(super) fn named(name: &str) -> Option<Self> {
        let known = [
            ("GET", Self::Get),
            ("POST", Self::Post),
            ("PUT", Self::Put),
            ("PATCH", Self::Patch),
            ("DELETE", Self::Delete),
        ];
        known.into_iter().find_map(|(known, method)| (known == name).then_some(method))
    }
}

/// The verbs of authorization.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Verb {
    Get,
    List,
    Watch,
    Create,
    Update,
    Patch,
    Delete,
    DeleteCollection,
}

impl Verb {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Watch => "watch",
            Self::Create => "create",
            Self::Update => "update",
            Self::Patch => "patch",
            Self::Delete => "delete",
            Self::DeleteCollection => "deletecollection",
        }
    }
}

/// Where a path below `/api/<version>` or `/apis/<group>/<version>` leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) group: String,
    pub(super) version: String,
    pub(super) plural: String,
    pub(super) namespace: Option<String>,
    pub(super) name: Option<String>,
    pub(super) subresource: Option<String>,
}

impl Target {
    /// Reads the segments of a whole path.
    pub(super) fn of_path(segments: &[&str]) -> Result<Self, ApiError> {
        match segments {
            ["api", version, rest @ ..] => Self::parse("", version, rest),
            ["apis", group, version, rest @ ..] => Self::parse(group, version, rest),
            _ => Err(ApiError::no_such_path()),
        }
    }

    /// Reads the segments of a path that are behind group and version.
    pub(super) fn parse(group: &str, version: &str, segments: &[&str]) -> Result<Self, ApiError> {
        let target =
            |namespace: Option<&str>, plural: &str, name: Option<&str>, subresource: Option<&str>| Self {
                group: group.into(),
                version: version.into(),
                plural: plural.into(),
                namespace: namespace.map(str::to_owned),
                name: name.map(str::to_owned),
                subresource: subresource.map(str::to_owned),
            };
        Ok(match *segments {
            ["namespaces", name, "status"] => target(None, "namespaces", Some(name), Some("status")),
            ["namespaces", namespace, plural] => target(Some(namespace), plural, None, None),
            ["namespaces", namespace, plural, name] => target(Some(namespace), plural, Some(name), None),
            ["namespaces", namespace, plural, name, subresource] => {
                target(Some(namespace), plural, Some(name), Some(subresource))
            }
            [plural] => target(None, plural, None, None),
            [plural, name] => target(None, plural, Some(name), None),
            [plural, name, subresource] => target(None, plural, Some(name), Some(subresource)),
            _ => return Err(ApiError::no_such_path()),
        })
    }

    pub(super) fn verb(&self, method: Method, query: &Query) -> Verb {
        match (method, &self.name) {
            (Method::Get, Some(_)) => Verb::Get,
            (Method::Get, None) if query.flag("watch") => Verb::Watch,
            (Method::Get, None) => Verb::List,
            (Method::Post, _) => Verb::Create,
            (Method::Put, _) => Verb::Update,
            (Method::Patch, _) => Verb::Patch,
            (Method::Delete, Some(_)) => Verb::Delete,
            (Method::Delete, None) => Verb::DeleteCollection,
        }
    }
}

/// The options behind the question mark.
#[derive(Clone, Debug, Default)]
pub(super) struct Query(BTreeMap<String, String>);

impl Query {
    pub(super) fn parse(text: &str) -> Self {
        let decode =
            |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
        let pairs = text.split('&').filter(|pair| !pair.is_empty());
        Self(
            pairs
                .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
                .map(|(key, value)| (decode(key), decode(value)))
                .collect(),
        )
    }

    /// The value, which is empty where there is none.
    pub(super) fn text(&self, key: &str) -> &str {
        self.0.get(key).map_or("", String::as_str)
    }

    pub(super) fn flag(&self, key: &str) -> bool {
        matches!(self.text(key), "true" | "1")
    }

    pub(super) fn number(&self, key: &str) -> Result<Option<u64>, ApiError> {
        match self.text(key) {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(|_| {
                ApiError::bad_request(format!("{key}: Invalid value: \"{text}\": it is no number"))
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lead_to_objects() {
        for (path, namespace, plural, name, subresource) in [
            ("pods", None, "pods", None, None),
            ("namespaces/shop", None, "namespaces", Some("shop"), None),
            ("namespaces/shop/status", None, "namespaces", Some("shop"), Some("status")),
            ("namespaces/shop/pods", Some("shop"), "pods", None, None),
            ("namespaces/shop/pods/web/status", Some("shop"), "pods", Some("web"), Some("status")),
            ("nodes/n1", None, "nodes", Some("n1"), None),
        ] {
            let segments: Vec<&str> = path.split('/').collect();
            let target = Target::parse("", "v1", &segments).unwrap();
            assert_eq!(target.namespace.as_deref(), namespace, "{path}");
            assert_eq!(target.plural, plural, "{path}");
            assert_eq!(target.name.as_deref(), name, "{path}");
            assert_eq!(target.subresource.as_deref(), subresource, "{path}");
        }
        assert!(Target::parse("", "v1", &[]).is_err());
    }

    #[test]
    fn queries_are_decoded() {
        let query = Query::parse("watch=1&labelSelector=a+in+%28b%2Cc%29&limit=5");
        assert!(query.flag("watch") && !query.flag("dryRun"));
        assert_eq!(query.text("labelSelector"), "a in (b,c)");
        assert_eq!(query.number("limit").unwrap(), Some(5));
        assert!(Query::parse("limit=x").number("limit").is_err());
    }
}
