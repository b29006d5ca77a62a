//! One call of the plugin, from the environment and standard input to what the runtime is answered.
//!
//! It decides nothing by itself: [`call`](super::call) and [`network`](super::network) say what is
//! asked, [`verdict`] what to do. It waits here, blocking, for a bounded time.

use std::env;
use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::call::{Attachment, Call, Owner, Pod, Sandbox};
use super::error::{CniError, Code};
use super::journal::Journal;
use super::list;
use super::network::{Network, VERSIONS};
use super::verdict::{self, Exempt, Heard, Listed, Rules};
use super::wire::{self, About, Answer, PodName, Question};
use crate::capture;
use crate::capture::netns::NetworkNamespace;

/// Octets of a network configuration.
const LONGEST: u64 = 4 << 20;

/// How long a pod is waited for that starts even if nothing is heard of it: control usually tells of a
/// pod within milliseconds of its being scheduled.
const OPTIONAL_WAIT: Duration = Duration::from_secs(5);

/// How long the agent is told of a pod's end.
const DEPARTURE_WAIT: Duration = Duration::from_secs(2);

/// How long after a failed attempt the agent is tried again.
const BETWEEN_ATTEMPTS: Duration = Duration::from_millis(200);

/// What the agent is given less than the plugin itself has, so that its answer arrives in time.
const MARGIN: Duration = Duration::from_millis(500);

/// Serves the call that the environment describes. What is printed is the runtime's: the result, or
/// why there is none.
pub fn main() -> ExitCode {
    let started = Instant::now();
    let mut text = String::new();
    let read = io::stdin().take(LONGEST).read_to_string(&mut text);
    let outcome = match read {
        Ok(_) => serve(|name| env::var(name).ok(), &text, started),
        Err(error) => Err(CniError::new(Code::Decode, "standard input cannot be read", error.to_string())),
    };
    let (output, code) = match outcome {
        Ok(output) => (output, ExitCode::SUCCESS),
        Err(error) => (error.to_json(&Network::version_of(&text)), ExitCode::FAILURE),
    };
    // If nobody reads it, nobody is left to tell.
    let _ = io::stdout().write_all(output.as_bytes());
    code
}

/// Serves one call; what to print.
fn serve(
    variable: impl Fn(&str) -> Option<String>,
    text: &str,
    started: Instant,
) -> Result<String, CniError> {
    let call = Call::read(variable)?;
    let network = match (&call, Network::read(text)) {
        (Call::Version, _) => return Ok(versions(&Network::version_of(text))),
        // A pod must be able to end whatever has become of the configuration.
        (Call::Delete(_), Err(_)) => return Ok(String::new()),
        (_, network) => network?,
    };
    let serving = Serving { network: &network, deadline: started + network.timeout() };
    let served = serving.serve(&call);
    let outcome = match &served {
        Ok((_, why)) => why.clone(),
        Err(error) => format!("failed: {error}"),
    };
    let took = started.elapsed().as_millis();
    Journal::new(network.log_file.clone()).write(&format!("{}: {outcome} ({took} ms)", told(&call)));
    served.map(|(output, _)| output)
}

/// One call with its configuration.
struct Serving<'a> {
    network: &'a Network<'a>,
    deadline: Instant,
}

