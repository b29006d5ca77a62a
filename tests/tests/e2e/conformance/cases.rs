//! What a case is made of, and how it is held.

use std::collections::BTreeMap;

use ambit_tests::echo::{Answer, Asked, CALL, HTTP2, Session, Speaks};
use ambit_tests::wait::{self, SOON};
use anyhow::{Context, Result, bail, ensure};
use http::Method;
use serde::Deserialize;
use serde_json::Value;

use super::place::Place;

/// So often in a row a call must go as expected: it is no accident of a change that spreads.
const IN_A_ROW: usize = 3;

/// The file of a case's objects.
const FILE: &str = "case.yaml";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Case {
    /// YAML for control.
    #[serde(default)]
    objects: String,
    /// Where a status says something else than that everything is well.
    #[serde(default)]
    says: Vec<Said>,
    #[serde(default)]
    calls: Vec<Call>,
    #[serde(default)]
    shares: Option<Shares>,
}

/// A condition of a route.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Said {
    /// `<kind>/<namespace>/<name>`.
    route: String,
    /// The parent that it is about, as statuses name it.
    parent: String,
    /// `<type>=<status>/<reason>`.
    condition: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Call {
    /// The pod that asks.
    #[serde(default = "client")]
    from: String,
    /// What is dialled.
    to: String,
    /// Whether it is a call of gRPC; its path is that of the method.
    #[serde(default)]
    grpc: bool,
    #[serde(default)]
    method: Option<String>,
    #[serde(default)]
    path: Option<String>,
    /// The authority, where it is not what is dialled.
    #[serde(default)]
    host: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default = "ok")]
    status: u16,
    #[serde(default)]
    grpc_status: u16,
    /// The pod that is reached.
    #[serde(default)]
    backend: Option<String>,
    /// What reaches it.
    #[serde(default)]
    sent: Sent,
    /// What comes back.
    #[serde(default)]
    answer: Answered,
}

fn client() -> String {
    "mesh/echo-v1".to_owned()
}

