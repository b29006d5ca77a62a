//! Lists: of which revision, in which pages.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use serde_json::{Value, json};

use super::errors::ApiError;
use super::kinds::Resource;
use super::render::Form;
use super::request::{Query, Target};
use super::selector::Selector;
use super::store::{ObjectName, Objects, Store};

/// Which objects of a kind are meant.
#[derive(Clone, Debug)]
pub(super) struct Scope {
    pub(super) namespace: Option<String>,
    pub(super) selector: Selector,
}

impl Scope {
    pub(super) fn new(resource: &Resource, target: &Target, query: &Query) -> Result<Self, ApiError> {
        let selector = Selector::parse(resource, query.text("labelSelector"), query.text("fieldSelector"))?;
        Ok(Self { namespace: target.namespace.clone(), selector })
    }

    /// Whether an object of this name is in the namespace.
    pub(super) fn holds(&self, name: &ObjectName) -> bool {
        self.namespace.as_ref().is_none_or(|namespace| *namespace == name.namespace)
    }

    pub(super) fn matches(&self, name: &ObjectName, object: &Value) -> bool {
        self.holds(name) && self.selector.matches(object)
    }
}

/// The answer to a list request.
pub(super) fn list(
    store: &Store,
    resource: &Resource,
    scope: &Scope,
    query: &Query,
    form: &Form,
) -> Result<Bytes, ApiError> {
    let limit = query.number("limit")?.filter(|limit| *limit > 0);
    let start = Start::new(store, query, limit)?;
    let objects = store.at(&resource.id, start.revision).map_err(|error| start.explain(error))?;
    // The cache that answers for revision 0 knows no pages.
    let limit = limit.filter(|_| query.text("resourceVersion") != "0");
    let mut page: Objects = objects
        .into_iter()
        .filter(|(name, stored)| {
            start.after.as_ref().is_none_or(|after| name > after) && scope.matches(name, &stored.value)
        })
        .collect();
    let mut metadata = json!({"resourceVersion": start.revision.to_string()});
    let limit = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
    if let Some(first_of_next) = page.keys().nth(limit).cloned() {
        let rest = page.split_off(&first_of_next);
        let last = page.last_key_value().map(|(name, _)| name.clone()).unwrap_or_default();
        metadata["continue"] = start.token(&last).into();
        if scope.selector.is_everything() {
            metadata["remainingItemCount"] = rest.len().into();
        }
    }
    Ok(form.list(&metadata, page.values().map(AsRef::as_ref)))
}

/// Where a page begins.
struct Start {
    revision: u64,
    after: Option<ObjectName>,
}

impl Start {
    fn new(store: &Store, query: &Query, limit: Option<u64>) -> Result<Self, ApiError> {
        let asked = query.number("resourceVersion")?;
        let rule = query.text("resourceVersionMatch");
        if !query.text("continue").is_empty() {
            if asked.is_some_and(|asked| asked > 0) {
                let message = "specifying resource version is not allowed when using continue";
                return Err(ApiError::bad_request(message));
            }
            return Self::from_token(query.text("continue"));
        }
        let invalid = |what| Err(ApiError::invalid("ListOptions.meta.k8s.io", "", what));
        match (asked, rule) {
            (_, "" | "Exact" | "NotOlderThan") => {}
            _ => return invalid("resourceVersionMatch: Unsupported value"),
        }
        if !rule.is_empty() && asked.is_none() {
            return invalid(
                "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided",
            );
        }
        if rule == "Exact" && asked == Some(0) {
            return invalid(
                "resourceVersionMatch: Forbidden: resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
            );
        }
        let current = store.revision();
        let Some(asked) = asked.filter(|asked| *asked > 0) else {
            return Ok(Self { revision: current, after: None });
        };
        if asked > current {
            return Err(ApiError::too_large_resource_version(asked, current));
        }
        // A page of a given revision is of that revision, as it was before there were rules.
        let exact = rule == "Exact" || rule.is_empty() && limit.is_some();
        Ok(Self { revision: if exact { asked } else { current }, after: None })
    }

    fn from_token(token: &str) -> Result<Self, ApiError> {
        let read = || -> Option<Self> {
            let octets = URL_SAFE_NO_PAD.decode(token).ok()?;
            let value: Value = serde_json::from_slice(&octets).ok()?;
            let (namespace, name) = value["start"].as_str()?.split_once('/')?;
            let after = ObjectName { namespace: namespace.into(), name: name.into() };
            Some(Self { revision: value["rv"].as_u64()?, after: Some(after) })
        };
        read().ok_or_else(|| ApiError::bad_request("continue key is not valid"))
    }

    fn token(&self, last: &ObjectName) -> String {
        let start = format!("{}/{}", last.namespace, last.name);
        URL_SAFE_NO_PAD
            .encode(json!({"v": "meta.k8s.io/v1", "rv": self.revision, "start": start}).to_string())
    }

    fn explain(&self, error: ApiError) -> ApiError {
        match self.after {
            Some(_) if error.code == 410 => ApiError::expired(
                "The provided continue parameter is too old to display a consistent list result. You can start a \
                 new list without the continue parameter.",
            ),
            Some(_) | None => error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kube_api::kinds::built_in;

    #[test]
    fn pages_are_of_one_revision() {
        let pods = built_in().find(|resource| resource.is("", "pods")).unwrap();
        let mut store = Store::default();
        let mut put = |name: &str| {
            let key = ObjectName { namespace: "shop".into(), name: name.into() };
            store.commit(&pods.id, key, Some(json!({"metadata": {"name": name}})));
        };
        ["a", "b", "c"].into_iter().for_each(&mut put);
        let page = |store: &Store, query: &str| -> Result<Value, ApiError> {
            let scope = Scope { namespace: None, selector: Selector::default() };
            let form = Form::new(&pods, "");
            let octets = list(store, &pods, &scope, &Query::parse(query), &form)?;
            Ok(serde_json::from_slice(&octets).unwrap())
        };
        let first = page(&store, "limit=2").unwrap();
        assert_eq!(first["items"].as_array().unwrap().len(), 2);
        assert_eq!(first["metadata"]["remainingItemCount"], 1);
        let token = first["metadata"]["continue"].as_str().unwrap().to_owned();
        let key = ObjectName { namespace: "shop".into(), name: "d".into() };
        store.commit(&pods.id, key, Some(json!({"metadata": {"name": "d"}})));
        let second = page(&store, &format!("limit=2&continue={token}")).unwrap();
        assert_eq!(second["items"].as_array().unwrap().len(), 1, "d came after the first page");
        assert_eq!(second["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
        store.compact();
        assert_eq!(page(&store, &format!("limit=2&continue={token}")).unwrap_err().code, 410);
        assert_eq!(page(&store, "resourceVersion=2&resourceVersionMatch=Exact").unwrap_err().code, 410);
        assert_eq!(page(&store, "resourceVersion=2").unwrap()["items"].as_array().unwrap().len(), 4);
        assert_eq!(page(&store, "resourceVersion=99").unwrap_err().code, 504);
        assert_eq!(page(&store, "resourceVersionMatch=Exact").unwrap_err().code, 422);
    }
}
