//! Whether a pod may start, and whether one that runs is as it was left. Pure.
//!
//! | the agent's answer | what the host's list says | namespace | the pod |
//! |---|---|---|---|
//! | captured | | | starts |
//! | not in the mesh | | | starts |
//! | cannot be captured | | | fails |
//! | unknown, or no answer | | the mesh's own | starts |
//! | unknown, or no answer | enrolled | | fails |
//! | unknown, or no answer | not enrolled | | starts |
//! | unknown, or no answer | there is no list | | starts |
//! | unknown, or no answer | it is damaged | of the system | starts |
//! | unknown, or no answer | it is damaged | any other | fails |
//!
//! A node always boots: what brings the agent up (the mesh's own namespace, and the system's, where
//! DNS is) never waits for it. Nothing that is known to be enrolled gets past it. Where nothing is
//! known, no agent has ever run here and nobody has asked for anything; a list that was there and can
//! no longer be read is something else, and closes.

use std::collections::BTreeSet;

use super::call::Pod;
use super::error::{CniError, Code};
use super::network::Network;
use super::wire::Answer;

/// What the agent had to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// It answered.
    Answer(Answer),
    /// It did not: why.
    Silence(String),
}

/// What the host's list says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listed {
    /// These namespaces are enrolled, and no other.
    Namespaces(BTreeSet<String>),
    /// There is no list.
    Nothing,
    /// There was one: what is wrong with it.
    Damaged(String),
}

/// Namespaces that are never held up.
#[derive(Clone, Copy, Debug)]
pub struct Exempt<'a> {
    /// The mesh's own.
    pub mesh: &'a str,
    /// What the cluster cannot do without.
    pub system: &'a [String],
}

impl<'a> Exempt<'a> {
    /// As configured.
    pub fn of(network: &'a Network<'_>) -> Self {
        Self { mesh: &network.mesh_namespace, system: &network.system_namespaces }
    }
}

/// Why a pod starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// It is captured.
    Captured,
    /// The agent says that it is not in the mesh.
    NotEnrolled,
    /// It is of the mesh's own namespace.
    OfTheMesh,
    /// Its namespace is not among those enrolled.
    NotListed,
    /// Nothing was ever enrolled on this node.
    NoList,
    /// The list is damaged, and the cluster cannot do without the pod.
    OfTheSystem,
}

/// Whether a pod may start.
///
/// # Errors
/// When it may not; the runtime tells the kubelet, which tries again.
pub fn decide(pod: &Pod, heard: &Heard, listed: &Listed, exempt: Exempt<'_>) -> Result<Start, CniError> {
    let why = match heard {
        Heard::Answer(Answer::Captured) => return Ok(Start::Captured),
        Heard::Answer(Answer::NotEnrolled) => return Ok(Start::NotEnrolled),
        Heard::Answer(Answer::Failed(why)) => {
            let message = format!("{pod} is in the mesh and cannot be captured");
            return Err(CniError::new(Code::Capture, message, why));
        }
        Heard::Answer(Answer::Noted) => "the node agent ztunnel gave no answer",
        Heard::Answer(Answer::Unknown(why)) | Heard::Silence(why) => why,
    };
    without_the_agent(pod, why, listed, exempt)
}

/// What the list alone says of a pod.
fn without_the_agent(pod: &Pod, why: &str, listed: &Listed, exempt: Exempt<'_>) -> Result<Start, CniError> {
    if pod.namespace == exempt.mesh {
        return Ok(Start::OfTheMesh);
    }
    let mesh = exempt.mesh;
    let check = format!("{why}: check the pods of DaemonSet ztunnel in namespace {mesh} on this node");
    match listed {
        Listed::Nothing => Ok(Start::NoList),
        Listed::Namespaces(enrolled) if !enrolled.contains(&pod.namespace) => Ok(Start::NotListed),
        Listed::Namespaces(_) => {
            let message = format!("{pod} is of an enrolled namespace and must not start uncaptured");
            Err(CniError::new(Code::Later, message, check))
        }
        Listed::Damaged(_) if exempt.system.contains(&pod.namespace) => Ok(Start::OfTheSystem),
        Listed::Damaged(damage) => {
            let message = format!("{pod} may be of an enrolled namespace and must not start uncaptured");
            Err(CniError::new(Code::Later, message, format!("{damage}; {check}")))
        }
    }
}

/// Whether our rules are in a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rules {
    /// They are.
    Installed,
    /// They are not, or not all of them.
    Missing,
}

