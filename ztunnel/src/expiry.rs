//! When the first of this node's certificates expires, as a metric. Each is renewed long before: a time that
//! comes close says that control cannot be reached, or refuses.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ambit_identity::manager::{CertificateManager, CertificateStatus, Issuer};
use metrics::gauge;
use tokio::time::interval;

/// More often than it is scraped.
const EVERY: Duration = Duration::from_secs(5);

/// Keeps the metric up to date until it is dropped.
pub async fn keep_told<I: Issuer>(certificates: Arc<CertificateManager<I>>) {
    let mut moments = interval(EVERY);
    loop {
        moments.tick().await;
        gauge!("ambit_certificate_expiry_timestamp_seconds").set(first(&certificates.statuses()));
    }
}

/// In seconds since 1970; 0 where there is no certificate.
fn first(certificates: &[CertificateStatus]) -> f64 {
    let ends = certificates.iter().filter_map(|status| Some(status.certificate.as_ref()?.not_after));
    let first = ends.min().unwrap_or(SystemTime::UNIX_EPOCH);
    first.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use ambit_identity::manager::HeldCertificate;

    use super::*;

    #[test]
    fn the_first_to_expire_counts_and_nothing_is_no_certificate() {
        let until = |seconds: Option<u64>| CertificateStatus {
            id: "spiffe://cluster.local/ns/shop/sa/web".parse().unwrap(),
            certificate: seconds.map(|seconds| HeldCertificate {
                serial: String::new(),
                not_before: SystemTime::UNIX_EPOCH,
                not_after: SystemTime::UNIX_EPOCH + Duration::from_secs(seconds),
                generation: 1,
            }),
            next_attempt: None,
            last_error: None,
        };
        assert!(first(&[]) == 0.0 && first(&[until(None)]) == 0.0);
        assert!(first(&[until(Some(9)), until(None), until(Some(7))]) == 7.0);
    }
}
