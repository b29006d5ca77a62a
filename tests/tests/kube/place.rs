//! Where a trial happens: an API server, and a namespace there that is the trial's own.

use std::cell::RefCell;
use std::env;
use std::path::{Path, PathBuf};

use ambit_kube::{Access, connect};
use ambit_tests::kube_api::ApiServer;
use anyhow::{Context, Result, anyhow, ensure};
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::Status;
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use tempfile::TempDir;

use ambit_tests::cluster::crowd::ACCOUNT;
use ambit_tests::cluster::kinds::{CRDS, Kind, NAMESPACES, SERVICE_ACCOUNTS};
use ambit_tests::cluster::{unique, write_kubeconfig};

/// Names the API server under test: a kubeconfig file, or the URL of one that asks for no credentials.
/// Without it the suite runs against the double.
const SERVER: &str = "AMBIT_KUBE_API";

/// An API server with a namespace.
pub(crate) struct Place {
    pub(crate) client: Client,
    pub(crate) access: Access,
    pub(crate) namespace: String,
    /// For what only the double can be told to do.
    pub(crate) double: Option<ApiServer>,
    directory: TempDir,
    /// Definitions that were made here.
    defined: RefCell<Vec<String>>,
}

/// Whether the suite runs against a server that it shares with others.
pub(crate) fn is_shared() -> bool {
    env::var_os(SERVER).is_some()
}

impl Place {
    /// Makes the namespace, with a ServiceAccount for pods.
    pub(crate) async fn make() -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let (file, double) = match env::var_os(SERVER) {
            Some(given) => (kubeconfig(&given, directory.path())?, None),
            None => {
                let double = ApiServer::start()?;
                (write_kubeconfig(directory.path(), "double", &double.url())?, Some(double))
            }
        };
        let access = Access::Kubeconfig { file: Some(file), context: None };
        let client = connect(&access).await?;
        let namespace = unique("ambit-contract");
        let place = Self { client, access, namespace, double, directory, defined: RefCell::default() };
        let object = json!({"metadata": {"name": place.namespace, "labels": {"ambit.dev/contract": "true"}}});
        place.create(NAMESPACES, object).await.context("the API server takes no namespace")?;
        place.create(SERVICE_ACCOUNTS, json!({"metadata": {"name": ACCOUNT}})).await?;
        Ok(place)
    }

    /// Removes the definitions and the namespace. What is in them is left to the server.
    pub(crate) async fn clear(self) -> Result<()> {
        for name in self.defined.take() {
            match self.delete(CRDS, &name).await {
                Err(error) if !is_missing(&error) => return Err(error.context(format!("{name} stays"))),
                Ok(()) | Err(_) => {}
            }
        }
        let namespaces = self.api(NAMESPACES);
        namespaces.delete(&self.namespace, &DeleteParams::default()).await.context("the namespace stays")?;
        Ok(())
    }

    /// A directory for files of the trial.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The objects of a kind in the namespace, or in the cluster for kinds of the cluster.
    pub(crate) fn api(&self, kind: Kind) -> Api<DynamicObject> {
        kind.api(self.client.clone(), &self.namespace)
    }

    pub(crate) async fn create(&self, kind: Kind, object: Value) -> Result<DynamicObject> {
        Ok(self.api(kind).create(&PostParams::default(), &kind.object(object)?).await?)
    }

    /// Writes the status of an object that exists.
    pub(crate) async fn set_status(&self, kind: Kind, name: &str, status: Value) -> Result<DynamicObject> {
        let patch = Patch::Merge(json!({"status": status}));
        Ok(self.api(kind).patch_status(name, &PatchParams::default(), &patch).await?)
    }

    pub(crate) async fn merge(&self, kind: Kind, name: &str, patch: Value) -> Result<DynamicObject> {
        Ok(self.api(kind).patch(name, &PatchParams::default(), &Patch::Merge(patch)).await?)
    }

    /// Removes an object at once.
    pub(crate) async fn delete(&self, kind: Kind, name: &str) -> Result<()> {
        self.api(kind).delete(name, &DeleteParams::default().grace_period(0)).await?;
        Ok(())
    }

    /// Makes a kind known for as long as the place is there, and waits until it is served.
    pub(crate) async fn define(&self, kind: Kind, definition: Value) -> Result<()> {
        let made = self.create(CRDS, definition).await?;
        self.defined.borrow_mut().push(made.name_any());
        ambit_tests::wait::until_answered(format!("{} to be served", kind.plural), SERVED, async || {
            Ok(self.api(kind).list(&kube::api::ListParams::default().limit(1)).await?)
        })
        .await?;
        Ok(())
    }

    /// The answer to a request for a path, as text.
    pub(crate) async fn raw(&self, path: &str) -> Result<Value, kube::Error> {
        let request = http::Request::get(path).body(Vec::new()).map_err(kube::Error::HttpError)?;
        self.client.request(request).await
    }
}

fn is_missing(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(kube::Error::Api(status)) if status.code == 404)
}

/// How long a new kind may take to be served.
const SERVED: std::time::Duration = std::time::Duration::from_secs(30);

/// Fails unless the request was refused with this code and reason.
pub(crate) fn refused<T>(outcome: Result<T, kube::Error>, code: u16, reason: &str) -> Result<Status> {
    match outcome {
        Ok(_) => Err(anyhow!("the request succeeded, and not with {code} {reason}")),
        Err(kube::Error::Api(status)) => {
            ensure!(
                status.code == code && (reason.is_empty() || status.reason == reason),
                "{code} {reason} was to be answered, and not {status:?}"
            );
            Ok(*status)
        }
        Err(other) => Err(anyhow!(other).context(format!("{code} {reason} was to be answered"))),
    }
}

fn kubeconfig(given: &std::ffi::OsStr, directory: &Path) -> Result<PathBuf> {
    match given.to_str().filter(|text| text.starts_with("http://") || text.starts_with("https://")) {
        Some(url) => write_kubeconfig(directory, "given", url),
        None => Ok(given.into()),
    }
}
