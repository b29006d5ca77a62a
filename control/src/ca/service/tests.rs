//! The service called directly for its answers, and over TLS by an agent's own client.

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use ambit_identity::ca_client::{CaClient, CaClientConfig, FetchError};
use ambit_identity::channel::to_control_plane;
use ambit_identity::clock::WallClock;
use ambit_identity::csr::CertificateRequest;
use ambit_proto::istio::v1::auth::istio_certificate_service_client::IstioCertificateServiceClient;
use ambit_xds::server::transport;
use prost_types::Value;
use tempfile::TempDir;
use tokio::sync::Notify;
use tonic::transport::Channel;

use super::*;
use crate::ca::authentication::Proof;
use crate::ca::serving::ServingCertificate;
use crate::ca::testing::{cart, facts, own, web};
use crate::ca::tokens::NodeTokens;
use crate::listener;

const TOKEN: &str = "token-of-node-1";
const OTHER_TOKEN: &str = "token-of-node-2";

struct World {
    directory: TempDir,
    service: CertificateService,
}

impl World {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let authority = own(directory.path(), SystemTime::now()).unwrap();
        fs::write(directory.path().join("root-cert.pem"), authority.roots_pem()).unwrap();
        let tokens = [(TOKEN, "node-1"), (OTHER_TOKEN, "node-2"), ("token-of-node-9", "node-9")];
        let tokens = NodeTokens::new(tokens.map(|(token, node)| (token, node.into())));
        let service = CertificateService::new(
            watch::channel(Arc::new(authority)).1,
            Authentication::by(Proof::NodeTokens(watch::channel(Arc::new(tokens)).1)),
            watch::channel(Arc::new(facts())).1,
            Lifetimes::default(),
        );
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
    let oversized = cart_csr.clone() + &"x".repeat(20_000);
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
        ("a CSR without end", Some(TOKEN), text(&cart()), &oversized, Code::InvalidArgument, "octets"),
    ];
    for (name, token, asked, csr, code, says) in rows {
        let (answered, message) = world.call(token, asked, csr).await.unwrap_err();
        assert_eq!(answered, code, "{name}: {message}");
        assert!(message.contains(says), "{name}: {message}");
        assert!(!message.contains("token-of"), "{name}: {message}");
    }
    assert_eq!(world.call(Some(TOKEN), text(&cart()), &cart_csr).await.unwrap().len(), 2);
}

/// Serves over TLS on loopback, on a thread of its own as in production, until the test ends.
fn serve(world: World) -> (SocketAddr, TempDir) {
    let (ready, address) = std::sync::mpsc::channel();
    let World { directory, service } = world;
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let names = ["127.0.0.1".to_owned()];
            let serving =
                ServingCertificate::start(service.authority.clone(), &names, WallClock::default()).unwrap();
            let listener = listener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
            ready.send(listener.local_addr().unwrap()).unwrap();
            let connections = listener::accept(listener, serving.server_config());
            transport().add_service(service.into_server()).serve_with_incoming(connections).await
        })
    });
    (address.recv().unwrap(), directory)
}

struct Agent {
    client: CaClient,
    channel: Channel,
    directory: TempDir,
}

impl Agent {
    fn new() -> Self {
        let (address, directory) = serve(World::new());
        Self::at(address, directory, TOKEN)
    }

    fn at(address: SocketAddr, directory: TempDir, token: &str) -> Self {
        let token_file = directory.path().join("token");
        fs::write(&token_file, format!("{token}\n")).unwrap();
        let channel = channel(address, &directory.path().join("root-cert.pem"));
        let config = CaClientConfig {
            token_file,
            cluster_id: "Kubernetes".parse().unwrap(),
            certificate_ttl: Duration::from_secs(600),
        };
        Self { client: CaClient::new(channel.clone(), config), channel, directory }
    }

    async fn raw(&self, token: &str, csr: &str) -> Result<Response<IstioCertificateResponse>, Status> {
        raw(self.channel.clone(), token, &cart(), csr).await
    }

    fn write(&self, file: &str, content: &str) {
        fs::write(self.directory.path().join(file), content).unwrap();
    }
}

#[tokio::test]
async fn an_agent_obtains_a_certificate_of_its_own_workloads_alone() {
    let agent = Agent::new();
    let certificate = agent.client.fetch(&cart()).await.unwrap();
    assert_eq!(certificate.id(), &cart());
    let left = certificate.not_after().duration_since(SystemTime::now()).unwrap();
    assert!((590..=600).contains(&left.as_secs()), "{left:?}");
    let denied = agent.client.fetch(&web()).await.unwrap_err();
    assert!(matches!(&denied, FetchError::Denied { id, .. } if *id == web()), "{denied:?}");
}

#[tokio::test]
async fn the_token_is_read_for_every_call() {
    let agent = Agent::new();
    agent.write("token", "guess");
    assert!(matches!(agent.client.fetch(&cart()).await, Err(FetchError::Unauthenticated { .. })));
    agent.write("token", " \n");
    assert!(matches!(agent.client.fetch(&cart()).await, Err(FetchError::TokenText { .. })));
    agent.write("token", TOKEN);
    assert!(agent.client.fetch(&cart()).await.is_ok());
}

