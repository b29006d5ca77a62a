//! Why there is no authority, or no certificate. Each error names the file to look at.

use std::io;
use std::path::PathBuf;

use ambit_identity::certificate::CertificateRefused;
use ambit_identity::csr::RequestFailed;

use crate::ca::lifetime::IssuerExpires;
use crate::ca::parts::Place;

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

/// Why there is no authority. Each names the place to look at.
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
    /// A part is not there.
    #[error("{place} is missing")]
    Missing {
        /// Where it should be kept.
        place: Place,
    },
    /// A part holds no certificates.
    #[error("{place} holds no readable PEM certificates")]
    Certificates {
        /// Where it is kept.
        place: Place,
    },
    /// A part holds no private key.
    #[error("{place} holds no readable PEM private key: RSA, P-256, P-384 and P-521 are understood")]
    Key {
        /// Where it is kept.
        place: Place,
    },
    /// Key and certificate are two things.
    #[error("{key} is not the key of {certificate}")]
    OtherKey {
        /// Where the key is kept.
        key: Place,
        /// Where the certificate is kept.
        certificate: Place,
    },
    /// The certificate may not sign others.
    #[error("{place} is not a CA certificate: it needs CA:TRUE and, where key usage is given, keyCertSign")]
    NotAuthority {
        /// Where it is kept.
        place: Place,
    },
    /// The certificate is not valid now.
    #[error("{place} is not valid now: check its dates and this machine's clock")]
    NotValidNow {
        /// Where it is kept.
        place: Place,
    },
    /// A workload would not accept what is issued.
    #[error(
        "certificates issued by {certificate} do not verify against {roots}: check that the chain leads from one to the other"
    )]
    Trial {
        /// Where the issuing certificate is kept.
        certificate: Place,
        /// Where the roots are kept.
        roots: String,
        /// What was wrong.
        #[source]
        source: Box<TrialError>,
    },
}
