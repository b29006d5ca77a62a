//! Bytes through a tunnel: none lost, none changed, and ends that mean what they meant (bar 3).

use std::env;
use std::net::{Shutdown, SocketAddr};
use std::thread;

use ambit_tests::mesh::Mesh;
use ambit_tests::pod::Pod;
use ambit_tests::traffic::{self, End, Held, Received, serve_one};
use ambit_tests::wait::{self, SOON};
use anyhow::{Context, Result, ensure};

const PORT: u16 = 9000;

/// A client on one node and a server on the other.
fn pair() -> Result<(Mesh, Pod, Pod)> {
    let mesh = Mesh::of_nodes(["n1", "n2"])?;
    mesh.ambient_namespace("shop")?;
    let (client, server) = (mesh.pod("shop/client", "n1")?, mesh.pod("shop/server", "n2")?);
    mesh.start()?;
    Ok((mesh, client, server))
}

/// Size of the long transfer: a gibibyte, unless `AMBIT_TEST_TRANSFER_BYTES` says otherwise.
fn long_transfer() -> Result<u64> {
    match env::var("AMBIT_TEST_TRANSFER_BYTES") {
        Ok(text) => text.parse().with_context(|| format!("AMBIT_TEST_TRANSFER_BYTES={text}")),
        Err(_) => Ok(1 << 30),
    }
}

pub(crate) fn a_gibibyte_each_way_arrives_whole() -> Result<()> {
    let bytes = long_transfer()?;
    let (_mesh, client, server) = pair()?;
    let serving = serve_one(&server, PORT, move |stream| {
        let sender = stream.try_clone()?;
        let sending = thread::spawn(move || {
            let digest = traffic::send(&sender, bytes)?;
            sender.shutdown(Shutdown::Write)?;
            anyhow::Ok(digest)
        });
        let received = traffic::receive(&stream)?;
        Ok((sending.join().expect("the sender does not panic")?, received))
    })?;

    let stream = client.connect(server.at(PORT))?;
    let sender = stream.try_clone()?;
    let sending = thread::spawn(move || {
        let digest = traffic::send(&sender, bytes)?;
        sender.shutdown(Shutdown::Write)?;
        anyhow::Ok(digest)
    });
    let down = traffic::receive(&stream)?;
    let up_digest = sending.join().expect("the sender does not panic")?;
    let (down_digest, up) = serving.finish()?;

    ensure!(up == Received { bytes, digest: up_digest, end: End::Clean }, "up: {} {:?}", up.bytes, up.end);
    ensure!(
        down == Received { bytes, digest: down_digest, end: End::Clean },
        "down: {} {:?}",
        down.bytes,
        down.end
    );
    Ok(())
}

pub(crate) fn either_end_may_finish_first() -> Result<()> {
    const BYTES: u64 = 8 << 20;
    let (_mesh, client, server) = pair()?;

    let client_first = serve_one(&server, PORT, |stream| {
        let received = traffic::receive(&stream)?;
        let sent = traffic::send(&stream, BYTES)?;
        stream.shutdown(Shutdown::Write)?;
        Ok((sent, received))
    })?;
    let stream = client.connect(server.at(PORT))?;
    let up = traffic::send(&stream, BYTES)?;
    stream.shutdown(Shutdown::Write)?;
    let received = traffic::receive(&stream)?;
    let (down, server_received) = client_first.finish()?;
    ensure!(server_received == Received { bytes: BYTES, digest: up, end: End::Clean });
    ensure!(received == Received { bytes: BYTES, digest: down, end: End::Clean });

    let server_first = serve_one(&server, PORT + 1, |stream| {
        let sent = traffic::send(&stream, BYTES)?;
        stream.shutdown(Shutdown::Write)?;
        Ok((sent, traffic::receive(&stream)?))
    })?;
    let stream = client.connect(server.at(PORT + 1))?;
    let received = traffic::receive(&stream)?;
    let up = traffic::send(&stream, BYTES)?;
    stream.shutdown(Shutdown::Write)?;
    let (down, server_received) = server_first.finish()?;
    ensure!(received == Received { bytes: BYTES, digest: down, end: End::Clean });
    ensure!(server_received == Received { bytes: BYTES, digest: up, end: End::Clean });
    Ok(())
}

pub(crate) fn a_reset_never_looks_like_an_end() -> Result<()> {
    const BYTES: u64 = 4 << 20;
    let (_mesh, client, server) = pair()?;

    let aborting = serve_one(&server, PORT, |stream| {
        traffic::send(&stream, BYTES)?;
        traffic::abort(stream)
    })?;
    let stream = client.connect(server.at(PORT))?;
    let received = traffic::receive(&stream)?;
    aborting.finish()?;
    ensure!(received.end == End::Reset, "the server's reset arrived as {:?}", received.end);

    let receiving = serve_one(&server, PORT + 1, |stream| traffic::receive(&stream))?;
    let stream = client.connect(server.at(PORT + 1))?;
    traffic::send(&stream, BYTES)?;
    traffic::abort(stream)?;
    let received = receiving.finish()?;
    ensure!(received.end == End::Reset, "the client's reset arrived as {:?}", received.end);
    Ok(())
}

pub(crate) fn many_connections_leak_nothing() -> Result<()> {
    const SHORT: usize = 10_000;
    const AT_ONCE: usize = 1_000;
    const THREADS: usize = 4;
    let (mesh, client, server) = pair()?;
    traffic::echo(&server, PORT)?;
    let to = server.at(PORT);
    // Tunnels stay open for the next connection, so what counts begins with a warm pool.
    in_threads(THREADS, || short_connections(50, &client, to))?;
    let before = open_descriptors(&mesh)?;

    in_threads(THREADS, || short_connections(SHORT / THREADS, &client, to))?;
    let mut held = Held::open_many(AT_ONCE, &client, to)?;
    held.iter_mut().try_for_each(Held::exchange)?;
    held.into_iter().try_for_each(Held::close)?;

    // A tunnel carries a limited number of streams: a thousand at once may have opened a few more.
    const MORE_TUNNELS: usize = 40;
    let descriptors = || {
        let now = open_descriptors(&mesh)?;
        let fits = now.iter().zip(&before).all(|(now, before)| *now <= before + MORE_TUNNELS);
        ensure!(fits, "descriptors: {before:?} before, {now:?} now");
        Ok(())
    };
    wait::until("the agents to close what the connections used", SOON, descriptors).map(drop)
}

fn short_connections(count: usize, from: &Pod, to: SocketAddr) -> Result<()> {
    (0..count).try_for_each(|number| {
        Held::open(from, to).and_then(Held::close).with_context(|| format!("connection {number}"))
    })
}

fn in_threads(threads: usize, work: impl Fn() -> Result<()> + Sync) -> Result<()> {
    thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(&work)).collect();
        running.into_iter().try_for_each(|thread| thread.join().expect("the work does not panic"))
    })
}

fn open_descriptors(mesh: &Mesh) -> Result<Vec<usize>> {
    mesh.agents().map(|agent| agent.process()?.open_descriptors()).collect()
}
