//! A connection between two agents of one node: whole messages, with descriptors, between processes of
//! root alone.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net;
use std::path::Path;
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::time::timeout;

/// Descriptors that one message may carry; the kernel takes 253.
pub(super) const MAX_DESCRIPTORS: usize = 64;

/// Octets of a message. A pod takes a few hundred.
const MAX_OCTETS: usize = 16 * 1024;

/// How long the other agent may take for one message that is due.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// Why two agents do not understand each other.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The system refuses.
    #[error("the connection between the agents failed: {0}")]
    Io(#[from] io::Error),
    /// The other process is gone, or gave up.
    #[error("the other agent closed the connection")]
    Closed,
    /// It does not answer.
    #[error("the other agent did not answer within {} s", PATIENCE.as_secs())]
    Silent,
    /// It belongs to somebody who must not have the node's connections.
    #[error("a process of user {uid} is at the other end; only root may hand pods over or take them")]
    Stranger {
        /// Its user.
        uid: u32,
    },
    /// It says what was not to be said now.
    #[error("the other agent does not follow the protocol: {0}")]
    Protocol(String),
}

/// One end of the connection: a SOCK_SEQPACKET socket, which keeps messages apart. tokio has no type of
/// its own for those; that of streams only waits for the descriptor.
#[derive(Debug)]
pub(super) struct Channel {
    socket: UnixStream,
}

impl Channel {
    /// Connects to the agent that listens at `path`.
    ///
    /// # Errors
    /// When nobody does.
    pub(super) fn connect(path: &Path) -> Result<Self, ChannelError> {
        let socket = Socket::new(Domain::UNIX, Type::SEQPACKET.nonblocking().cloexec(), None)?;
        socket.connect(&SockAddr::unix(path)?)?;
        let socket = net::UnixStream::from(OwnedFd::from(socket));
        Self::of(UnixStream::from_std(socket)?)
    }

    /// Takes over a connected socket, whose other end must be a process of root.
    ///
    /// # Errors
    /// When it is not.
    pub(super) fn of(socket: UnixStream) -> Result<Self, ChannelError> {
        match socket.peer_cred()?.uid() {
            0 => Ok(Self { socket }),
            uid => Err(ChannelError::Stranger { uid }),
        }
    }

    /// Sends a message with at most [`MAX_DESCRIPTORS`].
    ///
    /// # Errors
    /// When the other end is gone or does not read.
    pub(super) async fn send(
        &self,
        message: &impl Serialize,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(), ChannelError> {
        let text = serde_json::to_vec(message).map_err(io::Error::from)?;
        let sending = self.socket.async_io(Interest::WRITABLE, || send(&self.socket, &text, descriptors));
        match timeout(PATIENCE, sending).await.map_err(|_| ChannelError::Silent)? {
            Err(error) if is_closed(&error) => Err(ChannelError::Closed),
            sent => Ok(sent?),
        }
    }

    /// The next message, which may come at any time.
    ///
    /// # Errors
    /// When the other end is gone, or sends something else.
    pub(super) async fn receive<M: DeserializeOwned>(&self) -> Result<(M, Vec<OwnedFd>), ChannelError> {
        let received = self.socket.async_io(Interest::READABLE, || receive(&self.socket)).await;
        let (text, descriptors) = match received {
            Err(error) if is_closed(&error) => return Err(ChannelError::Closed),
            received => received?,
        };
        if text.is_empty() {
            return Err(ChannelError::Closed);
        }
        let message = serde_json::from_slice(&text).map_err(|error| {
            ChannelError::Protocol(format!("{error} in {:?}", String::from_utf8_lossy(&text)))
        })?;
        Ok((message, descriptors))
    }

    /// The next message, which is due.
    ///
    /// # Errors
    /// As [`Self::receive`], and when none comes.
    pub(super) async fn receive_soon<M: DeserializeOwned>(&self) -> Result<(M, Vec<OwnedFd>), ChannelError> {
        timeout(PATIENCE, self.receive()).await.map_err(|_| ChannelError::Silent)?
    }

    /// The connection without its messages: it shows when the other process ends.
    ///
    /// # Errors
    /// When there is no descriptor left.
    pub(super) fn line(&self) -> io::Result<net::UnixStream> {
        Ok(net::UnixStream::from(self.socket.as_fd().try_clone_to_owned()?))
    }
}

fn send(socket: &UnixStream, text: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::other("more descriptors than one message may carry"));
    }
    sendmsg(socket, &[IoSlice::new(text)], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

fn receive(socket: &UnixStream) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut text = vec![0; MAX_OCTETS];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC;
    let received = recvmsg(socket, &mut [IoSliceMut::new(&mut text)], &mut control, flags)?;
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    // The kernel drops descriptors that the process has no room for, and says so here only.
    if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(io::Error::other("a message was cut short: is the process out of descriptors?"));
    }
    text.truncate(received.bytes);
    Ok((text, descriptors))
}

fn is_closed(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

/// Descriptors of what is passed.
pub(super) fn borrowed<T: AsFd>(passed: &[T]) -> Vec<BorrowedFd<'_>> {
    passed.iter().map(AsFd::as_fd).collect()
}
