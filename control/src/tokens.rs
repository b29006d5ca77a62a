//! The bearer tokens of nodes, as files: `tokens/<node>` in the state directory.
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
