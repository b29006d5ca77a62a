//! Carries octets between two plain sockets: passthrough out of a pod, and plaintext into one.
//!
//! Half-close is kept; anything but two orderly ends becomes a reset on both sides. How octets move is
//! [`direction`]'s.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use ambit_hbone::buffer::BufferPool;
use ambit_hbone::relay::{IdleLimits, Stop};
use ambit_hbone::socket::Socket;
use tokio::time::{Instant, Sleep, sleep};

mod direction;
mod pipe;

use direction::{Direction, Failed};
pub use pipe::PipePool;

/// How a plain connection ended, and what it carried.
#[derive(Debug)]
pub struct SpliceEnd<S> {
    /// Octets from the downstream socket (who connected to us) to the upstream one.
    pub to_upstream: u64,
    /// Octets from the upstream socket to the downstream one.
    pub to_downstream: u64,
    /// Why it ended.
    pub cause: SpliceCause<S>,
}

/// Why a plain connection ended.
#[derive(Debug)]
pub enum SpliceCause<S> {
    /// Both directions ended in good order.
    Finished,
    /// The socket of who connected to us failed.
    Downstream(std::io::Error),
    /// The socket we connected failed.
    Upstream(std::io::Error),
    /// It was silent for longer than its limits allow.
    Idle,
    /// Its owner stopped it.
    Stopped(S),
}

/// Relays until both directions have ended or something stops it.
pub async fn splice<S>(
    downstream: Socket,
    upstream: Socket,
    memory: Memory,
    limits: IdleLimits,
    stop: Stop<S>,
) -> SpliceEnd<S> {
    Splice {
        downstream,
        upstream,
        memory,
        limits,
        stop,
        to_upstream: Direction::default(),
        to_downstream: Direction::default(),
        idle: Box::pin(sleep(limits.open)),
        carried_at_timer: 0,
    }
    .await
}

/// Where octets wait between the sockets: one worker's, borrowed while they do.
#[derive(Clone, Default)]
pub struct Memory {
    /// For those that are copied.
    pub buffers: BufferPool,
    /// For those that are not.
    pub pipes: PipePool,
}

struct Splice<S> {
    downstream: Socket,
    upstream: Socket,
    memory: Memory,
    limits: IdleLimits,
    stop: Stop<S>,
    to_upstream: Direction,
    to_downstream: Direction,
    idle: Pin<Box<Sleep>>,
    carried_at_timer: u64,
}

impl<S> Splice<S> {
    fn poll_cause(&mut self, cx: &mut Context<'_>) -> Poll<SpliceCause<S>> {
        if let Poll::Ready(reason) = self.stop.poll_stopped(cx) {
            return Poll::Ready(SpliceCause::Stopped(reason));
        }
        let (down, up) = (&self.downstream, &self.upstream);
        let forward = self.to_upstream.poll(cx, down, up, &self.memory);
        let back = self.to_downstream.poll(cx, up, down, &self.memory);
        match (forward, back) {
            (Poll::Ready(Err(Failed::Reading(error))), _) | (_, Poll::Ready(Err(Failed::Writing(error)))) => {
                Poll::Ready(SpliceCause::Downstream(error))
            }
            (Poll::Ready(Err(Failed::Writing(error))), _) | (_, Poll::Ready(Err(Failed::Reading(error)))) => {
                Poll::Ready(SpliceCause::Upstream(error))
            }
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Poll::Ready(SpliceCause::Finished),
            (Poll::Ready(Ok(())) | Poll::Pending, Poll::Pending) | (Poll::Pending, Poll::Ready(Ok(()))) => {
                self.poll_idle(cx)
            }
        }
    }

    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<SpliceCause<S>> {
        while self.idle.as_mut().poll(cx).is_ready() {
            let carried = self.to_upstream.carried + self.to_downstream.carried;
            if carried == self.carried_at_timer {
                return Poll::Ready(SpliceCause::Idle);
            }
            self.carried_at_timer = carried;
            let limit = self.idle_limit();
            self.idle.as_mut().reset(Instant::now() + limit);
        }
        Poll::Pending
    }

    fn idle_limit(&self) -> Duration {
        if self.to_upstream.ended || self.to_downstream.ended {
            self.limits.half_closed
        } else {
            self.limits.open
        }
    }
}

impl<S> Unpin for Splice<S> {}

