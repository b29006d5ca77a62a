//! What an eavesdropper between the nodes sees.
//!
//! Packets are read from every interface of the fabric and judged as they pass; nothing is stored,
//! so that a long transfer can be watched whole.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use memchr::memmem::Finder;
use socket2::{Domain, Protocol, Socket, Type};

use crate::mesh::fabric::CONTROL;

/// Octets; a burst of the fabric fits while the reading thread is not scheduled.
const SOCKET_BUFFER: usize = 256 << 20;

/// Ends the capture: everything sent before it has been read when it is.
const SENTINEL: &[u8] = b"ambit: nothing after this packet is of interest";

/// TLS 1.3 on the wire. RFC 8446 §4.2.1.
pub const TLS_1_3: u16 = 0x0304;

/// A running capture.
#[derive(Debug)]
pub struct Capture {
    reader: JoinHandle<Result<Seen>>,
}

/// What was seen.
#[derive(Debug, Default)]
pub struct Seen {
    /// Packets read; one that passes several interfaces counts on each.
    pub packets: u64,
    /// Packets that held the marker.
    pub marked: u64,
    /// Ends of every TCP packet, source first.
    pub flows: BTreeSet<Flow>,
    /// Those that somebody tried to open: of packets with SYN alone.
    pub opened: BTreeSet<Flow>,
    /// Versions that servers chose, from every ServerHello.
    pub tls_versions: BTreeSet<u16>,
}

/// The ends of a TCP packet, source first.
pub type Flow = (SocketAddr, SocketAddr);

impl Seen {
    /// TCP flows between nodes that use no port of the mesh's tunnels. Control's are not between
    /// nodes.
    pub fn flows_beside_hbone(&self) -> Vec<Flow> {
        let is_control = |end: &SocketAddr| end.ip() == IpAddr::from(CONTROL);
        let beside = |(one, other): &&Flow| {
            one.port() != 15008 && other.port() != 15008 && !is_control(one) && !is_control(other)
        };
        self.flows.iter().filter(beside).copied().collect()
    }
}

impl Capture {
    /// Starts to look for `marker`.
    ///
    /// # Errors
    /// When packets cannot be read.
    pub fn start(marker: &str) -> Result<Self> {
        let every_protocol = Protocol::from(i32::from((libc::ETH_P_ALL as u16).to_be()));
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(every_protocol))?;
        set_buffer(&socket)?;
        socket.set_read_timeout(Some(Duration::from_secs(60)))?;
        let marker = Finder::new(marker.as_bytes()).into_owned();
        Ok(Self { reader: thread::spawn(move || read(&socket, &marker)) })
    }

    /// Ends the capture when everything sent so far has been read.
    ///
    /// # Errors
    /// When a packet was lost: then nothing can be said of what was not on the wire.
    pub fn finish(self) -> Result<Seen> {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.send_to(SENTINEL, (Ipv4Addr::new(10, 200, 0, 1), 9))?;
        self.reader.join().map_err(|panic| anyhow!("the capture panicked: {panic:?}"))?
    }
}

fn read(mut socket: &Socket, marker: &Finder<'_>) -> Result<Seen> {
    let sentinel = Finder::new(SENTINEL);
    let mut seen = Seen::default();
    let mut buffer = vec![0; 1 << 18];
    loop {
        let length = match socket.read(&mut buffer) {
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error).context("no end of the capture was seen on the fabric"),
        };
        let packet = &buffer[..length];
        if length < 256 && sentinel.find(packet).is_some() {
            break;
        }
        seen.packets += 1;
        seen.marked += u64::from(marker.find(packet).is_some());
        if let Some(segment) = tcp(packet) {
            seen.flows.insert(segment.flow);
            if segment.flags & (SYN | ACK) == SYN {
                seen.opened.insert(segment.flow);
            }
            seen.tls_versions.extend(server_hello_version(segment.payload));
        }
    }
    let lost = lost_packets(socket)?;
    ensure!(lost == 0, "the capture lost {lost} packets");
    Ok(seen)
}

/// RFC 9293 §3.1.
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

struct Segment<'a> {
    flow: Flow,
    flags: u8,
    payload: &'a [u8],
}

/// Reads an Ethernet frame that carries TCP.
fn tcp(frame: &[u8]) -> Option<Segment<'_>> {
    let (kind, packet) = (frame.get(12..14)?, frame.get(14..)?);
    let (source, destination, segment) = match kind {
        [0x08, 0x00] if packet.get(9) == Some(&6) => {
            let header = usize::from(packet[0] & 0x0f) * 4;
            let address =
                |at: usize| Some(Ipv4Addr::from(<[u8; 4]>::try_from(packet.get(at..at + 4)?).ok()?).into());
            (address(12)?, address(16)?, packet.get(header..)?)
        }
        // Nothing on the fabric puts extension headers before TCP.
        [0x86, 0xdd] if packet.get(6) == Some(&6) => {
            let address =
                |at: usize| Some(Ipv6Addr::from(<[u8; 16]>::try_from(packet.get(at..at + 16)?).ok()?).into());
            (address(8)?, address(24)?, packet.get(40..)?)
        }
        _ => return None,
    };
    let port = |at: usize| Some(u16::from_be_bytes([*segment.get(at)?, *segment.get(at + 1)?]));
    let flow = (SocketAddr::new(source, port(0)?), SocketAddr::new(destination, port(2)?));
    let header = usize::from(segment.get(12)? >> 4) * 4;
    Some(Segment { flow, flags: *segment.get(13)?, payload: segment.get(header..)? })
}

