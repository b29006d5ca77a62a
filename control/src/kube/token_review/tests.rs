use std::sync::atomic::{AtomicUsize, Ordering};

use http::StatusCode;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::*;
use crate::inputs::Inputs;
use crate::kube::fake::{Asked, client, failure, inputs, token};
use crate::translate::Translated;

const AGENT: &str = "\
apiVersion: v1
kind: Pod
metadata: {name: ztunnel-a, namespace: ambit-system, uid: uid-a}
spec: {nodeName: node-1, serviceAccountName: ztunnel}
status: {phase: Running}
";

/// An API server that knows one agent's tokens by their number and answers when it is let.
#[derive(Clone)]
struct Server {
    reviews: Arc<AtomicUsize>,
    most_at_a_time: Arc<AtomicUsize>,
    under_way: Arc<AtomicUsize>,
    may_answer: Arc<Semaphore>,
    fails: Arc<Mutex<bool>>,
    good: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn new(answers: usize) -> Self {
        Self {
            reviews: Arc::default(),
            most_at_a_time: Arc::default(),
            under_way: Arc::default(),
            may_answer: Arc::new(Semaphore::new(answers)),
            fails: Arc::default(),
            good: Arc::default(),
        }
    }

    fn good_token(&self, id: usize) -> String {
        let token = token("ambit-system:ztunnel", "ambit-ca", seconds_now() + 3600, id);
        lock(&self.good).push(token.clone());
        token
    }

    async fn answer(self, asked: Asked) -> (StatusCode, Value) {
        assert_eq!(asked.path, "/apis/authentication.k8s.io/v1/tokenreviews");
        assert_eq!(asked.body["spec"]["audiences"], json!(["ambit-ca"]));
        self.reviews.fetch_add(1, Ordering::Relaxed);
        let under_way = self.under_way.fetch_add(1, Ordering::Relaxed) + 1;
        self.most_at_a_time.fetch_max(under_way, Ordering::Relaxed);
        self.may_answer.acquire().await.unwrap().forget();
        self.under_way.fetch_sub(1, Ordering::Relaxed);
        if *lock(&self.fails) {
            return failure(StatusCode::INTERNAL_SERVER_ERROR, "InternalError");
        }
        let is_good = lock(&self.good).iter().any(|good| asked.body["spec"]["token"] == **good);
        let user = json!({
            "username": "system:serviceaccount:ambit-system:ztunnel",
            "extra": {
                decide_claim("pod-name"): ["ztunnel-a"],
                decide_claim("pod-uid"): ["uid-a"],
                decide_claim("node-name"): ["node-1"],
            },
        });
        let status = match is_good {
            true => json!({"authenticated": true, "audiences": ["ambit-ca"], "user": user}),
            false => json!({"authenticated": false, "error": "invalid bearer token"}),
        };
        let answer = json!({
            "kind": "TokenReview", "apiVersion": "authentication.k8s.io/v1", "spec": asked.body["spec"],
            "status": status,
        });
        (StatusCode::CREATED, answer)
    }

    fn count(&self) -> usize {
        self.reviews.load(Ordering::Relaxed)
    }
}

fn decide_claim(name: &str) -> String {
    format!("authentication.kubernetes.io/{name}")
}

fn generation(inputs: Inputs) -> Arc<Generation> {
    Arc::new(Generation { number: 1, inputs, translated: Translated::default() })
}

fn start(server: &Server) -> (TokenReviews, watch::Sender<Arc<Generation>>) {
    let rules = Rules {
        audiences: vec!["ambit-ca".to_owned()],
        agents: ["ambit-system/ztunnel".parse().unwrap()].into(),
    };
    let (publish, generations) = watch::channel(generation(inputs(AGENT)));
    let server = server.clone();
    (TokenReviews::new(client(move |asked| server.clone().answer(asked)), rules, generations), publish)
}

#[tokio::test]
async fn a_token_is_asked_about_once_however_many_show_it() {
    let server = Server::new(0);
    let (reviews, _publish) = start(&server);
    let token = server.good_token(1);
    let ask = || reviews.ask(&token, None);
    let answers = async { tokio::join!(ask(), ask(), ask(), ask()) };
    let release = async {
        tokio::task::yield_now().await;
        server.may_answer.add_permits(1);
    };
    let ((a, b, c, d), ()) = tokio::join!(answers, release);
    for answer in [a, b, c, d, ask().await] {
        assert_eq!(answer.unwrap().node(), "node-1");
    }
    assert_eq!(reviews.known(&token).unwrap().unwrap().node(), "node-1");
    assert_eq!(server.count(), 1);
}

