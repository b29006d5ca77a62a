//! Envoy as an HBONE peer: an implementation that is not ours, at one end of a tunnel.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::certificates::Credentials;
use crate::pod::Pod;
use crate::sandbox::{self, WORK};

/// Where an Envoy client listens in its pod for what it is to carry.
pub const CLIENT_PORT: u16 = 15101;

/// A tunnel for [`client`] to make.
#[derive(Clone, Copy, Debug)]
pub struct Tunnel<'a> {
    /// The HBONE listener to connect to.
    pub to: SocketAddr,
    /// The `:authority` of the CONNECT.
    pub authority: SocketAddr,
    /// The identity that the server must have.
    pub expected_identity: &'a str,
}

/// Starts an Envoy that carries what comes to [`CLIENT_PORT`] through a tunnel.
///
/// # Errors
/// When it does not start.
pub fn client(pod: &Pod, credentials: &Credentials, root: &str, tunnel: Tunnel<'_>) -> Result<()> {
    let tls = Tls::write(pod, credentials, root)?;
    let tcp_proxy = json!({
        "@type": kind("extensions.filters.network.tcp_proxy.v3.TcpProxy"),
        "stat_prefix": "client",
        "cluster": "tunnel",
        "tunneling_config": { "hostname": tunnel.authority.to_string() },
    });
    let cluster = json!({
        "name": "tunnel",
        "type": "STATIC",
        "connect_timeout": "5s",
        "load_assignment": { "cluster_name": "tunnel", "endpoints": [
            { "lb_endpoints": [{ "endpoint": { "address": address(tunnel.to) } }] },
        ] },
        "typed_extension_protocol_options": { "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": kind("extensions.upstreams.http.v3.HttpProtocolOptions"),
            "explicit_http_config": { "http2_protocol_options": { "allow_connect": true } },
        } },
        "transport_socket": { "name": "tls", "typed_config": {
            "@type": kind("extensions.transport_sockets.tls.v3.UpstreamTlsContext"),
            "common_tls_context": tls.context(&json!({ "exact": tunnel.expected_identity })),
        } },
    });
    let listener = json!({
        "name": "client",
        "address": address(SocketAddr::from(([127, 0, 0, 1], CLIENT_PORT))),
        "filter_chains": [{ "filters": [{ "name": "tcp", "typed_config": tcp_proxy }] }],
    });
    start(pod, CLIENT_PORT, &listener, &cluster)
}

/// Starts an Envoy that ends tunnels on 15008 of `pod` and connects to the authority asked for. Each
/// is told of in its output as `authority=.. peer=.. forwarded=.. baggage=..`.
///
/// # Errors
/// When it does not start.
pub fn server(pod: &Pod, credentials: &Credentials, root: &str) -> Result<()> {
    const FORMAT: &str = "authority=%REQ(:AUTHORITY)% peer=%DOWNSTREAM_PEER_URI_SAN% \
                          forwarded=%REQ(FORWARDED)% baggage=%REQ(BAGGAGE)% code=%RESPONSE_CODE%\n";
    let tls = Tls::write(pod, credentials, root)?;
    let access_log = json!([{ "name": "stdout", "typed_config": {
        "@type": kind("extensions.access_loggers.stream.v3.StdoutAccessLog"),
        "log_format": { "text_format_source": { "inline_string": FORMAT } },
    } }]);
    let route = json!({
        "match": { "connect_matcher": {} },
        "route": {
            "cluster": "application",
            "upgrade_configs": [{ "upgrade_type": "CONNECT", "connect_config": {} }],
        },
    });
    let manager = json!({
        "@type": kind("extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "server",
        "codec_type": "HTTP2",
        "http2_protocol_options": { "allow_connect": true },
        "stream_idle_timeout": "0s",
        "access_log": access_log,
        "route_config": { "virtual_hosts": [{ "name": "any", "domains": ["*"], "routes": [route] }] },
        "http_filters": [{ "name": "router", "typed_config": {
            "@type": kind("extensions.filters.http.router.v3.Router"),
        } }],
        "upgrade_configs": [{ "upgrade_type": "CONNECT" }],
    });
    let listener = json!({
        "name": "server",
        "address": address(SocketAddr::from(([0, 0, 0, 0], 15008))),
        "filter_chains": [{
            "transport_socket": { "name": "tls", "typed_config": {
                "@type": kind("extensions.transport_sockets.tls.v3.DownstreamTlsContext"),
                "require_client_certificate": true,
                "common_tls_context": tls.context(&json!({ "prefix": "spiffe://cluster.local/" })),
            } },
            "filters": [{ "name": "http", "typed_config": manager }],
        }],
    });
    let cluster = json!({
        "name": "application",
        "type": "ORIGINAL_DST",
        "lb_policy": "CLUSTER_PROVIDED",
        "connect_timeout": "5s",
        "original_dst_lb_config": { "use_http_header": true, "http_header_name": ":authority" },
    });
    start(pod, 15008, &listener, &cluster)
}

fn start(pod: &Pod, port: u16, listener: &Value, cluster: &Value) -> Result<()> {
    let configuration = json!({ "static_resources": { "listeners": [listener], "clusters": [cluster] } });
    let file = directory(pod)?.join("envoy.json");
    fs::write(&file, configuration.to_string())?;
    let mut command = pod.command(sandbox::envoy()?.to_str().context("a path of ours is text")?);
    command
        .args(["--concurrency", "1", "--disable-hot-restart", "--log-level", "warning", "--config-path"])
        .arg(file);
    pod.host("envoy", port, &mut command)
}

/// Files of one end's TLS.
struct Tls {
    certificate: PathBuf,
    key: PathBuf,
    root: PathBuf,
}

impl Tls {
    fn write(pod: &Pod, credentials: &Credentials, root: &str) -> Result<Self> {
        let directory = directory(pod)?;
        let tls = Self {
            certificate: directory.join("certificate.pem"),
            key: directory.join("key.pem"),
            root: directory.join("root.pem"),
        };
        fs::write(&tls.certificate, &credentials.certificate)?;
        fs::write(&tls.key, &credentials.key)?;
        fs::write(&tls.root, root)?;
        Ok(tls)
    }

    fn context(&self, identity: &Value) -> Value {
        json!({
            "alpn_protocols": ["h2"],
            "tls_params": {
                "tls_minimum_protocol_version": "TLSv1_3",
                "tls_maximum_protocol_version": "TLSv1_3",
            },
            "tls_certificates": [{
                "certificate_chain": { "filename": self.certificate },
                "private_key": { "filename": self.key },
            }],
            "validation_context": {
                "trusted_ca": { "filename": self.root },
                "match_typed_subject_alt_names": [{ "san_type": "URI", "matcher": identity }],
            },
        })
    }
}

fn directory(pod: &Pod) -> Result<PathBuf> {
    let directory = Path::new(WORK).join(pod.namespace().name()).join("envoy");
    fs::create_dir_all(&directory)?;
    Ok(directory)
}

fn kind(name: &str) -> String {
    format!("type.googleapis.com/envoy.{name}")
}

fn address(address: SocketAddr) -> Value {
    json!({ "socket_address": { "address": address.ip().to_string(), "port_value": address.port() } })
}
