//! What a pod's author excludes from capture.

use ambit_tests::apps::{self, NGINX};
use ambit_tests::mesh::Mesh;
use ambit_tests::pod::Pod;
use ambit_tests::traffic::{self, Held};
use ambit_tests::wait::{self, SOON};
use ambit_tests::wire::Capture;
use anyhow::{Result, ensure};

use crate::encryption::marker;

const ECHO: u16 = 9000;

fn exclude(mesh: &Mesh, pod: &Pod, annotations: &[(&str, &str)]) -> Result<()> {
    mesh.change_pod(pod, |object| {
        object.annotations.retain(|(key, _)| !key.contains("exclude"));
        let added = annotations.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        object.annotations.extend(added);
    })
}

pub(crate) fn what_is_excluded_is_left_alone_and_changes_under_open_connections() -> Result<()> {
    let mesh = Mesh::of_nodes(["n1", "n2"])?;
    mesh.ambient_namespace("shop")?;
    mesh.plain_namespace("plain")?;
    let marker = marker();
    let (client, web) = (mesh.pod("shop/client", "n1")?, mesh.pod("shop/web", "n2")?);
    let (visitor, plain) = (mesh.pod("plain/visitor", "n1")?, mesh.pod("plain/server", "n2")?);
    apps::nginx(&web, &marker)?;
    apps::nginx(&plain, &marker)?;
    traffic::echo(&web, ECHO)?;
    mesh.apply(
        "strict.yaml",
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\n\
         metadata: { name: default, namespace: shop }\nspec: { mtls: { mode: STRICT } }\n",
    )?;
    mesh.start()?;
    let mut held = Held::open(&client, web.at(ECHO))?;
    visitor.get(web.at(NGINX))?.expect_refused()?;

    // A port of the pod: who comes in clear reaches the application itself.
    exclude(&mesh, &web, &[("ambit.dev/exclude-inbound-ports", &NGINX.to_string())])?;
    for to in [web.at(NGINX), web.at_v6(NGINX)] {
        wait::until("the port to be open", SOON, || visitor.get(to)?.expect_body(&marker))?;
    }
    let refused = visitor.connect(web.at(ECHO)).and_then(Held::over);
    ensure!(refused.is_err(), "a port that is not excluded was reached in clear");
    held.exchange()?;

    exclude(&mesh, &web, &[])?;
    for to in [web.at(NGINX), web.at_v6(NGINX)] {
        wait::until("the port to be closed", SOON, || visitor.get(to)?.expect_refused())?;
    }
    held.exchange()?;

    // Servers: what goes there is the application's own connection, and not the agent's.
    let captured = |client: &Pod| -> Result<bool> {
        let from = mesh.agent("n1").log_position()?;
        client.get(plain.at(NGINX))?.expect_body(&marker)?;
        // The next connection's record is written after that of the one before, if there is one.
        client.get(web.at(NGINX))?.expect_body(&marker)?;
        mesh.agent("n1").wait_for_access(from, |record| record.text("dst.workload") == Some("web"))?;
        let records = mesh.agent("n1").access_log(from)?;
        Ok(records.iter().any(|record| record.text("dst.workload") == Some("server")))
    };
    ensure!(captured(&client)?, "what goes out is captured");
    let range = format!("{}/32", plain.v4());
    exclude(&mesh, &client, &[("ambit.dev/exclude-outbound-cidrs", &range)])?;
    let is_left_alone = || {
        ensure!(!captured(&client)?, "a server's range is still captured");
        Ok(())
    };
    wait::until("the server to be excluded", SOON, is_left_alone)?;

    // And a port of servers, by Istio's name for it: also of the mesh's own, in clear.
    mesh.withdraw("strict.yaml")?;
    let port = NGINX.to_string();
    exclude(&mesh, &client, &[("traffic.sidecar.istio.io/excludeOutboundPorts", &port)])?;
    let is_in_clear = || {
        let capture = Capture::start(&marker)?;
        client.get(web.at(NGINX))?.expect_body(&marker)?;
        ensure!(capture.finish()?.marked > 0, "the port is still captured");
        Ok(())
    };
    wait::until("the port to be excluded", SOON, is_in_clear)?;
    held.exchange()
}
