//! Why there is no authority, or no certificate. Each error names the file to look at.

use std::io;
use std::path::PathBuf;

use ambit_identity::certificate::CertificateRefused;
use ambit_identity::csr::RequestFailed;

use crate::ca::lifetime::IssuerExpires;

/// A certificate could not be issued.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// The authority's own certificate ends the matter.
    #[error(transparent)]
    Expired(#[from] IssuerExpires),
    /// The signing itself failed.
    #[error("the certificate cannot be written or signed")]
    Sign(#[from] rcgen::Error),
}

/// A freshly loaded authority issues nothing that a workload would accept.
#[derive(Debug, thiserror::Error)]
pub enum TrialError {
    /// No request could be made.
    #[error(transparent)]
    Request(#[from] RequestFailed),
    /// Nothing could be issued.
    #[error(transparent)]
    Issue(#[from] IssueError),
    /// What was issued is not accepted.
    #[error(transparent)]
    Refused(#[from] CertificateRefused),
}

/// Why there is no authority. Each names the file to look at.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A file cannot be read.
    #[error("cannot read {path}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write {path}", path = path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// One of a pair is missing.
    #[error("{present} is there but {missing} is not: restore it, or remove both for a new root that nobody trusts yet", present = present.display(), missing = missing.display())]
    Half {
        /// What is there.
        present: PathBuf,
        /// What is not.
        missing: PathBuf,
    },
    /// No root can be made.
    #[error("no root can be made")]
    Create(#[source] rcgen::Error),
    /// A file holds no certificates.
    #[error("{path} holds no readable PEM certificates", path = path.display())]
    Certificates {
        /// The file.
        path: PathBuf,
    },
    /// A file holds no private key.
    #[error("{path} holds no readable PEM private key: RSA, P-256, P-384 and P-521 are understood", path = path.display())]
    Key {
        /// The file.
        path: PathBuf,
    },
    /// Key and certificate are two things.
    #[error("{key} is not the key of {certificate}", key = key.display(), certificate = certificate.display())]
    OtherKey {
        /// The key's file.
        key: PathBuf,
        /// The certificate's file.
        certificate: PathBuf,
    },
    /// The certificate may not sign others.
    #[error("{path} is not a CA certificate: it needs CA:TRUE and, where key usage is given, keyCertSign", path = path.display())]
    NotAuthority {
        /// The file.
        path: PathBuf,
    },
    /// The certificate is not valid now.
    #[error("{path} is not valid now: check its dates and this machine's clock", path = path.display())]
    NotValidNow {
        /// The file.
        path: PathBuf,
    },
    /// A workload would not accept what is issued.
    #[error("certificates issued by {certificate} do not verify against {roots}: check that the chain file leads from one to the other", certificate = certificate.display(), roots = roots.display())]
    Trial {
        /// The issuing certificate's file.
        certificate: PathBuf,
        /// The roots' file.
        roots: PathBuf,
        /// What was wrong.
        #[source]
        source: Box<TrialError>,
    },
}
