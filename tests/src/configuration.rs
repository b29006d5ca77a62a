//! The directory of Kubernetes YAML that control reads, and the objects the harness writes into it.

use std::fmt::Write as _;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The directory.
#[derive(Debug)]
pub struct Configuration {
    directory: PathBuf,
}

/// Whether a namespace asks for the mesh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dataplane {
    /// `istio.io/dataplane-mode: ambient`.
    Ambient,
    /// No label.
    Unset,
}

/// A Pod as the harness publishes it.
#[derive(Clone, Debug)]
pub struct PodObject {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// Its node.
    pub node: String,
    /// Its ServiceAccount.
    pub service_account: String,
    /// Its labels beside `app`, which is its name.
    pub labels: Vec<(String, String)>,
    /// Its annotations.
    pub annotations: Vec<(String, String)>,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Its Ready condition.
    pub ready: bool,
    /// Whether it is being deleted.
    pub terminating: bool,
    /// The port that its kubelet probes over HTTP.
    pub probe_port: Option<u16>,
}

/// A Service as the harness publishes it.
#[derive(Clone, Debug)]
pub struct ServiceObject {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its virtual addresses.
    pub addresses: Vec<IpAddr>,
    /// Its port and the pods' port.
    pub port: (u16, u16),
    /// The label that selects its pods.
    pub selector: (String, String),
    /// The port's `appProtocol`, where it is declared.
    pub protocol: Option<&'static str>,
}

impl Configuration {
    /// Makes the directory.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn create(directory: PathBuf) -> Result<Self> {
        fs::create_dir_all(&directory)?;
        Ok(Self { directory })
    }

    /// Where it is.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Writes a file the way editors do: aside, then renamed into place.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn put(&self, file: &str, yaml: &str) -> Result<()> {
        let aside = self.directory.join(format!(".{file}.new"));
        fs::write(&aside, yaml).with_context(|| aside.display().to_string())?;
        fs::rename(&aside, self.directory.join(file)).with_context(|| file.to_owned())
    }

    /// Deletes a file.
    ///
    /// # Errors
    /// When it is not there.
    pub fn remove(&self, file: &str) -> Result<()> {
        fs::remove_file(self.directory.join(file)).with_context(|| file.to_owned())
    }

    /// Publishes a Namespace, with labels beside the one that asks for the mesh.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn namespace(&self, name: &str, dataplane: Dataplane, labels: &[(String, String)]) -> Result<()> {
        let ambient = match dataplane {
            Dataplane::Ambient => "    istio.io/dataplane-mode: ambient\n",
            Dataplane::Unset => "",
        };
        let mut yaml = format!("apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {name}\n");
        let _ =
            write!(yaml, "  labels:\n    kubernetes.io/metadata.name: {name}\n{ambient}{}", entries(labels));
        self.put(&format!("namespace-{name}.yaml"), &yaml)
    }

    /// Publishes a Node.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn node(&self, name: &str) -> Result<()> {
        let yaml = format!("apiVersion: v1\nkind: Node\nmetadata:\n  name: {name}\n");
        self.put(&format!("node-{name}.yaml"), &yaml)
    }

    /// Publishes a Pod.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn pod(&self, pod: &PodObject) -> Result<()> {
        self.put(&pod.file(), &pod.yaml())
    }

    /// Publishes a Service.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn service(&self, service: &ServiceObject) -> Result<()> {
        self.put(&format!("service-{}-{}.yaml", service.namespace, service.name), &service.yaml())
    }
}

impl PodObject {
    /// The file it is published in.
    pub fn file(&self) -> String {
        format!("pod-{}-{}.yaml", self.namespace, self.name)
    }

    fn yaml(&self) -> String {
        let Self { namespace, name, uid, node, service_account, .. } = self;
        let mut yaml = format!(
            "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n  namespace: {namespace}\n  uid: {uid}\n"
        );
        if self.terminating {
            yaml.push_str("  deletionTimestamp: \"2026-01-01T00:00:00Z\"\n");
        }
        let _ = write!(yaml, "  labels:\n    app: {name}\n{}", entries(&self.labels));
        let _ = write!(yaml, "  annotations:\n{}", entries(&self.annotations));
        let _ = write!(yaml, "spec:\n  nodeName: {node}\n  serviceAccountName: {service_account}\n");
        yaml.push_str("  containers:\n  - name: app\n    image: app\n");
        if let Some(port) = self.probe_port {
            let _ =
                write!(yaml, "    readinessProbe:\n      httpGet:\n        path: /\n        port: {port}\n");
        }
        yaml.push_str("status:\n  phase: Running\n");
        if let Some(first) = self.addresses.first() {
            let _ = write!(yaml, "  podIP: {}\n  podIPs:\n", quoted(first));
        }
        for address in &self.addresses {
            let _ = writeln!(yaml, "  - ip: {}", quoted(address));
        }
        let ready = if self.ready { "True" } else { "False" };
        let _ = write!(yaml, "  conditions:\n  - type: Ready\n    status: \"{ready}\"\n");
        yaml
    }
}

impl ServiceObject {
    fn yaml(&self) -> String {
        let Self { namespace, name, port: (port, target), selector: (key, value), .. } = self;
        let mut yaml = format!(
            "apiVersion: v1\nkind: Service\nmetadata:\n  name: {name}\n  namespace: {namespace}\nspec:\n"
        );
        let _ = write!(yaml, "  selector:\n    {key}: {value}\n");
        let _ = write!(yaml, "  ports:\n  - port: {port}\n    targetPort: {target}\n    protocol: TCP\n");
        if let Some(protocol) = self.protocol {
            let _ = writeln!(yaml, "    appProtocol: {protocol}");
        }
        if let Some(first) = self.addresses.first() {
            let _ = write!(yaml, "  clusterIP: {}\n  clusterIPs:\n", quoted(first));
        }
        for address in &self.addresses {
            let _ = writeln!(yaml, "  - {}", quoted(address));
        }
        yaml
    }
}

fn entries(pairs: &[(String, String)]) -> String {
    pairs.iter().map(|(key, value)| format!("    {key}: \"{value}\"\n")).collect()
}

fn quoted(value: &IpAddr) -> String {
    format!("\"{value}\"")
}
