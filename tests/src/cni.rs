//! A container runtime as far as it makes the network of pods: it calls the plugins of the node's chain
//! in their order, each with what the one before returned, as libcni does.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::namespace::Namespace;
use crate::sandbox::WORK;

/// Where Debian has the plugins of containernetworking-plugins.
const PLUGINS: &str = "/usr/lib/cni";

/// The runtime of one node.
#[derive(Debug)]
pub struct Runtime {
    node: Arc<Namespace>,
    directory: PathBuf,
}

/// A pod's network, which the runtime makes or has made.
#[derive(Clone, Debug)]
pub struct PodSandbox {
    /// The runtime's name for it.
    pub id: String,
    /// Its network namespace.
    pub namespace: Arc<Namespace>,
    /// `<namespace>/<name>` of the pod.
    pub pod: String,
    /// The pod's UID.
    pub uid: String,
}

/// What a plugin has said in failing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginError {
    /// The plugin.
    pub plugin: String,
    /// The code of the specification, or of the plugin.
    pub code: u64,
    /// Message and details.
    pub said: String,
}

impl std::fmt::Display for PluginError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} failed with {}: {}", self.plugin, self.code, self.said)
    }
}

impl std::error::Error for PluginError {}

impl Runtime {
    /// The runtime of a node whose pods are on the bridge `cni0`, with addresses that `ranges` give.
    ///
    /// # Errors
    /// When its configuration cannot be written.
    pub fn new(node: Arc<Namespace>, ranges: [(&str, &str); 2]) -> Result<Self> {
        let directory = Path::new(WORK).join(format!("cni-{}", node.name()));
        let ranges: Vec<Value> =
            ranges.iter().map(|(subnet, start)| json!([{ "subnet": subnet, "rangeStart": start }])).collect();
        let list = json!({
            "cniVersion": "1.0.0",
            "name": "pods",
            "plugins": [{
                "type": "bridge",
                "bridge": "cni0",
                "isDefaultGateway": true,
                "ipam": { "type": "host-local", "ranges": ranges, "dataDir": directory.join("addresses") },
            }],
        });
        let runtime = Self { node, directory };
        fs::create_dir_all(runtime.conf_dir())?;
        fs::create_dir_all(runtime.bin_dir())?;
        fs::write(runtime.conf_dir().join("10-pods.conflist"), format!("{list:#}"))?;
        Ok(runtime)
    }

    /// Where it looks for configurations.
    pub fn conf_dir(&self) -> PathBuf {
        self.directory.join("net.d")
    }

    /// Where it looks for plugins first.
    pub fn bin_dir(&self) -> PathBuf {
        self.directory.join("bin")
    }

    /// The types of the plugins in the chain that it uses.
    ///
    /// # Errors
    /// When there is none.
    pub fn chain(&self) -> Result<Vec<String>> {
        let list = self.list()?;
        let plugins = list["plugins"].as_array().context("a list has plugins")?;
        Ok(plugins.iter().filter_map(|plugin| Some(plugin["type"].as_str()?.to_owned())).collect())
    }

    /// Makes a pod's network (ADD) and returns the addresses that it got. A failure is a [`PluginError`];
    /// what was made up to then is taken down.
    ///
    /// # Errors
    /// When a plugin fails.
    pub fn add(&self, sandbox: &PodSandbox) -> Result<Vec<IpAddr>> {
        let list = self.list()?;
        let mut result = Value::Null;
        for plugin in plugins(&list)? {
            match self.call("ADD", sandbox, &list, plugin, &result) {
                Ok(output) => result = serde_json::from_str(&output).with_context(|| output.clone())?,
                Err(failed) => {
                    self.delete_by(sandbox, &list, &result)?;
                    return Err(failed);
                }
            }
        }
        fs::write(self.result_file(sandbox), result.to_string())?;
        let addresses = result["ips"].as_array().context("a result has addresses")?;
        let address = |of: &Value| of["address"].as_str()?.split('/').next()?.parse().ok();
        Ok(addresses.iter().filter_map(address).collect())
    }

    /// Asks whether a pod's network is as it was made (CHECK).
    ///
    /// # Errors
    /// When a plugin says that it is not.
    pub fn check(&self, sandbox: &PodSandbox) -> Result<()> {
        let list = self.list()?;
        let result = self.result_of(sandbox)?;
        for plugin in plugins(&list)? {
            self.call("CHECK", sandbox, &list, plugin, &result)?;
        }
        Ok(())
    }

