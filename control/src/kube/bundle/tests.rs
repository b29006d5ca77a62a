use std::time::SystemTime;

use serde_json::json;

use super::*;
use crate::ca::testing::own;
use crate::kube::fake::Store;

#[tokio::test(start_paused = true)]
async fn the_config_map_follows_the_authority_and_is_repaired() {
    let (store, state) = (Store::new(), tempfile::tempdir().unwrap());
    let authority = |name: &str| {
        let state = state.path().join(name);
        std::fs::create_dir(&state).unwrap();
        Arc::new(own(&state, SystemTime::now()).unwrap())
    };
    let first = authority("first");
    let (replace, current) = watch::channel(first.clone());
    let keeping = tokio::spawn(keep(store.client(), "ambit-system".to_owned(), current));
    let until = async |expected: &str| {
        while store.get(NAME).is_none_or(|map| map["data"][ROOT_CERT] != expected) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    until(&first.roots_pem()).await;
    assert_eq!(store.get(NAME).unwrap()["metadata"]["labels"]["app.kubernetes.io/part-of"], "ambit");

    let second = authority("second");
    replace.send_replace(second.clone());
    until(&second.roots_pem()).await;
    store.put(
        NAME,
        json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {}, "data": {ROOT_CERT: "edited"}}),
    );
    until(&second.roots_pem()).await;
    store.remove(NAME);
    until(&second.roots_pem()).await;
    assert_eq!(store.writes(), 4);

    tokio::time::sleep(LOOK_EVERY * 10).await;
    assert_eq!(store.writes(), 4, "what is right is not written again");
    keeping.abort();
}
