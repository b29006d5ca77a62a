//! An API server as a function, tokens, and what is in force of some YAML.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{Method, Request, Response, StatusCode};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::watch;
use tower::{BoxError, service_fn};

use crate::inputs::Inputs;
use crate::source::catalog::{Catalog, FileState, Files};
use crate::source::reading;

/// What is asked of the API server.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) body: Value,
}

/// A client of an API server that is `answer`.
pub(crate) fn client<F>(answer: impl Fn(Asked) -> F + Clone + Send + Sync + 'static) -> Client
where
    F: Future<Output = (StatusCode, Value)> + Send,
{
    let answer = Arc::new(answer);
    let service = service_fn(move |request: Request<Body>| {
        let answer = answer.clone();
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect_bytes().await?;
            let body = serde_json::from_slice(&body).unwrap_or_default();
            let (path, query) =
                (parts.uri.path().to_owned(), parts.uri.query().unwrap_or_default().to_owned());
            let asked = Asked { method: parts.method, path, query, body };
            let (status, value) = answer(asked).await;
            let response =
                Response::builder().status(status).body(Body::from(format!("{value}\n").into_bytes()))?;
            Ok::<_, BoxError>(response)
        }
    });
    Client::new(service, "ambit-system")
}

/// An API server that keeps the objects of one namespace and kind, and counts what is written. Clones
/// are the same.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    objects: Arc<Mutex<BTreeMap<String, Value>>>,
    version: watch::Sender<u64>,
    writes: Arc<AtomicUsize>,
}

impl Store {
    pub(crate) fn new() -> Self {
        Self { objects: Arc::default(), version: watch::Sender::new(1), writes: Arc::default() }
    }

    pub(crate) fn client(&self) -> Client {
        let store = self.clone();
        client(move |asked| store.clone().answer(asked))
    }

    pub(crate) fn put(&self, name: &str, mut object: Value) {
        object["metadata"]["name"] = name.into();
        object["metadata"]["namespace"] = "ambit-system".into();
        object["metadata"]["resourceVersion"] = (*self.version.borrow() + 1).to_string().into();
        self.objects.lock().unwrap().insert(name.to_owned(), object);
        self.version.send_modify(|version| *version += 1);
    }

    pub(crate) fn remove(&self, name: &str) {
        self.objects.lock().unwrap().remove(name);
        self.version.send_modify(|version| *version += 1);
    }

    pub(crate) fn get(&self, name: &str) -> Option<Value> {
        self.objects.lock().unwrap().get(name).cloned()
    }

    /// How many objects have been created or changed over the API.
    pub(crate) fn writes(&self) -> usize {
        self.writes.load(Ordering::Relaxed)
    }

    pub(crate) async fn answer(self, asked: Asked) -> (StatusCode, Value) {
        // As over a network, others come in between.
        tokio::task::yield_now().await;
        let name = asked.path.split('/').nth(6).map(str::to_owned);
        match (asked.method.as_str(), name) {
            ("GET", Some(name)) => match self.get(&name) {
                Some(object) => (StatusCode::OK, object),
                None => failure(StatusCode::NOT_FOUND, "NotFound"),
            },
            ("GET", None) => self.list_or_watch(&asked.query).await,
            ("POST", None) => {
                let name = asked.body["metadata"]["name"].as_str().unwrap().to_owned();
                if self.get(&name).is_some() {
                    return failure(StatusCode::CONFLICT, "AlreadyExists");
                }
                self.write(&name, asked.body, StatusCode::CREATED)
            }
            ("PATCH", Some(name)) => {
                assert!(asked.query.contains("fieldManager=ambit-control"), "{}", asked.query);
                self.write(&name, asked.body, StatusCode::OK)
            }
            (method, name) => panic!("{method} of {name:?}"),
        }
    }

    fn write(&self, name: &str, object: Value, status: StatusCode) -> (StatusCode, Value) {
        self.writes.fetch_add(1, Ordering::Relaxed);
        self.put(name, object);
        (status, self.get(name).unwrap())
    }

    /// A watch ends after its first event, as it may at any time.
    async fn list_or_watch(&self, query: &str) -> (StatusCode, Value) {
        let name = query.split('&').find_map(|part| part.strip_prefix("fieldSelector=metadata.name%3D"));
        let name = name.unwrap_or_else(|| panic!("{query}"));
        if !query.contains("watch=true") {
            let metadata = json!({"resourceVersion": self.version.borrow().to_string()});
            let items: Vec<_> = self.get(name).into_iter().collect();
            return (StatusCode::OK, json!({"metadata": metadata, "items": items}));
        }
        let since = query.split('&').find_map(|part| part.strip_prefix("resourceVersion=")).unwrap();
        let (since, before) = (since.parse::<u64>().unwrap(), self.get(name));
        self.version.subscribe().wait_for(|version| *version > since).await.unwrap();
        let version = self.version.borrow().to_string();
        let event = match (before, self.get(name)) {
            (_, Some(now)) => json!({"type": "MODIFIED", "object": now}),
            (Some(before), None) => json!({"type": "DELETED", "object": before}),
            (None, None) => json!({"type": "BOOKMARK", "object": {
                "kind": "Secret", "apiVersion": "v1", "metadata": {"resourceVersion": version},
            }}),
        };
        (StatusCode::OK, event)
    }
}

/// What an API server says with a failure.
pub(crate) fn failure(status: StatusCode, reason: &str) -> (StatusCode, Value) {
    let code = status.as_u16();
    let said = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure",
        "message": format!("{reason} it is"), "reason": reason, "code": code,
    });
    (status, said)
}

/// A token that nobody has signed.
pub(crate) fn token(account: &str, audience: &str, expires_seconds: i64, id: usize) -> String {
    let claims = json!({
        "sub": format!("system:serviceaccount:{account}"), "aud": [audience], "exp": expires_seconds,
        "jti": id.to_string(),
    });
    format!("e30.{}.{}", URL_SAFE_NO_PAD.encode(claims.to_string()), URL_SAFE_NO_PAD.encode(id.to_string()))
}

/// What is in force of these documents.
pub(crate) fn inputs(yaml: &str) -> Inputs {
    let path = Arc::from("in.yaml");
    let content = reading::read(&path, yaml);
    let contents = [(path, FileState::Read(content))].into();
    let mut inputs = Inputs::default();
    inputs.apply(Catalog::default().update(Files { contents, unreadable: Vec::new() }));
    assert!(inputs.problems().is_empty(), "{:?}", inputs.problems());
    inputs
}
