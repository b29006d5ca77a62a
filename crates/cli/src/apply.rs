//! Objects of any kind: parsed, found in the API, applied and deleted.

use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, Patch, PatchParams};
use kube::core::GroupVersionKind;
use kube::discovery::{ApiCapabilities, Scope, oneshot};
use kube::{Client, Error};
use serde_json::Value;

/// Whose fields they are.
const FIELD_MANAGER: &str = "ambit";

/// What went wrong with one object.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// A document is not YAML.
    #[error("a manifest is not YAML: {message}")]
    NotYaml {
        /// What the parser said.
        message: String,
    },
    /// A document is no object.
    #[error("a manifest has no {field}")]
    NoObject {
        /// What is missing.
        field: &'static str,
    },
    /// The API server refused, or cannot be reached.
    #[error("{action} {object}")]
    Api {
        /// What was tried.
        action: &'static str,
        /// The object's kind and name.
        object: String,
        /// What the server said.
        source: Box<Error>,
    },
}

/// One object of a manifest.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// Its kind.
    pub kind: GroupVersionKind,
    /// Its name.
    pub name: String,
    namespace: Option<String>,
    value: Value,
}

/// The objects of a stream of YAML documents.
///
/// # Errors
/// When a document is not an object of Kubernetes.
pub(crate) fn parse(text: &str) -> Result<Vec<Manifest>, ApplyError> {
    let documents = text.split("\n---").map(|document| document.trim_start_matches('-'));
    let has_content =
        |document: &&str| document.lines().any(|line| !line.trim().is_empty() && !line.starts_with('#'));
    documents.filter(has_content).map(Manifest::parse).collect()
}

impl Manifest {
    fn parse(document: &str) -> Result<Self, ApplyError> {
        let value: Value = serde_saphyr::from_str(document)
            .map_err(|error| ApplyError::NotYaml { message: error.to_string() })?;
        let text = |path: &str, field| {
            let found = value.pointer(path).and_then(Value::as_str);
            found.map(str::to_owned).ok_or(ApplyError::NoObject { field })
        };
        let api_version = text("/apiVersion", "apiVersion")?;
        let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
        let kind = GroupVersionKind::gvk(group, version, &text("/kind", "kind")?);
        let name = text("/metadata/name", "metadata.name")?;
        let namespace = text("/metadata/namespace", "metadata.namespace").ok();
        Ok(Self { kind, name, namespace, value })
    }

    /// Kind and name, for people.
    pub fn label(&self) -> String {
        match &self.namespace {
            Some(namespace) => format!("{} {namespace}/{}", self.kind.kind, self.name),
            None => format!("{} {}", self.kind.kind, self.name),
        }
    }

    /// Applies it by server-side apply.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn apply(&self, client: &Client, dry_run: bool) -> Result<(), ApplyError> {
        let failed = |source| self.failed("cannot apply", source);
        let api = self.api(client).await.map_err(failed)?;
        let mut params = PatchParams::apply(FIELD_MANAGER).force();
        params.dry_run = dry_run;
        api.patch(&self.name, &params, &Patch::Apply(&self.value)).await.map(drop).map_err(failed)
    }

    /// Whether the cluster has an object of its kind and name.
    ///
    /// # Errors
    /// When the API server cannot say.
    pub async fn exists(&self, client: &Client) -> Result<bool, ApplyError> {
        let failed = |source| self.failed("cannot look for", source);
        let api = self.api(client).await.map_err(failed)?;
        api.get_metadata_opt(&self.name).await.map(|found| found.is_some()).map_err(failed)
    }

    /// Deletes it; one that is not there counts as deleted, as does one of a kind that is not served.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn delete(&self, client: &Client) -> Result<(), ApplyError> {
        let failed = |source| self.failed("cannot delete", source);
        let api = match self.api(client).await {
            Err(error) if is_absent(&error) => return Ok(()),
            found => found.map_err(failed)?,
        };
        match api.delete(&self.name, &DeleteParams::background()).await {
            Err(error) if !is_absent(&error) => Err(failed(error)),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    fn failed(&self, action: &'static str, source: Error) -> ApplyError {
        ApplyError::Api { action, object: self.label(), source: Box::new(source) }
    }

    async fn api(&self, client: &Client) -> Result<Api<DynamicObject>, Error> {
        let (resource, ApiCapabilities { scope, .. }): (ApiResource, _) =
            oneshot::pinned_kind(client, &self.kind).await?;
        Ok(match (scope, &self.namespace) {
            (Scope::Namespaced, Some(namespace)) => {
                Api::namespaced_with(client.clone(), namespace, &resource)
            }
            (Scope::Namespaced, None) => Api::default_namespaced_with(client.clone(), &resource),
            (Scope::Cluster, _) => Api::all_with(client.clone(), &resource),
        })
    }
}

/// Whether the server says that there is no such thing.
pub(crate) fn is_absent(error: &Error) -> bool {
    // Discovery says so of a kind, or of a group, that is not served.
    matches!(error, Error::Api(status) if status.code == 404) || matches!(error, Error::Discovery(_))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_split_into_its_objects() {
        let text = "# about\napiVersion: v1\nkind: Namespace\nmetadata:\n  name: a\n---\n# nothing\n---\n\
                    apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: b\n  namespace: a\n";
        let labels: Vec<_> = parse(text).unwrap().iter().map(Manifest::label).collect();
        assert_eq!(labels, ["Namespace a", "Deployment a/b"]);
        assert!(parse("a: [").is_err());
        assert!(parse("kind: Pod\nmetadata: {name: a}").is_err());
    }
}
