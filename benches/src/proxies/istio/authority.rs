//! The authority that Istio's ztunnels have their certificates from: Istio's certificate service on the
//! loopback of each pod, as long as the proxies start.
//!
//! It signs whatever it is asked for: nobody but this program's proxies can reach it.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::thread;
use std::time::Duration;

use ambit_proto::istio::v1::auth::istio_certificate_service_server::{
    IstioCertificateService, IstioCertificateServiceServer,
};
use ambit_proto::istio::v1::auth::{IstioCertificateRequest, IstioCertificateResponse};
use ambit_tests::certificates::{Authority, Credentials, Validity};
use ambit_tests::pod::Pod;
use ambit_tests::sandbox::WORK;
use anyhow::{Context, Result, anyhow};
use rcgen::{CertificateSigningRequestParams, ExtendedKeyUsagePurpose, Issuer, KeyPair, KeyUsagePurpose};
use time::OffsetDateTime;
use tokio::runtime;
use tokio::sync::oneshot;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status};

/// Where a pod finds it.
pub(super) const ADDRESS: &str = "127.0.0.1:15012";
const PORT: u16 = 15012;

/// How long certificates are valid: none is renewed in a run.
const LIFE: Duration = Duration::from_secs(24 * 3600);

/// Serves the pods while `work` is done, which is given the file of the root certificate.
///
/// # Errors
/// Those of the work, and when it cannot serve.
pub(super) fn serve_while<T>(pods: [&Pod; 2], work: impl FnOnce(&Path) -> Result<T>) -> Result<T> {
    let directory = Path::new(WORK).join("istio-authority");
    let authority = Authority::generate("benchmark")?;
    authority.plug_in(&directory, &[&authority])?;
    let listeners = pods.map(|pod| pod.namespace().listen(PORT));
    let (done, stop) = oneshot::channel();
    thread::scope(|scope| {
        let serving = scope.spawn(|| serve(&authority, &directory, listeners, stop));
        let outcome = work(&directory.join("root-cert.pem"));
        // It waits for no answer, so that it does not matter whether it has ended before.
        let _: std::result::Result<(), ()> = done.send(());
        serving.join().map_err(|panic| anyhow!("the authority panicked: {panic:?}"))??;
        outcome
    })
}

/// Serves until it is told to stop.
fn serve(
    authority: &Authority,
    directory: &Path,
    listeners: [Result<TcpListener>; 2],
    stop: oneshot::Receiver<()>,
) -> Result<()> {
    let key = fs::read_to_string(directory.join("ca-key.pem"))?;
    let own = authority.issue("127.0.0.1", Validity::Current)?;
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let [first, second] = listeners.map(|listener| {
            let signer = Signer {
                issuer: Issuer::from_ca_cert_pem(authority.certificate(), KeyPair::from_pem(&key)?)?,
                root: authority.certificate().to_owned(),
            };
            signer.serve(listener?, &own)
        });
        let both = async { tokio::try_join!(first?, second?) };
        tokio::select! {
            served = both => served.map(drop).context("the authority of Istio's ztunnels"),
            _ = stop => Ok(()),
        }
    })
}

/// Signs for one pod.
struct Signer {
    issuer: Issuer<'static, KeyPair>,
    root: String,
}

impl Signer {
    fn serve(
        self,
        listener: TcpListener,
        own: &Credentials,
    ) -> Result<impl Future<Output = Result<()>> + use<>> {
        listener.set_nonblocking(true)?;
        let incoming = TcpIncoming::from(tokio::net::TcpListener::from_std(listener)?);
        let tls = ServerTlsConfig::new().identity(Identity::from_pem(&own.certificate, &own.key));
        let router = Server::builder().tls_config(tls)?.add_service(IstioCertificateServiceServer::new(self));
        Ok(async { Ok(router.serve_with_incoming(incoming).await?) })
    }

    /// The certificate that a request asks for, as PEM.
    fn sign(&self, request: &str) -> Result<String> {
        let mut request = CertificateSigningRequestParams::from_pem(request)?;
        let now = OffsetDateTime::now_utc();
        request.params.not_before = now - Duration::from_secs(60);
        request.params.not_after = now + LIFE;
        request.params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        request.params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        Ok(request.signed_by(&self.issuer)?.pem())
    }
}

#[tonic::async_trait]
impl IstioCertificateService for Signer {
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        let refused = |error: anyhow::Error| Status::invalid_argument(format!("{error:#}"));
        let leaf = self.sign(&request.into_inner().csr).map_err(refused)?;
        Ok(Response::new(IstioCertificateResponse { cert_chain: vec![leaf, self.root.clone()] }))
    }
}