impl Serving<'_> {
    /// What to print, and why for the journal.
    fn serve(&self, call: &Call) -> Result<(String, String), CniError> {
        let silent = |why: &str| Ok((String::new(), why.to_owned()));
        match call {
            Call::Add(attachment) => {
                let result = self.network.result()?;
                let why = self.add(attachment)?;
                Ok((result.to_owned(), why))
            }
            Call::Check(attachment) => {
                self.check(attachment)?;
                silent("as it was left")
            }
            Call::Delete(sandbox) => silent(self.delete(sandbox)),
            Call::Version => Ok((versions(""), String::new())),
            // A runtime that is told otherwise starts no pod at all on the node, the agent's own
            // among them. What ADD does without the agent is decided for each pod.
            Call::Status => silent("ready"),
            // Nothing is kept for an attachment but what the agent holds, and that ends with the pod.
            Call::CollectGarbage => silent("nothing is kept"),
        }
    }

    fn add(&self, Attachment { network_namespace, sandbox }: &Attachment) -> Result<String, CniError> {
        let Owner::Pod(pod) = &sandbox.owner else {
            return Ok("starts: it is no pod of Kubernetes".to_owned());
        };
        // Nothing that the agent could say would hold it up, and it may be the agent.
        if pod.namespace == self.network.mesh_namespace {
            return Ok(format!("starts: {:?}", verdict::Start::OfTheMesh));
        }
        let namespace = open(network_namespace)?;
        // The runtime may not have come to it: some make the networks of a pod all at once.
        capture::raise_loopback(&namespace).map_err(|error| {
            CniError::new(Code::Later, format!("lo of {pod} cannot be brought up"), error.to_string())
        })?;
        let (listed, exempt) = (list::read(&self.network.lists), Exempt::of(self.network));
        let heard = self.hear(About::Arrival, (pod, &sandbox.id), &namespace, &listed);
        let start = verdict::decide(pod, &heard, &listed, exempt)?;
        let mut why = format!("starts: {start:?}");
        if let Heard::Silence(silence) | Heard::Answer(Answer::Unknown(silence)) = &heard {
            // Writing to a string does not fail.
            let _ = write!(why, " ({silence})");
        }
        Ok(why)
    }

    fn check(&self, Attachment { network_namespace, sandbox }: &Attachment) -> Result<(), CniError> {
        let Owner::Pod(pod) = &sandbox.owner else { return Ok(()) };
        let namespace = open(network_namespace)?;
        let listed = list::read(&self.network.lists);
        let heard = self.hear(About::Check, (pod, &sandbox.id), &namespace, &listed);
        let rules = match capture::is_in_place(&namespace) {
            Ok(true) => Rules::Installed,
            Ok(false) => Rules::Missing,
            Err(error) => {
                let message = format!("the rules of {pod} cannot be read");
                return Err(CniError::new(Code::Later, message, error.to_string()));
            }
        };
        verdict::check(pod, &heard, rules, &listed, Exempt::of(self.network))
    }

    /// Never fails: the kubelet repeats it until it succeeds, and the agent notices by itself.
    fn delete(&self, sandbox: &Sandbox) -> &'static str {
        let Owner::Pod(pod) = &sandbox.owner else { return "it is no pod of Kubernetes" };
        let deadline = self.deadline.min(Instant::now() + DEPARTURE_WAIT);
        match self.ask(About::Departure, pod, &sandbox.id, None, deadline) {
            Heard::Answer(_) => "told the agent",
            Heard::Silence(_) => "the agent is away",
        }
    }

    /// What the agent says. Silence is waited out where the pod could not start without an answer: an
    /// agent that is being replaced, or comes up, is back in a moment.
    fn hear(
        &self,
        about: About,
        (pod, sandbox): (&Pod, &str),
        namespace: &NetworkNamespace,
        listed: &Listed,
    ) -> Heard {
        let silence = Heard::Silence(String::new());
        let may_start = verdict::decide(pod, &silence, listed, Exempt::of(self.network)).is_ok();
        let deadline =
            if may_start { self.deadline.min(Instant::now() + OPTIONAL_WAIT) } else { self.deadline };
        loop {
            let heard = self.ask(about, pod, sandbox, Some(namespace), deadline);
            let is_over = Instant::now() + BETWEEN_ATTEMPTS >= deadline;
            match heard {
                Heard::Silence(_) if !may_start && !is_over => thread::sleep(BETWEEN_ATTEMPTS),
                Heard::Silence(_) | Heard::Answer(_) => return heard,
            }
        }
    }

    /// Asks the agent once.
    fn ask(
        &self,
        about: About,
        pod: &Pod,
        sandbox: &str,
        namespace: Option<&NetworkNamespace>,
        deadline: Instant,
    ) -> Heard {
        let Some(uid) = &pod.uid else {
            let why = "the container runtime does not tell the pod's UID (K8S_POD_UID in CNI_ARGS)";
            return Heard::Answer(Answer::Unknown(why.to_owned()));
        };
        let wait = deadline.saturating_duration_since(Instant::now()).saturating_sub(MARGIN);
        let question = Question {
            version: wire::VERSION,
            about,
            pod: PodName { namespace: pod.namespace.clone(), name: pod.name.clone(), uid: uid.clone() },
            sandbox: sandbox.to_owned(),
            wait_ms: wait.as_millis().try_into().unwrap_or(u64::MAX),
        };
        match exchange(&self.network.socket, &question, namespace, deadline) {
            Ok(answer) => Heard::Answer(answer),
            Err(error) => {
                let socket = self.network.socket.display();
                let is = |kinds: &[io::ErrorKind]| kinds.contains(&error.kind());
                let why = if is(&[io::ErrorKind::NotFound, io::ErrorKind::ConnectionRefused]) {
                    "the node agent ztunnel is not running on this node"
                } else if is(&[io::ErrorKind::TimedOut]) {
                    "the node agent ztunnel does not answer"
                } else {
                    "the node agent ztunnel cannot be asked"
                };
                Heard::Silence(format!("{why} ({socket}: {error})"))
            }
        }
    }
}

/// Asks, and waits for the answer.
fn exchange(
    socket: &Path,
    question: &Question,
    namespace: Option<&NetworkNamespace>,
    deadline: Instant,
) -> io::Result<Answer> {
    // A full queue refuses at once; the attempt is repeated by whoever has time left.
    let connection = wire::dial(socket)?;
    wait(&connection, PollFlags::POLLOUT, deadline)?;
    wire::send(&connection, question, namespace)?;
    wait(&connection, PollFlags::POLLIN, deadline)?;
    wire::receive(&connection).map(|(answer, _)| answer)
}

fn wait(socket: &impl AsFd, until: PollFlags, deadline: Instant) -> io::Result<()> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let limit = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(socket.as_fd(), until)], limit) {
            Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
            Ok(_) => return Ok(()),
            Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

fn open(path: &Path) -> Result<NetworkNamespace, CniError> {
    NetworkNamespace::open(path)
        .map_err(|error| CniError::new(Code::Environment, "CNI_NETNS cannot be used", error.to_string()))
}

fn versions(asked: &str) -> String {
    let newest = VERSIONS[VERSIONS.len() - 1];
    let version = if asked.is_empty() { newest } else { asked };
    serde_json::json!({ "cniVersion": version, "supportedVersions": VERSIONS }).to_string()
}

/// A call for the journal.
fn told(call: &Call) -> String {
    let owner = |owner: &Owner| match owner {
        Owner::Pod(pod) => format!("{pod} ({})", pod.uid.as_deref().unwrap_or("UID unknown")),
        Owner::Other => "no pod of Kubernetes".to_owned(),
    };
    match call {
        Call::Add(attachment) => format!("ADD {}", owner(&attachment.sandbox.owner)),
        Call::Delete(sandbox) => format!("DEL {}", owner(&sandbox.owner)),
        Call::Check(attachment) => format!("CHECK {}", owner(&attachment.sandbox.owner)),
        Call::Version => "VERSION".to_owned(),
        Call::Status => "STATUS".to_owned(),
        Call::CollectGarbage => "GC".to_owned(),
    }
}
