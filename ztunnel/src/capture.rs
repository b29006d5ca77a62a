//! Capture: brings a pod's TCP connections to the agent, inside the pod's own network namespace.
//!
//! This module installs and removes the redirection. What becomes of a captured connection is
//! decided by the inbound and outbound journeys. The rules are described in [`rules`].
//!
//! Rules outlive the agent: they are removed only by [`stop_capturing`] followed by [`remove`],
//! never on drop or exit, so that a pod whose agent is away is closed and not open.

pub mod conntrack;
mod foreign;
pub mod iptables;
pub mod kubelet;
mod legacy;
pub mod listener;
pub mod marks;
pub mod netlink;
pub mod netns;
pub mod nftables;
pub mod node;
pub mod original_dst;
pub mod routing;
pub mod rules;
pub mod socket;

use std::collections::BTreeSet;
use std::fmt;
use std::thread;

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use rand::SeedableRng;
use rand::rngs::SmallRng;

use conntrack::ConntrackError;
use iptables::IptablesError;
use marks::Marks;
use netlink::Refused;
use netns::{NamespaceError, NetworkNamespace};
use rules::{Exclusions, RuleSet};

/// What writes the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// One nftables table.
    Nftables,
    /// Chains of iptables.
    Iptables,
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nftables => "nftables",
            Self::Iptables => "iptables",
        })
    }
}

impl Backend {
    /// Finds out which backend works on this node (`--capture auto`), by trying nftables, then
    /// iptables, in a network namespace that exists only for the trial.
    ///
    /// # Errors
    /// When neither works.
    pub fn detect() -> Result<Self, DetectError> {
        let Err(nftables) = try_out(Self::Nftables) else { return Ok(Self::Nftables) };
        let Err(iptables) = try_out(Self::Iptables) else { return Ok(Self::Iptables) };
        Err(DetectError { nftables: Box::new(nftables), iptables: Box::new(iptables) })
    }

    fn install(self, rules: &RuleSet) -> Result<(), EnrollError> {
        match self {
            Self::Nftables => match nftables::install(rules) {
                // A kernel without the socket expression does not know a part of these rules.
                Err(refused) if !rules.probe_ports.is_empty() && refused.is(&[Errno::ENOENT]) => {
                    tracing::warn!(error = %refused, "a probe that only connects will not notice an application that does not listen: the kernel has no nft_socket");
                    nftables::install(&RuleSet { probe_ports: BTreeSet::new(), ..rules.clone() })?;
                }
                installed => installed?,
            },
            Self::Iptables => iptables::install(rules)?,
        }
        Ok(())
    }
}

/// A pod whose connections are captured.
#[derive(Debug)]
pub struct Captured {
    /// What wrote the rules.
    pub backend: Backend,
    /// Whether connection tracking could be set up to keep half-closed connections; worth a
    /// warning if not.
    pub conntrack: Result<(), ConntrackError>,
}

/// Captures the pod's connections from now on; those that are open stay as they are. Repeating it
/// changes nothing, and with other rules replaces them at once. The listeners need not be open:
/// until they are, connections are refused.
///
/// # Errors
/// When another mesh has captured the pod, or the kernel refuses.
pub fn enroll(pod: &NetworkNamespace, rules: &RuleSet, backend: Backend) -> Result<Captured, EnrollError> {
    let exclusions = rules.exclusions.count();
    if exclusions > Exclusions::MAXIMUM {
        return Err(EnrollError::Exclusions { count: exclusions });
    }
    pod.run(|| {
        let found = foreign::look()?;
        if let Some((mesh, chain)) = found.foreign {
            return Err(EnrollError::Foreign { mesh, chain });
        }
        // The route first: without it, answers to the agent would go to the client.
        routing::install()?;
        backend.install(rules)?;
        match backend {
            Backend::Nftables if found.iptables => iptables::remove(rules.ipv6)?,
            Backend::Nftables => {}
            Backend::Iptables => nftables::remove()?,
        }
        Ok(Captured { backend, conntrack: conntrack::install() })
    })?
}

