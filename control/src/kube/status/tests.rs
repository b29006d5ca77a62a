use ambit_xds::ResourceType;
use ambit_xds::resources::Resource;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::*;
use crate::kube::testing::{Control, Server, custom_policy, policy};

const PATH: &str = "/apis/security.istio.io/v1/namespaces/shop/authorizationpolicies";

fn replica() -> Replica {
    Replica { name: "control-a".to_owned(), uid: None, namespace: "ambit-system".to_owned() }
}

struct Test {
    server: Server,
    control: Control,
    generations: watch::Sender<Arc<Generation>>,
    resources: watch::Sender<Arc<Resources>>,
    facts: Facts,
}

impl Test {
    fn new() -> Self {
        let (generations, seen_generations) = watch::channel(Arc::default());
        let (resources, seen_resources) = watch::channel(Arc::default());
        let facts = Facts {
            generations: seen_generations,
            resources: seen_resources,
            subscribers: Subscribers::default(),
        };
        Self { server: Server::new(), control: Control::default(), generations, resources, facts }
    }

    /// The API server has these policies, and control has read them.
    fn show(&mut self, policies: &[Value]) {
        for policy in policies {
            let path = path(policy["metadata"]["name"].as_str().unwrap());
            let mut policy = policy.clone();
            if let Some(before) = self.server.object(&path) {
                policy["status"] = before["status"].clone();
            }
            self.server.put(&path, policy);
        }
        let generation = self.control.show(policies);
        let translated = &generation.translated;
        let policies = translated.policies.values().map(|policy| Resource::policy(policy));
        let of_waypoints = translated.for_waypoints.policies.values();
        let of_waypoints = of_waypoints.map(|policy| Resource::http_policy(policy));
        self.resources.send_replace(Arc::new(policies.chain(of_waypoints).collect()));
        self.generations.send_replace(Arc::new(generation));
    }

    async fn running<T>(&self, test: impl Future<Output = T>) -> T {
        let replica = replica();
        tokio::select! {
            () = run(self.server.client(), &replica, self.facts.clone()) => panic!("it ended"),
            result = timeout(Duration::from_secs(600), test) => result.expect("it happens"),
        }
    }

    fn writes(&self) -> usize {
        self.server.writes().len()
    }
}

fn path(name: &str) -> String {
    format!("{PATH}/{name}")
}

fn conditions(server: &Server, name: &str) -> Vec<String> {
    let object = server.object(&path(name)).unwrap_or_default();
    let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let text = |condition: &Value, field: &str| condition[field].as_str().unwrap_or_default().to_owned();
    let line = |of: &Value| format!("{} {} {}", text(of, "type"), text(of, "status"), text(of, "reason"));
    conditions.iter().map(line).collect()
}

#[tokio::test(start_paused = true)]
async fn statuses_appear_once_and_are_not_written_again() {
    let mut test = Test::new();
    test.show(&[policy("a", 3), policy("b", 1)]);
    test.running(async {
        test.server.until(|server| server.writes().len() == 2).await;
        tokio::time::sleep(Duration::from_secs(300)).await;
    })
    .await;
    for name in ["a", "b"] {
        assert_eq!(
            conditions(&test.server, name),
            ["AmbitAccepted True Accepted", "AmbitProgrammed Unknown NoProxies"]
        );
    }
    assert_eq!(test.server.object(&path("a")).unwrap()["status"]["observedGeneration"], 3);
    // The next leader finds them as they should be.
    test.running(tokio::time::sleep(Duration::from_secs(300))).await;
    assert_eq!(test.writes(), 2, "{:?}", test.server.writes());
}

#[tokio::test(start_paused = true)]
async fn an_edit_is_followed_and_conditions_of_others_are_kept() {
    let mut test = Test::new();
    let mut first = policy("a", 1);
    first["status"] = json!({"conditions": [{"type": "Reconciled", "status": "True", "extra": 1}]});
    test.show(&[first]);
    test.running(test.server.until(|server| server.writes().len() == 1)).await;
    test.show(&[custom_policy("a", 2)]);
    test.running(test.server.until(|server| server.writes().len() == 2)).await;
    assert_eq!(
        conditions(&test.server, "a"),
        ["Reconciled True ", "AmbitAccepted True EnforcedStricter", "AmbitProgrammed Unknown NoProxies"]
    );
    let status = test.server.object(&path("a")).unwrap()["status"].clone();
    assert_eq!(status["conditions"][0]["extra"], 1);
    assert_eq!(status["conditions"][1]["observedGeneration"], 2);
}

#[tokio::test(start_paused = true)]
async fn a_condition_that_another_adds_meanwhile_is_not_lost() {
    let mut test = Test::new();
    test.show(&[policy("a", 1)]);
    test.running(async {
        test.server.until(|server| server.writes().len() == 1).await;
        let mut object = test.server.object(&path("a")).unwrap();
        let conditions = object["status"]["conditions"].as_array_mut().unwrap();
        conditions.remove(0);
        conditions.push(json!({"type": "Reconciled", "status": "True"}));
        test.server.put(&path("a"), object);
        test.server.until(|server| server.writes().len() == 2).await;
    })
    .await;
    assert_eq!(
        conditions(&test.server, "a"),
        ["AmbitProgrammed Unknown NoProxies", "Reconciled True ", "AmbitAccepted True Accepted"]
    );
}

