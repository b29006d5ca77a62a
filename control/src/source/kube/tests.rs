//! Following an API server in memory, with the clock paused.

use std::sync::mpsc::{TryRecvError, sync_channel};

use serde_json::{Value, json};

use super::testing::{Api, Fault};
use super::*;
use crate::objects::ObjectKey;
use crate::source::{Content, Event};

const LONG: Duration = Duration::from_secs(600);

/// What a pipeline would get, without its thread.
struct Followed {
    held: Held,
    seen: mpsc::Receiver<Seen>,
    _tasks: JoinSet<()>,
}

impl Followed {
    fn start(api: &Api) -> Self {
        let (news, seen) = mpsc::channel(SEEN_QUEUE);
        let tasks = follow(&api.client(), &news);
        Self { held: Held::default(), seen, _tasks: tasks }
    }

    /// Starts, and takes the first batch.
    async fn synced(api: &Api) -> Self {
        let mut followed = Self::start(api);
        followed.news().await;
        followed
    }

    /// The next batch: `+` before objects that are put, `!` before those that are rejected, `-` before
    /// those that are gone.
    async fn news(&mut self) -> Vec<String> {
        while !self.held.has_news() {
            let seen = tokio::time::timeout(LONG, self.seen.recv()).await.expect("news come");
            self.held.apply(seen.unwrap());
        }
        // What was sent together is told together.
        while let Ok(seen) = self.seen.try_recv() {
            self.held.apply(seen);
        }
        self.held.take_news().events.iter().map(told).collect()
    }

    /// Whether nothing is told for some time.
    async fn is_quiet(&mut self, time: Duration) -> bool {
        let end = Instant::now() + time;
        while let Ok(seen) = tokio::time::timeout_at(end, self.seen.recv()).await {
            self.held.apply(seen.unwrap());
            if self.held.has_news() {
                return false;
            }
        }
        true
    }
}

fn told(event: &Event) -> String {
    match event {
        Event::Apply(reading) => match &reading.content {
            Content::Object(_) | Content::Foreign => format!("+{}", reading.key),
            Content::Rejected { .. } => format!("!{}", reading.key),
        },
        Event::Delete(key) => format!("-{key}"),
    }
}

fn on(node: &str) -> Value {
    json!({"nodeName": node})
}

