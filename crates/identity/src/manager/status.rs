//! What a dump shows of an identity's certificate.

use std::time::SystemTime;

use ambit_mesh::identity::SpiffeId;

/// One identity's state. Holds no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateStatus {
    /// Whose.
    pub id: SpiffeId,
    /// The certificate in use; none before the first arrives and after one has expired.
    pub certificate: Option<HeldCertificate>,
    /// When the next attempt to obtain one is made; none while one is under way.
    pub next_attempt: Option<SystemTime>,
    /// Why the last attempt failed, with its causes; none after a success.
    pub last_error: Option<String>,
}

/// A certificate in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldCertificate {
    /// Its serial number, hexadecimal.
    pub serial: String,
    /// Start of its validity.
    pub not_before: SystemTime,
    /// End of its validity.
    pub not_after: SystemTime,
    /// As in [`crate::tls::TlsIdentity::generation`].
    pub generation: u64,
}

/// An error with its causes, on one line.
pub(super) fn with_causes(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |error| error.source())
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}
