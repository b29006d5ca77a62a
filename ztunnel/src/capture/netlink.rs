//! Netlink: messages as bytes, and a socket that sends them and reads the answers.
//!
//! What the messages mean is written in [`nftables`](super::nftables) and
//! [`routing`](super::routing). Formats: netlink(7), and `linux/netlink.h`.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};

/// Octets of a message header: length, type, flags, sequence number, port.
const HEADER: usize = 16;
/// Octets of an attribute's header: length, type.
const ATTRIBUTE_HEADER: usize = 4;
/// Set in an attribute's type when its value is attributes.
const NESTED: u16 = 0x8000;
/// The largest answer the kernel makes in one piece is 32 KiB.
const RECEIVE_BUFFER: usize = 64 * 1024;

/// An answer to one question is a few hundred octets.
const ANSWER_BUFFER: usize = 4096;

/// Attributes in the order they were added.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Attributes(Vec<u8>);

impl Attributes {
    pub(super) fn new() -> Self {
        Self::default()
    }

    pub(super) fn bytes(mut self, kind: u16, value: &[u8]) -> Self {
        let length = u16::try_from(ATTRIBUTE_HEADER + value.len())
            .expect("no attribute here is longer than one rule, which is less than 1 KiB");
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    pub(super) fn text(self, kind: u16, value: &str) -> Self {
        self.bytes(kind, &[value.as_bytes(), b"\0"].concat())
    }

    /// A number as netfilter writes it.
    pub(super) fn big_endian(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    /// A number as routing writes it.
    pub(super) fn native(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_ne_bytes())
    }

    pub(super) fn nested(self, kind: u16, value: &Self) -> Self {
        self.bytes(kind | NESTED, &value.0)
    }

    #[cfg(test)]
    pub(super) fn as_slice(&self) -> &[u8] {
        &self.0
    }
}

/// One message, and what it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    /// What the message does, for errors: "add table ambit".
    pub(super) purpose: String,
    pub(super) kind: u16,
    pub(super) flags: u16,
    /// The fixed part that follows the header, then the attributes.
    pub(super) body: Vec<u8>,
}

impl Message {
    pub(super) fn new(purpose: impl Into<String>, kind: u16, flags: i32, fixed: &[u8]) -> Self {
        let flags = u16::try_from(flags).expect("netlink flags are 16 bits");
        Self { purpose: purpose.into(), kind, flags, body: fixed.to_vec() }
    }

    pub(super) fn with(mut self, attributes: &Attributes) -> Self {
        self.body.extend_from_slice(&attributes.0);
        self
    }

    fn write(&self, sequence: u32, into: &mut Vec<u8>) {
        let length = u32::try_from(HEADER + self.body.len()).expect("a message is far below 4 GiB");
        into.extend_from_slice(&length.to_ne_bytes());
        into.extend_from_slice(&self.kind.to_ne_bytes());
        into.extend_from_slice(&(self.flags | flag(libc::NLM_F_REQUEST)).to_ne_bytes());
        into.extend_from_slice(&sequence.to_ne_bytes());
        into.extend_from_slice(&0_u32.to_ne_bytes());
        into.extend_from_slice(&self.body);
        into.resize(into.len().next_multiple_of(4), 0);
    }
}

/// A message that the kernel refused.
#[derive(Debug, thiserror::Error)]
#[error("the kernel refused to {purpose}")]
pub struct Refused {
    /// What the message was to do.
    pub purpose: String,
    /// The kernel's answer.
    pub source: io::Error,
}

impl Refused {
    /// Whether the kernel's answer is one of `errnos`.
    pub(super) fn is(&self, errnos: &[Errno]) -> bool {
        self.source.raw_os_error().is_some_and(|code| errnos.contains(&Errno::from_raw(code)))
    }
}

/// A netlink socket in the network namespace that the thread was in when it was opened.
pub(super) struct Socket(OwnedFd);

