//! What control is told of a mesh: namespaces, Services, and files of YAML.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::atomic::Ordering;

use anyhow::{Context, Result};

use super::{Mesh, Service, lock};
use crate::configuration::{Dataplane, PodObject, ServiceObject};
use crate::pod::Pod;

impl Mesh {
    /// A namespace that asks for the mesh.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn ambient_namespace(&self, name: &str) -> Result<()> {
        self.set_dataplane(name, Dataplane::Ambient)
    }

    /// A namespace that does not.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn plain_namespace(&self, name: &str) -> Result<()> {
        self.set_dataplane(name, Dataplane::Unset)
    }

    /// Opts a namespace in or out.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn set_dataplane(&self, namespace: &str, dataplane: Dataplane) -> Result<()> {
        lock(&self.ambient).insert(namespace.to_owned(), dataplane);
        self.publish_namespace(namespace)
    }

    /// Has the services of a namespace use the waypoint `gateway` of that namespace, or none.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn use_waypoint(&self, namespace: &str, gateway: Option<&str>) -> Result<()> {
        self.label_namespace(namespace, "istio.io/use-waypoint", gateway)
    }

    /// Gives a namespace a label, or takes it away.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn label_namespace(&self, namespace: &str, label: &str, value: Option<&str>) -> Result<()> {
        let key = (namespace.to_owned(), label.to_owned());
        match value {
            Some(value) => lock(&self.labels).insert(key, value.to_owned()),
            None => lock(&self.labels).remove(&key),
        };
        self.publish_namespace(namespace)
    }

    fn publish_namespace(&self, namespace: &str) -> Result<()> {
        let dataplane = lock(&self.ambient).get(namespace).copied().unwrap_or(Dataplane::Unset);
        let labels: Vec<_> = lock(&self.labels)
            .iter()
            .filter(|((of, _), _)| of == namespace)
            .map(|((_, label), value)| (label.clone(), value.clone()))
            .collect();
        self.configuration.namespace(namespace, dataplane, &labels)
    }

    /// Writes a file of YAML for control.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn apply(&self, file: &str, yaml: &str) -> Result<()> {
        self.configuration.put(file, yaml)
    }

    /// Deletes a file that was applied.
    ///
    /// # Errors
    /// When it is not there.
    pub fn withdraw(&self, file: &str) -> Result<()> {
        self.configuration.remove(file)
    }

    /// Changes what is published of a pod.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn change_pod(&self, pod: &Pod, change: impl FnOnce(&mut PodObject)) -> Result<()> {
        self.configuration.pod(&pod.change_object(change))
    }

    /// A Service `<namespace>/<name>` of the pods with label `app: <name>`, with a virtual address of
    /// each family.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn service(&self, name: &str, port: u16, target: u16) -> Result<Service> {
        let app = name.split_once('/').map_or(name, |(_, short)| short);
        self.service_selecting(name, port, target, ("app", app))
    }

    /// A Service of the pods with another label.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn service_selecting(
        &self,
        name: &str,
        port: u16,
        target: u16,
        selector: (&str, &str),
    ) -> Result<Service> {
        self.service_with(name, (port, target), selector, None)
    }

    /// A Service of the pods with label `app: <name>` whose port is declared to speak HTTP.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn http_service(&self, name: &str, port: u16, target: u16) -> Result<Service> {
        let app = name.split_once('/').map_or(name, |(_, short)| short);
        self.service_with(name, (port, target), ("app", app), Some("http"))
    }

    fn service_with(
        &self,
        name: &str,
        (port, target): (u16, u16),
        selector: (&str, &str),
        protocol: Option<&'static str>,
    ) -> Result<Service> {
        let (namespace, short) = name.split_once('/').context("a service is named namespace/name")?;
        let number = self.services.fetch_add(1, Ordering::Relaxed);
        let service = Service {
            v4: Ipv4Addr::new(10, 96, 0, u8::try_from(number)?),
            v6: Ipv6Addr::new(0xfd00, 0x96, 0, 0, 0, 0, 0, number),
            port,
        };
        self.configuration.service(&ServiceObject {
            namespace: namespace.to_owned(),
            name: short.to_owned(),
            addresses: vec![service.v4.into(), service.v6.into()],
            port: (port, target),
            selector: (selector.0.to_owned(), selector.1.to_owned()),
            protocol,
        })?;
        Ok(service)
    }
}
