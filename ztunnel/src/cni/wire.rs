//! What the plugin and the agent say to each other: one packet each way on a Unix socket that keeps
//! packets apart, JSON, with the descriptor of the pod's network namespace beside the question.
//!
//! Neither side waits here: sockets are not blocking, and the sides wait in their own ways.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, recvmsg, sendmsg,
    socket_with,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The version of the questions and answers. The agent installs the plugin, so that the two differ for
/// the length of an upgrade.
pub const VERSION: u32 = 1;

/// Octets of a packet. Names in Kubernetes have 253 at most.
const LONGEST: usize = 4096;

/// What the plugin asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Question {
    /// [`VERSION`].
    pub version: u32,
    /// What the runtime wants.
    pub about: About,
    /// Which pod.
    pub pod: PodName,
    /// Which of the pod's sandboxes: it may lose one and get another.
    pub sandbox: String,
    /// How long the plugin waits for the answer, in milliseconds.
    pub wait_ms: u64,
}

/// What the runtime wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum About {
    /// A pod starts. With its namespace.
    Arrival,
    /// A pod ends.
    Departure,
    /// Whether a pod is as it was left. With its namespace.
    Check,
}

/// A pod as the runtime names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodName {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
}

/// What the agent answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "answer", content = "why")]
pub enum Answer {
    /// The pod is captured.
    Captured,
    /// The pod is not in the mesh.
    NotEnrolled,
    /// The agent does not know: why.
    Unknown(String),
    /// The pod is in the mesh and is not captured: why.
    Failed(String),
    /// There was nothing to answer.
    Noted,
}

/// A connection to the agent.
///
/// # Errors
/// When nobody listens there.
pub fn dial(path: &Path) -> io::Result<OwnedFd> {
    let socket = packets()?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket)
}

/// A socket that is neither connected nor bound.
pub(super) fn packets() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?)
}

/// Sends a message, and a descriptor with it.
///
/// # Errors
/// When the message is too long or the far end is gone; `WouldBlock` when it has to be sent later.
pub fn send<T: Serialize>(socket: impl AsFd, message: &T, descriptor: Option<&impl AsFd>) -> io::Result<()> {
    let octets = serde_json::to_vec(message)?;
    if octets.len() > LONGEST {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the message is longer than a packet"));
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors = descriptor.map(|descriptor| [descriptor.as_fd()]);
    if let Some(descriptors) = &descriptors {
        // There is room for one.
        control.push(SendAncillaryMessage::ScmRights(descriptors));
    }
    sendmsg(socket, &[IoSlice::new(&octets)], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Receives a message, and the descriptors that came with it.
///
/// # Errors
/// When it is none, when it did not fit, or when the far end is gone; `WouldBlock` when it is still to
/// come.
pub fn receive<T: DeserializeOwned>(socket: impl AsFd) -> io::Result<(T, Vec<OwnedFd>)> {
    let mut octets = [0; LONGEST];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received =
        recvmsg(socket, &mut [IoSliceMut::new(&mut octets)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let descriptors: Vec<OwnedFd> = control
        .drain()
        .filter_map(|message| {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message { Some(descriptors) } else { None }
        })
        .flatten()
        .collect();
    if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is longer than a message may be"));
    }
    if received.bytes == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let message = serde_json::from_slice(octets.get(..received.bytes).unwrap_or_default())?;
    Ok((message, descriptors))
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use rustix::net::socketpair;

    use super::*;

    fn pair() -> (OwnedFd, OwnedFd) {
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::NONBLOCK, None).unwrap()
    }

    fn question(name: &str) -> Question {
        let pod = PodName { namespace: "shop".into(), name: name.into(), uid: "uid-1".into() };
        Question { version: VERSION, about: About::Arrival, pod, sandbox: "c1".into(), wait_ms: 1500 }
    }

    const NO_FILE: Option<&File> = None;

    #[test]
    fn a_message_arrives_with_its_descriptor() {
        let (plugin, agent) = pair();
        let file = File::open("/dev/null").unwrap();
        send(&plugin, &question("web"), Some(&file)).unwrap();
        let (received, descriptors) = receive::<Question>(&agent).unwrap();
        assert_eq!((received, descriptors.len()), (question("web"), 1));
        for answer in [Answer::Captured, Answer::Failed("no".into()), Answer::Unknown("away".into())] {
            send(&agent, &answer, NO_FILE).unwrap();
            assert_eq!(receive::<Answer>(&plugin).unwrap().0, answer);
        }
    }

    /// The form is a contract between an agent and the plugin that another version of it installed.
    #[test]
    fn messages_are_written_as_they_always_were() {
        let text = |value: serde_json::Value| value.to_string();
        let asked = serde_json::to_value(question("web")).unwrap();
        let expected = r#"{"about":"arrival","pod":{"name":"web","namespace":"shop","uid":"uid-1"},"sandbox":"c1","version":1,"waitMs":1500}"#;
        assert_eq!(text(asked), expected);
        for (answer, expected) in [
            (Answer::Captured, r#"{"answer":"captured"}"#),
            (Answer::NotEnrolled, r#"{"answer":"notEnrolled"}"#),
            (Answer::Unknown("x".into()), r#"{"answer":"unknown","why":"x"}"#),
            (Answer::Failed("x".into()), r#"{"answer":"failed","why":"x"}"#),
            (Answer::Noted, r#"{"answer":"noted"}"#),
        ] {
            assert_eq!(text(serde_json::to_value(answer).unwrap()), expected);
        }
    }

    #[test]
    fn what_is_no_message_is_refused() {
        let (plugin, agent) = pair();
        assert!(send(&plugin, &question(&"x".repeat(LONGEST)), NO_FILE).is_err(), "too long to send");
        let kind = |result: io::Result<(Question, Vec<OwnedFd>)>| result.unwrap_err().kind();
        assert_eq!(kind(receive(&agent)), io::ErrorKind::WouldBlock);
        for (octets, expected) in [
            (vec![b' '; LONGEST + 1], io::ErrorKind::InvalidData),
            (b"nonsense".to_vec(), io::ErrorKind::InvalidData),
            (b"{\"version\":1".to_vec(), io::ErrorKind::UnexpectedEof),
        ] {
            rustix::net::send(&plugin, &octets, SendFlags::empty()).unwrap();
            assert_eq!(kind(receive(&agent)), expected);
        }
        drop(plugin);
        assert_eq!(kind(receive(&agent)), io::ErrorKind::UnexpectedEof);
    }
}
