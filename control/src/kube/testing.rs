//! An API server of a few lines, for tests of the shells: objects in a map, versions that count up,
//! writes on condition of a version. What it is asked is recorded.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use ambit_mesh::address::Network;
use ambit_mesh::identity::TrustDomain;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tower::service_fn;

use crate::inputs::Inputs;
use crate::publish::Generation;
use crate::source::catalog::{Catalog, FileState, Files};
use crate::source::reading;
use crate::translate::{NetnsAnnotation, Settings, translate};

const COLLECTIONS: [&str; 3] = ["authorizationpolicies", "peerauthentications", "proxyreports"];

type Answer = UnsyncBoxBody<Bytes, Infallible>;

/// The server. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    state: Arc<Mutex<State>>,
    changes: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    version: u64,
    /// By path.
    objects: BTreeMap<String, Value>,
    /// Version, path and event of every change.
    log: Vec<(u64, String, Value)>,
    /// Method and path of every write that did something.
    writes: Vec<String>,
    /// What is answered instead, for each request to come.
    failures: Vec<u16>,
    is_down: bool,
}

impl Server {
    pub(crate) fn new() -> Self {
        Self { state: Arc::default(), changes: watch::Sender::new(0) }
    }

    pub(crate) fn client(&self) -> Client {
        let server = self.clone();
        let service = service_fn(move |request: Request<Body>| {
            let server = server.clone();
            async move { Ok::<_, Infallible>(server.answer(request).await) }
        });
        Client::new(service, "default")
    }

    /// Puts an object there, as somebody else would.
    pub(crate) fn put(&self, path: &str, object: Value) {
        self.state().put(path, object);
        self.advance();
    }

    pub(crate) fn object(&self, path: &str) -> Option<Value> {
        self.state().objects.get(path).cloned()
    }

    pub(crate) fn remove(&self, path: &str) {
        self.state().remove(path);
        self.advance();
    }

    pub(crate) fn objects_below(&self, path: &str) -> Vec<Value> {
        let below = |(name, object): (&String, &Value)| name.starts_with(path).then(|| object.clone());
        self.state().objects.iter().filter_map(below).collect()
    }

    pub(crate) fn writes(&self) -> Vec<String> {
        self.state().writes.clone()
    }

    /// The next request is answered so.
    pub(crate) fn fail_next(&self, code: u16) {
        self.state().failures.push(code);
    }

    /// Nothing is answered while it is down.
    pub(crate) fn set_down(&self, is_down: bool) {
        self.state().is_down = is_down;
        self.advance();
    }

    /// Waits until something holds.
    pub(crate) async fn until(&self, holds: impl Fn(&Self) -> bool) {
        let mut changes = self.changes.subscribe();
        while !holds(self) {
            changes.changed().await.expect("the server lives");
        }
    }

    /// What changes in a collection from a version on, for as long as somebody reads it.
    fn watch(&self, path: &str, query: &str) -> Answer {
        let version = query.split('&').find_map(|part| part.strip_prefix("resourceVersion="));
        let mut told: u64 = version.and_then(|version| version.parse().ok()).unwrap_or_default();
        let (lines, outgoing) = mpsc::channel::<Result<Frame<Bytes>, Infallible>>(16);
        let (server, path) = (self.clone(), path.to_owned());
        tokio::spawn(async move {
            let mut changes = server.changes.subscribe();
            loop {
                let news = server.state().log_of(&path, told);
                told = news.last().map_or(told, |(version, _)| *version);
                for (_, event) in news {
                    if lines.send(Ok(Frame::data(format!("{event}\n").into()))).await.is_err() {
                        return;
                    }
                }
                tokio::select! {
                    () = lines.closed() => return,
                    changed = changes.changed() => if changed.is_err() { return },
                }
            }
        });
        StreamBody::new(ReceiverStream::new(outgoing)).boxed_unsync()
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("no request panics")
    }

    fn advance(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    async fn answer(&self, request: Request<Body>) -> Response<Answer> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.expect("a body of memory").to_bytes();
        let body = serde_json::from_slice(&body).unwrap_or_default();
        let is_watch = head.uri.query().unwrap_or_default().contains("watch=true");
        let mut changes = self.changes.subscribe();
        while self.state().is_down {
            changes.changed().await.expect("the server lives");
        }
        if is_watch {
            return Response::new(self.watch(head.uri.path(), head.uri.query().unwrap_or_default()));
        }
        let failure = self.state().failures.pop();
        let (code, answer) = match failure {
            Some(code) => (code, failed(code)),
            None => self.state().respond(&head.method, head.uri.path(), body),
        };
        self.advance();
        let code = StatusCode::from_u16(code).expect("a code of HTTP");
        let body = Full::from(serde_json::to_vec(&answer).expect("JSON")).boxed_unsync();
        Response::builder().status(code).body(body).expect("a response")
    }
}

impl State {
    fn put(&mut self, path: &str, mut object: Value) -> Value {
        self.version += 1;
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        let kind = if self.objects.contains_key(path) { "MODIFIED" } else { "ADDED" };
        self.objects.insert(path.to_owned(), object.clone());
        self.log.push((self.version, path.to_owned(), json!({"type": kind, "object": object})));
        object
    }

    fn remove(&mut self, path: &str) -> Option<Value> {
        let mut object = self.objects.remove(path)?;
        self.version += 1;
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        self.log.push((self.version, path.to_owned(), json!({"type": "DELETED", "object": object})));
        Some(object)
    }

    fn log_of(&self, collection: &str, after: u64) -> Vec<(u64, Value)> {
        let of = |(version, path, _): &&(u64, String, Value)| *version > after && is_in(path, collection);
        self.log.iter().filter(of).map(|(version, _, event)| (*version, event.clone())).collect()
    }