/// Brings `lo` of a pod up, which [`enroll`] needs. Container runtimes do so for every pod, some of them
/// while the pod's other networks are made.
///
/// # Errors
/// When the kernel refuses.
pub fn raise_loopback(pod: &NetworkNamespace) -> Result<(), EnrollError> {
    pod.run(|| Ok(routing::raise_loopback()?))?
}

/// Captures no more new connections. Those that are captured go on, until the last is gone and
/// [`remove`] clears up.
///
/// # Errors
/// When the kernel refuses.
pub fn stop_capturing(pod: &NetworkNamespace) -> Result<(), EnrollError> {
    let ipv6 = pod.has_ipv6()?;
    pod.run(|| {
        if foreign::look()?.iptables {
            iptables::stop_capturing(ipv6)?;
        }
        nftables::stop_capturing()?;
        Ok(())
    })?
}

/// Removes everything that [`enroll`] installed, by whichever backend and version. Captured
/// connections must be closed before: nothing translates them afterwards, so what the application
/// still sends on one would leave the pod in clear.
///
/// # Errors
/// When the kernel refuses.
pub fn remove(pod: &NetworkNamespace) -> Result<(), EnrollError> {
    let ipv6 = pod.has_ipv6()?;
    pod.run(|| {
        if foreign::look()?.iptables {
            iptables::remove(ipv6)?;
        }
        nftables::remove()?;
        routing::remove()?;
        // Harmless where it cannot be taken back.
        conntrack::remove().unwrap_or_else(|error| tracing::debug!(%error, "conntrack settings stay"));
        Ok(())
    })?
}

/// Whether the rules of [`enroll`] are still there: a process of the pod that may configure its
/// network can remove them.
///
/// # Errors
/// When the kernel refuses to tell.
pub fn is_in_place(pod: &NetworkNamespace) -> Result<bool, EnrollError> {
    pod.run(|| Ok(nftables::is_in_place()? || foreign::look()?.iptables))?
}

/// Whether anything of ours is there, by whichever backend and version.
///
/// # Errors
/// When the kernel refuses to tell.
pub fn has_traces(pod: &NetworkNamespace) -> Result<bool, EnrollError> {
    pod.run(|| {
        let of_nftables = nftables::chains()?.iter().any(|(table, _)| table == nftables::TABLE);
        Ok(of_nftables || foreign::look()?.iptables || routing::is_present()?)
    })?
}

/// Why a pod could not be captured, or let go.
#[derive(Debug, thiserror::Error)]
pub enum EnrollError {
    /// The pod's namespace cannot be entered.
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    /// Another mesh is there.
    #[error(
        "{mesh} already captures this pod (chain {chain}): take the pod out of one of the two meshes and restart it"
    )]
    Foreign {
        /// The other mesh.
        mesh: &'static str,
        /// One of its chains.
        chain: String,
    },
    /// There are too many exclusions.
    #[error(
        "the pod excludes {count} ports and ranges from capture: at most {} are possible",
        Exclusions::MAXIMUM
    )]
    Exclusions {
        /// How many.
        count: usize,
    },
    /// The kernel refused.
    #[error(transparent)]
    Kernel(#[from] Refused),
    /// iptables refused.
    #[error(transparent)]
    Iptables(#[from] IptablesError),
}

/// Neither backend works on this node.
#[derive(Debug, thiserror::Error)]
#[error("this node can redirect neither with nftables ({nftables}: {}) nor with iptables ({iptables})", cause(.nftables))]
pub struct DetectError {
    nftables: Box<EnrollError>,
    iptables: Box<EnrollError>,
}

fn cause(error: &EnrollError) -> String {
    std::error::Error::source(error).map_or_else(|| "no further cause".to_owned(), ToString::to_string)
}

/// Installs rules in a network namespace that goes away with the thread that made it.
fn try_out(backend: Backend) -> Result<(), EnrollError> {
    let trial = thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| NamespaceError::Home { source: errno.into() })?;
        // No connection will ever meet these rules, so the marks may be known.
        let marks = Marks::random(&mut SmallRng::seed_from_u64(0));
        let rules = RuleSet {
            marks,
            exclusions: Exclusions::default(),
            probe_ports: BTreeSet::new(),
            ipv6: netns::has_ipv6(),
        };
        backend.install(&rules)
    });
    trial.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
