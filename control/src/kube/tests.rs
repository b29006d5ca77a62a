use std::sync::Arc;
use std::time::Duration;

use ambit_xds::resources::Resources;
use ambit_xds::server::Subscribers;
use serde_json::Value;
use testing::{Control, Server, custom_policy};
use tokio::time::timeout;

use super::*;
use crate::publish::Generation;

const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/ambit-system/leases/ambit-control";
const REPORTS: &str = "/apis/ambit.dev/v1alpha1/namespaces/ambit-system/proxyreports/";
const POLICY: &str = "/apis/security.istio.io/v1/namespaces/shop/authorizationpolicies/a";
const EVENTS: &str = "/apis/events.k8s.io/v1/namespaces/shop/events/";

struct Published {
    generations: watch::Sender<Arc<Generation>>,
    _resources: watch::Sender<Arc<Resources>>,
}

fn start(server: &Server, name: &str) -> (Writing, Published) {
    let generation = Control::default().show(&[custom_policy("a", 1)]);
    let (generations, seen_generations) = watch::channel(Arc::new(generation));
    let (resources, seen_resources) = watch::channel(Arc::default());
    let facts = Facts {
        generations: seen_generations,
        resources: seen_resources,
        subscribers: Subscribers::default(),
    };
    let (name, uid, namespace) = (name.to_owned(), Some(format!("uid-{name}")), "ambit-system".to_owned());
    let writing = Writing::start(server.client(), Replica { name, uid, namespace }, facts, None);
    (writing, Published { generations, _resources: resources })
}

async fn until(server: &Server, holds: impl Fn(&Server) -> bool) {
    timeout(Duration::from_secs(120), server.until(holds)).await.expect("it happens");
}

fn holder(server: &Server) -> Value {
    server.object(LEASE).unwrap_or_default()["spec"]["holderIdentity"].clone()
}

fn has_status(server: &Server) -> bool {
    !server.object(POLICY).unwrap_or_default()["status"]["conditions"].is_null()
}

#[tokio::test(start_paused = true)]
async fn every_replica_reports_one_writes_and_at_its_end_the_other_does() {
    let server = Server::new();
    server.put(POLICY, custom_policy("a", 1));
    let (one, _published_of_one) = start(&server, "control-a");
    until(&server, |server| holder(server) == "control-a").await;
    let (other, _published_of_other) = start(&server, "control-b");
    until(&server, |server| server.objects_below(REPORTS).len() == 2).await;
    until(&server, |server| has_status(server) && server.objects_below(EVENTS).len() == 1).await;
    let report = server.object(&format!("{REPORTS}control-b")).expect("it was written");
    assert_eq!(report["metadata"]["ownerReferences"][0]["uid"], "uid-control-b");

    one.end().await;
    assert_eq!(server.objects_below(REPORTS).len(), 1, "its report is taken away");
    until(&server, |server| holder(server) == "control-b").await;
    server.put(POLICY, custom_policy("a", 1));
    until(&server, has_status).await;
    assert_eq!(server.objects_below(EVENTS).len(), 1, "it was told before");
    other.end().await;
    assert_eq!((holder(&server), server.objects_below(REPORTS).len()), (Value::Null, 0));
}

#[tokio::test(start_paused = true)]
async fn it_ends_with_what_it_writes_about() {
    let server = Server::new();
    let (writing, published) = start(&server, "control-a");
    until(&server, |server| holder(server) == "control-a").await;
    drop(published.generations);
    until(&server, |server| holder(server).is_null()).await;
    writing.end().await;
}
