//! The network configuration that the plugin reads from its standard input. Pure.
//!
//! CNI specification, "Plugin configuration objects": the runtime derives it from the list that
//! [`install`](super::install) has edited, and adds what the plugins before this one returned.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::error::{CniError, Code};

/// Versions of the specification that are spoken here, oldest first. Those before 0.3.0 know no chains.
pub const VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// The configuration of one call.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Network<'a> {
    /// The version in which the runtime speaks and wants to be answered.
    #[serde(default)]
    cni_version: String,
    /// What the plugins before returned, to the octet as the runtime wrote it.
    #[serde(borrow)]
    prev_result: Option<&'a RawValue>,
    /// The agent's socket.
    #[serde(default = "default_socket")]
    pub socket: PathBuf,
    /// Where the list of enrolled namespaces is kept, the best place first.
    #[serde(default = "default_lists")]
    pub lists: Vec<PathBuf>,
    /// The namespace that the mesh itself runs in.
    #[serde(default = "default_mesh_namespace")]
    pub mesh_namespace: String,
    /// Namespaces whose pods the cluster cannot do without.
    #[serde(default = "default_system_namespaces")]
    pub system_namespaces: Vec<String>,
    /// How long a call may take, in seconds.
    #[serde(default = "default_timeout")]
    timeout_seconds: u64,
    /// Where calls are written down.
    pub log_file: Option<PathBuf>,
}

impl<'a> Network<'a> {
    /// Reads it.
    ///
    /// # Errors
    /// When it is not JSON of that shape, or of a version that is not known here.
    pub fn read(text: &'a str) -> Result<Self, CniError> {
        let network: Self = serde_json::from_str(text).map_err(|error| {
            CniError::new(Code::Decode, "the network configuration cannot be read", error.to_string())
        })?;
        if !VERSIONS.contains(&&*network.cni_version) {
            let message = format!("CNI version {:?} is not known", network.cni_version);
            let details =
                format!("known are {}: set cniVersion of the list to one of them", VERSIONS.join(", "));
            return Err(CniError::new(Code::Version, message, details));
        }
        Ok(network)
    }

    /// The version of the configuration, as far as it can be read: in it failures are told.
    pub fn version_of(text: &str) -> String {
        #[derive(Deserialize)]
        struct Version {
            #[serde(rename = "cniVersion")]
            version: String,
        }
        let read = serde_json::from_str::<Version>(text).map(|version| version.version);
        read.unwrap_or_else(|_| VERSIONS[VERSIONS.len() - 1].to_owned())
    }

    /// What is returned on success: this plugin changes no interface.
    ///
    /// # Errors
    /// When there is none.
    pub fn result(&self) -> Result<&'a str, CniError> {
        let result = self.prev_result.map(RawValue::get).filter(|text| *text != "null");
        result.ok_or_else(|| {
            let message = "there is no prevResult";
            let details =
                "this plugin makes no network: it has to come after one that does, in a list (.conflist)";
            CniError::new(Code::Network, message, details)
        })
    }

    /// How long a call may take.
    pub fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout_seconds.clamp(1, LONGEST_TIMEOUT))
    }
}

/// Seconds. A kubelet gives up after 240.
const LONGEST_TIMEOUT: u64 = 120;

/// Seconds a call may take where nothing else is configured.
pub const TIMEOUT: u64 = 20;

fn default_timeout() -> u64 {
    TIMEOUT
}

fn default_socket() -> PathBuf {
    "/run/ambit/cni.sock".into()
}

fn default_lists() -> Vec<PathBuf> {
    vec!["/run/ambit/cni-list.json".into(), "/var/lib/ambit/cni-list.json".into()]
}

fn default_mesh_namespace() -> String {
    "ambit-system".to_owned()
}

fn default_system_namespaces() -> Vec<String> {
    vec!["kube-system".to_owned()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_result_is_passed_on_to_the_octet() {
        let result = r#"{ "ips": [{"address":"10.0.0.2/24"}],  "cniVersion":"1.0.0" }"#;
        let text = format!(r#"{{"cniVersion":"1.0.0","name":"n","type":"ambit-cni","prevResult":{result}}}"#);
        let network = Network::read(&text).unwrap();
        assert_eq!(network.result(), Ok(result));
        assert_eq!(network.socket, PathBuf::from("/run/ambit/cni.sock"));
        assert_eq!(network.timeout(), Duration::from_secs(20));
    }

    #[test]
    fn what_is_configured_counts() {
        let text = r#"{"cniVersion":"0.4.0","name":"n","type":"ambit-cni","unknown":{"kept":true},
            "socket":"/s","lists":["/a","/b"],"meshNamespace":"m","systemNamespaces":["dns"],
            "timeoutSeconds":3600,"logFile":"/log"}"#;
        let network = Network::read(text).unwrap();
        assert_eq!(network.lists, [PathBuf::from("/a"), PathBuf::from("/b")]);
        assert_eq!((&*network.mesh_namespace, &*network.system_namespaces), ("m", &["dns".to_owned()][..]));
        assert_eq!(network.timeout(), Duration::from_secs(120), "never as long as the kubelet waits");
        assert_eq!(network.log_file, Some("/log".into()));
    }

    #[test]
    fn what_cannot_be_served_is_refused_in_the_words_of_the_specification() {
        for (text, code) in [
            ("", Code::Decode),
            ("[]", Code::Decode),
            (r#"{"cniVersion":"1.0.0","lists":"/a"}"#, Code::Decode),
            (r#"{"name":"n"}"#, Code::Version),
            (r#"{"cniVersion":"0.2.0"}"#, Code::Version),
            (r#"{"cniVersion":"2.0.0"}"#, Code::Version),
        ] {
            assert_eq!(Network::read(text).unwrap_err().code, code, "{text}");
        }
        for text in [r#"{"cniVersion":"1.0.0"}"#, r#"{"cniVersion":"1.0.0","prevResult":null}"#] {
            assert_eq!(Network::read(text).unwrap().result().unwrap_err().code, Code::Network, "{text}");
        }
        assert_eq!(Network::version_of(r#"{"cniVersion":"2.0.0"}"#), "2.0.0");
        assert_eq!(Network::version_of("nonsense"), "1.1.0");
    }
}
