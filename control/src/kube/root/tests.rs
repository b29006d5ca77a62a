use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::*;
use crate::ca::testing::Ca;
use crate::kube::fake::Store;

const PATIENCE: Duration = Duration::from_secs(30);

fn secret(ca: &Ca, roots: &[&Ca]) -> Value {
    let roots: String = roots.iter().map(|root| root.pem()).collect();
    let text = |text: &str| STANDARD.encode(text);
    json!({
        "kind": "Secret", "apiVersion": "v1", "metadata": {},
        "data": {CA_CERT: text(&ca.pem()), CA_KEY: text(&ca.key_pem), ROOT_CERT: text(&roots)},
    })
}

async fn opened(store: &Store) -> Result<CurrentAuthority, AuthorityError> {
    open(store.client(), "ambit-system").await
}

fn roots_of(authority: &CurrentAuthority) -> String {
    authority.subscribe().borrow().roots_pem()
}

#[tokio::test]
async fn replicas_that_race_have_one_root_and_it_is_written_once() {
    let store = Store::new();
    let mut replicas = JoinSet::new();
    for _ in 0..8 {
        let store = store.clone();
        replicas.spawn(async move { opened(&store).await.unwrap() });
    }
    let replicas = replicas.join_all().await;
    let roots: Vec<String> = replicas.iter().map(roots_of).collect();
    assert!(roots.iter().all(|root| *root == roots[0]), "{roots:#?}");
    assert_eq!(store.writes(), 1);
    let made = store.get(OWN).unwrap();
    assert_eq!(made["metadata"]["labels"]["app.kubernetes.io/part-of"], "ambit");
    let keys: Vec<_> = made["data"].as_object().unwrap().keys().collect();
    assert_eq!(keys, [CA_CERT, CA_KEY, CERT_CHAIN, ROOT_CERT]);
    assert_eq!(roots_of(&opened(&store).await.unwrap()), roots[0], "a later replica");
    assert_eq!(store.writes(), 1);
}

#[tokio::test]
async fn a_plugged_in_ca_wins_over_our_own() {
    let store = Store::new();
    let (ours, theirs) = (Ca::root("ours"), Ca::root("theirs"));
    store.put(OWN, secret(&ours, &[&ours]));
    assert_eq!(roots_of(&opened(&store).await.unwrap()), ours.pem());
    store.put(PLUGGED_IN, secret(&theirs, &[&theirs, &ours]));
    assert_eq!(roots_of(&opened(&store).await.unwrap()), theirs.pem() + &ours.pem());
    assert_eq!(store.writes(), 0);
}

#[tokio::test]
async fn cert_managers_names_are_understood_in_a_secret_too() {
    let store = Store::new();
    let root = Ca::root("root");
    let issuing = root.below("issuing");
    let text = |text: &str| STANDARD.encode(text);
    let secret = json!({
        "kind": "Secret", "apiVersion": "v1", "metadata": {}, "type": "kubernetes.io/tls",
        "data": {"tls.crt": text(&issuing.pem()), "tls.key": text(&issuing.key_pem), "ca.crt": text(&root.pem())},
    });
    store.put(PLUGGED_IN, secret);
    assert_eq!(roots_of(&opened(&store).await.unwrap()), root.pem());
}

#[tokio::test]
async fn a_damaged_secret_is_named_and_never_replaced() {
    let (root, other) = (Ca::root("root"), Ca::root("other"));
    let expired = root.below_with("expired", &rcgen::PKCS_ECDSA_P256_SHA256, |params| {
        params.not_after = (SystemTime::now() - Duration::from_secs(3600)).into();
    });
    let mut without_key = secret(&root, &[&root]);
    without_key["data"].as_object_mut().unwrap().remove(CA_KEY);
    let mut other_key = secret(&root, &[&root]);
    other_key["data"][CA_KEY] = secret(&other, &[])["data"][CA_KEY].clone();
    let mut garbage = secret(&root, &[&root]);
    garbage["data"][CA_CERT] = STANDARD.encode("garbage").into();
    let rows = [
        (without_key, "ca-key.pem of Secret ambit-system/ambit-ca is missing"),
        (other_key, "ca-key.pem of Secret ambit-system/ambit-ca is not the key of ca-cert.pem"),
        (garbage, "ca-cert.pem of Secret ambit-system/ambit-ca holds no readable PEM certificates"),
        (secret(&expired, &[&root]), "ca-cert.pem of Secret ambit-system/ambit-ca is not valid now"),
        (json!({"kind": "Secret", "apiVersion": "v1", "metadata": {}}), "is missing"),
    ];
    for (damaged, says) in rows {
        let store = Store::new();
        store.put(OWN, damaged.clone());
        let error = opened(&store).await.unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
        assert_eq!(store.get(OWN).unwrap()["data"], damaged["data"]);
        assert_eq!(store.writes(), 0);
    }
}

#[tokio::test]
async fn a_changed_secret_is_taken_up_and_a_damaged_one_is_not() {
    let store = Store::new();
    let (old, new) = (Ca::root("old"), Ca::root("new"));
    let issuing = new.below("issuing");
    store.put(PLUGGED_IN, secret(&old, &[&old]));
    let current = opened(&store).await.unwrap();
    let mut subscription = current.subscribe();
    let mut next = async || {
        timeout(PATIENCE, subscription.changed()).await.unwrap().unwrap();
        subscription.borrow_and_update().roots_pem()
    };

    store.put(PLUGGED_IN, secret(&old, &[&old, &new]));
    assert_eq!(next().await, old.pem() + &new.pem());
    store.put(PLUGGED_IN, json!({"kind": "Secret", "apiVersion": "v1", "metadata": {}, "data": {}}));
    let ours = Ca::root("ours");
    store.put(OWN, secret(&ours, &[&ours]));
    store.remove(PLUGGED_IN);
    store.put(OWN, secret(&ours, &[&ours, &old]));
    store.put(PLUGGED_IN, secret(&issuing, &[&old, &new]));
    assert_eq!(next().await, old.pem() + &new.pem(), "issued by the new root, both trusted");
    store.put(PLUGGED_IN, secret(&issuing, &[&new]));
    assert_eq!(next().await, new.pem());
    assert_eq!(store.writes(), 0);
}

#[tokio::test]
async fn a_ca_that_is_plugged_in_later_is_taken_up() {
    let store = Store::new();
    let current = opened(&store).await.unwrap();
    let theirs = Ca::root("theirs");
    store.put(PLUGGED_IN, secret(&theirs, &[&theirs]));
    let mut subscription = current.subscribe();
    timeout(PATIENCE, subscription.wait_for(|now| now.roots_pem() == theirs.pem())).await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_is_away_is_waited_for() {
    let store = Store::new();
    let down = tokio::time::Instant::now() + Duration::from_secs(60);
    let behind = store.clone();
    let client = crate::kube::fake::client(move |asked| {
        let store = behind.clone();
        async move {
            if tokio::time::Instant::now() < down {
                return crate::kube::fake::failure(
                    http::StatusCode::SERVICE_UNAVAILABLE,
                    "ServiceUnavailable",
                );
            }
            store.answer(asked).await
        }
    });
    open(client, "ambit-system").await.unwrap();
    assert!(tokio::time::Instant::now() >= down && store.writes() == 1);
}
