//! A container runtime as far as it calls one plugin, and a pod for it.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use tempfile::TempDir;
use ztunnel::capture::netns::{NetworkNamespace, NetworkNamespaceId};
use ztunnel::cni::list::{FILE, write_file};

/// The program under test.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_ztunnel");

/// The version of the specification that is spoken.
pub(crate) const VERSION: &str = "1.0.0";

/// How long the plugin may take.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(3);

/// What the plugins before ours have returned; with a space where a program would write none.
const PREVIOUS_RESULT: &str = r#"{"cniVersion": "1.0.0","ips":[{"address":"10.244.1.5/24"}],"dns":{}}"#;

/// A runtime that starts one pod.
pub(crate) struct Runtime {
    directory: TempDir,
    pod: String,
    namespace: NetworkNamespace,
    /// Keeps the path of the namespace valid.
    file: File,
}

/// What came of a call.
#[derive(Debug)]
pub(crate) struct Outcome(Output);

impl Runtime {
    /// For the pod `<namespace>/<name>`.
    pub(crate) fn new(pod: &str) -> Self {
        let make = || {
            unshare(CloneFlags::CLONE_NEWNET).expect("these tests need root");
            File::open("/proc/thread-self/ns/net").unwrap()
        };
        let file = thread::spawn(make).join().unwrap();
        let namespace = NetworkNamespace::open(&path(&file)).unwrap();
        let directory = tempfile::tempdir().unwrap();
        for name in ["run", "var"] {
            fs::create_dir(directory.path().join(name)).unwrap();
        }
        Self { directory, pod: pod.to_owned(), namespace, file }
    }

    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// What is gone after a reboot.
    pub(crate) fn run(&self) -> PathBuf {
        self.directory.path().join("run")
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.run().join("cni.sock")
    }

    pub(crate) fn namespace(&self) -> &NetworkNamespace {
        &self.namespace
    }

    pub(crate) fn namespace_id(&self) -> NetworkNamespaceId {
        self.namespace.id()
    }

    pub(crate) fn previous_result(&self) -> &'static str {
        PREVIOUS_RESULT
    }

    fn lists(&self) -> [PathBuf; 2] {
        ["run", "var"].map(|name| self.directory.path().join(name).join(FILE))
    }

    /// An agent has left this list in both places.
    pub(crate) fn list(&self, namespaces: &[&str]) {
        let namespaces = namespaces.iter().map(|name| Arc::from(*name)).collect();
        self.lists().iter().for_each(|list| write_file(list, &namespaces).unwrap());
    }

    /// And both were damaged.
    pub(crate) fn damage_lists(&self) {
        for list in self.lists() {
            let text = fs::read_to_string(&list).unwrap();
            fs::write(&list, text.replace("shop", "shoq")).unwrap();
        }
    }

    pub(crate) fn configuration(&self) -> String {
        let [run, var] = self.lists();
        format!(
            r#"{{"cniVersion":"{VERSION}","name":"net","type":"ambit-cni","socket":"{}","lists":["{}","{}"],
               "timeoutSeconds":{},"logFile":"{}","prevResult":{PREVIOUS_RESULT}}}"#,
            self.socket().display(),
            run.display(),
            var.display(),
            TIMEOUT.as_secs(),
            self.directory.path().join("cni.log").display(),
        )
    }

    /// Calls the plugin and waits for its end.
    pub(crate) fn call(&self, command: &str) -> Outcome {
        Outcome::of(self.begin(command))
    }

    /// Calls the plugin without waiting.
    pub(crate) fn begin(&self, command: &str) -> Child {
        self.start(Command::new(PROGRAM), command, "", &self.configuration())
    }

    /// Calls it by another name or way.
    pub(crate) fn call_by(&self, program: Command, command: &str) -> Outcome {
        Outcome::of(self.start(program, command, "", &self.configuration()))
    }

    /// Calls it without a variable of the environment.
    pub(crate) fn call_without(&self, variable: &str, command: &str) -> Outcome {
        Outcome::of(self.start(Command::new(PROGRAM), command, variable, &self.configuration()))
    }

    /// Calls it with another configuration.
    pub(crate) fn call_with_configuration(&self, configuration: &str, command: &str) -> Outcome {
        Outcome::of(self.start(Command::new(PROGRAM), command, "", configuration))
    }

    fn start(&self, mut program: Command, command: &str, without: &str, configuration: &str) -> Child {
        let (namespace, name) = self.pod.split_once('/').unwrap();
        let pod = format!("K8S_POD_NAMESPACE={namespace};K8S_POD_NAME={name}");
        let variables = [
            ("CNI_COMMAND", command.to_owned()),
            ("CNI_CONTAINERID", "container-1".to_owned()),
            ("CNI_NETNS", path(&self.file).display().to_string()),
            ("CNI_IFNAME", "eth0".to_owned()),
            ("CNI_PATH", "/opt/cni/bin".to_owned()),
            ("CNI_ARGS", format!("IgnoreUnknown=1;{pod};K8S_POD_UID=uid-of-{}", self.pod)),
        ];
        program.envs(variables.into_iter().filter(|(name, _)| *name != without));
        let mut child =
            program.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // It may have ended without reading all of it.
        let _ = child.stdin.take().unwrap().write_all(configuration.as_bytes());
        child
    }

    /// Runs a command in the pod; what it printed.
    pub(crate) fn in_pod(&self, command: &str) -> String {
        let words: Vec<_> = command.split(' ').collect();
        let output =
            self.namespace.run(|| Command::new(words[0]).args(&words[1..]).output()).unwrap().unwrap();
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Outcome {
    pub(crate) fn of(child: Child) -> Self {
        Self(child.wait_with_output().unwrap())
    }

    /// What it printed, having succeeded.
    pub(crate) fn output(&self) -> String {
        assert!(self.0.status.success(), "{self:?}");
        String::from_utf8(self.0.stdout.clone()).unwrap()
    }

    /// It failed, and said so as the specification asks.
    pub(crate) fn expect_error(&self, code: u64, part: &str) {
        assert!(!self.0.status.success(), "{self:?}");
        let error: serde_json::Value = serde_json::from_slice(&self.0.stdout).unwrap();
        assert_eq!(error["code"], code, "{error}");
        assert!(error["cniVersion"].is_string(), "{error}");
        let said = format!("{} {}", error["msg"], error["details"]);
        assert!(said.contains(part), "{said} does not say {part:?}");
    }
}

fn path(file: &File) -> PathBuf {
    format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd()).into()
}
