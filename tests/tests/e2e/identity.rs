//! Certificates: whose, for how long, and what happens when they change (bar 5).

use std::cell::Cell;
use std::collections::BTreeSet;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ambit_identity::ca_client::{CaClient, CaClientConfig, FetchError};
use ambit_identity::channel::to_control_plane;
use ambit_mesh::identity::SpiffeId;
use ambit_tests::apps::{self, NGINX};
use ambit_tests::certificates::{self, Authority, Validity, served_certificate};
use ambit_tests::control::{root_certificate_path, token_path};
use ambit_tests::mesh::fabric::CONTROL;
use ambit_tests::mesh::{Mesh, Settings};
use ambit_tests::pod::Pod;
use ambit_tests::process;
use ambit_tests::sandbox::WORK;
use ambit_tests::traffic;
use ambit_tests::wait::{self, SOON};
use anyhow::{Context, Result, bail, ensure};
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::*;

const ECHO: u16 = 9000;

fn shop(settings: Settings) -> Result<(Mesh, Pod, Pod)> {
    let mesh = Mesh::with_settings(settings, ["n1", "n2"])?;
    mesh.ambient_namespace("shop")?;
    let (client, web) = (mesh.pod("shop/client", "n1")?, mesh.pod("shop/web", "n2")?);
    apps::nginx(&web, "hello")?;
    traffic::echo(&web, ECHO)?;
    mesh.start()?;
    Ok((mesh, client, web))
}

pub(crate) fn three_rotations_lose_nothing() -> Result<()> {
    let life = Duration::from_secs(60);
    let (mesh, client, web) = shop(Settings { certificate_life: life, ..Settings::default() })?;
    traffic::under_load(&client, web.at(NGINX), web.at(ECHO), || {
        let mut seen = [BTreeSet::new(), BTreeSet::new()];
        wait::until("three rotations at both ends", life * 3, || {
            for (certificates, pod) in seen.iter_mut().zip([&client, &web]) {
                certificates.insert(certificates::of_pod(&mesh, pod)?);
            }
            let counts = seen.each_ref().map(BTreeSet::len);
            ensure!(counts.iter().all(|count| *count >= 4), "certificates seen: {counts:?}");
            Ok(())
        })
        .map(drop)
    })
    .map(drop)
}

pub(crate) fn a_certificate_says_who_the_pod_is_and_nothing_else() -> Result<()> {
    let life = Duration::from_secs(3600);
    let (mesh, _, web) = shop(Settings { certificate_life: life, ..Settings::default() })?;
    let der = certificates::of_pod(&mesh, &web)?;
    let (_, certificate) = X509Certificate::from_der(&der)?;

    let mut names = Vec::new();
    for extension in certificate.extensions() {
        if let ParsedExtension::SubjectAlternativeName(alternative) = extension.parsed_extension() {
            names.push((extension.critical, alternative));
        }
    }
    let [(critical, names)] = names.as_slice() else { bail!("{} extensions of names", names.len()) };
    let [GeneralName::URI(uri)] = names.general_names.as_slice() else { bail!("names: {names:?}") };
    ensure!(*critical && *uri == web.identity(), "critical: {critical}, URI: {uri}");
    ensure!(certificate.subject().iter().count() == 0, "the subject is {}", certificate.subject());

    let validity = certificate.validity();
    let seconds = validity.not_after.timestamp() - validity.not_before.timestamp();
    let backdated = i64::try_from(life.as_secs())? + 600;
    ensure!(validity.is_valid() && seconds <= backdated, "valid for {seconds} s: {validity:?}");

    let root = mesh.control().root_certificate()?;
    let (_, root) = parse_x509_pem(root.as_bytes())?;
    certificate.verify_signature(Some(root.parse_x509()?.public_key())).context("the root did not sign it")
}

pub(crate) fn only_tls_1_3_is_spoken() -> Result<()> {
    let (mesh, _, web) = shop(Settings::default())?;
    let credentials =
        Authority::of_control()?.issue("spiffe://cluster.local/ns/shop/sa/probe", Validity::Current)?;
    let directory = Path::new(WORK);
    let files = ["probe.pem", "probe.key"].map(|file| directory.join(file).display().to_string());
    std::fs::write(&files[0], &credentials.certificate)?;
    std::fs::write(&files[1], &credentials.key)?;
    let to = web.at(15008).to_string();
    let handshake = |version: &str| {
        let mut command = mesh.control().namespace().command("openssl");
        command.args([
            "s_client", "-connect", &to, version, "-alpn", "h2", "-cert", &files[0], "-key", &files[1],
        ]);
        process::succeed(&mut command)
    };
    let answer = handshake("-tls1_3")?;
    ensure!(answer.contains("TLSv1.3") && answer.contains("ALPN protocol: h2"), "{answer}");
    for older in ["-tls1_2", "-tls1_1", "-tls1"] {
        ensure!(handshake(older).is_err(), "{older} was accepted");
    }
    Ok(())
}

