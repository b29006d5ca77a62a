//! The predecessor's side of one hand-over, from the pods to the parting.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;

use ambit_mesh::identity::SpiffeId;
use ambit_mesh::workload::WorkloadUid;
use tokio::sync::oneshot;

use super::channel::{Channel, ChannelError, MAX_DESCRIPTORS, borrowed};
use super::message::{Item, PodItem, Request};
use super::predecessors::{Predecessors, is_closed};
use crate::capture::listener::Listeners;
use crate::capture::netns::NetworkNamespace;
use crate::capture::rules::CapturePort;

/// A successor that has asked for the pods. Dropping it sends the successor away.
#[derive(Debug)]
pub struct Visit {
    channel: Channel,
    program: String,
    pods: usize,
    /// Dropped with the visit, which the reception notices.
    over: oneshot::Sender<()>,
}

/// A pod that is handed over.
#[derive(Debug)]
pub struct GivenPod<'a> {
    /// The workload.
    pub workload: &'a WorkloadUid,
    /// The pod's UID.
    pub pod_uid: &'a str,
    /// Who it is.
    pub identity: &'a SpiffeId,
    /// Where it lives.
    pub netns: &'a NetworkNamespace,
    /// In directory mode: the path by which that is known.
    pub named: Option<&'a Path>,
    /// Whether it is on its way out of the mesh.
    pub leaving: bool,
    /// Whether there is a certificate for it.
    pub certified: bool,
}

impl Visit {
    pub(super) fn new(channel: Channel, program: String, over: oneshot::Sender<()>) -> Self {
        Self { channel, program, pods: 0, over }
    }

    /// The version of the successor.
    pub fn program(&self) -> &str {
        &self.program
    }

    /// Hands a pod over, with its listening sockets on all workers.
    ///
    /// # Errors
    /// When the successor is gone or does not follow.
    pub async fn give(&mut self, pod: &GivenPod<'_>, listeners: &Listeners) -> Result<(), ChannelError> {
        let item = Item::Pod(PodItem {
            workload: pod.workload.to_string(),
            pod_uid: pod.pod_uid.to_owned(),
            identity: pod.identity.to_string(),
            named: pod.named.map(Path::to_owned),
            leaving: pod.leaving,
            certified: pod.certified,
        });
        self.channel.send(&item, &[pod.netns.descriptor()]).await?;
        for port in CapturePort::ALL {
            for some in listeners.of(port).chunks(MAX_DESCRIPTORS) {
                self.channel.send(&Item::Listeners { port: port.number() }, &borrowed(some)).await?;
            }
        }
        self.pods += 1;
        Ok(())
    }

    /// Says that this is all, and waits until the successor serves it.
    ///
    /// # Errors
    /// When it does not come to that: this process is still the one that serves.
    pub async fn conclude(self, predecessors: &Predecessors) -> Result<Parting, ChannelError> {
        let Self { channel, program, pods, over } = self;
        for some in predecessors.connections().chunks(MAX_DESCRIPTORS) {
            channel.send(&Item::Predecessors, &borrowed(some)).await?;
        }
        channel.send(&Item::End { pods }, &[]).await?;
        match channel.receive().await? {
            (Request::Serving, _) => Ok(Parting { channel, program, _over: over }),
            (Request::Give, _) => Err(ChannelError::Protocol("the pods were asked for twice".to_owned())),
        }
    }
}

/// A successor that serves: this process has nothing left but its open connections.
#[derive(Debug)]
pub struct Parting {
    channel: Channel,
    program: String,
    _over: oneshot::Sender<()>,
}

/// The successor, as long as it lives.
#[derive(Debug)]
pub struct Successor(UnixStream);

impl Parting {
    /// The version of the successor.
    pub fn program(&self) -> &str {
        &self.program
    }

    /// A look at the successor, for others.
    ///
    /// # Errors
    /// When there is no descriptor left.
    pub fn successor(&self) -> io::Result<Successor> {
        self.channel.line().map(Successor)
    }

    /// Says that rules, files and sockets are the successor's now.
    ///
    /// # Errors
    /// When it is gone. Nothing is taken back all the same.
    pub async fn released(&self) -> Result<(), ChannelError> {
        self.channel.send(&Item::Released, &[]).await
    }
}

impl Successor {
    /// Whether its process runs.
    pub fn runs(&self) -> bool {
        !is_closed(&self.0)
    }
}
