//! The certificate that control's own listener presents, issued by its authority and renewed in
//! place: the rustls configuration stays the same.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use ambit_identity::clock::WallClock;
use ambit_identity::schedule::{Next, Schedule};
use ambit_identity::tls::{ALPN_H2, provider};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, SanType};
use rustls::ServerConfig;
use rustls::pki_types::{PrivatePkcs8KeyDer, ServerName};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::{info, warn};

use super::authority::{Authority, IssueError};

/// A listener's certificate, renewed as long as this value lives.
#[derive(Debug)]
pub struct ServingCertificate {
    config: Arc<ServerConfig>,
    renewing: JoinHandle<()>,
}

impl ServingCertificate {
    /// Issues a certificate for `names` (DNS names and IP addresses) and keeps it valid. Must be
    /// called inside a tokio runtime.
    ///
    /// # Errors
    /// When a name is neither, there is none, or nothing can be issued.
    pub fn start(
        authority: watch::Receiver<Arc<Authority>>,
        names: &[String],
        clock: WallClock,
    ) -> Result<Self, ServingError> {
        let names = alternative_names(names)?;
        let mut renewal = Renewal { authority, names, clock, schedule: Schedule::default() };
        let (first, next) = renewal.issue()?;
        let (publish, current) = watch::channel(first);
        let config = server_config(current)?;
        Ok(Self { config: Arc::new(config), renewing: tokio::spawn(renewal.run(next, publish)) })
    }

    /// The listener's configuration: TLS 1.3, no client certificate (callers bring tokens), always
    /// the certificate of the moment.
    pub fn server_config(&self) -> Arc<ServerConfig> {
        self.config.clone()
    }
}

impl Drop for ServingCertificate {
    fn drop(&mut self) {
        self.renewing.abort();
    }
}

/// Why the listener has no certificate.
#[derive(Debug, thiserror::Error)]
pub enum ServingError {
    /// There is no name to issue for.
    #[error("the listener needs at least one DNS name or IP address for its certificate")]
    NoName,
    /// A name is neither a DNS name nor an address.
    #[error("{name:?} is neither a DNS name nor an IP address")]
    Name {
        /// The name.
        name: String,
    },
    /// No key can be made.
    #[error("no key can be made for the listener's certificate")]
    Key(#[source] rcgen::Error),
    /// Nothing can be issued.
    #[error("no certificate can be issued for the listener")]
    Issue(#[from] IssueError),
    /// rustls does not take it.
    #[error("rustls cannot use the listener's certificate")]
    Rustls(#[from] rustls::Error),
}

struct Renewal {
    authority: watch::Receiver<Arc<Authority>>,
    names: Vec<SanType>,
    clock: WallClock,
    schedule: Schedule,
}

impl Renewal {
    async fn run(mut self, mut next: Next, publish: watch::Sender<Arc<CertifiedKey>>) {
        loop {
            tokio::select! {
                () = self.clock.reaches(next.at()) => {}
                // Under a new root the old certificate would soon be refused. When no more
                // replacements can come, time alone decides.
                Ok(()) = self.authority.changed() => {}
            }
            next = match self.issue() {
                Ok((certified, next)) => {
                    info!("the listener's certificate was renewed");
                    publish.send_replace(certified);
                    next
                }
                Err(error) => self.failed(&error),
            };
        }
    }

    fn issue(&mut self) -> Result<(Arc<CertifiedKey>, Next), ServingError> {
        let now = self.clock.now();
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(ServingError::Key)?;
        let authority = self.authority.borrow_and_update().clone();
        let issued = authority.issue_serving(self.names.clone(), &key, now, &mut rand::rng())?;
        let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        let certified = CertifiedKey::from_der(issued.chain, key, provider())?;
        let next = self.plan(issued.not_after, now);
        Ok((Arc::new(certified), next))
    }

    fn plan(&mut self, not_after: SystemTime, now: SystemTime) -> Next {
        let (schedule, next) = Schedule::issued(now, not_after, now, &mut rand::rng());
        self.schedule = schedule;
        next
    }

    fn failed(&mut self, error: &ServingError) -> Next {
        warn!(error = error as &dyn std::error::Error, "the listener's certificate was not renewed");
        let (schedule, next) = self.schedule.failed(self.clock.now(), &mut rand::rng());
        self.schedule = schedule;
        next
    }
}

/// Presents whatever certificate is current, for every name: the client checks it.
struct Presented(watch::Receiver<Arc<CertifiedKey>>);

impl ResolvesServerCert for Presented {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.borrow().clone())
    }
}

impl fmt::Debug for Presented {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Presented")
    }
}

fn server_config(current: watch::Receiver<Arc<CertifiedKey>>) -> Result<ServerConfig, ServingError> {
    let mut config = ServerConfig::builder_with_provider(provider().clone())
        .with_protocol_versions(&[&TLS13])?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Presented(current)));
    config.alpn_protocols = vec![ALPN_H2.to_vec()];
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(config)
}

fn alternative_names(names: &[String]) -> Result<Vec<SanType>, ServingError> {
    if names.is_empty() {
        return Err(ServingError::NoName);
    }
    names.iter().map(|name| alternative_name(name)).collect()
}

fn alternative_name(name: &str) -> Result<SanType, ServingError> {
    if let Ok(ip) = name.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(ip));
    }
    let bad = || ServingError::Name { name: name.to_owned() };
    ServerName::try_from(name).map_err(|_| bad())?;
    Ok(SanType::DnsName(name.try_into().map_err(|_| bad())?))
}

#[cfg(test)]
mod tests;