impl Socket {
    pub(super) fn open(protocol: SockProtocol) -> Result<Self, Refused> {
        socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)
            .map(Self)
            .map_err(|errno| refused("open a netlink socket", errno))
    }

    /// Sends the messages in one datagram and reports the first that failed. The last message that
    /// asks for an acknowledgement must get one.
    pub(super) fn execute(&self, messages: &[Message]) -> Result<(), Refused> {
        let mut datagram = Vec::new();
        for (message, sequence) in messages.iter().zip(1..) {
            message.write(sequence, &mut datagram);
        }
        let purpose = |sequence: u32| {
            let index = usize::try_from(sequence).unwrap_or(0).saturating_sub(1);
            messages.get(index).map_or("apply a message", |message| message.purpose.as_str())
        };
        send(self.0.as_raw_fd(), &datagram, MsgFlags::empty()).map_err(|errno| refused(purpose(1), errno))?;
        let answers = self.answers().map_err(|errno| refused("answer", errno))?;
        if let Some((sequence, errno)) = answers.iter().find(|(_, errno)| *errno != 0) {
            return Err(refused(purpose(*sequence), Errno::from_raw(*errno)));
        }
        let awaited =
            messages.iter().zip(1..).filter(|(message, _)| message.flags & flag(libc::NLM_F_ACK) != 0).last();
        match awaited {
            Some((message, sequence)) if !answers.iter().any(|answer| answer.0 == sequence) => {
                Err(refused(&message.purpose, Errno::ENOMSG))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// The sequence number and errno of each answer. The kernel answers before `send` returns, so
    /// an empty queue is the end.
    fn answers(&self) -> Result<Vec<(u32, i32)>, Errno> {
        let mut answers = Vec::new();
        let mut buffer = vec![0; RECEIVE_BUFFER];
        loop {
            match recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(length) => {
                    for part in messages(buffer.get(..length).unwrap_or_default()) {
                        if let Some(errno) = part.error() {
                            answers.push((part.sequence, errno));
                        }
                    }
                }
                Err(Errno::EAGAIN) => return Ok(answers),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno),
            }
        }
    }

    /// Asks one question. The kernel answers before `send` returns, so that this never waits: `answer`
    /// gets the body of what it says.
    pub(super) fn ask(&self, request: &Message, mut answer: impl FnMut(&[u8])) -> Result<(), Refused> {
        let failed = |errno| refused(&request.purpose, errno);
        let mut datagram = Vec::new();
        request.write(1, &mut datagram);
        send(self.0.as_raw_fd(), &datagram, MsgFlags::MSG_DONTWAIT).map_err(failed)?;
        let mut buffer = [0; ANSWER_BUFFER];
        let length = recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT).map_err(failed)?;
        for part in messages(buffer.get(..length).unwrap_or_default()) {
            match part.error() {
                Some(0) => {}
                Some(errno) => return Err(failed(Errno::from_raw(errno))),
                None => answer(part.body),
            }
        }
        Ok(())
    }

    /// Asks for a list and calls `each` with the body of every entry.
    pub(super) fn dump(&self, request: &Message, mut each: impl FnMut(&[u8])) -> Result<(), Refused> {
        let failed = |errno| refused(&request.purpose, errno);
        let mut datagram = Vec::new();
        request.write(1, &mut datagram);
        send(self.0.as_raw_fd(), &datagram, MsgFlags::empty()).map_err(failed)?;
        let mut buffer = vec![0; RECEIVE_BUFFER];
        loop {
            let length = match recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Err(Errno::EINTR) => continue,
                received => received.map_err(failed)?,
            };
            for part in messages(buffer.get(..length).unwrap_or_default()) {
                match part.error() {
                    Some(0) => return Ok(()),
                    Some(errno) => return Err(failed(Errno::from_raw(errno))),
                    None => each(part.body),
                }
            }
        }
    }
}

fn refused(purpose: &str, errno: Errno) -> Refused {
    Refused { purpose: purpose.to_owned(), source: errno.into() }
}

fn flag(value: i32) -> u16 {
    u16::try_from(value).expect("netlink flags are 16 bits")
}

/// One message of an answer.
struct Part<'a> {
    kind: u16,
    sequence: u32,
    body: &'a [u8],
}

impl Part<'_> {
    /// The errno of an answer that ends a request, 0 for success; nothing for an entry of a list.
    fn error(&self) -> Option<i32> {
        match i32::from(self.kind) {
            libc::NLMSG_DONE => Some(0),
            libc::NLMSG_ERROR => {
                Some(read_u32(self.body, 0).map_or(libc::EBADMSG, |code| code.cast_signed().wrapping_neg()))
            }
            _ => None,
        }
    }
}

fn messages(mut datagram: &[u8]) -> impl Iterator<Item = Part<'_>> {
    std::iter::from_fn(move || {
        let length = usize::try_from(read_u32(datagram, 0)?).ok()?;
        let part = Part {
            kind: read_u16(datagram, 4)?,
            sequence: read_u32(datagram, 8)?,
            body: datagram.get(HEADER..length)?,
        };
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(part)
    })
}

/// The type, without flags, and value of each attribute.
pub(super) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(read_u16(bytes, 0)?);
        let kind = read_u16(bytes, 2)? & !NESTED;
        let value = bytes.get(ATTRIBUTE_HEADER..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

pub(super) fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn read_u16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_to_four_octets() {
        let nested = Attributes::new().text(1, "ab");
        let all = Attributes::new().big_endian(2, 1).nested(3, &nested);
        let mut expected = Vec::new();
        expected.extend_from_slice(&8_u16.to_ne_bytes());
        expected.extend_from_slice(&2_u16.to_ne_bytes());
        expected.extend_from_slice(&[0, 0, 0, 1]);
        expected.extend_from_slice(&12_u16.to_ne_bytes());
        expected.extend_from_slice(&(3 | NESTED).to_ne_bytes());
        expected.extend_from_slice(&7_u16.to_ne_bytes());
        expected.extend_from_slice(&1_u16.to_ne_bytes());
        expected.extend_from_slice(b"ab\0\0");
        assert_eq!(all.as_slice(), expected);
    }

    #[test]
    fn what_is_written_is_read_back() {
        let written = Attributes::new().text(1, "ab").nested(2, &Attributes::new().native(5, 7));
        let read: Vec<_> = attributes(written.as_slice()).collect();
        assert_eq!(read[0], (1, &b"ab\0"[..]));
        assert_eq!(read[1].0, 2);
        assert_eq!(attributes(read[1].1).next().unwrap().1, 7_u32.to_ne_bytes());
    }

    #[test]
    fn a_cut_off_answer_ends_the_reading() {
        let mut bytes = Vec::new();
        Message::new("x", 9, 0, &[1, 2, 3, 4]).write(5, &mut bytes);
        Message::new("y", 9, 0, &[1, 2, 3, 4]).write(6, &mut bytes);
        for length in 0..bytes.len() {
            assert_eq!(messages(&bytes[..length]).count(), length / 20);
        }
        assert_eq!(messages(&bytes).map(|part| part.sequence).collect::<Vec<_>>(), [5, 6]);
    }
}