#[tokio::test]
async fn the_roots_are_read_for_every_connection() {
    let agent = Agent::new();
    let roots = fs::read_to_string(agent.directory.path().join("root-cert.pem")).unwrap();
    agent.write("root-cert.pem", "");
    assert!(matches!(agent.client.fetch(&cart()).await, Err(FetchError::Call { .. })));
    agent.write("root-cert.pem", &roots);
    assert!(agent.client.fetch(&cart()).await.is_ok());
}

#[tokio::test]
async fn an_oversized_message_is_not_even_read() {
    let agent = Agent::new();
    let status = agent.raw(TOKEN, &"x".repeat(LONGEST_MESSAGE)).await.unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange, "{status:?}");
    assert!(agent.client.fetch(&cart()).await.is_ok());
}

#[tokio::test]
async fn an_address_that_guesses_tokens_is_not_looked_at_any_more_and_known_callers_are() {
    let world = World::new();
    let csr = CertificateRequest::new(&cart()).unwrap().pem;
    let mut answers = Vec::new();
    for guess in 0..1_000 {
        let (code, _) = world.call(Some(&format!("guess-{guess}")), text(&cart()), &csr).await.unwrap_err();
        answers.push(code);
    }
    let refused = answers.iter().filter(|code| **code == Code::Unauthenticated).count();
    let busy = answers.iter().filter(|code| **code == Code::ResourceExhausted).count();
    assert!((100..1_000).contains(&refused) && refused + busy == 1_000, "{refused} and {busy}");
    assert!(answers[..100].iter().all(|code| *code == Code::Unauthenticated));
    assert!(world.call(Some(TOKEN), text(&cart()), &csr).await.is_ok());
}

/// Bar of issue 4: of a flood of 10,000 requests per second from one node most get
/// `RESOURCE_EXHAUSTED`, and another node is served meanwhile.
#[test]
fn a_flood_of_one_node_leaves_others_their_certificates() {
    const STREAMS: usize = 100;
    const EACH: usize = 150;
    let (address, directory) = serve(World::new());
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (began, over) = (Arc::new(Notify::new()), Arc::new(std::sync::atomic::AtomicBool::new(false)));
    let flood = std::thread::spawn({
        let (began, over, roots) = (began.clone(), over.clone(), directory.path().join("root-cert.pem"));
        move || {
            let answers = runtime().block_on(async {
                let mut streams = tokio::task::JoinSet::new();
                for _ in 0..4 {
                    let channel = channel(address, &roots);
                    for _ in 0..STREAMS / 4 {
                        streams.spawn(flood(channel.clone(), EACH, began.clone()));
                    }
                }
                streams.join_all().await.concat()
            });
            over.store(true, std::sync::atomic::Ordering::Relaxed);
            answers
        }
    });

    let mut served = Vec::new();
    runtime().block_on(async {
        let other = Agent::at(address, directory, OTHER_TOKEN);
        began.notified().await;
        // No more than a node may ask for by right.
        while !over.load(std::sync::atomic::Ordering::Relaxed) && served.len() < 20 {
            let started = Instant::now();
            other.client.fetch(&web()).await.unwrap();
            served.push((started.elapsed(), over.load(std::sync::atomic::Ordering::Relaxed)));
        }
    });
    let answers = flood.join().unwrap();
    let [issued, busy] = [Code::Ok, Code::ResourceExhausted]
        .map(|code| answers.iter().filter(|answer| **answer == code).count());
    println!("flood: {issued} issued, {busy} refused; others: {served:?}");
    assert_eq!(issued + busy, STREAMS * EACH);
    assert!(busy > STREAMS * EACH / 2, "{busy} of {} were refused", STREAMS * EACH);
    assert!(served.iter().any(|(_, after)| !after), "nobody else was served during the flood");
}

/// Asks as fast as answers come, and tells when the first one was refused for being too many.
async fn flood(channel: Channel, times: usize, began: Arc<Notify>) -> Vec<Code> {
    let csr = CertificateRequest::new(&cart()).unwrap().pem;
    let mut answers = Vec::with_capacity(times);
    for _ in 0..times {
        let answer = raw(channel.clone(), TOKEN, &cart(), &csr).await;
        let code = answer.map_or_else(|status| status.code(), |_| Code::Ok);
        if code == Code::ResourceExhausted {
            began.notify_one();
        }
        answers.push(code);
    }
    answers
}

fn channel(address: SocketAddr, roots: &std::path::Path) -> Channel {
    to_control_plane(&format!("https://{address}").parse().unwrap(), roots.to_owned()).unwrap()
}

async fn raw(
    channel: Channel,
    token: &str,
    id: &SpiffeId,
    csr: &str,
) -> Result<Response<IstioCertificateResponse>, Status> {
    let fields = [(IMPERSONATED_IDENTITY.to_owned(), Value { kind: text(id) })].into();
    let metadata = Some(Struct { fields });
    let message = IstioCertificateRequest { csr: csr.to_owned(), validity_duration: 0, metadata };
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    IstioCertificateServiceClient::new(channel).create_certificate(request).await
}