#[tokio::test(start_paused = true)]
async fn failures_are_retried_and_an_object_that_is_gone_is_not() {
    let mut test = Test::new();
    test.show(&[policy("a", 1)]);
    test.running(async {
        test.server.until(|server| server.writes().len() == 1).await;
    })
    .await;
    test.show(&[policy("a", 2), policy("b", 1)]);
    test.server.set_down(true);
    test.running(async {
        tokio::time::sleep(Duration::from_secs(30)).await;
        test.server.remove(&path("a"));
        test.server.set_down(false);
        test.server.until(|server| conditions(server, "b").len() == 2).await;
        tokio::time::sleep(Duration::from_secs(300)).await;
    })
    .await;
    assert_eq!(test.writes(), 2, "{:?}", test.server.writes());
}

#[tokio::test(start_paused = true)]
async fn many_statuses_are_written_no_faster_than_allowed() {
    let mut test = Test::new();
    let policies: Vec<Value> = (0..250).map(|index| policy(&format!("p{index}"), 1)).collect();
    test.show(&policies);
    let started = Instant::now();
    test.running(test.server.until(|server| server.writes().len() == 250)).await;
    let elapsed = started.elapsed();
    let allowed = Duration::from_secs(u64::from((250 - BURST) / PER_SECOND));
    assert!((allowed..allowed + Duration::from_secs(2)).contains(&elapsed), "{elapsed:?}");
}

/// A policy's version is a digest of its content, so two replicas agree on it.
#[tokio::test(start_paused = true)]
async fn proxies_of_other_replicas_are_counted() {
    let mut test = Test::new();
    test.show(&[policy("a", 1)]);
    let resources = test.facts.resources.borrow().clone();
    let mut observer = Observer::default();
    let mut report = observer.observe(&resources, &test.facts.subscribers).report;
    report.policies.want_everything = 2;
    report.renew_time = "2026-01-01T00:00:00Z".to_owned();
    let reports = "/apis/ambit.dev/v1alpha1/namespaces/ambit-system/proxyreports";
    let object = json!({
        "apiVersion": "ambit.dev/v1alpha1", "kind": "ProxyReport",
        "metadata": {"name": "control-b", "namespace": "ambit-system"}, "spec": report,
    });
    test.server.put(&format!("{reports}/control-b"), object);
    let message = |server: &Server| {
        let object = server.object(&path("a")).unwrap_or_default();
        object["status"]["conditions"][1]["message"].as_str().unwrap_or_default().to_owned()
    };
    test.running(async {
        test.server.until(|server| message(server) == "programmed on 2 of 2 proxies").await;
        // Nobody renews it.
        test.server.until(|server| message(server) == "no proxy is connected").await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn waypoints_are_counted_for_the_policies_that_they_enforce() {
    let mut test = Test::new();
    let mut of_waypoint = policy("b", 1);
    of_waypoint["spec"]["targetRefs"] = json!([{"group": "", "kind": "Service", "name": "web"}]);
    test.show(&[policy("a", 1), of_waypoint]);
    let resources = test.facts.resources.borrow().clone();
    assert_eq!(resources.of_type(ResourceType::HttpPolicy).len(), 1);
    let mut report = Observer::default().observe(&resources, &test.facts.subscribers).report;
    report.policies.want_everything = 3;
    report.waypoint_policies.want_everything = 2;
    report.renew_time = "2026-01-01T00:00:00Z".to_owned();
    let object = json!({
        "apiVersion": "ambit.dev/v1alpha1", "kind": "ProxyReport",
        "metadata": {"name": "control-b", "namespace": "ambit-system"}, "spec": report,
    });
    test.server.put("/apis/ambit.dev/v1alpha1/namespaces/ambit-system/proxyreports/control-b", object);
    let message = |server: &Server, name: &str| {
        let object = server.object(&path(name)).unwrap_or_default();
        object["status"]["conditions"][1]["message"].as_str().unwrap_or_default().to_owned()
    };
    test.running(test.server.until(|server| {
        message(server, "a") == "programmed on 3 of 3 proxies"
            && message(server, "b") == "programmed on 2 of 2 proxies"
    }))
    .await;
}

#[test]
fn a_report_of_a_pod_that_ended_does_not_count() {
    let pod = |name: &str| {
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "ambit-system", "uid": format!("uid-{name}")},
            "spec": {"nodeName": "n"}, "status": {"podIP": "10.0.0.1"}
        })
    };
    let ours = Replica { uid: Some("uid-control-a".to_owned()), ..replica() };
    let generation = Control::default().show(&[pod("control-a"), pod("control-b")]);
    assert!(!is_gone(&generation, &ours, "control-b", "uid-control-b"));
    assert!(is_gone(&generation, &ours, "control-b", "uid-of-its-predecessor"));
    assert!(is_gone(&generation, &ours, "control-c", "uid-control-c"));
    // Where not even our own pod is known, nothing is known of others.
    let elsewhere = Control::default().show(&[]);
    assert!(!is_gone(&elsewhere, &ours, "control-c", "uid-control-c"));
    assert!(!is_gone(&generation, &replica(), "control-c", "uid-control-c"));
}