impl<S> Future for Splice<S> {
    type Output = SpliceEnd<S>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let Poll::Ready(cause) = this.poll_cause(cx) else { return Poll::Pending };
        if !matches!(cause, SpliceCause::Finished) {
            this.downstream.reset_on_close();
            this.upstream.reset_on_close();
        }
        Poll::Ready(SpliceEnd {
            to_upstream: this.to_upstream.carried,
            to_downstream: this.to_downstream.carried,
            cause,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{Shutdown, TcpListener, TcpStream};
    use std::thread;

    use super::*;

    /// Both ends of a connection over loopback.
    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (near, listener.accept().unwrap().0)
    }

    /// Carries one connection whose ends are driven by `work` in a thread of its own.
    async fn carry<T: Send + 'static>(
        memory: &Memory,
        work: impl FnOnce(TcpStream, TcpStream) -> T + Send + 'static,
    ) -> (SpliceEnd<()>, T) {
        let ((client, downstream), (upstream, server)) = (pair(), pair());
        let ends = tokio::task::spawn_blocking(move || work(client, server));
        let limits = IdleLimits { open: Duration::from_secs(60), half_closed: Duration::from_secs(60) };
        let (downstream, upstream) = (Socket::new(downstream).unwrap(), Socket::new(upstream).unwrap());
        let end = splice(downstream, upstream, memory.clone(), limits, Stop::default()).await;
        (end, ends.await.unwrap())
    }

    /// Octets that differ from place to place.
    fn octets(count: usize) -> Vec<u8> {
        (0..count).map(|index| (index % 251) as u8).collect()
    }

    #[tokio::test]
    async fn much_goes_through_a_pipe_and_arrives_whole_both_ways() {
        const COUNT: usize = 8 << 20;
        let memory = Memory::default();
        let (end, (there, back)) = carry(&memory, |mut client, mut server| {
            let (mut sender, mut answerer) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            let sending = thread::spawn(move || {
                sender.write_all(&octets(COUNT)).unwrap();
                sender.shutdown(Shutdown::Write).unwrap();
            });
            let answering = thread::spawn(move || {
                answerer.write_all(&octets(COUNT)).unwrap();
                answerer.shutdown(Shutdown::Write).unwrap();
            });
            let reading = thread::spawn(move || {
                let mut there = Vec::new();
                server.read_to_end(&mut there).unwrap();
                there
            });
            let mut back = Vec::new();
            client.read_to_end(&mut back).unwrap();
            sending.join().unwrap();
            answering.join().unwrap();
            (reading.join().unwrap(), back)
        })
        .await;
        assert!(matches!(end.cause, SpliceCause::Finished), "{:?}", end.cause);
        assert_eq!((end.to_upstream, end.to_downstream), (COUNT as u64, COUNT as u64));
        assert!(there == octets(COUNT) && back == octets(COUNT), "octets were lost or changed");
        assert!(memory.pipes.free() > 0, "no pipe was used, or it was not given back");
    }

    #[tokio::test]
    async fn little_is_copied_and_no_pipe_is_made_for_it() {
        let memory = Memory::default();
        let (end, answer) = carry(&memory, |mut client, mut server| {
            let mut received = [0; 5];
            for _ in 0..100 {
                client.write_all(b"hello").unwrap();
                server.read_exact(&mut received).unwrap();
                server.write_all(&received).unwrap();
                client.read_exact(&mut received).unwrap();
            }
            received
        })
        .await;
        assert!(matches!(end.cause, SpliceCause::Finished), "{:?}", end.cause);
        assert_eq!((end.to_upstream, &answer), (500, b"hello"));
        assert_eq!(memory.pipes.free(), 0);
    }

    #[tokio::test]
    async fn a_reader_that_is_slow_gets_everything_and_then_the_end() {
        const COUNT: usize = 4 << 20;
        let memory = Memory::default();
        let (end, received) = carry(&memory, |mut client, mut server| {
            let sending = thread::spawn(move || client.write_all(&octets(COUNT)).unwrap());
            let mut received = Vec::new();
            let mut piece = vec![0; 1000];
            // The pipe stays filled between reads, since the socket behind it does.
            while let Ok(read @ 1..) = server.read(&mut piece) {
                received.extend_from_slice(&piece[..read]);
            }
            sending.join().unwrap();
            received
        })
        .await;
        assert!(matches!(end.cause, SpliceCause::Finished), "{:?}", end.cause);
        assert!(received == octets(COUNT), "octets were lost or changed");
    }

    #[tokio::test]
    async fn a_reset_in_the_middle_of_a_splice_is_never_an_end() {
        let memory = Memory::default();
        let (end, read) = carry(&memory, |mut client, mut server| {
            let mut first = vec![0; 1 << 20];
            let sending = thread::spawn(move || {
                client.write_all(&octets(1 << 20)).unwrap();
                client
            });
            server.read_exact(&mut first).unwrap();
            let client = sending.join().unwrap();
            socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
            drop(client);
            server.read(&mut first)
        })
        .await;
        assert!(matches!(end.cause, SpliceCause::Downstream(_)), "{:?}", end.cause);
        assert!(read.is_err(), "the server saw an orderly end");
    }
}
