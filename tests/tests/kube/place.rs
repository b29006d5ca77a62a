//! Where a trial happens: an API server, and a namespace there that is the trial's own.

use std::cell::RefCell;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use ambit_kube::{Access, connect};
use ambit_tests::kube_api::ApiServer;
use anyhow::{Context, Result, anyhow, bail, ensure};
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::config::Kubeconfig;
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

/// The label of namespaces that the suite makes.
pub(crate) const CONTRACT: &str = "ambit.dev/contract";

/// An API server with a namespace.
pub(crate) struct Place {
    pub(crate) client: Client,
    pub(crate) access: Access,
    pub(crate) namespace: String,
    /// For what only the double can be told to do.
    pub(crate) double: Option<ApiServer>,
    directory: TempDir,
    /// What goes with the place, in this order: kind, namespace, name.
    removed: RefCell<Vec<(Kind, String, String)>>,
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
        let place = Self { client, access, namespace, double, directory, removed: RefCell::default() };
        let object = json!({"metadata": {"name": place.namespace, "labels": {CONTRACT: "true"}}});
        place.create(NAMESPACES, object).await.context("the API server takes no namespace")?;
        place.create(SERVICE_ACCOUNTS, json!({"metadata": {"name": ACCOUNT}})).await?;
        Ok(place)
    }

    /// Has an object go with the place, whether it is there then or not.
    pub(crate) fn remove_later(&self, kind: Kind, namespace: &str, name: &str) {
        self.removed.borrow_mut().push((kind, namespace.to_owned(), name.to_owned()));
    }

    /// Removes the namespace and what was to go with it. What is in it is left to the server.
    pub(crate) async fn clear(self) -> Result<()> {
        self.remove_later(NAMESPACES, "", &self.namespace);
        for (kind, namespace, name) in self.removed.take() {
            let api = kind.api(self.client.clone(), &namespace);
            match api.delete(&name, &DeleteParams::default().grace_period(0)).await {
                Ok(_) => {}
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => return Err(anyhow!(error).context(format!("{} {name} stays", kind.kind))),
            }
        }
        Ok(())
    }

    /// A client that shows a token in place of the credentials of the suite.
    pub(crate) async fn client_with(&self, token: &str) -> Result<Client> {
        Ok(connect(&self.access_with(token)?).await?)
    }

    /// The way of such a client.
    pub(crate) fn access_with(&self, token: &str) -> Result<Access> {
        let Access::Kubeconfig { file: Some(file), .. } = &self.access else {
            bail!("a place has a kubeconfig file");
        };
        let mut config = serde_json::to_value(Kubeconfig::read_from(file)?)?;
        for user in config["users"].as_array_mut().into_iter().flatten() {
            user["user"] = json!({"token": token});
        }
        let file = self.directory().join(format!("{}.kubeconfig", unique("with-token")));
        fs::write(&file, config.to_string())?;
        Ok(Access::Kubeconfig { file: Some(file), context: None })
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
        self.remove_later(CRDS, "", &made.name_any());
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
