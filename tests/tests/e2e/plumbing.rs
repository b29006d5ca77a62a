//! The harness itself: without a mesh everything must be reachable and visible, or the claims of
//! the other scenarios would hold for the wrong reason; and whatever ends a run, nothing is left.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use ambit_tests::apps;
use ambit_tests::mesh::Mesh;
use ambit_tests::sandbox::{self, Sandbox};
use ambit_tests::wait::{self, SOON};
use ambit_tests::wire::Capture;
use anyhow::{Context, Result, ensure};

use crate::encryption::{APPLICATIONS, host_applications, marker, use_application};

pub(crate) fn without_a_mesh_everything_is_visible() -> Result<()> {
    let mesh = Mesh::of_nodes(["n1", "n2"])?;
    mesh.plain_namespace("shop")?;
    let (one, other) = (mesh.pod("shop/one", "n1")?, mesh.pod("shop/other", "n2")?);
    let marker = marker();
    host_applications(&one, &marker)?;
    host_applications(&other, &marker)?;

    for port in APPLICATIONS {
        for (client, to) in [(&one, other.at(port)), (&other, one.at(port)), (&one, other.at_v6(port))] {
            let capture = Capture::start(&marker)?;
            use_application(client, to, &marker)?;
            let seen = capture.finish()?;
            ensure!(seen.marked > 0, "the marker passed unseen to {to}");
            let seen_plain = seen.flows_beside_hbone().iter().any(|(_, destination)| *destination == to);
            ensure!(seen_plain, "the connection to {to} was not seen: {:?}", seen.flows);
        }
    }
    Ok(())
}

/// A mesh that stands until it is killed. Says so, with the id of its first process outside.
pub(crate) fn stand(sandbox: Sandbox) -> Result<()> {
    let mesh = Mesh::of_nodes(["n1", "n2"])?;
    mesh.ambient_namespace("shop")?;
    let web = mesh.pod("shop/web", "n2")?;
    apps::nginx(&web, "hello")?;
    eprintln!("standing {}", sandbox.outer_pid);
    loop {
        thread::park();
    }
}

/// Runs outside of a sandbox: what it looks for is what would be left here.
pub(crate) fn a_killed_runner_leaves_nothing_behind(inside_arguments: [&str; 2]) -> Result<()> {
    let sandbox = sandbox::command(inside_arguments)?;
    // A runner in between, so that the one killed is not the sandbox's own first process.
    let mut runner = Command::new("sh")
        .args(["-c", "\"$@\" & wait", "runner"])
        .arg(sandbox.get_program())
        .args(sandbox.get_args())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut lines = BufReader::new(runner.stderr.take().context("stderr was piped")?).lines();
    let line = lines.next().context("the sandbox ended at once")??;
    let first = line.strip_prefix("standing ").with_context(|| format!("the sandbox said {line:?}"))?;
    let namespace = fs::read_link(format!("/proc/{first}/ns/pid"))?;
    let running = processes_of(&namespace)?;
    ensure!(running >= 2, "only {running} processes run in the sandbox");

    runner.kill()?;
    runner.wait()?;

    // A namespace lives as long as a process or a mount holds it; the mounts are held by the
    // processes alone.
    wait::until_true("the sandbox to be gone", SOON, || matches!(processes_of(&namespace), Ok(0)))?;
    ensure!(!Path::new("/run/netns/shop-web").exists(), "a network namespace is left");
    ensure!(!Path::new(sandbox::WORK).exists(), "{} is left", sandbox::WORK);
    Ok(())
}

fn processes_of(namespace: &PathBuf) -> Result<usize> {
    let own = |entry: &fs::DirEntry| {
        fs::read_link(entry.path().join("ns/pid")).is_ok_and(|link| link == *namespace)
    };
    Ok(fs::read_dir("/proc")?.filter_map(Result::ok).filter(own).count())
}
