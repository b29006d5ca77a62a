//! What the plugin tells the runtime when it fails.
//!
//! CNI specification, "Error": an object on standard output with `cniVersion`, `code`, `msg` and
//! `details`. Codes below 100 are the specification's.

use serde::Serialize;

/// A failure, as the runtime reads it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}: {details}")]
pub struct CniError {
    /// Which kind.
    pub code: Code,
    /// What failed.
    pub message: String,
    /// Why, and what to check.
    pub details: String,
}

/// Kinds of failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// The configuration is of a version that the plugin does not know.
    Version,
    /// A variable of the environment is missing or makes no sense.
    Environment,
    /// The configuration cannot be read.
    Decode,
    /// The configuration makes no sense.
    Network,
    /// The same call may succeed later.
    Later,
    /// The agent cannot capture the pod.
    Capture,
    /// The pod is no longer captured.
    Missing,
}

impl Code {
    /// As the specification numbers them, and ours from 100 on.
    pub fn number(self) -> u32 {
        match self {
            Self::Version => 1,
            Self::Environment => 4,
            Self::Decode => 6,
            Self::Network => 7,
            Self::Later => 11,
            Self::Capture => 100,
            Self::Missing => 101,
        }
    }
}

impl CniError {
    /// A failure.
    pub fn new(code: Code, message: impl Into<String>, details: impl Into<String>) -> Self {
        Self { code, message: message.into(), details: details.into() }
    }

    /// The object for the runtime, at the version of the configuration.
    pub fn to_json(&self, version: &str) -> String {
        #[derive(Serialize)]
        struct Object<'a> {
            #[serde(rename = "cniVersion")]
            version: &'a str,
            code: u32,
            msg: &'a str,
            details: &'a str,
        }
        let (code, msg, details) = (self.code.number(), &*self.message, &*self.details);
        serde_json::to_string(&Object { version, code, msg, details }).expect("texts and numbers serialize")
    }
}
