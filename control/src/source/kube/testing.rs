//! An API server in memory, as far as listing and watching go, with its faults to order.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex};

use ::kube::Client;
use ::kube::client::Body;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{Either, Full, StreamBody};
use hyper::body::Frame;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::UnboundedReceiverStream;

use super::resource::group_path;
use crate::objects::KnownKind;
use crate::objects::kind::Scope;

type Lines = mpsc::UnboundedSender<Result<Frame<Bytes>, io::Error>>;

/// The server. Clones are the same.
#[derive(Clone, Default)]
pub(super) struct Api(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    version: u64,
    served: BTreeMap<KnownKind, &'static str>,
    objects: BTreeMap<(KnownKind, String), Value>,
    /// Everything that happened: version, kind, line.
    history: Vec<(u64, KnownKind, String)>,
    /// What happened before is forgotten.
    forgotten: u64,
    watches: Vec<(KnownKind, Lines)>,
    /// Answers that go before what would be answered otherwise.
    faults: VecDeque<Fault>,
    is_down: bool,
    is_starting: bool,
    requests: Vec<(Instant, String)>,
}

/// An answer to the next request whose path has `path` in it.
#[derive(Clone, Copy)]
pub(super) struct Fault {
    pub(super) path: &'static str,
    pub(super) status: u16,
    pub(super) retry_after: Option<&'static str>,
}

impl Api {
    /// Serves everything.
    pub(super) fn new() -> Self {
        let api = Self::default();
        for kind in KnownKind::ALL {
            api.serve(kind, Some("v1"));
        }
        api
    }

    pub(super) fn client(&self) -> Client {
        let api = self.clone();
        Client::new(tower::service_fn(move |request| std::future::ready(api.answer(&request))), "default")
    }

    /// Serves a kind in a version, or no more; its objects go with it.
    pub(super) fn serve(&self, kind: KnownKind, version: Option<&'static str>) {
        self.change(|state| match version {
            Some(version) => drop(state.served.insert(kind, version)),
            None => {
                state.served.remove(&kind);
                state.objects.retain(|(of, _), _| *of != kind);
                state.watches.retain(|(of, _)| *of != kind);
            }
        });
    }

    /// Makes or changes an object, named `name` or `namespace/name`.
    pub(super) fn put(&self, kind: KnownKind, name: &str, spec: Value) {
        self.change(|state| {
            state.version += 1;
            let (namespace, short) = name.split_once('/').map_or((None, name), |(of, name)| (Some(of), name));
            assert_eq!(namespace.is_some(), kind.scope() == Scope::Namespaced, "{name}");
            let metadata = json!({
                "name": short, "namespace": namespace, "resourceVersion": state.version.to_string(),
                "uid": format!("uid-of-{short}"), "managedFields": [{"manager": "somebody"}],
            });
            let object = json!({"metadata": metadata, "spec": spec});
            let before = state.objects.insert((kind, name.to_owned()), object.clone());
            let line = if before.is_some() { "MODIFIED" } else { "ADDED" };
            state.happen(kind, line, &object);
        });
    }

    pub(super) fn delete(&self, kind: KnownKind, name: &str) {
        self.change(|state| {
            state.version += 1;
            let mut object = state.objects.remove(&(kind, name.to_owned())).unwrap();
            object["metadata"]["resourceVersion"] = state.version.to_string().into();
            state.happen(kind, "DELETED", &object);
        });
    }

    /// Tells the watches of a kind a version, without anything having happened to it.
    pub(super) fn bookmark(&self, kind: KnownKind) {
        self.change(|state| {
            state.version += 1;
            let object = json!({"metadata": {"resourceVersion": state.version.to_string()}});
            state.tell(kind, &line("BOOKMARK", &object));
        });
    }

    /// Says something of its own to the watches of a kind.
    pub(super) fn say(&self, kind: KnownKind, text: &str) {
        self.change(|state| state.tell(kind, text));
    }

    /// Ends all watches.
    pub(super) fn end_watches(&self) {
        self.change(|state| state.watches.clear());
    }

    /// Forgets everything that happened.
    pub(super) fn forget(&self) {
        self.change(|state| {
            state.history.clear();
            state.forgotten = state.version;
        });
    }

    pub(super) fn fail(&self, fault: Fault) {
        self.change(|state| state.faults.push_back(fault));
    }

    /// Whether it can be reached at all.
    pub(super) fn set_down(&self, is_down: bool) {
        self.change(|state| {
            state.is_down = is_down;
            if is_down {
                for (_, lines) in state.watches.drain(..) {
                    let _ = lines.send(Err(io::ErrorKind::ConnectionReset.into()));
                }
            }
        });
    }

    /// Whether it says that it is not ready.
    pub(super) fn set_starting(&self, is_starting: bool) {
        self.change(|state| state.is_starting = is_starting);
    }