    fn respond(&mut self, method: &Method, path: &str, body: Value) -> (u16, Value) {
        let (place, part) =
            path.strip_suffix("/status").map_or((path, None), |place| (place, Some("status")));
        let there = self.objects.get(place).cloned();
        if *method == Method::GET {
            return there.map_or_else(|| self.list(path), |object| (200, object));
        }
        if *method == Method::POST {
            let place = format!("{path}/{}", body["metadata"]["name"].as_str().unwrap_or_default());
            if self.objects.contains_key(&place) {
                return (409, failed(409));
            }
            self.writes.push(format!("POST {place}"));
            return (201, self.put(&place, body));
        }
        if *method == Method::DELETE {
            let gone = self.remove(place);
            self.writes.push(format!("DELETE {place}"));
            return gone.map_or_else(|| (404, failed(404)), |object| (200, object));
        }
        let version = &body["metadata"]["resourceVersion"];
        let Some(there) = there else {
            if part.is_some() || !version.is_null() {
                return (404, failed(404));
            }
            self.writes.push(format!("{method} {path}"));
            return (201, self.put(place, body));
        };
        if !version.is_null() && *version != there["metadata"]["resourceVersion"] {
            return (409, failed(409));
        }
        self.writes.push(format!("{method} {path}"));
        let next = match part {
            Some(part) => {
                let mut next = there;
                next[part] = body[part].clone();
                next
            }
            None => body,
        };
        (200, self.put(place, next))
    }

    fn list(&self, path: &str) -> (u16, Value) {
        if path == "/apis/security.istio.io/v1" {
            return (200, security_kinds());
        }
        if !COLLECTIONS.contains(&path.rsplit('/').next().unwrap_or_default()) {
            return (404, failed(404));
        }
        let items: Vec<&Value> =
            self.objects.iter().filter(|(name, _)| is_in(name, path)).map(|(_, object)| object).collect();
        let metadata = json!({"resourceVersion": self.version.to_string()});
        (200, json!({"kind": "List", "apiVersion": "v1", "metadata": metadata, "items": items}))
    }
}

fn security_kinds() -> Value {
    let kind = |kind: &str, plural: &str| {
        json!({
            "name": plural, "singularName": "", "namespaced": true, "kind": kind,
            "verbs": ["get", "list", "watch", "patch"]
        })
    };
    json!({
        "kind": "APIResourceList", "groupVersion": "security.istio.io/v1", "resources": [
            kind("AuthorizationPolicy", "authorizationpolicies"),
            kind("PeerAuthentication", "peerauthentications"),
        ]
    })
}

/// Those of every namespace are listed together.
fn is_in(path: &str, collection: &str) -> bool {
    let (parents, _) = path.rsplit_once('/').unwrap_or_default();
    parents == collection || without_namespace(parents) == collection
}

fn without_namespace(path: &str) -> String {
    let mut parts: Vec<&str> = path.split('/').collect();
    if let Some(place) = parts.iter().position(|part| *part == "namespaces") {
        parts.drain(place..(place + 2).min(parts.len()));
    }
    parts.join("/")
}

fn failed(code: u16) -> Value {
    let reason = match code {
        404 => "NotFound",
        409 => "Conflict",
        _ => "InternalError",
    };
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": code, "message": reason})
}

/// What control makes of these documents, as an API server would give them: JSON, with UIDs and
/// generations.
pub(crate) fn generation(documents: &[Value]) -> Generation {
    let mut control = Control::default();
    control.show(documents)
}

/// A control that is shown objects again and again.
#[derive(Default)]
pub(crate) struct Control {
    catalog: Catalog,
    inputs: Inputs,
    number: u64,
}

impl Control {
    pub(crate) fn show(&mut self, documents: &[Value]) -> Generation {
        let texts: Vec<String> = documents.iter().map(Value::to_string).collect();
        let content = reading::read(&"objects".into(), &texts.join("\n---\n"));
        let contents = [(Arc::from("objects"), FileState::Read(content))].into();
        self.inputs.apply(self.catalog.update(Files { contents, unreadable: Vec::new() }));
        let settings = Settings {
            mesh_ranges: Vec::new(),
            cluster_id: "Kubernetes".into(),
            network: Network::default(),
            trust_domain: TrustDomain::default(),
            netns_annotation: NetnsAnnotation::Ignored,
        };
        let translated = translate(&self.inputs, &settings);
        self.number += 1;
        Generation { number: self.number, inputs: self.inputs.clone(), translated }
    }
}

/// An object with a head as an API server gives it.
pub(crate) fn object(api_version: &str, kind: &str, name: &str, generation: i64, rest: Value) -> Value {
    let mut object = json!({
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {"name": name, "namespace": "shop", "uid": format!("uid-{name}"), "generation": generation},
    });
    for (field, value) in rest.as_object().into_iter().flatten() {
        match field.as_str() {
            "labels" | "annotations" => object["metadata"][field] = value.clone(),
            _ => object[field] = value.clone(),
        }
    }
    object
}

/// A policy that denies one caller.
pub(crate) fn policy(name: &str, generation: i64) -> Value {
    let rules = json!([{"from": [{"source": {"principals": ["cluster.local/ns/shop/sa/evil"]}}]}]);
    let spec = json!({"spec": {"action": "DENY", "rules": rules}});
    object("security.istio.io/v1", "AuthorizationPolicy", name, generation, spec)
}

/// A policy that is enforced more strictly than it is written.
pub(crate) fn custom_policy(name: &str, generation: i64) -> Value {
    let mut policy = policy(name, generation);
    policy["spec"]["action"] = json!("CUSTOM");
    policy["spec"]["provider"] = json!({"name": "authorizer"});
    policy
}
