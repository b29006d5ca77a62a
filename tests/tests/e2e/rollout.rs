//! Replicas of a waypoint come and go under load from clients that do not try again: nothing is lost, over HTTP/1
//! with keep-alive, HTTP/2 and gRPC alike, and what is open finishes.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ambit_tests::apps::{self, NGINX};
use ambit_tests::mesh::{Mesh, Service};
use ambit_tests::pod::Pod;
use ambit_tests::wait::{self, SOON};
use ambit_tests::waypoint::Waypoint;
use anyhow::{Context, Result, anyhow, ensure};
use bytes::Bytes;
use h2::client::SendRequest;
use http::{HeaderMap, Request, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;
use tokio::time::{interval, timeout};

/// Requests a second, together.
const PER_SECOND: u32 = 500;

/// How they are made, and how many clients share them.
const CLIENTS: [(Kind, u32); 3] = [(Kind::Http1, 4), (Kind::Http2, 2), (Kind::Grpc, 2)];

/// How long a request may wait for its answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where the application of HTTP/2 listens.
const H2: u16 = 8090;

/// How long one that is told to end may take: the drain time, and what it needs to start and end at all.
const END: Duration = Duration::from_secs(20);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Http1,
    Http2,
    Grpc,
}

/// Two applications behind a waypoint.
struct Shop {
    mesh: Mesh,
    client: Pod,
    http1: Service,
    http2: Service,
}

impl Shop {
    /// With these instances of the waypoint.
    fn open(instances: &[(&str, &str)]) -> Result<(Self, Vec<Waypoint>)> {
        let mesh = Mesh::of_nodes(["n1", "n2"])?;
        mesh.ambient_namespace("shop")?;
        let client = mesh.pod("shop/client", "n1")?;
        let (web, api) = (mesh.pod("shop/web", "n2")?, mesh.pod("shop/api", "n2")?);
        apps::nginx(&web, "web")?;
        serve_http2(&api)?;
        let (http1, http2) = (mesh.service("shop/web", 80, NGINX)?, mesh.service("shop/api", 80, H2)?);
        mesh.gateway("shop/waypoint")?;
        mesh.use_waypoint("shop", Some("waypoint"))?;
        let made = instances.iter().map(|(name, node)| mesh.waypoint("waypoint", name, node));
        let waypoints = made.collect::<Result<Vec<_>>>()?;
        mesh.start()?;
        waypoints.iter().try_for_each(|waypoint| mesh.start_waypoint(waypoint))?;
        wait::until("the shop to be reached", SOON, || client.get(http1.v4())?.expect_ok())?;
        Ok((Self { mesh, client, http1, http2 }, waypoints))
    }

    fn add(&self, name: &str, node: &str) -> Result<Waypoint> {
        let waypoint = self.mesh.waypoint("waypoint", name, node)?;
        self.mesh.start_waypoint(&waypoint)?;
        Ok(waypoint)
    }

    /// As Kubernetes does: it is told to end and taken out of the endpoints at once.
    fn end(&self, waypoint: &Waypoint) -> Result<()> {
        self.mesh.change_pod(waypoint.pod(), |object| object.terminating = true)?;
        waypoint.terminate(END)
    }

    /// Runs `work` under load, of which nothing may fail. The instances that it has made serve until the load has
    /// ended.
    fn under_load(&self, work: impl FnOnce() -> Result<Vec<Waypoint>>) -> Result<()> {
        let done = AtomicBool::new(false);
        let clients: u32 = CLIENTS.iter().map(|(_, clients)| clients).sum();
        let apart = Duration::from_secs(1) * clients / PER_SECOND;
        let (tally, worked) = thread::scope(|scope| {
            let load = scope
                .spawn(|| self.client.namespace().inside(|| runtime()?.block_on(self.load(apart, &done))));
            let worked = work();
            done.store(true, Ordering::Relaxed);
            (load.join(), worked)
        });
        let tally = tally.map_err(|_| anyhow!("the load panicked"))??;
        let _serving = worked?;
        for (kind, (asked, failed)) in &tally {
            ensure!(failed.is_empty(), "{kind:?}: {} of {asked} requests failed: {:?}", failed.len(), failed);
        }
        Ok(())
    }

