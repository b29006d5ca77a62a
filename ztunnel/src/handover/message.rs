//! What the two agents say to each other, and who is refused.
//!
//! Each message is a JSON object of its own. A field that is not known is skipped, so that fields can
//! be added; whatever else changes takes another [`PROTOCOL`].

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The version of what follows `Hello` and `Answer`. Those two never change, except by new fields.
pub(super) const PROTOCOL: u32 = 1;

/// The first message, of the successor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Hello {
    /// The protocol it speaks.
    pub protocol: u32,
    /// Its version, for the log.
    pub program: String,
    /// Where it runs.
    #[serde(default)]
    pub instance: Option<String>,
}

/// The answer of the predecessor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Answer {
    /// The protocol it speaks.
    pub protocol: u32,
    /// Its version, for the log.
    pub program: String,
    /// Where it runs.
    #[serde(default)]
    pub instance: Option<String>,
    /// Why it does not hand over.
    #[serde(default)]
    pub refusal: Option<Refusal>,
}

/// Why an agent does not hand over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Refusal {
    /// It speaks another protocol.
    Protocol,
    /// It is handing over to somebody else at this moment.
    Busy,
    /// It has handed over to somebody else, who will be found here in a moment.
    Succeeded,
    /// It has handed over, and who took over is gone: nobody serves.
    Abandoned,
    /// It has itself replaced the process that asks, which is on its way out.
    Superseded,
    /// One that this version does not know.
    #[serde(other)]
    Other,
}

/// What an agent is doing when somebody asks it to hand over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Occupation {
    /// It serves.
    Serving,
    /// It hands over to somebody.
    HandingOver,
    /// It has handed over to somebody who is alive.
    Succeeded,
    /// It has handed over to somebody who is gone.
    Abandoned,
}

/// Whether an agent, which took over from `replaced`, hands over to who says `hello`.
pub(super) fn judge(hello: &Hello, occupation: Occupation, replaced: Option<&str>) -> Option<Refusal> {
    if hello.protocol != PROTOCOL {
        return Some(Refusal::Protocol);
    }
    match occupation {
        Occupation::Succeeded => Some(Refusal::Succeeded),
        Occupation::Abandoned => Some(Refusal::Abandoned),
        // A container that is started again after its pod was replaced would take the node back.
        Occupation::Serving | Occupation::HandingOver
            if hello.instance.is_some() && hello.instance.as_deref() == replaced =>
        {
            Some(Refusal::Superseded)
        }
        Occupation::HandingOver => Some(Refusal::Busy),
        Occupation::Serving => None,
    }
}

/// What the successor says after it was welcomed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "message", rename_all = "kebab-case")]
pub(super) enum Request {
    /// It has a configuration: send the pods.
    Give,
    /// It accepts the connections of every pod it was given.
    Serving,
}

/// What the predecessor sends after it was asked for the pods.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "message", rename_all = "kebab-case")]
pub(super) enum Item {
    /// A pod. One descriptor: its network namespace.
    Pod(PodItem),
    /// Listening sockets of the last pod that was named, on one port.
    Listeners {
        /// The port.
        port: u16,
    },
    /// Connections to earlier predecessors, which close when their process ends.
    Predecessors,
    /// There is nothing more to give.
    End {
        /// Pods given.
        pods: usize,
    },
    /// Everything is the successor's now.
    Released,
}

/// A pod that changes hands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct PodItem {
    /// The workload.
    pub workload: String,
    /// The pod's UID.
    pub pod_uid: String,
    /// Who it is.
    pub identity: String,
    /// In directory mode: the path by which its network namespace is known.
    pub named: Option<PathBuf>,
    /// Whether it is on its way out of the mesh.
    pub leaving: bool,
    /// Whether the predecessor has a certificate for it: then the successor must have one, too.
    pub certified: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(protocol: u32, instance: Option<&str>) -> Hello {
        Hello { protocol, program: "1.2.3".to_owned(), instance: instance.map(str::to_owned) }
    }

    #[test]
    fn an_agent_hands_over_once_and_never_back() {
        use Occupation::{Abandoned, HandingOver, Serving, Succeeded};
        let new = hello(PROTOCOL, Some("new"));
        for (rule, hello, occupation, replaced, expected) in [
            ("a successor is welcome", &new, Serving, Some("old"), None),
            ("also one that cannot say where it runs", &hello(PROTOCOL, None), Serving, None, None),
            ("one at a time", &new, HandingOver, Some("old"), Some(Refusal::Busy)),
            ("what was handed over is the other's", &new, Succeeded, None, Some(Refusal::Succeeded)),
            ("who asks after the other died serves", &new, Abandoned, None, Some(Refusal::Abandoned)),
            ("who was replaced stays so", &new, Serving, Some("new"), Some(Refusal::Superseded)),
            ("and does not wait in line", &new, HandingOver, Some("new"), Some(Refusal::Superseded)),
            ("another protocol", &hello(PROTOCOL + 1, None), Serving, None, Some(Refusal::Protocol)),
        ] {
            assert_eq!(judge(hello, occupation, replaced), expected, "{rule}");
        }
    }

    #[test]
    fn the_greeting_of_another_version_is_understood() {
        let newer = r#"{"protocol":7,"program":"9.0","instance":"a","mood":"good"}"#;
        let parsed: Hello = serde_json::from_str(newer).unwrap();
        assert_eq!(judge(&parsed, Occupation::Serving, None), Some(Refusal::Protocol));
        let answer: Answer =
            serde_json::from_str(r#"{"protocol":7,"program":"9.0","refusal":"full-moon"}"#).unwrap();
        assert_eq!(answer.refusal, Some(Refusal::Other));
        let least: Hello = serde_json::from_str(r#"{"protocol":1,"program":"0.1"}"#).unwrap();
        assert_eq!(least.instance, None);
    }
}
