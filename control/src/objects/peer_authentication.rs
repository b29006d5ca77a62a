//! `security.istio.io` PeerAuthentication: whether workloads accept connections without mutual TLS.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::Body;
use super::envelope::Envelope;
use super::meta::Meta;
use super::selector::{Selection, Selector};
use super::values::{PortKey, null_is_default};

/// Whether workloads accept connections without mutual TLS.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(from = "Envelope<Spec>")]
pub struct PeerAuthentication {
    /// Metadata.
    pub metadata: Meta,
    /// What was asked for.
    pub spec: Spec,
}

/// `spec` of a PeerAuthentication.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(try_from = "RawSpec")]
pub struct Spec {
    /// Which workloads; empty for the whole namespace, or the whole mesh in the root namespace.
    pub selector: Selector,
    /// The mode of every port.
    pub mode: Mode,
    /// Modes of single ports of the workload.
    pub port_modes: BTreeMap<u16, Mode>,
}

/// A mode of mutual TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Mode {
    /// Inherited from the next wider scope; PERMISSIVE when there is none.
    #[default]
    Unset,
    /// No mutual TLS between sidecars. The mesh's own tunnel stays, so it means PERMISSIVE here.
    Disable,
    /// With and without.
    Permissive,
    /// With mutual TLS only.
    Strict,
}

impl PeerAuthentication {
    /// What stands in for one that cannot be read: STRICT for what it selects, as far as known.
    pub fn strict(body: Option<Body<'_>>) -> Self {
        let selector = Selection::of(body).selector;
        let spec = Spec { selector, mode: Mode::Strict, port_modes: BTreeMap::new() };
        Self { metadata: Meta::default(), spec }
    }
}

impl From<Envelope<Spec>> for PeerAuthentication {
    fn from(Envelope { metadata, spec, .. }: Envelope<Spec>) -> Self {
        Self { metadata, spec }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct RawSpec {
    #[serde(deserialize_with = "null_is_default")]
    selector: Selector,
    #[serde(deserialize_with = "null_is_default")]
    mtls: MutualTls,
    #[serde(deserialize_with = "null_is_default")]
    port_level_mtls: BTreeMap<PortKey, MutualTls>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct MutualTls {
    mode: Mode,
}

impl TryFrom<RawSpec> for Spec {
    type Error = String;

    fn try_from(raw: RawSpec) -> Result<Self, Self::Error> {
        // PeerAuthentication: "portLevelMtls [...] only applies when a workload selector is
        // specified."
        if raw.selector.is_empty() && !raw.port_level_mtls.is_empty() {
            return Err("spec.portLevelMtls: needs a selector with matchLabels".to_owned());
        }
        let port_modes = raw.port_level_mtls.into_iter().map(|(port, mtls)| (port.0, mtls.mode)).collect();
        Ok(Self { selector: raw.selector, mode: raw.mtls.mode, port_modes })
    }
}