    async fn load(&self, apart: Duration, done: &AtomicBool) -> Result<BTreeMap<Kind, (u32, Vec<String>)>> {
        let mut clients = Vec::new();
        for (kind, count) in CLIENTS {
            let to = if kind == Kind::Http1 { self.http1.v4() } else { self.http2.v4() };
            clients.extend((0..count).map(|_| keep_asking(kind, to, apart, done)));
        }
        let mut all = BTreeMap::<_, (u32, Vec<String>)>::new();
        let mut asking = clients.into_iter().map(Box::pin).collect::<Vec<_>>();
        // All at once, on one thread.
        let tallies = std::future::poll_fn(|cx| {
            let mut ended = Vec::new();
            asking.retain_mut(|client| match client.as_mut().poll(cx) {
                std::task::Poll::Ready(tally) => {
                    ended.push(tally);
                    false
                }
                std::task::Poll::Pending => true,
            });
            for (kind, asked, failed) in ended {
                let entry = all.entry(kind).or_default();
                entry.0 += asked;
                entry.1.extend(failed);
            }
            if asking.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
        });
        tallies.await;
        Ok(all)
    }
}

fn runtime() -> Result<Runtime> {
    Builder::new_current_thread().enable_all().build().context("making a runtime")
}

/// One client: a request after the other on a connection that is kept until the far end says that it goes.
async fn keep_asking(
    kind: Kind,
    to: SocketAddr,
    apart: Duration,
    done: &AtomicBool,
) -> (Kind, u32, Vec<String>) {
    let mut connection = Connection::new(kind, to);
    let (mut asked, mut failed) = (0, Vec::new());
    let mut pace = interval(apart);
    let started = Instant::now();
    // On a busy machine replicas may have come and gone before there was much of a load.
    while !done.load(Ordering::Relaxed) || asked < 100 {
        pace.tick().await;
        asked += 1;
        let outcome = timeout(PATIENCE, connection.ask()).await;
        if let Err(error) = outcome.unwrap_or_else(|_| Err(anyhow!("no answer"))) {
            failed.push(format!("after {:?}, request {asked}: {error:#}", started.elapsed()));
            connection = Connection::new(kind, to);
        }
    }
    (kind, asked, failed)
}

enum Connection {
    Http1 { to: SocketAddr, open: Option<TcpStream> },
    Http2 { to: SocketAddr, open: Option<SendRequest<Bytes>>, drivers: JoinSet<()>, is_grpc: bool },
}

impl Connection {
    fn new(kind: Kind, to: SocketAddr) -> Self {
        match kind {
            Kind::Http1 => Self::Http1 { to, open: None },
            Kind::Http2 | Kind::Grpc => {
                Self::Http2 { to, open: None, drivers: JoinSet::new(), is_grpc: kind == Kind::Grpc }
            }
        }
    }

    async fn ask(&mut self) -> Result<()> {
        match self {
            Self::Http1 { to, open } => {
                let mut stream = match open.take() {
                    Some(stream) => stream,
                    None => TcpStream::connect(*to).await.context("connecting")?,
                };
                stream.write_all(b"GET / HTTP/1.1\r\nHost: web\r\n\r\n").await.context("sending")?;
                let (head, body) = read_answer(&mut stream).await?;
                ensure!(head.starts_with("HTTP/1.1 200 ") && body == "web", "{head}{body}");
                if !head.contains("connection: close\r\n") {
                    *open = Some(stream);
                }
                Ok(())
            }
            Self::Http2 { to, open, drivers, is_grpc } => {
                // A client that is told GOAWAY sends nothing more on that connection.
                let ready = match open.take() {
                    Some(sender) => sender.ready().await.ok(),
                    None => None,
                };
                let sender = match ready {
                    Some(sender) => sender,
                    None => connect(*to, drivers).await?,
                };
                let kept = sender.clone();
                if *is_grpc {
                    call(sender).await?
                } else {
                    get(sender).await?
                }
                *open = Some(kept);
                Ok(())
            }
        }
    }
}

