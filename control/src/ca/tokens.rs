//! Who calls: one bearer token per node.
//!
//! Where tokens come from is the caller's; here they are only recognised. Only their digests are
//! held, so that no dump or core file shows one.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{Digest, SHA256, digest};
use tonic::metadata::MetadataMap;

use super::grant::Caller;

/// RFC 6750 §2.1; compared without regard to case, as RFC 9110 §11.1 asks of schemes.
const SCHEME: &str = "Bearer ";

/// The tokens of all nodes.
#[derive(Clone, Default)]
pub struct NodeTokens {
    tokens: Vec<(Digest, Arc<str>)>,
}

impl NodeTokens {
    /// Pairs of token and node. Blanks around a token are not part of it; an empty one is nobody's.
    pub fn new<'a>(tokens: impl IntoIterator<Item = (&'a str, Arc<str>)>) -> Self {
        let digested = |(token, node): (&str, Arc<str>)| {
            let token = token.trim();
            (!token.is_empty()).then(|| (digest(&SHA256, token.as_bytes()), node))
        };
        Self { tokens: tokens.into_iter().filter_map(digested).collect() }
    }

    /// The caller whose token this is.
    pub fn caller(&self, token: &str) -> Option<Caller> {
        self.node_of(token).map(|node| Caller::authenticated(node.clone()))
    }

    /// The node whose token this is.
    pub fn node_of(&self, token: &str) -> Option<&Arc<str>> {
        let presented = digest(&SHA256, token.as_bytes());
        let mut found = None;
        // All are compared, each in constant time: how long it takes tells nothing about any.
        for (known, node) in &self.tokens {
            if verify_slices_are_equal(known.as_ref(), presented.as_ref()).is_ok() {
                found = Some(node);
            }
        }
        found
    }
}

impl fmt::Debug for NodeTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.tokens.iter().map(|(_, node)| node)).finish()
    }
}

/// Why a caller is not known. Says nothing of what was presented.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unauthenticated {
    /// There is no header.
    #[error("the call has no authorization metadata: send a bearer token")]
    Missing,
    /// The header is not a bearer token.
    #[error("the authorization metadata is not of the form \"Bearer TOKEN\"")]
    Malformed,
    /// The token is nobody's.
    #[error("the token is not that of a known node: check the token file and that the Node object exists")]
    Unknown,
}

/// The bearer token in the `authorization` metadata.
///
/// # Errors
/// When there is none.
pub(super) fn bearer(metadata: &MetadataMap) -> Result<&str, Unauthenticated> {
    let header = metadata.get("authorization").ok_or(Unauthenticated::Missing)?;
    header.to_str().ok().and_then(token_of).ok_or(Unauthenticated::Malformed)
}

fn token_of(header: &str) -> Option<&str> {
    let (scheme, token) = header.split_at_checked(SCHEME.len())?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case(SCHEME) && !token.is_empty()).then_some(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_names_its_node() {
        let tokens = NodeTokens::new([
            ("first-token\n", "node-1".into()),
            ("second-token", "node-2".into()),
            (" \n", "node-3".into()),
        ]);
        let node = |header: Option<&str>| {
            let mut metadata = MetadataMap::new();
            if let Some(header) = header {
                metadata.insert("authorization", header.parse().unwrap());
            }
            bearer(&metadata)
                .and_then(|token| tokens.caller(token).ok_or(Unauthenticated::Unknown))
                .map(|caller| caller.node().to_owned())
        };
        let rows = [
            (Some("Bearer first-token"), Ok("node-1".to_owned())),
            (Some("bearer second-token"), Ok("node-2".to_owned())),
            (Some("Bearer  second-token "), Ok("node-2".to_owned())),
            (Some("Bearer first-toke"), Err(Unauthenticated::Unknown)),
            (Some("Bearer first-token second-token"), Err(Unauthenticated::Unknown)),
            (Some("Bearer "), Err(Unauthenticated::Malformed)),
            (Some("Bearer"), Err(Unauthenticated::Malformed)),
            (Some("Basic first-token"), Err(Unauthenticated::Malformed)),
            (Some("first-token"), Err(Unauthenticated::Malformed)),
            (Some("ääääBearer"), Err(Unauthenticated::Malformed)),
            (None, Err(Unauthenticated::Missing)),
        ];
        for (header, expected) in rows {
            assert_eq!(node(header), expected, "{header:?}");
        }
    }

    #[test]
    fn debug_shows_nodes_and_no_tokens() {
        let shown = format!("{:?}", NodeTokens::new([("first-token", "node-1".into())]));
        assert_eq!(shown, r#"{"node-1"}"#);
    }
}
