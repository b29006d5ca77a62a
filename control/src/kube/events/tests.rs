use serde_json::{Value, json};
use tokio::time::timeout;

use super::*;
use crate::kube::testing::{Control, Server, custom_policy};

const PATH: &str = "/apis/events.k8s.io/v1/namespaces/shop/events";

async fn running<T>(
    server: &Server,
    generations: &watch::Receiver<Arc<Generation>>,
    test: impl Future<Output = T>,
) -> T {
    let (name, namespace) = ("control-a".to_owned(), "ambit-system".to_owned());
    let replica = Replica { name, uid: None, namespace };
    tokio::select! {
        () = run(server.client(), &replica, generations.clone()) => panic!("it ended"),
        result = timeout(Duration::from_secs(600), test) => result.expect("it happens"),
    }
}

fn regarding(server: &Server) -> Vec<String> {
    let events = server.objects_below(PATH);
    events.iter().map(|event| event["regarding"]["name"].as_str().unwrap_or_default().to_owned()).collect()
}

#[tokio::test(start_paused = true)]
async fn an_event_is_told_once_also_by_the_next_leader() {
    let (server, mut control) = (Server::new(), Control::default());
    let (sender, generations) = watch::channel(Arc::new(control.show(&[custom_policy("a", 1)])));
    running(&server, &generations, server.until(|server| server.writes().len() == 1)).await;
    let event = server.objects_below(PATH).remove(0);
    assert_eq!(
        (&event["reason"], &event["type"], &event["reportingController"]),
        (&json!("EnforcedStricter"), &json!("Warning"), &json!("ambit.dev/control"))
    );
    sender.send_replace(Arc::new(control.show(&[custom_policy("a", 1), custom_policy("b", 1)])));
    running(&server, &generations, async {
        server.until(|server| server.writes().len() == 2).await;
        tokio::time::sleep(Duration::from_secs(120)).await;
    })
    .await;
    assert_eq!(server.writes().len(), 2);
    let mut told = regarding(&server);
    told.sort();
    assert_eq!(told, ["a", "b"]);
}

#[tokio::test(start_paused = true)]
async fn what_could_not_be_told_is_told_later() {
    let (server, mut control) = (Server::new(), Control::default());
    let (_sender, generations) = watch::channel(Arc::new(control.show(&[custom_policy("a", 1)])));
    server.fail_next(500);
    running(&server, &generations, server.until(|server| regarding(server) == ["a"])).await;
}

#[tokio::test(start_paused = true)]
async fn events_are_told_no_faster_than_allowed() {
    let (server, mut control) = (Server::new(), Control::default());
    let policies: Vec<Value> = (0..75).map(|index| custom_policy(&format!("p{index}"), 1)).collect();
    let (_sender, generations) = watch::channel(Arc::new(control.show(&policies)));
    let started = Instant::now();
    running(&server, &generations, server.until(|server| server.writes().len() == 75)).await;
    let (elapsed, allowed) = (started.elapsed(), Duration::from_secs(u64::from((75 - BURST) / PER_SECOND)));
    assert!((allowed..allowed + Duration::from_secs(2)).contains(&elapsed), "{elapsed:?}");
}