pub(crate) fn a_node_gets_no_identity_of_another_node() -> Result<()> {
    let (mesh, client, web) = shop(Settings::default())?;
    let with = |token: PathBuf, pod: &Pod| fetch(&mesh, token, pod);
    with(token_path("n1"), &client)?.context("a node asks for its own pod's identity")?;
    with(token_path("n2"), &web)?.context("a node asks for its own pod's identity")?;
    for (node, pod) in [("n1", &web), ("n2", &client)] {
        let answer = with(token_path(node), pod)?;
        ensure!(matches!(answer, Err(FetchError::Denied { .. })), "{node} asked for another's: {answer:?}");
        let identity = pod.identity();
        mesh.control().wait_for_log(SOON, |line| line.contains(&identity) && line.contains(node))?;
    }
    let forged = Path::new(WORK).join("forged-token");
    std::fs::write(&forged, "not-a-token-of-this-mesh")?;
    let answer = with(forged, &client)?;
    ensure!(matches!(answer, Err(FetchError::Unauthenticated { .. })), "a forged token: {answer:?}");
    Ok(())
}

/// Asks control for the identity of `pod`, as the node with this token would.
fn fetch(mesh: &Mesh, token_file: PathBuf, pod: &Pod) -> Result<Result<(), FetchError>> {
    let identity: SpiffeId = pod.identity().parse()?;
    let config = CaClientConfig {
        token_file,
        cluster_id: "Kubernetes".parse()?,
        certificate_ttl: Duration::from_secs(600),
    };
    let address = format!("https://{CONTROL}:15012").parse()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // Sockets are made by the thread that drives the runtime: inside a node's network.
    mesh.agent("n1").namespace().inside(|| {
        runtime.block_on(async {
            let channel = to_control_plane(&address, root_certificate_path())?;
            Ok(CaClient::new(channel, config).fetch(&identity).await.map(drop))
        })
    })
}

pub(crate) fn a_change_of_root_interrupts_nothing() -> Result<()> {
    change_root(Path::new(WORK).join("ca-1"), |mesh, next| {
        mesh.control().kill()?;
        mesh.control().change_settings(|settings| settings.ca_directory = Some(next));
        mesh.start_control()
    })
}

pub(crate) fn a_root_is_replaced_by_files_while_control_runs() -> Result<()> {
    let mounted = Path::new(WORK).join("ca");
    let pid = Cell::new(None);
    change_root(mounted.clone(), |mesh, next| {
        // All files change in one step, as those of a mounted Secret do.
        let aside = mounted.with_extension("next");
        symlink(next, &aside)?;
        std::fs::rename(&aside, &mounted)?;
        let running = mesh.control().pid()?;
        ensure!(pid.replace(Some(running)).is_none_or(|before| before == running), "control was restarted");
        Ok(())
    })
}

/// Replaces the root in the documented steps under load: both trusted, issued by the new one, the new one
/// alone. `switch` plugs in what the next step needs; each step waits until both ends have renewed, at
/// different moments, so that every mixture of two neighbouring steps carries traffic.
fn change_root(mounted: PathBuf, switch: impl Fn(&Mesh, PathBuf) -> Result<()>) -> Result<()> {
    let (old, new) = (Authority::generate("old root")?, Authority::generate("new root")?);
    let plugged = |name: &str, authority: &Authority, trusted: &[&Authority]| -> Result<PathBuf> {
        let directory = Path::new(WORK).join(name);
        authority.plug_in(&directory, trusted)?;
        Ok(directory)
    };
    let life = Duration::from_secs(20);
    let first = plugged("ca-1", &old, &[&old])?;
    if first != mounted {
        symlink(first, &mounted)?;
    }
    let (mesh, client, web) =
        shop(Settings { certificate_life: life, ca_directory: Some(mounted), ..Settings::default() })?;
    let probe = old.issue("spiffe://cluster.local/ns/shop/sa/probe", Validity::Current)?;
    let next_probe = new.issue("spiffe://cluster.local/ns/shop/sa/probe", Validity::Current)?;
    let served = |pod: &Pod| {
        // Either root's probe is let in at some stage; the certificate is shown to both.
        served_certificate(mesh.control().namespace(), pod.at(15008), &probe)
            .or_else(|_| served_certificate(mesh.control().namespace(), pod.at(15008), &next_probe))
    };
    let is_from = |pod: &Pod, authority: &Authority| -> Result<bool> {
        let der = served(pod)?;
        let (_, root) = parse_x509_pem(authority.certificate().as_bytes())?;
        let (_, leaf) = X509Certificate::from_der(&der)?;
        Ok(leaf.verify_signature(Some(root.parse_x509()?.public_key())).is_ok())
    };

    traffic::under_load(&client, web.at(NGINX), web.at(ECHO), || {
        for (name, authority, trusted) in
            [("ca-2", &old, vec![&old, &new]), ("ca-3", &new, vec![&old, &new]), ("ca-4", &new, vec![&new])]
        {
            switch(&mesh, plugged(name, authority, &trusted)?)?;
            let roots: String = trusted.iter().map(|root| root.certificate()).collect();
            wait::until(format!("the roots of {name}"), SOON, || {
                ensure!(mesh.control().root_certificate()? == roots, "they are still those from before");
                Ok(())
            })?;
            let before = [served(&client)?, served(&web)?];
            wait::until(format!("certificates of {name}"), life * 2, || {
                let renewed = served(&client)? != before[0] && served(&web)? != before[1];
                ensure!(renewed, "the certificates are those from before");
                Ok(())
            })?;
            for pod in [&client, &web] {
                ensure!(is_from(pod, authority)?, "{} has a certificate of another root", pod.identity());
            }
        }
        Ok(())
    })
    .map(drop)
}