async fn read_answer(stream: &mut TcpStream) -> Result<(String, String)> {
    let mut octets = Vec::new();
    let mut room = [0; 4096];
    loop {
        let end = octets.windows(4).position(|part| part == b"\r\n\r\n").map(|at| at + 4);
        if let Some(end) = end {
            let head = String::from_utf8_lossy(&octets[..end]).to_lowercase().replacen("http", "HTTP", 1);
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let length: usize = length.map_or(Ok(0), str::parse)?;
            if octets.len() >= end + length {
                return Ok((head, String::from_utf8_lossy(&octets[end..end + length]).into_owned()));
            }
        }
        let read = stream.read(&mut room).await.context("waiting for an answer")?;
        ensure!(read > 0, "the connection was closed after {:?}", String::from_utf8_lossy(&octets));
        octets.extend_from_slice(&room[..read]);
    }
}

async fn connect(to: SocketAddr, drivers: &mut JoinSet<()>) -> Result<SendRequest<Bytes>> {
    let stream = TcpStream::connect(to).await.context("connecting")?;
    stream.set_nodelay(true)?;
    let (sender, connection) = h2::client::handshake(stream).await.context("beginning HTTP/2")?;
    drivers.spawn(async move {
        // Its streams say what became of them.
        let _ = connection.await;
    });
    sender.ready().await.context("a connection that has just begun")
}

async fn get(mut sender: SendRequest<Bytes>) -> Result<()> {
    let request = Request::get("http://api/get").body(())?;
    let (response, _) = sender.send_request(request, true).context("sending")?;
    let response = response.await.context("waiting for an answer")?;
    ensure!(response.status() == 200, "status {}", response.status());
    let mut body = response.into_body();
    while let Some(piece) = body.data().await {
        body.flow_control().release_capacity(piece.context("in the answer")?.len())?;
    }
    Ok(())
}

fn grpc(path: &str) -> Result<Request<()>> {
    let request = Request::post(format!("http://api{path}"));
    Ok(request.header("content-type", "application/grpc").header("te", "trailers").body(())?)
}

/// One octet as a message of gRPC.
const MESSAGE: Bytes = Bytes::from_static(b"\0\0\0\0\x01x");

async fn call(mut sender: SendRequest<Bytes>) -> Result<()> {
    let (response, mut sending) = sender.send_request(grpc("/shop.Api/Call")?, false).context("sending")?;
    sending.send_data(MESSAGE, true).context("sending")?;
    let response = response.await.context("waiting for an answer")?;
    ensure!(response.status() == 200, "status {}", response.status());
    finished(response.into_body()).await
}

async fn finished(mut body: h2::RecvStream) -> Result<()> {
    while let Some(piece) = body.data().await {
        body.flow_control().release_capacity(piece.context("in the answer")?.len())?;
    }
    let trailers = body.trailers().await.context("waiting for the status")?.context("there is no status")?;
    ensure!(trailers.get("grpc-status").is_some_and(|status| status == "0"), "{trailers:?}");
    Ok(())
}

/// An application that sends back what comes, message by message, with the status of gRPC behind it.
fn serve_http2(pod: &Pod) -> Result<()> {
    let listener = pod.listen(H2)?;
    listener.set_nonblocking(true)?;
    let runtime = runtime()?;
    thread::spawn(move || runtime.block_on(accept(listener)));
    Ok(())
}

async fn accept(listener: std::net::TcpListener) -> Result<()> {
    let listener = TcpListener::from_std(listener)?;
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(async move {
            stream.set_nodelay(true)?;
            let mut connection = h2::server::handshake(stream).await?;
            while let Some(Ok((request, respond))) = connection.accept().await {
                tokio::spawn(echo(request, respond));
            }
            Ok::<_, anyhow::Error>(())
        });
    }
}