#[tokio::test]
async fn one_who_gives_up_takes_no_answer_from_others() {
    let server = Server::new(0);
    let (reviews, _publish) = start(&server);
    let token = server.good_token(1);
    let given_up = timeout(Duration::from_millis(1), reviews.ask(&token, None)).await;
    assert!(given_up.is_err());
    server.may_answer.add_permits(1);
    assert!(reviews.ask(&token, None).await.is_ok());
    assert_eq!(server.count(), 1);
}

#[tokio::test]
async fn a_deleted_pod_is_nobody_at_once_whatever_was_said_of_its_token() {
    let server = Server::new(1);
    let (reviews, publish) = start(&server);
    let token = server.good_token(1);
    assert!(reviews.ask(&token, None).await.is_ok());
    publish.send_replace(generation(Inputs::default()));
    assert!(matches!(reviews.known(&token), Some(Err(Refusal::PodIsGone { .. }))));
    assert!(matches!(reviews.ask(&token, None).await, Err(NoCaller::Refused(Refusal::PodIsGone { .. }))));
    publish.send_replace(generation(inputs(&AGENT.replace("uid-a", "uid-b"))));
    assert!(matches!(reviews.known(&token), Some(Err(Refusal::OtherPod { .. }))));
}

#[tokio::test]
async fn a_failure_is_not_held_against_the_token() {
    let server = Server::new(10);
    let (reviews, _publish) = start(&server);
    let token = server.good_token(1);
    *lock(&server.fails) = true;
    let failed = reviews.ask(&token, None).await.unwrap_err();
    assert!(matches!(&failed, NoCaller::CannotTell(CannotTell::Api { .. })), "{failed:?}");
    assert_eq!(reviews.known(&token), None);
    *lock(&server.fails) = false;
    assert!(reviews.ask(&token, None).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_does_not_answer_is_waited_for_so_long_and_asked_again() {
    let server = Server::new(0);
    let (reviews, _publish) = start(&server);
    let token = server.good_token(1);
    assert_eq!(reviews.ask(&token, None).await.unwrap_err(), CannotTell::Deadline.into());
    server.may_answer.add_permits(2);
    assert!(reviews.ask(&token, None).await.is_ok());
}

#[tokio::test]
async fn what_cannot_be_an_agents_token_is_refused_without_asking() {
    let server = Server::new(0);
    let (reviews, _publish) = start(&server);
    let soon = seconds_now() + 3600;
    for bad in [
        "opaque".to_owned(),
        token("ambit-system:ztunnel", "istio-ca", soon, 1),
        token("ambit-system:ztunnel", "ambit-ca", soon - 7200, 1),
        token("shop:default", "ambit-ca", soon, 1),
    ] {
        assert!(matches!(reviews.ask(&bad, None).await, Err(NoCaller::Refused(_))), "{bad}");
    }
    assert_eq!(server.count(), 0);
}

#[tokio::test]
async fn a_flood_of_bad_tokens_reaches_the_api_server_as_a_trickle() {
    const FLOOD: usize = 3_000;
    let server = Server::new(Semaphore::MAX_PERMITS);
    let (reviews, _publish) = start(&server);
    let reviews = Arc::new(reviews);
    let good = server.good_token(0);
    assert!(reviews.ask(&good, None).await.is_ok());
    let mut flood = JoinSet::new();
    let expires = seconds_now() + 3600;
    for id in 1..=FLOOD {
        let reviews = reviews.clone();
        let peer = IpAddr::from([10, 0, 0, u8::try_from(id % 200).unwrap()]);
        let bad = token("ambit-system:ztunnel", "ambit-ca", expires, id);
        flood.spawn(async move { reviews.ask(&bad, Some(peer)).await });
    }
    let started = Instant::now();
    let answers = flood.join_all().await;
    let busy =
        answers.iter().filter(|answer| matches!(answer, Err(NoCaller::CannotTell(CannotTell::Busy)))).count();
    let refused = answers.iter().filter(|answer| matches!(answer, Err(NoCaller::Refused(_)))).count();
    assert_eq!(busy + refused, FLOOD);
    let in_that_time = usize::try_from(started.elapsed().as_millis() / REVIEWS.every.as_millis()).unwrap();
    assert!(server.count() <= 1 + REVIEWS.burst as usize + in_that_time, "{} reviews", server.count());
    assert!(busy > 0 && server.most_at_a_time.load(Ordering::Relaxed) <= REVIEWS_AT_A_TIME);
    assert!(reviews.known(&good).unwrap().is_ok(), "who is known is not affected");
}
