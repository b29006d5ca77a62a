//! Somebody at the hand-over socket of an agent, and somebody in the place of an agent: both say what
//! they like.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use socket2::{Domain, SockAddr, Socket, Type};

use crate::wait::SOON;

/// The protocol that the agents speak.
pub const PROTOCOL: u32 = 1;

/// A connection to an agent's hand-over socket.
#[derive(Debug)]
pub struct Visitor(UnixStream);

impl Visitor {
    /// Connects.
    ///
    /// # Errors
    /// When nobody listens there, or it is not allowed.
    pub fn connect(path: &Path) -> Result<Self> {
        let socket = Socket::new(Domain::UNIX, Type::SEQPACKET, None)?;
        socket.connect(&SockAddr::unix(path)?).context("connecting to the hand-over socket")?;
        let stream = UnixStream::from(OwnedFd::from(socket));
        stream.set_read_timeout(Some(SOON))?;
        Ok(Self(stream))
    }

    /// Says hello in this version, and returns the answer.
    ///
    /// # Errors
    /// When there is none.
    pub fn greet(&mut self, protocol: u32) -> Result<Value> {
        self.say(&format!(r#"{{"protocol":{protocol},"program":"a test"}}"#))?;
        self.hear()
    }

    /// Sends a message.
    ///
    /// # Errors
    /// When the agent is gone.
    pub fn say(&mut self, message: &str) -> Result<()> {
        self.0.write_all(message.as_bytes()).context("saying something to the agent")
    }

    /// The next message of the agent; descriptors that come along are lost.
    ///
    /// # Errors
    /// When the agent closes the connection.
    pub fn hear(&mut self) -> Result<Value> {
        let mut room = vec![0; 1 << 16];
        let octets = self.0.read(&mut room).context("hearing from the agent")?;
        ensure!(octets > 0, "the agent closed the connection");
        Ok(serde_json::from_slice(&room[..octets])?)
    }

    /// Asks for the pods, and returns what is sent up to the end.
    ///
    /// # Errors
    /// When the agent does not get there.
    pub fn take(&mut self) -> Result<Vec<Value>> {
        self.say(r#"{"message":"give"}"#)?;
        let mut items = Vec::new();
        loop {
            let item = self.hear()?;
            let over = item["message"] == "end";
            items.push(item);
            if over {
                return Ok(items);
            }
        }
    }
}

/// Answers everybody at this place as an agent of another protocol does.
///
/// # Errors
/// When the place is taken.
pub fn refuse_everybody(path: &Path) -> Result<()> {
    fs::create_dir_all(path.parent().context("a directory")?)?;
    let socket = Socket::new(Domain::UNIX, Type::SEQPACKET, None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    socket.listen(16)?;
    let listener = UnixListener::from(OwnedFd::from(socket));
    thread::spawn(move || {
        while let Ok((mut visitor, _)) = listener.accept() {
            // Whoever is gone again needs no answer.
            let _heard = visitor.read(&mut [0; 4096]);
            let _said =
                visitor.write_all(br#"{"protocol":99,"program":"of the future","refusal":"protocol"}"#);
        }
    });
    Ok(())
}