async fn echo(request: Request<h2::RecvStream>, mut respond: h2::server::SendResponse<Bytes>) -> Result<()> {
    let head = Response::builder().header("content-type", "application/grpc").body(())?;
    let mut sending = respond.send_response(head, false)?;
    let mut body = request.into_body();
    while let Some(piece) = body.data().await {
        let piece = piece?;
        body.flow_control().release_capacity(piece.len())?;
        sending.send_data(piece, false)?;
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "0".parse()?);
    Ok(sending.send_trailers(trailers)?)
}

/// As a Deployment is rolled: one more, then one less, until all are new.
pub(crate) fn rolling_two_replicas_loses_nothing_of_any_protocol() -> Result<()> {
    let (shop, before) = Shop::open(&[("shop/waypoint-a", "n1"), ("shop/waypoint-b", "n2")])?;
    shop.under_load(|| {
        let mut after = Vec::new();
        for (old, (name, node)) in before.iter().zip([("shop/waypoint-c", "n1"), ("shop/waypoint-d", "n2")]) {
            after.push(shop.add(name, node)?);
            shop.end(old)?;
        }
        Ok(after)
    })
}

pub(crate) fn scaling_to_four_and_back_loses_nothing_of_any_protocol() -> Result<()> {
    let (shop, before) = Shop::open(&[("shop/waypoint-a", "n1"), ("shop/waypoint-b", "n2")])?;
    shop.under_load(|| {
        let after = vec![shop.add("shop/waypoint-c", "n2")?, shop.add("shop/waypoint-d", "n1")?];
        before.iter().try_for_each(|old| shop.end(old))?;
        Ok(after)
    })
}

pub(crate) fn deleting_a_replica_loses_nothing_of_any_protocol() -> Result<()> {
    let (shop, before) = Shop::open(&[("shop/waypoint-a", "n1"), ("shop/waypoint-b", "n2")])?;
    shop.under_load(|| {
        shop.end(&before[0])?;
        // As its Deployment does.
        Ok(vec![shop.add("shop/waypoint-c", "n1")?])
    })
}

/// Streams that are open when a waypoint is told to end go on, and finish within the drain time; the client is told
/// to begin no more.
pub(crate) fn streams_finish_while_their_waypoint_drains() -> Result<()> {
    let (shop, waypoints) = Shop::open(&[("shop/waypoint-a", "n2")])?;
    let drain = || shop.mesh.change_pod(waypoints[0].pod(), |object| object.terminating = true);
    shop.client.namespace().inside(|| {
        let runtime = runtime()?;
        let mut drivers = JoinSet::new();
        let (kept, mut sending, mut body) = runtime.block_on(async {
            let mut sender = connect(shop.http2.v4(), &mut drivers).await?;
            let (response, mut sending) = sender.send_request(grpc("/shop.Api/Stream")?, false)?;
            sending.send_data(MESSAGE, false)?;
            let mut body = response.await?.into_body();
            body.data().await.context("a first message")??;
            Ok::<_, anyhow::Error>((sender, sending, body))
        })?;
        drain()?;
        thread::scope(|scope| {
            let ending = scope.spawn(|| waypoints[0].terminate(END));
            let outcome = runtime.block_on(async {
                let told = async {
                    // Messages go both ways until the client has heard that the waypoint goes, and after.
                    let mut after = 0;
                    while after < 3 {
                        sending.send_data(MESSAGE, false)?;
                        let piece = body.data().await.context("the stream goes on")??;
                        body.flow_control().release_capacity(piece.len())?;
                        after += u32::from(kept.clone().ready().await.is_err());
                    }
                    sending.send_data(Bytes::new(), true)?;
                    finished(body).await
                };
                timeout(PATIENCE, told).await.context("the client was not told that the waypoint goes")?
            });
            let ended = ending.join().map_err(|_| anyhow!("ending the waypoint panicked"))?;
            outcome.and(ended)
        })
    })
}