    /// When and what it was asked, of those requests whose path has `part` in it.
    pub(super) fn requests(&self, part: &str) -> Vec<(Instant, String)> {
        self.change(|state| state.requests.iter().filter(|(_, path)| path.contains(part)).cloned().collect())
    }

    fn change<T>(&self, step: impl FnOnce(&mut State) -> T) -> T {
        step(&mut self.0.lock().unwrap())
    }

    fn answer(&self, request: &Request<Body>) -> io::Result<Response<Answer>> {
        let path = request.uri().path_and_query().unwrap().as_str().to_owned();
        self.change(|state| {
            state.requests.push((Instant::now(), path.clone()));
            if state.is_down {
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            Ok(state.answer(&path))
        })
    }
}

type Answer = Either<Full<Bytes>, StreamBody<UnboundedReceiverStream<Result<Frame<Bytes>, io::Error>>>>;

impl State {
    fn answer(&mut self, path: &str) -> Response<Answer> {
        if let Some(at) = self.faults.iter().position(|fault| path.contains(fault.path)) {
            let fault = self.faults.remove(at).unwrap();
            let mut response = whole(fault.status, "as ordered");
            if let Some(seconds) = fault.retry_after {
                response.headers_mut().insert("retry-after", seconds.parse().unwrap());
            }
            return response;
        }
        let (place, query) = path.split_once('?').unwrap_or((path, ""));
        if place == "/readyz" {
            return whole(if self.is_starting { 500 } else { 200 }, "ok");
        }
        let query = |name: &str| {
            let fields = query.split('&').filter_map(|field| field.split_once('='));
            fields.filter(|(field, _)| *field == name).map(|(_, value)| value.to_owned()).next()
        };
        let of_group = |(kind, version): (&KnownKind, &&'static str)| {
            (group_path(kind.group(), version) == place).then(|| json!({"name": kind.plural()}))
        };
        let resources: Vec<_> = self.served.iter().filter_map(of_group).collect();
        if !resources.is_empty() {
            return whole(200, &json!({"resources": resources}).to_string());
        }
        let is_asked = |(kind, version): &(&KnownKind, &&'static str)| {
            format!("{}/{}", group_path(kind.group(), version), kind.plural()) == place
        };
        let Some((&kind, _)) = self.served.iter().find(is_asked) else {
            return whole(404, "404 page not found\n");
        };
        match query("watch") {
            Some(_) => self.watch(kind, query("resourceVersion").unwrap().parse().unwrap()),
            None => self.list(kind, query("limit").unwrap().parse().unwrap(), query("continue")),
        }
    }

    fn list(&self, kind: KnownKind, limit: usize, next: Option<String>) -> Response<Answer> {
        let from: usize = next.map_or(0, |next| next.parse().unwrap());
        let all: Vec<_> = self.objects.iter().filter(|((of, _), _)| *of == kind).collect();
        let items: Vec<_> = all.iter().skip(from).take(limit).map(|(_, object)| object).collect();
        let next = (all.len() > from + limit).then(|| (from + limit).to_string());
        let metadata = json!({"resourceVersion": self.version.to_string(), "continue": next});
        whole(200, &json!({"metadata": metadata, "items": items}).to_string())
    }

    fn watch(&mut self, kind: KnownKind, after: u64) -> Response<Answer> {
        let (lines, body) = mpsc::unbounded_channel();
        if after < self.forgotten {
            let status = json!({"kind": "Status", "code": 410, "message": "too old resource version"});
            send(&lines, &line("ERROR", &status));
        } else {
            let missed = self.history.iter().filter(|(at, of, _)| *at > after && *of == kind);
            missed.for_each(|(_, _, text)| send(&lines, text));
            self.watches.push((kind, lines));
        }
        Response::new(Either::Right(StreamBody::new(UnboundedReceiverStream::new(body))))
    }

    fn happen(&mut self, kind: KnownKind, what: &str, object: &Value) {
        let line = line(what, object);
        self.tell(kind, &line);
        self.history.push((self.version, kind, line));
    }

    fn tell(&self, kind: KnownKind, text: &str) {
        self.watches.iter().filter(|(of, _)| *of == kind).for_each(|(_, lines)| send(lines, text));
    }
}

fn line(what: &str, object: &Value) -> String {
    json!({"type": what, "object": object}).to_string()
}

/// In two pieces: what is read does not end where lines do.
fn send(lines: &Lines, text: &str) {
    let text = format!("{text}\n");
    let (first, second) = text.split_at(text.len() / 2);
    for piece in [first, second] {
        // Fails when the client went away.
        let _ = lines.send(Ok(Frame::data(Bytes::copy_from_slice(piece.as_bytes()))));
    }
}

fn whole(status: u16, text: &str) -> Response<Answer> {
    let body = Either::Left(Full::new(Bytes::copy_from_slice(text.as_bytes())));
    Response::builder().status(status).body(body).unwrap()
}
