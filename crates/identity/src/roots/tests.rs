use std::fs;

use super::*;
use crate::testing::Authority;

async fn with_content(content: &str) -> Result<Arc<ClientConfig>, RootsError> {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("root-cert.pem");
    fs::write(&file, content).unwrap();
    client_config(&file).await
}

#[tokio::test]
async fn a_file_of_roots_is_trusted_over_tls_13_alone() {
    let two = format!("{}{}", Authority::root("old").pem(), Authority::root("new").pem());
    let config = with_content(&two).await.unwrap();
    assert_eq!(config.alpn_protocols, [b"h2"]);
    assert!(config.crypto_provider().cipher_suites.iter().all(|suite| suite.tls13().is_some()));
}

#[tokio::test]
async fn a_file_without_a_usable_root_is_refused() {
    let root = Authority::root("root").pem();
    assert!(matches!(with_content("").await, Err(RootsError::Empty { .. })));
    assert!(matches!(with_content("# soon").await, Err(RootsError::Empty { .. })));
    assert!(matches!(with_content(&root[..100]).await, Err(RootsError::NotPem { .. })));
    let no_certificate = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    assert!(matches!(with_content(no_certificate).await, Err(RootsError::Unusable { .. })));
    let absent = client_config(Path::new("/nonexistent/root-cert.pem")).await;
    assert!(matches!(absent, Err(RootsError::Read { .. })));
}
