//! A line between two interfaces, for kernels without an emulation of their own: it takes the frames of
//! one, holds each for a while, loses some, and sends the others out of the other one.
//!
//! Each way has a rate, as a real one has: what comes faster waits, and what finds the queue full is
//! lost. Two threads serve each way, by packet sockets.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::ifaddrs::getifaddrs;
use nix::sys::prctl;
use nix::sys::socket::{AddressFamily, LinkAddr, SockFlag, SockProtocol, SockType, bind, socket};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use socket2::SockRef;

/// What a way does to frames.
#[derive(Clone, Copy, Debug)]
pub(super) struct Nature {
    pub(super) bits_per_second: u64,
    pub(super) one_way: Duration,
    /// Of this many frames one is lost.
    pub(super) one_lost_of: u32,
}

/// The line. It ends with this value.
#[derive(Debug)]
pub(super) struct Line {
    ends: Arc<AtomicBool>,
    carried: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

/// A frame, and when it leaves the line.
type Held = (Instant, Vec<u8>);

/// So many frames wait on a way: 24 ms of its rate beside those that are under way.
const WAITING: u64 = 400;

/// How often a thread looks whether the line has ended.
const LOOK: Duration = Duration::from_millis(100);

/// The largest frame; larger ones mean that an interface leaves cutting to hardware.
const LARGEST: usize = 1514;

impl Line {
    /// Joins two interfaces of this network namespace by their names.
    ///
    /// # Errors
    /// When one does not exist or the kernel refuses.
    pub(super) fn between(one: &str, other: &str, nature: Nature) -> Result<Self> {
        let (ends, carried) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut threads = Vec::new();
        // One socket of an interface for both ways: another one would be shown what this one sends.
        let (one, other) = (Arc::new(open(one)?), Arc::new(open(other)?));
        for (seed, (from, to)) in (0..).zip([(&one, &other), (&other, &one)]) {
            let (hold, held) = sync_channel(nature.room());
            let (from, to) = (Arc::clone(from), Arc::clone(to));
            let (ending, count) = (Arc::clone(&ends), Arc::clone(&carried));
            let rng = StdRng::seed_from_u64(seed);
            threads.push(thread::spawn(move || take(&from, &hold, Way::new(nature, rng), &ending)));
            threads.push(thread::spawn(move || give(&to, &held, &count)));
        }
        Ok(Self { ends, carried, threads })
    }

    /// How many frames it has carried.
    pub(super) fn carried(&self) -> u64 {
        self.carried.load(Ordering::Relaxed)
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A panic of it has been printed; there is nothing else to do about it here.
            let _ = thread.join();
        }
    }
}

impl Nature {
    /// Frames that the line can hold: those under way, and those that wait.
    pub(super) fn room(self) -> usize {
        let under_way = self.bits_per_second as f64 / 8.0 / LARGEST as f64 * self.one_way.as_secs_f64();
        under_way as usize + WAITING as usize
    }

    fn takes(self, octets: usize) -> Duration {
        Duration::from_nanos(octets as u64 * 8 * 1_000_000_000 / self.bits_per_second)
    }
}

/// One way: decides what becomes of each frame.
struct Way {
    nature: Nature,
    rng: StdRng,
    free_at: Option<Instant>,
}

impl Way {
    fn new(nature: Nature, rng: StdRng) -> Self {
        Self { nature, rng, free_at: None }
    }

    /// When a frame that comes now leaves the line; never when it is lost.
    fn leaves_at(&mut self, octets: usize, now: Instant) -> Option<Instant> {
        let begins = self.free_at.map_or(now, |free| free.max(now));
        let sent = begins + self.nature.takes(octets);
        let waits = begins - now;
        if waits > self.nature.takes(LARGEST) * WAITING as u32 {
            return None;
        }
        self.free_at = Some(sent);
        let lost = self.rng.random_range(0..self.nature.one_lost_of) == 0;
        (!lost).then(|| sent + self.nature.one_way)
    }
}

fn open(interface: &str) -> Result<File> {
    let of_link = |entry: nix::ifaddrs::InterfaceAddress| {
        let link: LinkAddr = *entry.address?.as_link_addr()?;
        (entry.interface_name == interface).then_some(link)
    };
    let link = getifaddrs()?.find_map(of_link).with_context(|| format!("no interface {interface}"))?;
    let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::EthAll)?;
    bind(socket.as_raw_fd(), &link).with_context(|| format!("a packet socket on {interface}"))?;
    let options = SockRef::from(&socket);
    options.set_read_timeout(Some(LOOK))?;
    options.set_recv_buffer_size(8 << 20)?;
    options.set_send_buffer_size(8 << 20)?;
    Ok(File::from(socket))
}

fn take(mut from: &File, hold: &SyncSender<Held>, mut way: Way, ends: &AtomicBool) {
    let mut frame = vec![0; 1 << 16];
    while !ends.load(Ordering::Relaxed) {
        let octets = match from.read(&mut frame) {
            Ok(octets) => octets,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => continue,
            Err(error) => return eprintln!("the line breaks: {error}"),
        };
        let Some(at) = way.leaves_at(octets, Instant::now()) else { continue };
        match hold.try_send((at, frame[..octets].to_vec())) {
            // A full queue loses what comes.
            Ok(()) | Err(TrySendError::Full(_)) => {}
            Err(TrySendError::Disconnected(_)) => return,
        }
    }
}

fn give(mut to: &File, held: &Receiver<Held>, carried: &AtomicU64) {
    // The kernel would wake this thread up to 50 us late otherwise.
    if let Err(error) = prctl::set_timerslack(1) {
        return eprintln!("the line cannot keep its time: {error}");
    }
    while let Ok((at, frame)) = held.recv() {
        thread::sleep(at.saturating_duration_since(Instant::now()));
        match to.write(&frame) {
            Ok(_) => drop(carried.fetch_add(1, Ordering::Relaxed)),
            // A full interface loses what comes.
            Err(error) if error.raw_os_error() == Some(nix::libc::ENOBUFS) => {}
            Err(error) => return eprintln!("the line breaks at {} octets: {error}", frame.len()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NATURE: Nature = Nature {
        // A frame of 1,000 octets takes 80 us.
        bits_per_second: 100_000_000,
        one_way: Duration::from_millis(5),
        one_lost_of: u32::MAX,
    };

    fn way(nature: Nature) -> Way {
        Way::new(nature, StdRng::seed_from_u64(1))
    }

    #[test]
    fn frames_leave_at_the_rate_of_the_line_and_later_by_its_delay() {
        let (mut way, now) = (way(NATURE), Instant::now());
        let mut after = |at: Instant| way.leaves_at(1000, at).unwrap() - now;
        assert_eq!(after(now), Duration::from_micros(5080));
        assert_eq!(after(now), Duration::from_micros(5160));
        let later = now + Duration::from_secs(1);
        assert_eq!(after(later), Duration::from_micros(1_005_080));
    }

    #[test]
    fn what_waits_too_long_is_lost() {
        let (mut way, now) = (way(NATURE), Instant::now());
        let kept = (0..10_000).filter(|_| way.leaves_at(LARGEST, now).is_some()).count();
        assert_eq!(kept as u64, WAITING + 1);
    }

    #[test]
    fn one_of_a_thousand_is_lost() {
        let (mut way, now) = (way(Nature { one_lost_of: 1000, ..NATURE }), Instant::now());
        let spaced = (0..100_000).map(|number| now + Duration::from_millis(1) * number);
        let lost = spaced.filter(|at| way.leaves_at(1000, *at).is_none()).count();
        assert!((50..200).contains(&lost), "{lost}");
    }
}
