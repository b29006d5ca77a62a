//! TCPRoute and TLSRoute: connections whose requests nobody reads.

use ambit_tests::agent::AccessRecord;
use ambit_tests::apps;
use ambit_tests::echo::{Asked, Session, Speaks};
use ambit_tests::wait::{self, SOON};
use anyhow::{Context, Result, ensure};

use super::place::Place;

/// A canary of a port that is declared as TCP, in the versions that there are of the kind.
fn tcp(version: &str, weights: (u32, u32)) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/{version}\nkind: TCPRoute\nmetadata: {{name: tcp, namespace: mesh}}\n\
         spec:\n  parentRefs: [{{group: '', kind: Service, name: echo, port: 9090}}]\n  rules:\n  - backendRefs:\n    \
         - {{name: echo-v1, port: 80, weight: {}}}\n    - {{name: echo-v2, port: 80, weight: {}}}\n",
        weights.0, weights.1
    )
}

/// By the name that a client's TLS asks for.
const TLS: &str = "apiVersion: gateway.networking.k8s.io/v1\nkind: TLSRoute\nmetadata: {name: one, namespace: mesh}\n\
                   spec:\n  parentRefs: [{group: '', kind: Service, name: echo, port: 443}]\n  \
                   hostnames: [one.example]\n  rules: [{backendRefs: [{name: echo-v1, port: 443}]}]\n---\n\
                   apiVersion: gateway.networking.k8s.io/v1alpha2\nkind: TLSRoute\n\
                   metadata: {name: others, namespace: mesh}\nspec:\n  \
                   parentRefs: [{group: '', kind: Service, name: echo, port: 443}]\n  \
                   hostnames: ['*.example']\n  rules: [{backendRefs: [{name: echo-v2, port: 443}]}]\n";

pub(crate) fn connections_have_routes_too() -> Result<()> {
    let place = Place::open()?;
    let client = place.pod("mesh/echo-v1")?;
    let reached = |at: &str| -> Result<String> {
        let mut session = Session::open(client, place.address(at, 80)?, Speaks::Http1)?;
        Ok(session.ask(&Asked::get("echo", "/"))?.reached()?.pod)
    };
    for (version, weights, expected) in
        [("v1alpha2", (0, 1), "echo-v2"), ("v1", (1, 0), "echo-v1"), ("v1", (0, 1), "echo-v2")]
    {
        place.mesh.apply("tcp.yaml", &tcp(version, weights))?;
        wait::until(format!("the TCPRoute of {version} to {expected}"), SOON, || {
            (0..5).try_for_each(|_| {
                let pod = reached("echo:9090")?;
                ensure!(pod == expected, "{pod} is reached");
                Ok(())
            })
        })?;
    }
    reached("echo").context("requests of another port")?;

    for (pod, body) in [("mesh/echo-v1", "v1"), ("mesh/echo-v2", "v2")] {
        apps::nginx_tls(place.pod(pod)?, body)?;
    }
    place.mesh.apply("tls.yaml", TLS)?;
    let at = place.address("echo", 443)?;
    let asked = |name: &str| {
        let to = format!("::{at}");
        client.curl_with(&["--insecure", "--connect-to", &to], &format!("https://{name}/"))
    };
    for (name, body) in [("one.example", "v1"), ("two.example", "v2"), ("a.b.example", "v2")] {
        wait::until(format!("{name} to reach {body}"), SOON, || {
            (0..5).try_for_each(|_| asked(name)?.expect_body(body).map(drop))
        })?;
    }
    let of_name = |record: &AccessRecord| record.text("requested_server_name") == Some("two.example");
    place.waypoint.wait_for_access(0, of_name).context("the name in the access log")?;
    wait::until("a name that no route takes to be refused", SOON, || {
        asked("one.elsewhere")?.expect_refused().map(drop)
    })
    .map(drop)
}
