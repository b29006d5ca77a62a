//! PeerAuthentication -> policies that deny callers without identity.
//!
//! The wire has no word for STRICT: it is a DENY of every peer without a principal, named by the
//! workloads it applies to, as Istio does it (reference: `istio_converted_static_strict`).

use std::collections::BTreeMap;

use ambit_mesh::policy::{
    Action, AuthorizationPolicy, Clause, Match, PolicyName, PolicyScope, Rule, StringMatch,
};

use super::view::{Named, View};
use super::{Notes, ROOT_NAMESPACES, Reason, is_root, policy_name};
use crate::objects::PeerAuthentication;
use crate::objects::meta::StringMap;
use crate::objects::peer_authentication::Mode;

/// The policy of every workload whose ports are all STRICT.
const STATIC_STRICT: &str = "istio_converted_static_strict";

/// The policy of a workload whose ports differ, before the name of its PeerAuthentication.
const CONVERTED_PREFIX: &str = "converted_peer_authentication_";

/// The PeerAuthentications that apply, by reach.
#[derive(Debug, Default)]
pub(super) struct PeerAuthentications<'a> {
    mesh: Option<Named<'a, PeerAuthentication>>,
    namespaces: BTreeMap<&'a str, Named<'a, PeerAuthentication>>,
    /// By namespace, in order of precedence.
    workloads: BTreeMap<&'a str, Vec<Named<'a, PeerAuthentication>>>,
}

/// Whether a port takes callers without identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Port {
    Open,
    Strict,
}

/// What a workload's ports take.
#[derive(Debug, PartialEq, Eq)]
enum Ports {
    /// Everyone, everywhere.
    AllOpen,
    /// Only peers with an identity, everywhere.
    AllStrict,
    /// Most ports are open.
    OpenExcept(Vec<u16>),
    /// Most ports are strict.
    StrictExcept(Vec<u16>),
}

impl<'a> PeerAuthentications<'a> {
    /// Sorts the PeerAuthentications by reach. Of several with the same reach the oldest wins, as
    /// Istio has it; where none says when it was created, the first by file and line.
    pub(super) fn of(view: &View<'a>, notes: &mut Notes) -> Self {
        let mut found = Self::default();
        let mut all = view.peer_authentications.clone();
        all.sort_by_key(|peer| (peer.object.metadata.creation_timestamp.as_deref(), peer.origin));
        for peer in all {
            note_modes(&peer, notes);
            found.add(peer, notes);
        }
        found
    }

    fn add(&mut self, peer: Named<'a, PeerAuthentication>, notes: &mut Notes) {
        let (namespace, _) = peer.place();
        let is_root = is_root(namespace);
        if !peer.object.spec.selector.is_empty() {
            if is_root {
                let message = "in the root namespace a PeerAuthentication with a selector has no effect";
                return notes.add(peer.key, Reason::NoEffect, message);
            }
            return self.workloads.entry(namespace).or_default().push(peer);
        }
        let first = match is_root {
            true => *self.mesh.get_or_insert(peer),
            false => *self.namespaces.entry(namespace).or_insert(peer),
        };
        if first.key != peer.key {
            let message =
                format!("{} at {} has the same reach and takes precedence", first.key, first.origin);
            notes.add(peer.key, Reason::Conflict, message);
        }
    }

    /// The names of the policies that a workload names.
    pub(super) fn selecting(&self, namespace: &str, labels: &StringMap) -> Option<PolicyName> {
        let peer = self.workload(namespace, labels);
        match self.ports(namespace, peer) {
            Ports::AllOpen => None,
            Ports::AllStrict => Some(static_strict()),
            Ports::OpenExcept(_) | Ports::StrictExcept(_) => {
                peer.map(|peer| converted(peer.namespace(), peer.name()))
            }
        }
    }

    /// The policies that [`Self::selecting`] names.
    pub(super) fn policies(&self) -> Vec<AuthorizationPolicy> {
        let mut policies = Vec::new();
        if self.mesh.is_some() || !self.namespaces.is_empty() || !self.workloads.is_empty() {
            policies.push(deny_without_identity(static_strict(), Match::default()));
        }
        for peer in self.workloads.values().flatten() {
            let ports = match self.ports(peer.namespace(), Some(peer)) {
                Ports::AllOpen | Ports::AllStrict => continue,
                Ports::OpenExcept(ports) => Match { destination_ports: ports, ..Match::default() },
                Ports::StrictExcept(ports) => Match { not_destination_ports: ports, ..Match::default() },
            };
            policies.push(deny_without_identity(converted(peer.namespace(), peer.name()), ports));
        }
        policies
    }

    fn workload(&self, namespace: &str, labels: &StringMap) -> Option<&Named<'a, PeerAuthentication>> {
        self.workloads.get(namespace)?.iter().find(|peer| peer.object.spec.selector.matches(labels))
    }

    /// Each wider scope holds where the narrower one is UNSET.
    fn ports(&self, namespace: &str, workload: Option<&Named<'_, PeerAuthentication>>) -> Ports {
        let mode = |peer: &Named<'_, PeerAuthentication>| port(peer.object.spec.mode);
        let default = workload
            .and_then(mode)
            .or_else(|| self.namespaces.get(namespace).and_then(mode))
            .or_else(|| self.mesh.as_ref().and_then(mode))
            .unwrap_or(Port::Open);
        let port_modes = workload.into_iter().flat_map(|peer| &peer.object.spec.port_modes);
        let is_exception = |mode: &Mode| port(*mode).is_some_and(|port| port != default);
        let exceptions: Vec<u16> =
            port_modes.filter(|(_, mode)| is_exception(mode)).map(|(port, _)| *port).collect();
        match default {
            Port::Open if exceptions.is_empty() => Ports::AllOpen,
            Port::Strict if exceptions.is_empty() => Ports::AllStrict,
            Port::Open => Ports::OpenExcept(exceptions),
            Port::Strict => Ports::StrictExcept(exceptions),
        }
    }
}

/// What a mode means for callers without identity; `None` for what a wider scope says.
fn port(mode: Mode) -> Option<Port> {
    match mode {
        Mode::Unset => None,
        Mode::Disable | Mode::Permissive => Some(Port::Open),
        Mode::Strict => Some(Port::Strict),
    }
}

fn note_modes(peer: &Named<'_, PeerAuthentication>, notes: &mut Notes) {
    let spec = &peer.object.spec;
    if spec.mode == Mode::Disable || spec.port_modes.values().any(|mode| *mode == Mode::Disable) {
        let message = "mode DISABLE means PERMISSIVE: between pods of the mesh mutual TLS is always used";
        notes.add(peer.key, Reason::NoEffect, message);
    }
}

fn static_strict() -> PolicyName {
    policy_name(ROOT_NAMESPACES[0], STATIC_STRICT)
}

/// The policy that a PeerAuthentication becomes where ports differ.
pub fn converted(namespace: &str, name: &str) -> PolicyName {
    policy_name(namespace, &format!("{CONVERTED_PREFIX}{name}"))
}

fn deny_without_identity(name: PolicyName, ports: Match) -> AuthorizationPolicy {
    let condition = Match { not_principals: vec![StringMatch::Presence], ..ports };
    AuthorizationPolicy {
        name,
        scope: PolicyScope::WorkloadSelector,
        action: Action::Deny,
        rules: vec![Rule { clauses: vec![Clause { any_of: vec![condition] }] }],
        dry_run: false,
    }
}