/// Whether a running pod is as it was left.
///
/// # Errors
/// When it should be captured and is not, or when nobody can say.
pub fn check(
    pod: &Pod,
    heard: &Heard,
    rules: Rules,
    listed: &Listed,
    exempt: Exempt<'_>,
) -> Result<(), CniError> {
    let why = match heard {
        Heard::Answer(Answer::NotEnrolled) => return Ok(()),
        Heard::Answer(Answer::Failed(why)) => {
            return Err(CniError::new(Code::Missing, format!("{pod} is no longer captured"), why));
        }
        Heard::Answer(Answer::Captured) => {
            return match rules {
                Rules::Installed => Ok(()),
                Rules::Missing => {
                    let message = format!("{pod} is no longer captured");
                    let details = "its redirection was removed by somebody with CAP_NET_ADMIN in the pod";
                    Err(CniError::new(Code::Missing, message, details))
                }
            };
        }
        Heard::Answer(Answer::Noted) => "the node agent ztunnel gave no answer",
        Heard::Answer(Answer::Unknown(why)) | Heard::Silence(why) => why,
    };
    match rules {
        Rules::Installed => Ok(()),
        Rules::Missing => without_the_agent(pod, why, listed, exempt).map(drop).map_err(|error| {
            let message =
                format!("{pod} has no redirection, and whether it should have only the agent knows");
            CniError::new(error.code, message, error.details)
        }),
    }
}

impl std::fmt::Display for Pod {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "pod {}/{}", self.namespace, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exempt(system: &[String]) -> Exempt<'_> {
        Exempt { mesh: "ambit-system", system }
    }

    fn pod(namespace: &str) -> Pod {
        Pod { namespace: namespace.into(), name: "p".into(), uid: Some("u".into()) }
    }

    fn enrolled() -> Listed {
        Listed::Namespaces(["shop".to_owned(), "ambit-system".to_owned(), "kube-system".to_owned()].into())
    }

    fn damaged() -> Listed {
        Listed::Damaged("cni-list.json is damaged".into())
    }

    fn unknown() -> Heard {
        Heard::Answer(Answer::Unknown("control has not told of it".into()))
    }

    fn silence() -> Heard {
        Heard::Silence("nobody listens".into())
    }

    /// Every row of the table above, for each kind of namespace.
    #[test]
    fn a_pod_starts_by_the_table() {
        let system = ["kube-system".to_owned()];
        let away = [unknown(), silence(), Heard::Answer(Answer::Noted)];
        let answers = |answer: Answer| vec![Heard::Answer(answer)];
        let everywhere = || vec![enrolled(), Listed::Nothing, damaged()];
        let namespaces = ["shop", "other", "kube-system", "ambit-system"];
        for (heard, listed, expected) in [
            (answers(Answer::Captured), everywhere(), [Ok(Start::Captured); 4]),
            (answers(Answer::NotEnrolled), everywhere(), [Ok(Start::NotEnrolled); 4]),
            (answers(Answer::Failed("why".into())), everywhere(), [Err(Code::Capture); 4]),
            (
                away.to_vec(),
                vec![enrolled()],
                [Err(Code::Later), Ok(Start::NotListed), Err(Code::Later), Ok(Start::OfTheMesh)],
            ),
            (
                away.to_vec(),
                vec![Listed::Nothing],
                [Ok(Start::NoList), Ok(Start::NoList), Ok(Start::NoList), Ok(Start::OfTheMesh)],
            ),
            (
                away.to_vec(),
                vec![damaged()],
                [Err(Code::Later), Err(Code::Later), Ok(Start::OfTheSystem), Ok(Start::OfTheMesh)],
            ),
        ] {
            for heard in &heard {
                for listed in &listed {
                    for (namespace, expected) in namespaces.into_iter().zip(expected) {
                        let decided = decide(&pod(namespace), heard, listed, exempt(&system));
                        let decided = decided.map_err(|error| error.code);
                        assert_eq!(decided, expected, "{namespace}, {heard:?}, {listed:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_refusal_says_what_to_check() {
        let refused = decide(&pod("shop"), &silence(), &enrolled(), exempt(&[])).unwrap_err().to_string();
        for part in
            ["pod shop/p is of an enrolled namespace", "nobody listens", "DaemonSet ztunnel", "ambit-system"]
        {
            assert!(refused.contains(part), "{refused}");
        }
        let refused = decide(&pod("shop"), &unknown(), &damaged(), exempt(&[])).unwrap_err().to_string();
        assert!(refused.contains("may be") && refused.contains("cni-list.json is damaged"), "{refused}");
    }

    #[test]
    fn a_check_finds_what_was_removed() {
        let captured = || Heard::Answer(Answer::Captured);
        let failed = Heard::Answer(Answer::Failed("its listeners are gone".into()));
        for (rule, heard, rules, namespace, expected) in [
            ("as it was left", captured(), Rules::Installed, "shop", Ok(())),
            ("removed behind the agent's back", captured(), Rules::Missing, "shop", Err(Code::Missing)),
            ("the agent has noticed", failed, Rules::Installed, "shop", Err(Code::Missing)),
            ("never was in the mesh", Heard::Answer(Answer::NotEnrolled), Rules::Missing, "shop", Ok(())),
            ("the agent is away, the rules are there", silence(), Rules::Installed, "shop", Ok(())),
            ("nobody can say", silence(), Rules::Missing, "shop", Err(Code::Later)),
            ("nobody asked for it", silence(), Rules::Missing, "other", Ok(())),
        ] {
            let checked = check(&pod(namespace), &heard, rules, &enrolled(), exempt(&[]));
            assert_eq!(checked.map_err(|error| error.code), expected, "{rule}");
        }
    }
}