/// The version that a server chose, where `payload` begins with its ServerHello.
///
/// RFC 8446 §4.1.3; the version itself is in the extension of §4.2.1, and in `legacy_version` for
/// older protocols.
fn server_hello_version(payload: &[u8]) -> Option<u16> {
    const HANDSHAKE: u8 = 22;
    const SERVER_HELLO: u8 = 2;
    const SUPPORTED_VERSIONS: u16 = 43;
    let number = |at: usize| Some(u16::from_be_bytes([*payload.get(at)?, *payload.get(at + 1)?]));
    // A segment of a long transfer begins anywhere in a record, with any octets: two alone are met by one in 65,536.
    let is_hello = payload.first() == Some(&HANDSHAKE)
        && payload.get(1) == Some(&3)
        && payload.get(5..7) == Some(&[SERVER_HELLO, 0])
        && payload.get(9) == Some(&3);
    if !is_hello {
        return None;
    }
    let legacy = number(9)?;
    // Record header 5, handshake header 4, version 2, random 32; then session id, suite 2,
    // compression 1 and the length of the extensions.
    let session = usize::from(*payload.get(43)?);
    let mut at = 44 + session + 3 + 2;
    while let (Some(kind), Some(length)) = (number(at), number(at + 2)) {
        if kind == SUPPORTED_VERSIONS {
            return number(at + 4);
        }
        at += 4 + usize::from(length);
    }
    Some(legacy)
}

fn set_buffer(socket: &Socket) -> Result<()> {
    // Beyond the limit that net.core.rmem_max sets for ordinary users.
    nix::sys::socket::setsockopt(socket, nix::sys::socket::sockopt::RcvBufForce, &SOCKET_BUFFER)
        .context("the buffer of the capture cannot be enlarged")
}

#[expect(unsafe_code, reason = "no safe API reads PACKET_STATISTICS")]
fn lost_packets(socket: &Socket) -> Result<u32> {
    let mut statistics = libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
    let mut length = libc::socklen_t::try_from(size_of::<libc::tpacket_stats>())?;
    // SAFETY: the pointers are to a live value of the size given and to its size; the kernel writes
    // at most that much.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_STATISTICS,
            (&raw mut statistics).cast(),
            &raw mut length,
        )
    };
    if result != 0 {
        bail!("the capture cannot tell its losses: {}", std::io::Error::last_os_error());
    }
    Ok(statistics.tp_drops)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(extensions: &[u8]) -> Vec<u8> {
        let mut record = vec![22, 3, 3, 0, 0, 2, 0, 0, 0, 3, 3];
        record.extend([7; 32]);
        record.push(0);
        record.extend([0x13, 0x02, 0]);
        record.extend(u16::try_from(extensions.len()).unwrap().to_be_bytes());
        record.extend(extensions);
        record
    }

    #[test]
    fn the_version_is_the_one_the_server_chose() {
        assert_eq!(server_hello_version(&hello(&[0, 51, 0, 1, 9, 0, 43, 0, 2, 3, 4])), Some(TLS_1_3));
        assert_eq!(server_hello_version(&hello(&[])), Some(0x0303));
        assert_eq!(
            server_hello_version(b"HTTP/1.1 200 OK\r\n\r\nhello, this is not TLS at all, is it?"),
            None
        );
        // What is encrypted may begin with what a handshake begins with.
        let mut ciphertext = [0x5a; 1400];
        (ciphertext[0], ciphertext[5]) = (22, 2);
        assert_eq!(server_hello_version(&ciphertext), None);
    }

    #[test]
    fn a_tcp_packet_names_its_ends() {
        let mut frame = vec![0; 12];
        frame.extend([8, 0, 0x45, 0, 0, 0, 0, 0, 0, 0, 64, 6, 0, 0, 10, 10, 1, 2, 10, 10, 2, 2]);
        frame.extend([0x3a, 0xa0, 0x1f, 0x90, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, SYN, 0, 0, 0, 0, 0, 0]);
        frame.extend(b"payload");
        let Segment { flow: (source, destination), flags, payload } = tcp(&frame).unwrap();
        assert_eq!(
            (source.to_string(), destination.to_string()),
            ("10.10.1.2:15008".into(), "10.10.2.2:8080".into())
        );
        assert_eq!((flags, payload), (SYN, b"payload".as_slice()));
    }
}
