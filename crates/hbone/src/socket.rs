//! A non-blocking TCP socket whose readiness is kept by the worker that owns it.
//!
//! Both a flow and the driver of its tunnel touch the application's socket, on one thread: reads and
//! writes take `&self`. A read that came back short means that the kernel has no more, so readiness
//! is cleared without asking again; that saves one system call per message.

use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{SocketFlags, acceptfrom_with};
use rustix::pipe::{SpliceFlags, splice};
use tokio::io::unix::AsyncFd;

/// One end of a TCP connection.
#[derive(Debug)]
pub struct Socket {
    inner: AsyncFd<TcpStream>,
}

impl Socket {
    /// Takes a connected or connecting socket over. Must be called inside the worker's runtime.
    ///
    /// # Errors
    /// When the socket cannot be made non-blocking or registered.
    pub fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Self::of_nonblocking(stream)
    }

    /// The same for a socket that was made non-blocking: one system call less.
    ///
    /// # Errors
    /// When the socket cannot be registered.
    pub fn of_nonblocking(stream: TcpStream) -> io::Result<Self> {
        Ok(Self { inner: register(stream)? })
    }

    /// Waits until a connection in progress is established. Within one machine it already is, and
    /// then the worker takes no turn for it.
    ///
    /// # Errors
    /// The error that the connection attempt ended with.
    pub async fn connected(&self) -> io::Result<()> {
        while !self.is_connected()? {
            let mut guard = self.inner.writable().await?;
            if let Some(error) = self.get().take_error()? {
                return Err(error);
            }
            if !self.is_connected()? {
                guard.clear_ready();
            }
        }
        Ok(())
    }

    fn is_connected(&self) -> io::Result<bool> {
        match self.get().peer_addr() {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Reads into `room`; `Ok(0)` is the end of what the peer sends.
    ///
    /// # Errors
    /// The socket's error.
    pub fn poll_read(&self, cx: &mut Context<'_>, room: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.inner.poll_read_ready(cx))?;
            match self.get().read(room) {
                Ok(n) => {
                    if n > 0 && n < room.len() {
                        guard.clear_ready();
                    }
                    return Poll::Ready(Ok(n));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => guard.clear_ready(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Reads what is there without registering anybody; `None` when nothing is.
    ///
    /// # Errors
    /// The socket's error.
    pub fn read_now(&self, room: &mut [u8]) -> io::Result<Option<usize>> {
        loop {
            match self.get().read(room) {
                Ok(n) => return Ok(Some(n)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Whether reading makes sense now; registers the task otherwise. Lets a caller borrow memory
    /// only when there is something to read.
    ///
    /// # Errors
    /// When the runtime is shutting down.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.inner.poll_read_ready(cx))?.retain_ready();
        Poll::Ready(Ok(()))
    }

    /// Writes what fits now; `Pending` when nothing does, with the task registered.
    ///
    /// # Errors
    /// The socket's error.
    pub fn poll_write(&self, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.inner.poll_write_ready(cx))?;
            match self.get().write(octets) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => guard.clear_ready(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => return Poll::Ready(other),
            }
        }
    }

    /// Moves up to `max` octets from the socket into an empty pipe without copying them; `Ok(0)` is the
    /// end of what the peer sends.
    ///
    /// # Errors
    /// The socket's error.
    pub fn poll_splice_into(
        &self,
        cx: &mut Context<'_>,
        pipe: impl AsFd,
        max: usize,
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.inner.poll_read_ready(cx))?;
            // The pipe is empty, so that only the socket can be what would block.
            match splice(self.get(), None, &pipe, None, max, SPLICE) {
                Err(Errno::WOULDBLOCK) => guard.clear_ready(),
                Err(Errno::INTR) => {}
                other => return Poll::Ready(other.map_err(Into::into)),
            }
        }
    }

    /// Moves up to `max` octets, that wait in a pipe, to the socket; `Pending` when it takes nothing.
    ///
    /// # Errors
    /// The socket's error.
    pub fn poll_splice_from(
        &self,
        cx: &mut Context<'_>,
        pipe: impl AsFd,
        max: usize,
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.inner.poll_write_ready(cx))?;
            match splice(&pipe, None, self.get(), None, max, SPLICE) {
                Err(Errno::WOULDBLOCK) => guard.clear_ready(),
                Err(Errno::INTR) => {}
                other => return Poll::Ready(other.map_err(Into::into)),
            }
        }
    }

    /// Writes what fits now without registering anybody; 0 when nothing does.
    ///
    /// # Errors
    /// The socket's error.
    pub fn write_now(&self, octets: &[u8]) -> io::Result<usize> {
        self.write_vectored_now(&[IoSlice::new(octets)])
    }

    fn write_vectored_now(&self, octets: &[IoSlice<'_>]) -> io::Result<usize> {
        loop {
            match self.get().write_vectored(octets) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(0),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }

    /// Says that nothing more will be sent (FIN). A peer that is already gone is not an error.
    pub fn shutdown_write(&self) {
        // The only failure is a connection that no longer exists, which its reader reports.
        let _ = self.get().shutdown(Shutdown::Write);
    }

    /// Makes the coming close a reset (RST), so that the peer cannot take a cut for an end.
    pub fn reset_on_close(&self) {
        // Failing leaves an orderly close, of a socket that is already beyond repair.
        let _ = socket2::SockRef::from(self.get()).set_linger(Some(Duration::ZERO));
    }

    /// The far end's address.
    ///
    /// # Errors
    /// When the socket is not connected.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.get().peer_addr()
    }

    /// The near end's address.
    ///
    /// # Errors
    /// The socket's error.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.get().local_addr()
    }

    /// Octets of payload in the largest packet that the kernel hands to the network card, which cuts it
    /// into segments: what is written in multiples of it leaves no small packet behind each write.
    pub fn burst(&self) -> usize {
        // Without an answer any size does: at worst a small packet is left behind, as without this.
        let segment = socket2::SockRef::from(self.get()).tcp_mss().unwrap_or(1).max(1) as usize;
        (LARGEST_PACKET / segment).max(1) * segment
    }

    /// The socket itself, for options.
    pub fn get(&self) -> &TcpStream {
        self.inner.get_ref()
    }
}

/// A listening socket whose readiness is kept by the worker that owns it.
#[derive(Debug)]
pub struct Listener {
    inner: AsyncFd<TcpListener>,
}

impl Listener {
    /// Takes a listening socket over. Must be called inside the worker's runtime.
    ///
    /// # Errors
    /// When the socket cannot be made non-blocking or registered.
    pub fn new(listener: TcpListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self { inner: register(listener)? })
    }

    /// The next connection, not blocking, with the address that it came from. Connections that
    /// ended before they were accepted are passed over. What options it has, it has from the
    /// listening socket.
    ///
    /// # Errors
    /// Errors that are not the client's: out of descriptors, out of memory.
    pub async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        loop {
            let mut guard = self.inner.readable().await?;
            match accept_nonblocking(self.inner.get_ref()) {
                Ok(connection) => return Ok(connection),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => guard.clear_ready(),
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted
                    ) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The socket itself, for its address and for handing it to a successor.
    pub fn get(&self) -> &TcpListener {
        self.inner.get_ref()
    }
}

/// The standard library's `accept` cannot say that the new socket must not block, which would be
/// another system call.
fn accept_nonblocking(listener: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
    let (socket, peer) = acceptfrom_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
    let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok());
    // A TCP listener has no other clients; one that is gone already has no address left.
    Ok((socket.into(), peer.ok_or(io::ErrorKind::ConnectionAborted)?))
}

/// 64 KiB less the room that Linux keeps for headers (`MAX_TCP_HEADER`).
const LARGEST_PACKET: usize = 64 * 1024 - 320;

/// Neither end is waited for, and pages are moved where the kernel can.
const SPLICE: SpliceFlags = SpliceFlags::NONBLOCK.union(SpliceFlags::MOVE);

#[expect(
    unsafe_code,
    reason = "tokio cannot see that a standard socket keeps its descriptor while registered"
)]
fn register<T: AsRawFd>(socket: T) -> io::Result<AsyncFd<T>> {
    // SAFETY: the descriptor must stay the same and open while it is registered. Both callers pass a
    // standard library socket by value, which owns its descriptor and never changes it, and hand out
    // shared references only.
    Ok(unsafe { AsyncFd::register(socket)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_burst_is_as_many_whole_segments_as_one_packet_takes() {
        for segment in [536, 1448] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            socket2::SockRef::from(&listener).set_tcp_mss(segment).unwrap();
            let connected = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let agreed = socket2::SockRef::from(&connected).tcp_mss().unwrap() as usize;
            let burst = Socket::new(connected).unwrap().burst();
            assert_eq!(burst % agreed, 0, "segments of {agreed}");
            assert!(burst <= LARGEST_PACKET && burst + agreed > LARGEST_PACKET, "{burst} of {agreed}");
        }
    }
}
