//! Settings of connection tracking that the redirection depends on.
//!
//! A redirected connection is translated for as long as conntrack knows it. If its entry went away
//! first, the application's next packet would leave the pod as it was made: in clear. All settings
//! belong to the pod's network namespace alone.

use std::fs;
use std::io;
use std::path::PathBuf;

/// A setting below /proc/sys/net/netfilter.
struct Setting {
    name: &'static str,
    /// What a new namespace has.
    default: &'static str,
    wanted: &'static str,
}

/// As long as an open connection, 5 days; the agent's keepalive comes far more often.
const HALF_CLOSED_SECONDS: &str = "432000";

const SETTINGS: [Setting; 3] = [
    // A connection closed in one direction may be silent in the other for as long as it likes.
    Setting { name: "nf_conntrack_tcp_timeout_close_wait", default: "60", wanted: HALF_CLOSED_SECONDS },
    Setting { name: "nf_conntrack_tcp_timeout_fin_wait", default: "120", wanted: HALF_CLOSED_SECONDS },
    // A packet that conntrack finds outside the window is not translated otherwise.
    Setting { name: "nf_conntrack_tcp_be_liberal", default: "0", wanted: "1" },
];

/// A setting could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {}: a half-closed connection that stays silent for a minute is no longer captured; let the agent write /proc/sys, or mount the node's /proc at /host/proc", path.display())]
pub struct ConntrackError {
    /// The setting.
    path: PathBuf,
    /// The cause.
    source: io::Error,
}

/// Where they are: in the agent's own /proc, and for an agent in a container, to which that is not
/// writable, in the node's. Both show the network namespace that the thread is in.
const PLACES: [&str; 2] = ["/proc/sys/net/netfilter", "/host/proc/sys/net/netfilter"];

/// Applies the settings to the namespace the thread is in.
pub(super) fn install() -> Result<(), ConntrackError> {
    SETTINGS.iter().try_for_each(|setting| change(setting, setting.default, setting.wanted))
}

/// Takes the settings back.
pub(super) fn remove() -> Result<(), ConntrackError> {
    SETTINGS.iter().try_for_each(|setting| change(setting, setting.wanted, setting.default))
}

/// A value that is neither was chosen by the pod's owner and is left alone.
fn change(setting: &Setting, from: &str, to: &str) -> Result<(), ConntrackError> {
    let [own, nodes] = PLACES.map(|place| PathBuf::from(place).join(setting.name));
    let changed = match fs::read_to_string(&own) {
        Ok(value) if value.trim_end() == from => fs::write(&own, to).or_else(|error| {
            let is_read_only = error.kind() == io::ErrorKind::ReadOnlyFilesystem;
            if is_read_only { fs::write(&nodes, to).map_err(|_| error) } else { Err(error) }
        }),
        Ok(_) => Ok(()),
        Err(error) => Err(error),
    };
    changed.map_err(|source| ConntrackError { path: own, source })
}
