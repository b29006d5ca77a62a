//! The bearer tokens of nodes and of waypoints, as files: `tokens/<node>` and
//! `tokens/waypoint~<namespace>~<pod>` in the state directory.
//!
//! A token is made when its Node object first appears, and counts as long as the object exists. Its
//! file stays, so that a Node that comes back keeps its token; deleting the file and touching the
//! configuration makes a new one.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use aws_lc_rs::rand::fill;

use crate::ca::tokens::NodeTokens;
use crate::state::{self, Access, StateError};

/// Octets of a token, of which a guess would have to hit all.
const TOKEN_BYTES: usize = 32;

/// The directory of the tokens.
#[derive(Debug)]
pub struct TokenFiles {
    directory: PathBuf,
}

impl TokenFiles {
    /// Makes the directory if needed.
    ///
    /// # Errors
    /// When that is not possible.
    pub fn open(directory: PathBuf) -> Result<Self, StateError> {
        state::make_directory(&directory, Access::Private)?;
        Ok(Self { directory })
    }

    /// The tokens of these nodes. One whose token cannot be read or made is left out and logged: it
    /// cannot connect, and the others can.
    pub fn of(&self, nodes: impl IntoIterator<Item = Arc<str>>) -> NodeTokens {
        let mut tokens = Vec::new();
        for node in nodes {
            match self.token(&node) {
                Ok(token) => tokens.push((token, node)),
                Err(error) => {
                    tracing::error!(%node, error = %error, cause = %error.source, "node has no token");
                }
            }
        }
        NodeTokens::new(tokens.iter().map(|(token, node)| (token.as_str(), node.clone())))
    }

    fn token(&self, node: &str) -> Result<String, StateError> {
        let path = self.directory.join(node);
        match fs::read_to_string(&path) {
            Ok(token) => Ok(token),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let token = random_token().map_err(StateError::during("no random octets for", &path))?;
                state::write(&path, &token, Access::Private)?;
                tracing::info!(%node, path = %path.display(), "token made");
                Ok(token)
            }
            Err(error) => Err(StateError::during("cannot read", &path)(error)),
        }
    }
}

fn random_token() -> io::Result<String> {
    let mut octets = [0; TOKEN_BYTES];
    fill(&mut octets).map_err(|_| io::Error::other("the random generator failed"))?;
    Ok(octets.iter().map(|octet| format!("{octet:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_token_is_made_once_and_counts_while_its_node_exists() {
        let state = tempfile::tempdir().unwrap();
        let files = TokenFiles::open(state.path().join("tokens")).unwrap();
        let (a, b): (Arc<str>, Arc<str>) = ("node-a".into(), "node-b".into());
        let tokens = files.of([a.clone(), b.clone()]);
        let read = |node: &str| fs::read_to_string(state.path().join("tokens").join(node)).unwrap();
        assert_eq!((tokens.node_of(&read("node-a")), tokens.node_of(&read("node-b"))), (Some(&a), Some(&b)));
        assert_eq!(read("node-a").len(), 2 * TOKEN_BYTES);
        assert_ne!(read("node-a"), read("node-b"));
        let mode = |path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(state.path().join("tokens")), 0o700);
        assert_eq!(mode(state.path().join("tokens/node-a")), 0o600);

        let token = read("node-b");
        assert_eq!(files.of([a.clone()]).node_of(&token), None, "a node that is gone");
        assert_eq!(files.of([a, b.clone()]).node_of(&token), Some(&b), "a node that came back");
    }

    #[test]
    fn a_token_that_cannot_be_read_costs_only_its_node() {
        let state = tempfile::tempdir().unwrap();
        let files = TokenFiles::open(state.path().join("tokens")).unwrap();
        fs::create_dir(state.path().join("tokens/node-a")).unwrap();
        let tokens = files.of(["node-a".into(), "node-b".into()]);
        let token = fs::read_to_string(state.path().join("tokens/node-b")).unwrap();
        assert_eq!(tokens.node_of(&token), Some(&"node-b".into()));
    }
}