fn ok() -> u16 {
    200
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sent {
    #[serde(default)]
    path: Option<String>,
    #[serde(default)]
    host: Option<String>,
    #[serde(default)]
    protocol: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    absent: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Answered {
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    absent: Vec<String>,
}

/// Requests of one connection, and which share of them each backend has.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Shares {
    to: String,
    #[serde(default)]
    grpc: bool,
    requests: u32,
    percent: BTreeMap<String, u32>,
}

impl Case {
    /// Applies the objects, and sees that everything goes as expected.
    pub(super) fn hold(&self, place: &Place, name: &str) -> Result<()> {
        if self.objects.is_empty() {
            return self.calls_hold(place);
        }
        // The one address that a case cannot know.
        let address = place.pod("mesh/echo-v2")?.v4().to_string();
        place.mesh.apply(FILE, &self.objects.replace("POD_V2", &address))?;
        let said = || self.statuses_hold(&place.mesh.control().statuses()?);
        wait::until(format!("the statuses of {name}"), SOON, said)?;
        self.calls_hold(place)?;
        place.mesh.withdraw(FILE)?;
        wait::until("the routes to be gone", SOON, || {
            let dump = place.waypoint.config_dump()?;
            ensure!(dump["routes"].as_array().is_some_and(Vec::is_empty), "{}", dump["routes"]);
            Ok(())
        })
        .map(drop)
    }

    fn calls_hold(&self, place: &Place) -> Result<()> {
        for call in &self.calls {
            let often = || (0..IN_A_ROW).try_for_each(|_| call.holds(place));
            wait::until(format!("{call:?}"), SOON, often)?;
        }
        self.shares.as_ref().map_or(Ok(()), |shares| shares.hold(place))
    }

    /// Of each route: the conditions that are listed, and that every other one is well.
    fn statuses_hold(&self, texts: &[String]) -> Result<()> {
        let mut routes = 0;
        for text in texts {
            let Ok(status) = serde_json::from_str::<Value>(text) else { continue };
            let word = |key: &str| status[key].as_str().unwrap_or_default();
            if status["file"] != FILE || !ROUTES.contains(&word("kind")) {
                continue;
            }
            routes += 1;
            let route = format!("{}/{}/{}", word("kind"), word("namespace"), word("name"));
            ensure!(status["accepted"] == true, "{route} is not accepted: {}", status["message"]);
            let mut expected: Vec<&Said> = self.says.iter().filter(|said| said.route == route).collect();
            for condition in status["conditions"].as_array().into_iter().flatten() {
                let word = |key: &str| condition[key].as_str().unwrap_or_default();
                let text = format!("{}={}/{}", word("type"), word("status"), word("reason"));
                let is_it = |said: &&Said| said.parent == word("parent") && said.condition == text;
                match expected.iter().position(is_it) {
                    Some(at) => drop(expected.remove(at)),
                    None => ensure!(
                        word("status") == "True" && word("type") != "PartiallyInvalid",
                        "{route} says of {}: {text}: {}",
                        word("parent"),
                        word("message")
                    ),
                }
            }
            ensure!(expected.is_empty(), "{route} does not say {expected:?}: {}", status["conditions"]);
        }
        let written = self.objects.lines().filter_map(|line| line.strip_prefix("kind: "));
        let written = written.filter(|kind| ROUTES.contains(kind)).count();
        ensure!(routes == written, "{routes} of {written} routes have a status");
        Ok(())
    }
}

const ROUTES: [&str; 4] = ["HTTPRoute", "GRPCRoute", "TCPRoute", "TLSRoute"];

impl Call {
    fn holds(&self, place: &Place) -> Result<()> {
        let (speaks, port) = if self.grpc { (Speaks::Http2, HTTP2) } else { (Speaks::Http1, 80) };
        let mut session = Session::open(place.pod(&self.from)?, place.address(&self.to, port)?, speaks)?;
        let asked = self.asked()?;
        let answer = if self.grpc { session.call(&asked)? } else { session.ask(&asked)? };
        self.judge(&answer).with_context(|| format!("{answer:?}"))
    }

    fn asked(&self) -> Result<Asked> {
        let path = self.path.as_deref().unwrap_or(if self.grpc { CALL } else { "/" });
        let mut asked = Asked::get(self.host.as_deref().unwrap_or(&self.to), path);
        asked.method = self.method.as_deref().map_or(Ok(Method::GET), str::parse)?;
        asked.headers = self.headers.clone().into_iter().collect();
        Ok(asked)
    }

    fn judge(&self, answer: &Answer) -> Result<()> {
        ensure!(answer.status == self.status, "status {} and not {}", answer.status, self.status);
        if self.grpc {
            let status = answer.grpc_status;
            ensure!(status == Some(self.grpc_status), "gRPC status {status:?} and not {}", self.grpc_status);
        }
        for (name, value) in &self.answer.headers {
            let found: Vec<_> = answer.headers.get_all(name.as_str()).iter().collect();
            ensure!(found == [value.as_str()], "the answer's header {name} is {found:?} and not {value:?}");
        }
        for name in &self.answer.absent {
            ensure!(!answer.headers.contains_key(name.as_str()), "the answer has a header {name}");
        }
        let Some(backend) = &self.backend else { return Ok(()) };
        let reached = answer.reached()?;
        ensure!(reached.pod == *backend, "{} was reached and not {backend}", reached.pod);
        for (what, wanted, found) in [
            ("path", &self.sent.path, &reached.path),
            ("host", &self.sent.host, &reached.host),
            ("protocol", &self.sent.protocol, &reached.protocol),
        ] {
            let same = wanted.as_ref().is_none_or(|wanted| wanted == found);
            ensure!(same, "the {what} that was sent is {found:?} and not {wanted:?}");
        }
        for (name, value) in &self.sent.headers {
            let found = reached.header(name);
            ensure!(found.as_ref() == Some(value), "header {name} is {found:?} and not {value:?}");
        }
        for name in &self.sent.absent {
            ensure!(reached.header(name).is_none(), "header {name} was sent");
        }
        Ok(())
    }
}

impl Shares {
    fn hold(&self, place: &Place) -> Result<()> {
        let Self { to, grpc, .. } = self;
        let (speaks, port, path) =
            if *grpc { (Speaks::Http2, HTTP2, CALL) } else { (Speaks::Http1, 80, "/") };
        let mut session = Session::open(place.pod(&client())?, place.address(to, port)?, speaks)?;
        let asked = Asked::get(to, path);
        let mut counted = BTreeMap::<String, u32>::new();
        for _ in 0..self.requests {
            let answer = if *grpc { session.call(&asked)? } else { session.ask(&asked)? };
            *counted.entry(answer.reached()?.pod).or_default() += 1;
        }
        if let Some(other) = counted.keys().find(|pod| !self.percent.contains_key(*pod)) {
            bail!("{other} was reached: {counted:?}");
        }
        for (pod, percent) in &self.percent {
            let (count, total) = (counted.get(pod).copied().unwrap_or_default(), f64::from(self.requests));
            let share = f64::from(*percent) / 100.0;
            // Six standard deviations of a binomial count: once in five hundred million runs.
            let bound = 6.0 * (total * share * (1.0 - share)).sqrt();
            let distance = (f64::from(count) - total * share).abs();
            ensure!(distance <= bound, "{pod} has {count} of {total} requests and not {percent} %");
        }
        Ok(())
    }
}
