//! Real applications, unmodified, each started with the least configuration that serves.

use std::fs::{self, File};
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::pod::Pod;
use crate::sandbox::WORK;

/// Port of [`nginx`].
pub const NGINX: u16 = 8080;
/// Port of [`nginx_tls`].
pub const NGINX_TLS: u16 = 8443;
/// Port of [`redis`].
pub const REDIS: u16 = 6379;
/// Port of [`iperf3`] for data from client to server.
pub const IPERF3: u16 = 5201;
/// Port of [`iperf3`] for data from server to client.
pub const IPERF3_REVERSE: u16 = 5202;

/// Starts nginx: `/` answers `body`, `/whoami` the client's address, `/file` the file.
///
/// # Errors
/// When it does not start.
pub fn nginx(pod: &Pod, body: &str) -> Result<()> {
    let directory = directory(pod, "nginx")?;
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|kind| format!("  {kind}_temp_path {}/{kind};\n", directory.display()))
        .collect();
    let configuration = format!(
        "daemon off; worker_processes 1; pid {0}/pid; user root;\n\
         events {{ worker_connections 4096; }}\n\
         http {{\n{temporary}  access_log off;\n  keepalive_requests 1000000;\n  server {{\n\
         \x20   listen {NGINX}; listen [::]:{NGINX};\n    default_type text/plain;\n\
         \x20   location = /whoami {{ return 200 \"$remote_addr\"; }}\n\
         \x20   location = /file {{ alias {0}/file; }}\n\
         \x20   location / {{ return 200 \"{body}\"; }}\n  }}\n}}\n",
        directory.display()
    );
    let file = directory.join("nginx.conf");
    fs::write(&file, configuration)?;
    let mut command = pod.command("nginx");
    command.args(["-e", "stderr", "-c"]).arg(&file);
    pod.host("nginx", NGINX, &mut command)
}

/// Starts nginx for HTTPS with a certificate of its own making: every path answers `body`.
///
/// # Errors
/// When it does not start.
pub fn nginx_tls(pod: &Pod, body: &str) -> Result<()> {
    let directory = directory(pod, "nginx-tls")?;
    let key = rcgen::KeyPair::generate()?;
    let certificate =
        rcgen::CertificateParams::new(Vec::from(["a.example".to_owned()]))?.self_signed(&key)?;
    fs::write(directory.join("cert.pem"), certificate.pem())?;
    fs::write(directory.join("key.pem"), key.serialize_pem())?;
    let configuration = format!(
        "daemon off; worker_processes 1; pid {0}/pid; user root;\n\
         events {{ worker_connections 1024; }}\n\
         http {{\n  access_log off;\n  client_body_temp_path {0}/body;\n  server {{\n\
         \x20   listen {NGINX_TLS} ssl; listen [::]:{NGINX_TLS} ssl;\n    default_type text/plain;\n\
         \x20   ssl_certificate {0}/cert.pem; ssl_certificate_key {0}/key.pem;\n\
         \x20   location / {{ return 200 \"{body}\"; }}\n  }}\n}}\n",
        directory.display()
    );
    let file = directory.join("nginx.conf");
    fs::write(&file, configuration)?;
    let mut command = pod.command("nginx");
    command.args(["-e", "stderr", "-c"]).arg(&file);
    pod.host("nginx", NGINX_TLS, &mut command)
}

/// Gives nginx a file to serve at `/file`: `content` over and over, `size` bytes.
///
/// # Errors
/// When it cannot be written.
pub fn nginx_file(pod: &Pod, content: &str, size: usize) -> Result<()> {
    write_repeated(&directory(pod, "nginx")?.join("file"), content, size)
}

/// Starts a Redis server without persistence.
///
/// # Errors
/// When it does not start.
pub fn redis(pod: &Pod) -> Result<()> {
    let mut command = pod.command("redis-server");
    command
        .args(["--port", &REDIS.to_string(), "--bind", "*", "-::*", "--protected-mode", "no"])
        .args(["--save", "", "--appendonly", "no", "--dir"])
        .arg(directory(pod, "redis")?);
    pod.host("redis", REDIS, &mut command)
}

/// Runs one Redis command and returns the answer.
///
/// # Errors
/// When the server does not answer.
pub fn redis_cli(pod: &Pod, server: SocketAddr, words: &[&str]) -> Result<String> {
    let (host, port) = (server.ip().to_string(), server.port().to_string());
    let answer = pod.run("redis-cli", &[&["-h", &host, "-p", &port, "-e"], words].concat())?;
    Ok(answer.trim_end().to_owned())
}

/// Starts two iperf3 servers; the one on [`IPERF3_REVERSE`] sends `content`.
///
/// # Errors
/// When one does not start.
pub fn iperf3(pod: &Pod, content: &str) -> Result<()> {
    let file = directory(pod, "iperf3")?.join("reverse");
    write_repeated(&file, content, 64 << 20)?;
    let mut forward = pod.command("iperf3");
    pod.host("iperf3", IPERF3, forward.args(["--server", "--port", &IPERF3.to_string()]))?;
    let mut reverse = pod.command("iperf3");
    reverse.args(["--server", "--port", &IPERF3_REVERSE.to_string(), "--file"]).arg(file);
    pod.host("iperf3", IPERF3_REVERSE, &mut reverse)
}

/// Sends `bytes` of `content` to an iperf3 server, and returns how many arrived.
///
/// # Errors
/// When iperf3 fails.
pub fn iperf3_send(pod: &Pod, server: SocketAddr, content: &str, bytes: usize) -> Result<u64> {
    let file = directory(pod, "iperf3")?.join("forward");
    write_repeated(&file, content, bytes)?;
    let file = file.to_str().context("a path of ours is text")?.to_owned();
    run_iperf3(pod, server, &["--bytes", &bytes.to_string(), "--file", &file])
}

/// Has an iperf3 server send `bytes` of its content, and returns how many arrived.
///
/// # Errors
/// When iperf3 fails.
pub fn iperf3_receive(pod: &Pod, server: SocketAddr, bytes: usize) -> Result<u64> {
    run_iperf3(pod, server, &["--reverse", "--bytes", &bytes.to_string()])
}

fn run_iperf3(pod: &Pod, server: SocketAddr, more: &[&str]) -> Result<u64> {
    let (host, port) = (server.ip().to_string(), server.port().to_string());
    let text = pod.run("iperf3", &[&["--client", &host, "--port", &port, "--json"], more].concat())?;
    let report: Value = serde_json::from_str(&text)?;
    ensure!(report.get("error").is_none(), "iperf3: {}", report["error"]);
    report["end"]["sum_received"]["bytes"].as_u64().with_context(|| format!("iperf3 reported {text}"))
}

/// A directory for an application's files.
fn directory(pod: &Pod, application: &str) -> Result<PathBuf> {
    let directory = Path::new(WORK).join(pod.namespace().name()).join(application);
    fs::create_dir_all(&directory)?;
    Ok(directory)
}

fn write_repeated(path: &Path, content: &str, size: usize) -> Result<()> {
    let block = content.repeat((1 << 16) / content.len() + 1);
    let mut file = File::create(path)?;
    let mut left = size;
    while left > 0 {
        let part = left.min(block.len());
        file.write_all(&block.as_bytes()[..part])?;
        left -= part;
    }
    Ok(())
}
