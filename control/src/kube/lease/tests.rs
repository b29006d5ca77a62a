use std::sync::Arc;

use serde_json::Value;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::election::{DURATION, GIVE_UP_AFTER};
use super::*;
use crate::kube::testing::Server;

const PATH: &str = "/apis/coordination.k8s.io/v1/namespaces/ambit-system/leases/ambit-control";

struct Running {
    leadership: watch::Receiver<Leadership>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

fn start(server: &Server, name: &str) -> Running {
    let (elector, leadership) = Elector::new(server.client(), "ambit-system", name);
    let (stop, stopped) = oneshot::channel();
    let task = tokio::spawn(elector.run(async move {
        let _ = stopped.await;
    }));
    Running { leadership, stop, task }
}

impl Running {
    async fn becomes(&mut self, leadership: Leadership) -> Duration {
        let since = Instant::now();
        self.leadership.wait_for(|now| *now == leadership).await.expect("it runs");
        since.elapsed()
    }

    fn leads(&self) -> bool {
        *self.leadership.borrow() == Leadership::Leading
    }
}

fn holder(server: &Server) -> Option<String> {
    let lease = server.object(PATH)?;
    lease["spec"]["holderIdentity"].as_str().map(str::to_owned)
}

#[tokio::test(start_paused = true)]
async fn of_two_that_race_one_leads_and_the_other_follows_when_it_is_given_up() {
    let server = Server::new();
    let (mut one, mut other) = (start(&server, "a"), start(&server, "b"));
    tokio::select! {
        _ = one.becomes(Leadership::Leading) => {}
        _ = other.becomes(Leadership::Leading) => std::mem::swap(&mut one, &mut other),
    }
    // It is renewed, and the other only looks.
    timeout(Duration::from_secs(60), other.becomes(Leadership::Leading)).await.unwrap_err();
    assert!(one.leads() && !other.leads());
    let renewals = server.writes().iter().filter(|write| write.starts_with("PUT")).count();
    assert!((11..=12).contains(&renewals), "{renewals} renewals in a minute");

    one.stop.send(()).expect("it runs");
    let taken = other.becomes(Leadership::Leading).await;
    assert!(taken <= election::LOOK_EVERY, "taken after {taken:?}");
    one.task.await.expect("it ends by itself");
    assert!(!matches!(*one.leadership.borrow(), Leadership::Leading));
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_dies_is_replaced_when_its_lease_has_expired() {
    let server = Server::new();
    let mut leader = start(&server, "a");
    leader.becomes(Leadership::Leading).await;
    let mut other = start(&server, "b");
    timeout(Duration::from_secs(20), other.becomes(Leadership::Leading)).await.unwrap_err();
    leader.task.abort();
    let taken = other.becomes(Leadership::Leading).await;
    let bounds = DURATION - election::RENEW_EVERY..=DURATION + election::LOOK_EVERY;
    assert!(bounds.contains(&taken), "taken after {taken:?}");
    assert_eq!(holder(&server).as_deref(), Some("b"));
    assert_eq!(server.object(PATH).unwrap_or(Value::Null)["spec"]["leaseTransitions"], 1);
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_cannot_renew_stops_leading_before_another_can_begin() {
    let server = Server::new();
    let mut leader = start(&server, "a");
    leader.becomes(Leadership::Leading).await;
    let writes = server.writes().len();
    server.until(|server| server.writes().len() > writes).await;
    let renewed = Instant::now();
    server.set_down(true);
    leader.becomes(Leadership::Following).await;
    assert_eq!(renewed.elapsed(), GIVE_UP_AFTER, "since the last renewal was sent");
    server.set_down(false);
    let again = leader.becomes(Leadership::Leading).await;
    assert!(again < Duration::from_secs(5), "its own Lease is there: {again:?}");
}

#[tokio::test(start_paused = true)]
async fn single_failures_cost_nothing() {
    let server = Server::new();
    let mut leader = start(&server, "a");
    leader.becomes(Leadership::Leading).await;
    let seen = Arc::new(server.clone());
    for code in [500, 409, 404, 429] {
        let writes = server.writes().len();
        server.fail_next(code);
        seen.until(|server| server.writes().len() > writes).await;
        assert!(leader.leads(), "after {code}");
        assert!(!leader.leadership.has_changed().expect("it runs"), "after {code}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_another_took_by_force_or_that_was_deleted_ends_leadership() {
    let server = Server::new();
    let mut leader = start(&server, "a");
    leader.becomes(Leadership::Leading).await;
    let mut lease = server.object(PATH).expect("it was written");
    lease["spec"]["holderIdentity"] = "b".into();
    server.put(PATH, lease);
    let noticed = leader.becomes(Leadership::Following).await;
    assert!(noticed <= election::RENEW_EVERY, "{noticed:?}");
    assert_eq!(holder(&server).as_deref(), Some("b"), "it is not taken back");

    server.remove(PATH);
    leader.becomes(Leadership::Leading).await;
    assert_eq!(holder(&server).as_deref(), Some("a"));
}
