//! A pod: a network namespace in which applications run that know nothing of the mesh.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, bail, ensure};

use crate::configuration::PodObject;
use crate::mesh::fabric::PodAddresses;
use crate::namespace::Namespace;
use crate::process::{self, Process};
use crate::wait::{self, SOON};

/// The ports on which an agent listens inside a captured pod: outbound, inbound plaintext, HBONE.
pub const CAPTURE_PORTS: [u16; 3] = [15001, 15006, 15008];

/// A pod. Clones are the same pod.
#[derive(Clone, Debug)]
pub struct Pod(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    namespace: Arc<Namespace>,
    addresses: PodAddresses,
    object: Mutex<PodObject>,
    applications: Mutex<Vec<Process>>,
}

/// What `curl` made of a request.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// The HTTP status; `None` without an answer.
    pub status: Option<u16>,
    /// The body, and without an answer what `curl` said.
    pub body: String,
}

impl Fetched {
    /// Insists on an answer with status 200.
    ///
    /// # Errors
    /// On anything else.
    pub fn expect_ok(self) -> Result<Self> {
        ensure!(self.status == Some(200), "expected status 200: {self:?}");
        Ok(self)
    }

    /// Insists on an answer with status 200 and this body.
    ///
    /// # Errors
    /// On anything else.
    pub fn expect_body(self, body: &str) -> Result<Self> {
        ensure!(self.status == Some(200) && self.body == body, "expected {body:?}: {self:?}");
        Ok(self)
    }

    /// Insists on no answer at all: the connection was refused or cut.
    ///
    /// # Errors
    /// On any answer.
    pub fn expect_refused(self) -> Result<Self> {
        ensure!(self.status.is_none(), "expected no answer: {self:?}");
        Ok(self)
    }
}

impl Pod {
    pub(crate) fn new(namespace: Arc<Namespace>, addresses: PodAddresses, object: PodObject) -> Self {
        let (object, applications) = (Mutex::new(object), Mutex::default());
        Self(Arc::new(Inner { namespace, addresses, object, applications }))
    }

    /// Its network namespace.
    pub fn namespace(&self) -> &Arc<Namespace> {
        &self.0.namespace
    }

    /// Its IPv4 address.
    ///
    /// # Panics
    /// When it has none: the scenario made it so.
    pub fn v4(&self) -> Ipv4Addr {
        self.0.addresses.v4.expect("a pod with IPv4")
    }

    /// Its IPv6 address.
    ///
    /// # Panics
    /// When it has none: the scenario made it so.
    pub fn v6(&self) -> Ipv6Addr {
        self.0.addresses.v6.expect("a pod with IPv6")
    }

    /// A port of it, by IPv4 where it has that.
    pub fn at(&self, port: u16) -> SocketAddr {
        let address = self.0.addresses.v4.map_or_else(|| IpAddr::from(self.v6()), IpAddr::from);
        (address, port).into()
    }

    /// A port of it, by IPv6.
    pub fn at_v6(&self, port: u16) -> SocketAddr {
        (self.v6(), port).into()
    }

    /// What is published of it.
    pub fn object(&self) -> PodObject {
        lock(&self.0.object).clone()
    }

    /// Its SPIFFE identity.
    pub fn identity(&self) -> String {
        let object = self.object();
        format!("spiffe://cluster.local/ns/{}/sa/{}", object.namespace, object.service_account)
    }

    pub(crate) fn change_object(&self, change: impl FnOnce(&mut PodObject)) -> PodObject {
        let mut object = lock(&self.0.object);
        change(&mut object);
        object.clone()
    }

    /// A command that runs in the pod.
    pub fn command(&self, program: &str) -> Command {
        self.0.namespace.command(program)
    }

    /// Runs a command in the pod to its end and returns what it printed.
    ///
    /// # Errors
    /// When it fails, with what it said.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Result<String> {
        process::succeed(self.command(program).args(arguments))
    }

    /// Starts an application that runs as long as the pod does, and waits until it listens.
    ///
    /// # Errors
    /// When it does not.
    pub fn host(&self, name: &str, port: u16, command: &mut Command) -> Result<()> {
        let process = Process::start(format!("{name} in {}", self.0.namespace.name()), command)?;
        wait::until(format!("{name} to listen on {port}"), SOON, || {
            ensure!(process.is_running(), "it has ended: {:?}", process.log().lines());
            self.0.namespace.listens_on(port)
        })?;
        lock(&self.0.applications).push(process);
        Ok(())
    }

    /// What the applications of this pod printed.
    pub fn application_lines(&self) -> Vec<String> {
        lock(&self.0.applications).iter().flat_map(|process| process.log().lines()).collect()
    }

    /// Ends all its applications.
    pub fn end_applications(&self) {
        lock(&self.0.applications).clear();
    }

    /// Fetches a URL with `curl`.
    ///
    /// # Errors
    /// When `curl` cannot be run.
    pub fn curl(&self, url: &str) -> Result<Fetched> {
        self.curl_with(&[], url)
    }

    /// The same with more arguments.
    ///
    /// # Errors
    /// When `curl` cannot be run.
    pub fn curl_with(&self, arguments: &[&str], url: &str) -> Result<Fetched> {
        let output = self
            .command("curl")
            .args(["--silent", "--show-error", "--noproxy", "*", "--max-time", "10"])
            .args(arguments)
            .args(["--write-out", "\n%{http_code}", url])
            .stdin(Stdio::null())
            .output()
            .context("curl cannot be started")?;
        let text = String::from_utf8_lossy(&output.stdout);
        let Some((body, status)) = text.rsplit_once('\n') else { bail!("curl printed {text:?}") };
        if output.status.success() {
            return Ok(Fetched { status: Some(status.parse()?), body: body.to_owned() });
        }
        Ok(Fetched { status: None, body: String::from_utf8_lossy(&output.stderr).trim().to_owned() })
    }

    /// Fetches `/` over HTTP with `curl`.
    ///
    /// # Errors
    /// When `curl` cannot be run.
    pub fn get(&self, from: SocketAddr) -> Result<Fetched> {
        self.curl(&format!("http://{from}/"))
    }

    /// Connects from the pod.
    ///
    /// # Errors
    /// When the far end does not accept.
    pub fn connect(&self, to: SocketAddr) -> Result<TcpStream> {
        self.0.namespace.connect(to)
    }

    /// Listens in the pod, as an application of it.
    ///
    /// # Errors
    /// When the port is taken.
    pub fn listen(&self, port: u16) -> Result<TcpListener> {
        self.0.namespace.listen(port)
    }

    /// Waits until an agent has its listeners in the pod.
    ///
    /// # Errors
    /// When it does not.
    pub fn wait_until_captured(&self) -> Result<()> {
        wait::until(format!("{} to be captured", self.0.namespace.name()), SOON, || {
            CAPTURE_PORTS.iter().try_for_each(|port| self.0.namespace.listens_on(*port))
        })
        .map(drop)
    }

    /// Waits until no agent listens in the pod any more.
    ///
    /// # Errors
    /// When one still does.
    pub fn wait_until_released(&self) -> Result<()> {
        wait::until_true(format!("{} to be released", self.0.namespace.name()), SOON, || {
            CAPTURE_PORTS.iter().all(|port| self.0.namespace.listens_on(*port).is_err())
        })
        .map(drop)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
