//! The successor's side: finding the agent that serves the node, and taking its pods.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ambit_mesh::identity::SpiffeId;
use ambit_mesh::workload::WorkloadUid;

use super::channel::{Channel, ChannelError};
use super::message::{Answer, Hello, Item, PROTOCOL, PodItem, Refusal, Request};
use super::predecessors::Predecessors;
use super::{Myself, PROGRAM};
use crate::capture::listener::{Listeners, adopt};
use crate::capture::netns::NetworkNamespace;
use crate::capture::rules::CapturePort;

/// What was found at the hand-over socket.
#[derive(Debug)]
pub enum Find {
    /// Nobody serves: the pods' listening sockets are opened anew.
    Nobody,
    /// An agent serves that cannot hand over to this version: listening sockets are opened beside its
    /// own, and the connections that wait in those are refused when it ends.
    Foreign {
        /// Its version.
        program: String,
    },
    /// Somebody is there, and it is not the moment to take over.
    Wait {
        /// Why.
        reason: &'static str,
    },
    /// An agent that hands over.
    Predecessor(Offer),
}

/// An agent that hands over when it is asked.
#[derive(Debug)]
pub struct Offer {
    channel: Channel,
    /// Its version.
    pub program: String,
    /// Where it runs.
    pub instance: Option<String>,
}

/// A pod that was handed over.
#[derive(Debug)]
pub struct TakenPod {
    /// The workload.
    pub workload: WorkloadUid,
    /// The pod's UID.
    pub pod_uid: Arc<str>,
    /// Who it is.
    pub identity: SpiffeId,
    /// Where it lives.
    pub netns: NetworkNamespace,
    /// In directory mode: the path by which that is known.
    pub named: Option<PathBuf>,
    /// Whether it is on its way out of the mesh.
    pub leaving: bool,
    /// Whether the predecessor has a certificate for it.
    pub certified: bool,
    /// Its listening sockets.
    pub listeners: Listeners,
}

/// Looks for the agent that serves the node.
///
/// # Errors
/// When somebody is there and does not answer as an agent does.
pub async fn find(path: &Path, myself: &Myself) -> Result<Find, ChannelError> {
    let channel = match Channel::connect(path) {
        Err(ChannelError::Io(error)) if is_nobody(&error) => return Ok(Find::Nobody),
        connected => connected?,
    };
    let hello = Hello { protocol: PROTOCOL, program: PROGRAM.to_owned(), instance: myself.instance.clone() };
    channel.send(&hello, &[]).await?;
    let (answer, _) = channel.receive_soon::<Answer>().await?;
    let Answer { program, instance, refusal, .. } = answer;
    Ok(match refusal {
        None => Find::Predecessor(Offer { channel, program, instance }),
        Some(Refusal::Protocol | Refusal::Other) => Find::Foreign { program },
        Some(Refusal::Abandoned) => Find::Nobody,
        Some(Refusal::Busy) => Find::Wait { reason: "the agent of this node is handing over to another" },
        Some(Refusal::Succeeded) => Find::Wait { reason: "another agent has just taken over" },
        Some(Refusal::Superseded) => {
            Find::Wait { reason: "this agent was replaced: it does not take the node back" }
        }
    })
}

/// The socket is not there, or was left by a process that is gone.
fn is_nobody(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

impl Offer {
    /// Takes everything. The predecessor goes on serving.
    ///
    /// # Errors
    /// When it does not give what it should.
    pub async fn take(self) -> Result<Bequest, ChannelError> {
        let Self { channel, .. } = self;
        channel.send(&Request::Give, &[]).await?;
        let mut bequest = Bequest { channel, pods: Vec::new(), predecessors: Predecessors::default() };
        loop {
            let (item, descriptors) = bequest.channel.receive_soon::<Item>().await?;
            match item {
                Item::Pod(pod) => bequest.pods.push(taken(pod, descriptors)?),
                Item::Listeners { port } => bequest.add_listeners(port, descriptors)?,
                Item::Predecessors => {
                    let sockets = descriptors.into_iter().map(UnixStream::from).collect();
                    bequest.predecessors.extend(Predecessors::of(sockets));
                }
                Item::End { pods } if pods == bequest.pods.len() => return Ok(bequest),
                Item::End { pods } => {
                    let got = bequest.pods.len();
                    return Err(ChannelError::Protocol(format!("{pods} pods were given and {got} came")));
                }
                Item::Released => {
                    return Err(ChannelError::Protocol("it let go before it was asked to".to_owned()));
                }
            }
        }
    }
}

/// What a predecessor has given, while it still serves.
#[derive(Debug)]
pub struct Bequest {
    channel: Channel,
    /// The pods.
    pub pods: Vec<TakenPod>,
    predecessors: Predecessors,
}

impl Bequest {
    fn add_listeners(&mut self, port: u16, descriptors: Vec<OwnedFd>) -> Result<(), ChannelError> {
        let wrong = |what: &str| ChannelError::Protocol(format!("listening sockets of port {port}: {what}"));
        let port = CapturePort::ALL
            .into_iter()
            .find(|known| known.number() == port)
            .ok_or_else(|| wrong("no such port is captured"))?;
        let pod = self.pods.last_mut().ok_or_else(|| wrong("no pod was named before"))?;
        for descriptor in descriptors {
            let socket = adopt(descriptor, port).map_err(|error| wrong(&error.to_string()))?;
            pod.listeners.of_mut(port).push(socket.into());
        }
        Ok(())
    }

    /// Says that every pod is served, and waits until the predecessor has let go. Returns which earlier
    /// agents still finish their connections.
    ///
    /// # Errors
    /// When it did not let go, as far as is known: whether it did shows when it is looked for again.
    pub async fn serving(self) -> Result<Predecessors, ChannelError> {
        let Self { channel, mut predecessors, .. } = self;
        channel.send(&Request::Serving, &[]).await?;
        match channel.receive_soon::<Item>().await? {
            (Item::Released, _) => {
                predecessors.extend(Predecessors::of(vec![channel.line()?]));
                Ok(predecessors)
            }
            (item, _) => Err(ChannelError::Protocol(format!("{item:?} came in place of its farewell"))),
        }
    }
}

fn taken(item: PodItem, descriptors: Vec<OwnedFd>) -> Result<TakenPod, ChannelError> {
    let wrong = |what: String| ChannelError::Protocol(format!("pod {}: {what}", item.workload));
    let [namespace] = <[OwnedFd; 1]>::try_from(descriptors)
        .map_err(|descriptors| wrong(format!("{} descriptors in place of one", descriptors.len())))?;
    let path = item.named.as_deref().unwrap_or(Path::new("handed over"));
    let netns =
        NetworkNamespace::from_descriptor(namespace, path).map_err(|error| wrong(error.to_string()))?;
    let identity = item.identity.parse().map_err(|error| wrong(format!("{error}")))?;
    Ok(TakenPod {
        workload: WorkloadUid(item.workload.as_str().into()),
        pod_uid: item.pod_uid.as_str().into(),
        identity,
        netns,
        named: item.named,
        leaving: item.leaving,
        certified: item.certified,
        listeners: Listeners::default(),
    })
}
