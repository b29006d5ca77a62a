//! The parts of an authority as they are kept, whether in files or in a Secret, and by which names.
//!
//! Two layouts are understood: Istio's `cacerts`, and what cert-manager writes for a certificate.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use super::authority::AuthorityError;

/// The issuing certificate.
pub(crate) const CA_CERT: &str = "ca-cert.pem";
/// Its key.
pub(crate) const CA_KEY: &str = "ca-key.pem";
/// What lies between it and a root; may be absent.
pub(crate) const CERT_CHAIN: &str = "cert-chain.pem";
/// All roots that are trusted: two or more while one replaces another.
pub(crate) const ROOT_CERT: &str = "root-cert.pem";

/// cert-manager: the issuing certificate and what follows it.
const TLS_CRT: &str = "tls.crt";
/// cert-manager: its key.
const TLS_KEY: &str = "tls.key";
/// cert-manager: the root that it leads to.
const CA_CRT: &str = "ca.crt";

/// Where a part is kept, as messages name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place(Arc<str>);

impl Place {
    /// A key of a Secret.
    pub(crate) fn in_secret(namespace: &str, secret: &str, key: &str) -> Self {
        Self(format!("{key} of Secret {namespace}/{secret}").into())
    }
}

impl From<&Path> for Place {
    fn from(path: &Path) -> Self {
        Self(path.display().to_string().into())
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A part and where it is kept. It may be a key, so it cannot be printed.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Part {
    pub(super) place: Place,
    pub(super) content: Vec<u8>,
}

impl Part {
    pub(crate) fn new(place: Place, content: Vec<u8>) -> Self {
        Self { place, content }
    }
}

/// Everything that an authority is made of.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Parts {
    /// The issuing certificate; what follows it belongs to the chain.
    pub(super) certificate: Part,
    pub(super) key: Part,
    /// Not empty. All certificates of all of them are roots.
    pub(super) roots: Vec<Part>,
    pub(super) chain: Option<Part>,
}

impl Parts {
    /// A root that issues by itself.
    pub(super) fn of_root(certificate: Part, key: Part) -> Self {
        Self { roots: vec![certificate.clone()], certificate, key, chain: None }
    }

    /// The parts that `read` finds under the names of one of the layouts.
    ///
    /// In cert-manager's layout `root-cert.pem` may stand beside `ca.crt`, which holds one root alone:
    /// both count then.
    pub(crate) fn named(
        read: impl Fn(&str) -> Result<(Place, Option<Vec<u8>>), AuthorityError>,
    ) -> Result<Self, AuthorityError> {
        let found = |name| {
            let (place, content) = read(name)?;
            Ok(content.filter(|content| !content.is_empty()).map(|content| Part::new(place, content)))
        };
        let needed = |name| {
            let (place, content) = read(name)?;
            let missing = AuthorityError::Missing { place: place.clone() };
            content.map(|content| Part::new(place, content)).ok_or(missing)
        };
        if found(CA_CERT)?.is_none()
            && let Some(certificate) = found(TLS_CRT)?
        {
            let roots = [found(CA_CRT)?, found(ROOT_CERT)?].into_iter().flatten().collect::<Vec<_>>();
            let roots = if roots.is_empty() { vec![needed(CA_CRT)?] } else { roots };
            return Ok(Self { certificate, key: needed(TLS_KEY)?, roots, chain: None });
        }
        Ok(Self {
            certificate: needed(CA_CERT)?,
            key: needed(CA_KEY)?,
            roots: vec![needed(ROOT_CERT)?],
            chain: found(CERT_CHAIN)?,
        })
    }
}
