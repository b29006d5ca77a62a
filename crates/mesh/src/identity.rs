//! SPIFFE identities of workloads, as Istio writes them.
//!
//! Reading one out of a certificate is `ambit-identity`'s work; this module owns the names alone.

mod set;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

pub use set::IdentitySet;

/// `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`: who a workload is.
///
/// Cheap to clone. Source: SPIFFE-ID §2, in the path form of Istio's documentation
/// ("Secure naming").
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpiffeId {
    trust_domain: TrustDomain,
    namespace: Arc<str>,
    service_account: Arc<str>,
}

impl SpiffeId {
    /// Builds an identity from its parts.
    ///
    /// # Errors
    /// When a part is empty or holds a character that a SPIFFE path segment may not hold.
    pub fn new(
        trust_domain: TrustDomain,
        namespace: &str,
        service_account: &str,
    ) -> Result<Self, InvalidSpiffeId> {
        for (part, value) in [("namespace", namespace), ("service account", service_account)] {
            check_segment(part, value)?;
        }
        Ok(Self { trust_domain, namespace: namespace.into(), service_account: service_account.into() })
    }

    /// The trust domain: the part that names the root of trust.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The Kubernetes namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The Kubernetes ServiceAccount.
    pub fn service_account(&self) -> &str {
        &self.service_account
    }

    /// Gives each part to `change`, which may put an equal text in its place.
    pub(crate) fn map_texts(&mut self, mut change: impl FnMut(&mut Arc<str>)) {
        change(&mut self.trust_domain.0);
        change(&mut self.namespace);
        change(&mut self.service_account);
    }

    /// The identity without its scheme, as AuthorizationPolicy writes principals:
    /// `<trust domain>/ns/<namespace>/sa/<service account>`.
    pub fn principal(&self) -> String {
        [self.trust_domain.as_str(), "/ns/", &self.namespace, "/sa/", &self.service_account].concat()
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}/ns/{}/sa/{}", self.trust_domain, self.namespace, self.service_account)
    }
}

impl fmt::Debug for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for SpiffeId {
    type Err = InvalidSpiffeId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let malformed = || InvalidSpiffeId::Form { text: text.into() };
        let rest = text.strip_prefix("spiffe://").ok_or_else(malformed)?;
        let parts: Vec<&str> = rest.split('/').collect();
        let [trust_domain, "ns", namespace, "sa", service_account] = parts.as_slice() else {
            return Err(malformed());
        };
        Self::new(trust_domain.parse()?, namespace, service_account)
    }
}

/// The name of a root of trust, such as `cluster.local`. Lower case, as SPIFFE-ID §2.1 asks.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrustDomain(Arc<str>);

impl TrustDomain {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for TrustDomain {
    /// Istio's default: `cluster.local`.
    fn default() -> Self {
        Self("cluster.local".into())
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for TrustDomain {
    type Err = InvalidSpiffeId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // SPIFFE-ID §2.1: "trust domain names are restricted to lowercase letters, digits, dots,
        // dashes and underscores" and are at most 255 octets long.
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '-' | '_');
        if text.is_empty() || text.len() > 255 || !text.chars().all(allowed) {
            return Err(InvalidSpiffeId::TrustDomain { text: text.into() });
        }
        Ok(Self(text.into()))
    }
}

/// Why a text is not an identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSpiffeId {
    /// The text has another shape.
    #[error("{text:?} is not of the form spiffe://<trust domain>/ns/<namespace>/sa/<service account>")]
    Form {
        /// What was read.
        text: String,
    },
    /// The trust domain is empty or holds a character outside `a-z 0-9 . - _`.
    #[error("{text:?} is not a trust domain: lower-case letters, digits, '.', '-' and '_' are allowed")]
    TrustDomain {
        /// What was read.
        text: String,
    },
    /// A path segment is empty or holds a character outside `a-z A-Z 0-9 . - _`.
    #[error(
        "{part} {text:?} cannot be part of a SPIFFE identity: letters, digits, '.', '-' and '_' are allowed"
    )]
    Segment {
        /// Which part.
        part: &'static str,
        /// What was read.
        text: String,
    },
}

fn check_segment(part: &'static str, value: &str) -> Result<(), InvalidSpiffeId> {
    // SPIFFE-ID §2.2: segments are letters, digits, dots, dashes and underscores, never empty,
    // never "." or "..".
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if value.is_empty() || value == "." || value == ".." || !value.chars().all(allowed) {
        return Err(InvalidSpiffeId::Segment { part, text: value.into() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_reads_back_as_it_was_written() {
        let text = "spiffe://cluster.local/ns/shop/sa/cart";
        let id: SpiffeId = text.parse().unwrap();
        assert_eq!(id.to_string(), text);
        assert_eq!(id.principal(), "cluster.local/ns/shop/sa/cart");
        assert_eq!((id.namespace(), id.service_account()), ("shop", "cart"));
    }

    #[test]
    fn other_forms_are_refused() {
        for text in [
            "",
            "cluster.local/ns/shop/sa/cart",
            "spiffe://cluster.local/ns/shop/sa/",
            "spiffe://cluster.local/ns/shop/sa/cart/extra",
            "spiffe://cluster.local/ns/shop",
            "spiffe:///ns/shop/sa/cart",
            "spiffe://Cluster.Local/ns/shop/sa/cart",
            "spiffe://cluster.local/ns/../sa/cart",
            "spiffe://cluster.local/ns/sh%6fp/sa/cart",
            "spiffe://user@cluster.local/ns/shop/sa/cart",
            "spiffe://cluster.local:80/ns/shop/sa/cart",
        ] {
            assert!(text.parse::<SpiffeId>().is_err(), "{text:?} was accepted");
        }
    }
}
