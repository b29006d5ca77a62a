//! The service called directly for its answers, and over TLS by an agent's own client.

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use ambit_identity::ca_client::{CaClient, CaClientConfig, FetchError};
use ambit_identity::channel::to_control_plane;
use ambit_identity::clock::WallClock;
use ambit_identity::csr::CertificateRequest;
use prost_types::Value;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;

use super::*;
use crate::ca::serving::ServingCertificate;
use crate::ca::testing::{cart, facts, own, web};

const TOKEN: &str = "token-of-node-1";

struct World {
    directory: TempDir,
    service: CertificateService,
}

impl World {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let authority = own(directory.path(), SystemTime::now()).unwrap();
        fs::write(directory.path().join("root-cert.pem"), authority.roots_pem()).unwrap();
        let tokens = NodeTokens::new([(TOKEN, "node-1".into()), ("token-of-node-9", "node-9".into())]);
        let service = CertificateService {
            authority: watch::channel(Arc::new(authority)).1,
            tokens: watch::channel(Arc::new(tokens)).1,
            identities: watch::channel(Arc::new(facts())).1,
            lifetimes: Lifetimes::default(),
        };
        Self { directory, service }
    }

    async fn call(
        &self,
        token: Option<&str>,
        asked: Option<Kind>,
        csr: &str,
    ) -> Result<Vec<String>, (Code, String)> {
        let fields = asked.map(|kind| (IMPERSONATED_IDENTITY.to_owned(), Value { kind: Some(kind) }));
        let mut request = Request::new(IstioCertificateRequest {
            csr: csr.to_owned(),
            validity_duration: 0,
            metadata: Some(Struct { fields: fields.into_iter().collect() }),
        });
        if let Some(token) = token {
            request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        }
        let answer = self.service.create_certificate(request).await;
        answer
            .map(|response| response.into_inner().cert_chain)
            .map_err(|status| (status.code(), status.message().to_owned()))
    }
}

fn text(id: &SpiffeId) -> Option<Kind> {
    Some(Kind::StringValue(id.to_string()))
}

#[tokio::test]
async fn each_refusal_has_its_code_and_says_why() {
    let world = World::new();
    let csr = |id| CertificateRequest::new(id).unwrap().pem;
    let (cart_csr, web_csr) = (csr(&cart()), csr(&web()));
    let rows = [
        ("no token", None, text(&cart()), &*cart_csr, Code::Unauthenticated, "authorization"),
        (
            "another token",
            Some("guess"),
            text(&cart()),
            &cart_csr,
            Code::Unauthenticated,
            "not that of a known node",
        ),
        ("no identity", Some(TOKEN), None, &cart_csr, Code::InvalidArgument, IMPERSONATED_IDENTITY),
        (
            "an identity that is no text",
            Some(TOKEN),
            Some(Kind::BoolValue(true)),
            &cart_csr,
            Code::InvalidArgument,
            IMPERSONATED_IDENTITY,
        ),
        (
            "not an identity",
            Some(TOKEN),
            Some(Kind::StringValue("cart".into())),
            &cart_csr,
            Code::InvalidArgument,
            "spiffe://",
        ),
        (
            "a workload of another node",
            Some(TOKEN),
            text(&web()),
            &web_csr,
            Code::PermissionDenied,
            "node node-1 may not",
        ),
        (
            "a node without workloads",
            Some("token-of-node-9"),
            text(&cart()),
            &cart_csr,
            Code::PermissionDenied,
            "no enrolled pod",
        ),
        (
            "a CSR that names another",
            Some(TOKEN),
            text(&cart()),
            &web_csr,
            Code::PermissionDenied,
            "the CSR names",
        ),
        ("no CSR", Some(TOKEN), text(&cart()), "", Code::InvalidArgument, "PKCS#10"),
    ];
    for (name, token, asked, csr, code, says) in rows {
        let (answered, message) = world.call(token, asked, csr).await.unwrap_err();
        assert_eq!(answered, code, "{name}: {message}");
        assert!(message.contains(says), "{name}: {message}");
        assert!(!message.contains("token-of"), "{name}: {message}");
    }
    assert_eq!(world.call(Some(TOKEN), text(&cart()), &cart_csr).await.unwrap().len(), 2);
}

/// Serves over TLS on loopback until the test's runtime ends.
async fn serve(world: World) -> (SocketAddr, TempDir) {
    let names = ["127.0.0.1".to_owned()];
    let serving =
        ServingCertificate::start(world.service.authority.clone(), &names, WallClock::default()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor = TlsAcceptor::from(serving.server_config());
    let incoming = TcpListenerStream::new(listener).then(move |tcp| {
        let acceptor = acceptor.clone();
        async move { acceptor.accept(tcp?).await }
    });
    tokio::spawn(async move {
        let _serving = serving;
        Server::builder().add_service(world.service.into_server()).serve_with_incoming(incoming).await
    });
    (address, world.directory)
}

struct Agent {
    client: CaClient,
    directory: TempDir,
}

impl Agent {
    async fn new() -> Self {
        let (address, directory) = serve(World::new()).await;
        let token_file = directory.path().join("token");
        fs::write(&token_file, format!("{TOKEN}\n")).unwrap();
        let address = format!("https://{address}").parse().unwrap();
        let channel = to_control_plane(&address, directory.path().join("root-cert.pem")).unwrap();
        let config = CaClientConfig {
            token_file,
            cluster_id: "Kubernetes".parse().unwrap(),
            certificate_ttl: Duration::from_secs(600),
        };
        Self { client: CaClient::new(channel, config), directory }
    }

    fn write(&self, file: &str, content: &str) {
        fs::write(self.directory.path().join(file), content).unwrap();
    }
}

#[tokio::test]
async fn an_agent_obtains_a_certificate_of_its_own_workloads_alone() {
    let agent = Agent::new().await;
    let certificate = agent.client.fetch(&cart()).await.unwrap();
    assert_eq!(certificate.id(), &cart());
    let left = certificate.not_after().duration_since(SystemTime::now()).unwrap();
    assert!((590..=600).contains(&left.as_secs()), "{left:?}");
    let denied = agent.client.fetch(&web()).await.unwrap_err();
    assert!(matches!(&denied, FetchError::Denied { id, .. } if *id == web()), "{denied:?}");
}

#[tokio::test]
async fn the_token_is_read_for_every_call() {
    let agent = Agent::new().await;
    agent.write("token", "guess");
    assert!(matches!(agent.client.fetch(&cart()).await, Err(FetchError::Unauthenticated { .. })));
    agent.write("token", " \n");
    assert!(matches!(agent.client.fetch(&cart()).await, Err(FetchError::TokenText { .. })));
    agent.write("token", TOKEN);
    assert!(agent.client.fetch(&cart()).await.is_ok());
}

#[tokio::test]
async fn the_roots_are_read_for_every_connection() {
    let agent = Agent::new().await;
    let roots = fs::read_to_string(agent.directory.path().join("root-cert.pem")).unwrap();
    agent.write("root-cert.pem", "");
    assert!(matches!(agent.client.fetch(&cart()).await, Err(FetchError::Call { .. })));
    agent.write("root-cert.pem", &roots);
    assert!(agent.client.fetch(&cart()).await.is_ok());
}
