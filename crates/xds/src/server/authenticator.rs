//! Who a client is, by its bearer token.

use std::fmt;
use std::sync::Arc;

use tonic::Status;
use tonic::metadata::MetadataMap;

type NodeOfToken = dyn Fn(&str) -> Option<Arc<str>> + Send + Sync;

/// The owner's answer to whose token this is.
#[derive(Clone)]
pub struct Authenticator(Arc<NodeOfToken>);

impl Authenticator {
    /// An authenticator that asks `node_of_token` for the name of the node that holds a token.
    /// It is called once for each stream, and has to compare tokens in constant time.
    pub fn new(node_of_token: impl Fn(&str) -> Option<Arc<str>> + Send + Sync + 'static) -> Self {
        Self(Arc::new(node_of_token))
    }

    /// The node whose token a request carries.
    ///
    /// # Errors
    /// `UNAUTHENTICATED` when there is no bearer token or nobody holds it. The token is not
    /// repeated.
    pub fn authenticate(&self, metadata: &MetadataMap) -> Result<Arc<str>, Status> {
        let header = metadata.get("authorization").and_then(|value| value.to_str().ok());
        let token = header.and_then(|value| value.strip_prefix("Bearer "));
        let token =
            token.ok_or_else(|| Status::unauthenticated("no bearer token in header authorization"))?;
        (self.0)(token).ok_or_else(|| Status::unauthenticated("the bearer token is not a node's"))
    }
}

impl fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Authenticator")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn only_a_bearer_token_is_looked_up_and_it_is_repeated_nowhere() {
        let seen: Arc<Mutex<Vec<String>>> = Arc::default();
        let record = seen.clone();
        let authenticator = Authenticator::new(move |token: &str| {
            record.lock().unwrap().push(token.to_owned());
            None
        });
        let mut metadata = MetadataMap::new();
        assert!(authenticator.authenticate(&metadata).is_err());
        metadata.insert("authorization", "Basic secret".parse().unwrap());
        assert!(authenticator.authenticate(&metadata).is_err());
        assert_eq!(*seen.lock().unwrap(), [""; 0]);
        metadata.insert("authorization", "Bearer secret".parse().unwrap());
        let refused = authenticator.authenticate(&metadata).unwrap_err();
        assert_eq!(*seen.lock().unwrap(), ["secret"]);
        assert!(!format!("{refused:?} {authenticator:?}").contains("secret"));
    }
}
