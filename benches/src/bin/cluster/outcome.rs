//! What became of one request: what a load pod records, and how it travels to the controller.

use serde::{Deserialize, Serialize};

/// How the request was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// On a connection of its own.
    New,
    /// On a connection that is kept for the next one, opened again after a failure.
    Kept,
    /// One octet that comes back on a connection that stays open throughout.
    Open,
}

impl Kind {
    pub(crate) const ALL: [Self; 3] = [Self::New, Self::Kept, Self::Open];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Kept => "kept",
            Self::Open => "open",
        }
    }
}

/// Why a request failed, as the client saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Failure {
    /// Nobody listens.
    Refused,
    /// The connection was reset.
    Reset,
    /// The connection ended before the answer did.
    Closed,
    /// No whole answer within the time for one request.
    TimedOut,
    /// No way to the address.
    Unreachable,
    /// An answer that the server does not give.
    WrongAnswer,
    /// Too many requests were still waiting, so that this one was not even begun.
    Backlog,
    /// Anything else.
    Other,
}

impl Failure {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Reset => "reset",
            Self::Closed => "closed",
            Self::TimedOut => "timed-out",
            Self::Unreachable => "unreachable",
            Self::WrongAnswer => "wrong-answer",
            Self::Backlog => "backlog",
            Self::Other => "other",
        }
    }
}

/// One request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Row", into = "Row")]
pub(crate) struct Outcome {
    /// When it began, in microseconds since 1970 by the pod's clock.
    pub(crate) began_us: u64,
    /// Until the answer was whole or the failure was seen.
    pub(crate) took_us: u64,
    pub(crate) kind: Kind,
    pub(crate) failure: Option<Failure>,
    /// Who answered, or whom the connection had been to: a place in [`Log::peers`].
    pub(crate) peer: Option<u16>,
}

impl Outcome {
    pub(crate) fn ended_us(&self) -> u64 {
        self.began_us + self.took_us
    }
}

/// The form that travels: there are thousands a second, and names of fields would be most of it.
type Row = (u64, u64, Kind, Option<Failure>, Option<u16>);

impl From<Row> for Outcome {
    fn from((began_us, took_us, kind, failure, peer): Row) -> Self {
        Self { began_us, took_us, kind, failure, peer }
    }
}

impl From<Outcome> for Row {
    fn from(outcome: Outcome) -> Self {
        (outcome.began_us, outcome.took_us, outcome.kind, outcome.failure, outcome.peer)
    }
}

/// A part of what a load pod has recorded.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Log {
    /// Another one after the process has started again: then numbers begin anew.
    pub(crate) boot: u64,
    /// The number of the first outcome in this part, or of the next one when it is empty; more than was
    /// asked for when the pod has dropped some.
    pub(crate) first: u64,
    /// Names of the pods that answered so far.
    pub(crate) peers: Vec<String>,
    pub(crate) outcomes: Vec<Outcome>,
}

/// How far a probe has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Probed {
    /// `address:port`.
    pub(crate) target: String,
    /// When what it waits for was first seen, in microseconds since 1970 by the pod's clock.
    pub(crate) held_us: Option<u64>,
    pub(crate) attempts: u32,
    /// Of the latest attempt that did not succeed.
    pub(crate) failure: Option<Failure>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_survives_the_way() {
        for (failure, peer) in [(None, Some(3)), (Some(Failure::TimedOut), None)] {
            let outcome = Outcome { began_us: 1 << 50, took_us: 7, kind: Kind::Kept, failure, peer };
            let text = serde_json::to_string(&outcome).unwrap();
            assert_eq!(serde_json::from_str::<Outcome>(&text).unwrap(), outcome, "{text}");
        }
    }

    #[test]
    fn names_are_those_that_travel() {
        for kind in Kind::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.name());
        }
        assert_eq!(serde_json::to_value(Failure::WrongAnswer).unwrap(), Failure::WrongAnswer.name());
    }
}