#[tokio::test(start_paused = true)]
async fn everything_is_listed_page_by_page_and_then_watched() {
    let api = Api::new();
    for number in 0..1200 {
        api.put(KnownKind::Pod, &format!("shop/p{number}"), on("n1"));
    }
    let mut followed = Followed::start(&api);
    assert_eq!(followed.news().await.len(), 1200);
    let pages = api.requests("/pods?limit=500");
    assert_eq!(pages.len(), 3, "{pages:?}");

    api.put(KnownKind::Pod, "shop/p7", on("n2"));
    assert_eq!(followed.news().await, ["+Pod shop/p7"]);
    api.delete(KnownKind::Pod, "shop/p7");
    assert_eq!(followed.news().await, ["-Pod shop/p7"]);
    // Nothing that is kept of it is another.
    api.put(KnownKind::Pod, "shop/p8", on("n1"));
    assert!(followed.is_quiet(Duration::from_secs(2)).await);
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_ends_goes_on_from_where_it_was() {
    let api = Api::new();
    api.put(KnownKind::Node, "n1", json!({}));
    let mut followed = Followed::synced(&api).await;
    // Long enough to count as working.
    assert!(followed.is_quiet(Duration::from_secs(6)).await);
    api.bookmark(KnownKind::Node);
    assert!(followed.is_quiet(Duration::from_secs(6)).await);
    api.end_watches();
    assert!(followed.is_quiet(Duration::from_secs(2)).await);
    let watches = api.requests("/nodes?watch");
    let last = &watches.last().unwrap().1;
    assert!(watches.len() == 2 && last.contains("resourceVersion=2"), "{watches:?}");
    assert_eq!(api.requests("/nodes?limit").len(), 1);

    // What happens while no watch is open is not lost.
    api.set_down(true);
    api.put(KnownKind::Node, "n2", json!({}));
    assert!(followed.is_quiet(Duration::from_secs(2)).await);
    api.set_down(false);
    assert_eq!(followed.news().await, ["+Node n2"]);
    assert_eq!(api.requests("/nodes?limit").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn when_the_past_is_forgotten_only_the_difference_is_told() {
    let api = Api::new();
    for node in ["n1", "n2", "n3"] {
        api.put(KnownKind::Node, node, json!({}));
    }
    let mut followed = Followed::synced(&api).await;
    assert!(followed.is_quiet(Duration::from_secs(6)).await);
    // By a line of the watch.
    api.end_watches();
    api.delete(KnownKind::Node, "n1");
    api.put(KnownKind::Node, "n3", json!({"podCIDRs": ["10.1.0.0/24"]}));
    api.forget();
    assert_eq!(followed.news().await, ["-Node n1", "+Node n3"]);

    // By an HTTP status.
    assert!(followed.is_quiet(Duration::from_secs(6)).await);
    api.end_watches();
    api.fail(Fault { path: "/nodes?watch", status: 410, retry_after: None });
    api.delete(KnownKind::Node, "n2");
    assert_eq!(followed.news().await, ["-Node n2"]);
}

#[tokio::test(start_paused = true)]
async fn an_outage_takes_nothing_back_and_is_not_answered_with_a_storm() {
    let api = Api::new();
    api.put(KnownKind::Node, "n1", json!({}));
    api.put(KnownKind::Node, "n2", json!({}));
    let mut followed = Followed::synced(&api).await;
    api.set_down(true);
    api.delete(KnownKind::Node, "n1");
    api.forget();
    let before = api.requests("/nodes").len();
    assert!(followed.is_quiet(Duration::from_secs(300)).await);
    let tries = api.requests("/nodes").len() - before;
    assert!((20..=80).contains(&tries), "{tries} requests in five minutes");

    let back = Instant::now();
    api.set_down(false);
    assert_eq!(followed.news().await, ["-Node n1"]);
    assert!(back.elapsed() <= Duration::from_secs(21), "noticed after {:?}", back.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_throttled_request_waits_as_long_as_it_is_asked_to() {
    let api = Api::new();
    api.fail(Fault { path: "/pods?limit", status: 429, retry_after: Some("7") });
    Followed::synced(&api).await;
    let lists = api.requests("/pods?limit");
    let waited = lists[1].0 - lists[0].0;
    assert!(lists.len() == 2 && waited >= Duration::from_secs(7), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn a_broken_object_costs_only_itself() {
    let api = Api::new();
    api.put(KnownKind::AuthorizationPolicy, "shop/broken", json!({"action": "SHRUG"}));
    api.put(KnownKind::AuthorizationPolicy, "shop/good", json!({"rules": [{}]}));
    let mut followed = Followed::start(&api);
    assert_eq!(followed.news().await, ["!AuthorizationPolicy shop/broken", "+AuthorizationPolicy shop/good"]);
    // Lines of a watch: what is no object, and what a newer server might say.
    api.say(KnownKind::AuthorizationPolicy, r#"{"type":"ADDED","object":17}"#);
    api.say(KnownKind::AuthorizationPolicy, r#"{"type":"NOVELTY","object":{}}"#);
    api.put(KnownKind::AuthorizationPolicy, "shop/broken", json!({"action": "DENY"}));
    assert_eq!(followed.news().await, ["+AuthorizationPolicy shop/broken"]);

    // What is no line at all: everything is listed anew.
    api.say(KnownKind::AuthorizationPolicy, "<html>");
    api.put(KnownKind::AuthorizationPolicy, "shop/good", json!({}));
    assert_eq!(followed.news().await, ["+AuthorizationPolicy shop/good"]);
}

#[tokio::test(start_paused = true)]
async fn a_crd_may_come_later_and_go() {
    let policy = KnownKind::AuthorizationPolicy;
    let api = Api::new();
    api.serve(policy, None);
    let mut followed = Followed::synced(&api).await;

    // Before the first version there is an older one; then both.
    api.serve(policy, Some("v1beta1"));
    api.put(policy, "shop/x", json!({"rules": [{}]}));
    let installed = Instant::now();
    assert_eq!(followed.news().await, ["+AuthorizationPolicy shop/x"]);
    assert!(installed.elapsed() <= Duration::from_secs(4), "noticed after {:?}", installed.elapsed());
    assert!(!api.requests("v1beta1/authorizationpolicies?watch").is_empty());
    api.serve(policy, Some("v1"));
    assert!(followed.is_quiet(Duration::from_secs(10)).await, "the same objects by another version");
    assert!(!api.requests("istio.io/v1/authorizationpolicies?watch").is_empty());

    api.serve(policy, None);
    assert_eq!(followed.news().await, ["-AuthorizationPolicy shop/x"]);
    api.serve(policy, Some("v1"));
    api.put(policy, "shop/y", json!({}));
    assert_eq!(followed.news().await, ["+AuthorizationPolicy shop/y"]);
}

#[tokio::test(start_paused = true)]
async fn policies_do_not_vanish_with_an_api_server_that_starts() {
    let policy = KnownKind::AuthorizationPolicy;
    let api = Api::new();
    api.put(policy, "shop/x", json!({"action": "DENY", "rules": [{}]}));
    // It does not know its CRDs yet, and nobody is told that there are none.
    api.serve(policy, None);
    api.set_starting(true);
    let mut followed = Followed::start(&api);
    assert!(followed.is_quiet(Duration::from_secs(60)).await);
    api.serve(policy, Some("v1"));
    api.put(policy, "shop/x", json!({"action": "DENY", "rules": [{}]}));
    api.set_starting(false);
    assert_eq!(followed.news().await, ["+AuthorizationPolicy shop/x"]);

    // Answers of such a server in between.
    for _ in 0..3 {
        api.fail(Fault { path: "security.istio.io/v1beta1", status: 404, retry_after: None });
        api.fail(Fault { path: "security.istio.io/v1", status: 404, retry_after: None });
    }
    assert!(followed.is_quiet(Duration::from_secs(60)).await);
}

#[test]
fn a_storm_costs_one_batch_while_the_pipeline_is_busy() {
    let (batches, received) = sync_channel(0);
    let (seen, to_take_in) = mpsc::channel(SEEN_QUEUE);
    let collector = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(collect(to_take_in, batches));
    });
    for kind in KnownKind::ALL {
        seen.blocking_send(Seen::NotServed(kind)).unwrap();
    }
    assert!(received.recv().unwrap().events.is_empty());

    let node = |name: usize, range: usize| {
        let node = json!({
            "metadata": {"name": format!("n{name}")},
            "spec": {"podCIDRs": [format!("10.0.{range}.0/24")]},
        });
        reading::read(KnownKind::Node, &node.to_string()).unwrap().reading
    };
    let put = |name, range| seen.blocking_send(Seen::Put(KnownKind::Node, vec![node(name, range)])).unwrap();
    put(0, 0);
    // Far more than any queue holds, while nobody takes the batch: nothing waits for it.
    for range in 0..200 {
        (0..10).for_each(|name| put(name, range));
    }
    // A queue's length later everything before it was taken in.
    (0..=SEEN_QUEUE).for_each(|_| put(0, 199));
    let mut batches = vec![received.recv().unwrap()];
    while batches.iter().map(|batch| batch.events.len()).sum::<usize>() < 10 {
        batches.push(received.recv().unwrap());
    }
    batches.extend(received.recv_timeout(LONGEST_WAIT * 3));
    assert!(batches.len() <= 3, "{} batches", batches.len());
    let mut last: std::collections::BTreeMap<ObjectKey, _> = Default::default();
    for event in batches.into_iter().flat_map(|batch| batch.events) {
        let Event::Apply(reading) = event else { panic!("nothing was deleted: {event:?}") };
        last.insert(reading.key.clone(), reading.content.clone());
    }
    let expected = (0..10).map(|name| (node(name, 199).key.clone(), node(name, 199).content.clone()));
    assert_eq!(last, expected.collect());
    assert!(matches!(received.try_recv(), Err(TryRecvError::Empty)));
    drop(seen);
    collector.join().unwrap();
}
