//! The last step into a pod: connecting to its application, as the client it comes from.

use std::io;
use std::net::SocketAddr;

use ambit_hbone::socket::Socket;
use ambit_mesh::policy::Permit;
use tokio::time::timeout;

use crate::capture::socket::{SocketError, connect_application};
use crate::worker::Pod;

/// Why the application was not reached.
#[derive(Debug, thiserror::Error)]
pub enum ApplicationError {
    /// No socket.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// It did not accept.
    #[error("the application at {destination} does not accept connections: {source}")]
    Connect {
        /// The application's address.
        destination: SocketAddr,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// It did not answer.
    #[error("the application at {destination} did not accept within {seconds} s")]
    Timeout {
        /// The application's address.
        destination: SocketAddr,
        /// How long was waited.
        seconds: u64,
    },
}

/// Connects to the application that `permit` names. It sees the client's address, not ours; the
/// client's port is not kept.
///
/// # Errors
/// See [`ApplicationError`].
pub async fn connect_app(pod: &Pod, permit: &Permit) -> Result<Socket, ApplicationError> {
    let destination = permit.destination();
    let limit = pod.worker.shared.config.connect_timeout;
    let failed = |source| ApplicationError::Connect { destination, source };
    let socket = connect_application(&pod.netns, &pod.marks, permit.source_ip(), destination)?;
    let socket = Socket::of_nonblocking(socket.into()).map_err(failed)?;
    timeout(limit, socket.connected())
        .await
        .map_err(|_| ApplicationError::Timeout { destination, seconds: limit.as_secs() })?
        .map_err(failed)?;
    Ok(socket)
}