    /// Takes a pod's network down (DEL).
    ///
    /// # Errors
    /// When a plugin fails.
    pub fn delete(&self, sandbox: &PodSandbox) -> Result<()> {
        let result = self.result_of(sandbox).unwrap_or_default();
        self.delete_by(sandbox, &self.list()?, &result)
    }

    /// Calls the last plugin of the chain alone, as if those before it had done their work.
    ///
    /// # Errors
    /// When it fails.
    pub fn call_last(&self, command: &str, sandbox: &PodSandbox) -> Result<()> {
        let list = self.list()?;
        let result = json!({ "cniVersion": list["cniVersion"], "ips": [] });
        let last = plugins(&list)?.pop().context("a list has plugins")?;
        self.call(command, sandbox, &list, last, &result).map(drop)
    }

    /// In the opposite order.
    fn delete_by(&self, sandbox: &PodSandbox, list: &Value, result: &Value) -> Result<()> {
        for plugin in plugins(list)?.into_iter().rev() {
            self.call("DEL", sandbox, list, plugin, result)?;
        }
        Ok(())
    }

    fn result_file(&self, sandbox: &PodSandbox) -> PathBuf {
        self.directory.join(format!("result-{}", sandbox.id))
    }

    fn result_of(&self, sandbox: &PodSandbox) -> Result<Value> {
        Ok(serde_json::from_str(&fs::read_to_string(self.result_file(sandbox))?)?)
    }

    /// The first list by name, as runtimes choose.
    fn list(&self) -> Result<Value> {
        let mut names: Vec<PathBuf> =
            fs::read_dir(self.conf_dir())?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
        names.retain(|name| name.extension().is_some_and(|extension| extension == "conflist"));
        let first = names.into_iter().min().context("there is no list")?;
        let text = fs::read_to_string(&first)?;
        serde_json::from_str(&text).with_context(|| format!("{}: {text}", first.display()))
    }

    fn call(
        &self,
        command: &str,
        sandbox: &PodSandbox,
        list: &Value,
        plugin: &Value,
        result: &Value,
    ) -> Result<String> {
        let kind = plugin["type"].as_str().context("a plugin has a type")?;
        let mut configuration = plugin.clone();
        configuration["cniVersion"] = list["cniVersion"].clone();
        configuration["name"] = list["name"].clone();
        if !result.is_null() {
            configuration["prevResult"] = result.clone();
        }
        let program = self.find(kind)?;
        let (namespace, name) = sandbox.pod.split_once('/').context("a pod is named namespace/name")?;
        let mut arguments = "IgnoreUnknown=1".to_owned();
        let _ = write!(arguments, ";K8S_POD_NAMESPACE={namespace};K8S_POD_NAME={name}");
        let _ = write!(arguments, ";K8S_POD_INFRA_CONTAINER_ID={};K8S_POD_UID={}", sandbox.id, sandbox.uid);
        let path = format!("{}:{PLUGINS}", self.bin_dir().display());
        let mut child = self
            .node
            .command(program)
            .envs([("CNI_COMMAND", command), ("CNI_CONTAINERID", &sandbox.id), ("CNI_IFNAME", "eth0")])
            .envs([("CNI_PATH", &path), ("CNI_ARGS", &arguments)])
            .env("CNI_NETNS", sandbox.namespace.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        child.stdin.take().context("stdin was piped")?.write_all(configuration.to_string().as_bytes())?;
        let output = child.wait_with_output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            return Ok(text);
        }
        let Ok(error) = serde_json::from_str::<Value>(&text) else {
            bail!(
                "{kind} {command} ended with {}: {text}{}",
                output.status,
                String::from_utf8_lossy(&output.stderr)
            );
        };
        let code = error["code"].as_u64().context("an error has a code")?;
        Err(PluginError {
            plugin: kind.to_owned(),
            code,
            said: format!("{} {}", error["msg"], error["details"]),
        }
        .into())
    }

    fn find(&self, kind: &str) -> Result<PathBuf> {
        let places = [self.bin_dir(), PLUGINS.into()].map(|directory| directory.join(kind));
        let found = places.iter().find(|place| place.exists());
        ensure!(
            found.is_some(),
            "no plugin {kind}: run scripts/test, which installs containernetworking-plugins"
        );
        Ok(found.context("it was found")?.clone())
    }
}

fn plugins(list: &Value) -> Result<Vec<&Value>> {
    Ok(list["plugins"].as_array().context("a list has plugins")?.iter().collect())
}
