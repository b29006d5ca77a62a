//! What the runtime asks the plugin to do, read from the environment. Pure.
//!
//! CNI specification, "Protocol": the operation and its parameters are variables of the environment.

use std::path::PathBuf;

use super::error::{CniError, Code};

/// One call of the plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// ADD: a pod starts.
    Add(Attachment),
    /// DEL: a pod ends. Nothing in it must be needed.
    Delete(Sandbox),
    /// CHECK: is the pod as it was left?
    Check(Attachment),
    /// VERSION: which versions does the plugin know?
    Version,
    /// STATUS: can it serve ADD?
    Status,
    /// GC: what is not named is gone.
    CollectGarbage,
}

/// The network of one pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// The path of its network namespace.
    pub network_namespace: PathBuf,
    /// For what.
    pub sandbox: Sandbox,
}

/// What has a network of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sandbox {
    /// The runtime's name for it.
    pub id: String,
    /// Whose it is.
    pub owner: Owner,
}

/// Whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// A pod of Kubernetes.
    Pod(Pod),
    /// Something else that the same runtime runs.
    Other,
}

/// A pod of Kubernetes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID. Runtimes of the last years all tell it.
    pub uid: Option<String>,
}

impl Call {
    /// Reads a call from the variables of the environment.
    ///
    /// # Errors
    /// When one is missing that the operation needs.
    pub fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Self, CniError> {
        let given = |name: &str| variable(name).filter(|value| !value.is_empty());
        let needed = |name: &str| {
            given(name).ok_or_else(|| {
                let message = format!("{name} is not set");
                CniError::new(Code::Environment, message, "the container runtime has to set it")
            })
        };
        let sandbox = || {
            let owner = Owner::read(&given("CNI_ARGS").unwrap_or_default());
            Ok(Sandbox { id: needed("CNI_CONTAINERID")?, owner })
        };
        let attachment = || {
            needed("CNI_IFNAME")?;
            Ok(Attachment { network_namespace: needed("CNI_NETNS")?.into(), sandbox: sandbox()? })
        };
        match needed("CNI_COMMAND")?.as_str() {
            "ADD" => Ok(Self::Add(attachment()?)),
            "DEL" => Ok(Self::Delete(sandbox()?)),
            "CHECK" => Ok(Self::Check(attachment()?)),
            "VERSION" => Ok(Self::Version),
            "STATUS" => Ok(Self::Status),
            "GC" => Ok(Self::CollectGarbage),
            other => {
                let message = format!("CNI_COMMAND is {other:?}");
                let details = "known are ADD, DEL, CHECK, VERSION, STATUS and GC";
                Err(CniError::new(Code::Environment, message, details))
            }
        }
    }
}

impl Owner {
    /// Reads `CNI_ARGS`: `KEY=VALUE` pairs, separated by semicolons. Keys of other plugins are none of
    /// our business, whether `IgnoreUnknown` says so or not.
    fn read(arguments: &str) -> Self {
        let value = |wanted: &str| {
            let pairs = arguments.split(';').filter_map(|pair| pair.split_once('='));
            let mut values = pairs.filter(|(key, value)| *key == wanted && !value.is_empty());
            // Of a key that comes twice the last one counts, as for those who write Go.
            values.next_back().map(|(_, value)| value.to_owned())
        };
        match value("K8S_POD_NAMESPACE").zip(value("K8S_POD_NAME")) {
            Some((namespace, name)) => Self::Pod(Pod { namespace, name, uid: value("K8S_POD_UID") }),
            None => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Call, CniError> {
        let find = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| *value);
        Call::read(|name| find(name).map(str::to_owned))
    }

    const OF_A_POD: [(&str, &str); 4] = [
        ("CNI_CONTAINERID", "c1"),
        ("CNI_NETNS", "/run/netns/c1"),
        ("CNI_IFNAME", "eth0"),
        ("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web;K8S_POD_UID=u1;OTHER=x=y"),
    ];

    fn with(command: &'static str, without: &str) -> Vec<(&'static str, &'static str)> {
        let kept = OF_A_POD.into_iter().filter(|(name, _)| *name != without);
        kept.chain([("CNI_COMMAND", command)]).collect()
    }

    #[test]
    fn each_operation_is_read_with_what_it_needs() {
        let pod = Owner::Pod(Pod { namespace: "shop".into(), name: "web".into(), uid: Some("u1".into()) });
        let sandbox = |owner| Sandbox { id: "c1".into(), owner };
        let attachment =
            |owner: Owner| Attachment { network_namespace: "/run/netns/c1".into(), sandbox: sandbox(owner) };
        for (variables, expected) in [
            (with("ADD", ""), Call::Add(attachment(pod.clone()))),
            (with("ADD", "CNI_ARGS"), Call::Add(attachment(Owner::Other))),
            (with("CHECK", ""), Call::Check(attachment(pod.clone()))),
            (with("DEL", ""), Call::Delete(sandbox(pod.clone()))),
            (with("DEL", "CNI_NETNS"), Call::Delete(sandbox(pod))),
            (vec![("CNI_COMMAND", "VERSION")], Call::Version),
            (vec![("CNI_COMMAND", "STATUS")], Call::Status),
            (vec![("CNI_COMMAND", "GC")], Call::CollectGarbage),
        ] {
            assert_eq!(read(&variables), Ok(expected), "{variables:?}");
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        for (variables, missing) in [
            (vec![], "CNI_COMMAND is not set"),
            (vec![("CNI_COMMAND", "STOP")], "CNI_COMMAND is \"STOP\""),
            (with("ADD", "CNI_NETNS"), "CNI_NETNS is not set"),
            (with("ADD", "CNI_CONTAINERID"), "CNI_CONTAINERID is not set"),
            (with("CHECK", "CNI_IFNAME"), "CNI_IFNAME is not set"),
        ] {
            let error = read(&variables).unwrap_err();
            assert_eq!((error.code, error.message.as_str()), (Code::Environment, missing));
        }
    }

    #[test]
    fn only_a_namespace_and_a_name_make_a_pod() {
        let pod = |uid: Option<&str>| {
            let uid = uid.map(str::to_owned);
            Owner::Pod(Pod { namespace: "shop".into(), name: "web".into(), uid })
        };
        for (arguments, expected) in [
            ("", Owner::Other),
            ("K8S_POD_NAMESPACE=shop", Owner::Other),
            ("K8S_POD_NAMESPACE=;K8S_POD_NAME=web", Owner::Other),
            ("K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web", pod(None)),
            ("K8S_POD_NAMESPACE=shop;nonsense;K8S_POD_NAME=web;K8S_POD_UID=", pod(None)),
            ("K8S_POD_NAMESPACE=a;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web;K8S_POD_UID=u", pod(Some("u"))),
        ] {
            assert_eq!(Owner::read(arguments), expected, "{arguments}");
        }
    }
}
