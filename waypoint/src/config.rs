//! The command line and environment of the waypoint: every setting, its unit, default and meaning.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ambit_mesh::identity::TrustDomain;
use ambit_runtime::config::{CommonFlags, parse_duration, serialize_duration};
use clap::{Args, Parser, Subcommand};
use serde::Serialize;

/// The waypoint of Ambit.
#[derive(Debug, Parser)]
#[command(name = "waypoint", version, about, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the program can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve the traffic of one Gateway until SIGTERM.
    Run(Box<RunConfig>),
}

/// Settings of `waypoint run`.
#[derive(Debug, Clone, Args, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct RunConfig {
    /// Namespace of the Gateway that this is an instance of, and of its pod.
    #[arg(long, env = "AMBIT_NAMESPACE", value_name = "NAME")]
    pub namespace: String,
    /// Name of the Gateway.
    #[arg(long, env = "AMBIT_GATEWAY", value_name = "NAME")]
    pub gateway: String,
    /// Service account of the pod: whose certificate is asked for.
    #[arg(long, env = "AMBIT_SERVICE_ACCOUNT", value_name = "NAME")]
    pub service_account: String,
    /// Name of the pod.
    #[arg(long, env = "AMBIT_POD_NAME", value_name = "NAME")]
    pub pod_name: String,
    /// Identifier of the cluster, as in `Workload.cluster_id`.
    #[arg(long, env = "AMBIT_CLUSTER_ID", default_value = "Kubernetes", value_name = "NAME")]
    pub cluster_id: String,
    /// Trust domain of the mesh: certificates of another are refused.
    #[arg(long, env = "AMBIT_TRUST_DOMAIN", default_value = "cluster.local", value_name = "NAME")]
    #[serde(serialize_with = "as_text")]
    pub trust_domain: TrustDomain,
    /// Directory for what must outlive a restart: the last good configuration, and certificates with their keys; best on a
    /// tmpfs, writable by this user only. Nothing is kept without it.
    #[arg(long, env = "AMBIT_STATE_DIR", value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Control plane.
    #[command(flatten)]
    #[serde(flatten)]
    pub control: ControlConfig,
    /// Data path.
    #[command(flatten)]
    #[serde(flatten)]
    pub data_path: DataPathConfig,
    /// How long open connections may finish after SIGTERM. For a fifth of it new ones are still taken.
    #[arg(long, env = "AMBIT_DRAIN_TIMEOUT", default_value = "25s", value_parser = parse_duration, value_name = "DURATION")]
    #[serde(serialize_with = "serialize_duration")]
    pub drain_timeout: Duration,
    /// Admin, metrics, readiness, logs.
    #[command(flatten)]
    #[serde(flatten)]
    pub common: CommonFlags,
}

/// Where configuration and certificates come from.
#[derive(Debug, Clone, Args, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct ControlConfig {
    /// Address of control: xDS and certificates.
    #[arg(
        long,
        env = "AMBIT_XDS_ADDRESS",
        default_value = "https://control.ambit-system.svc:15012",
        value_name = "URL"
    )]
    pub xds_address: String,
    /// PEM file with the roots that control's certificate must chain to. Read again for every
    /// connection.
    #[arg(
        long,
        env = "AMBIT_XDS_ROOT_FILE",
        default_value = "/var/run/secrets/ambit/root-cert.pem",
        value_name = "FILE"
    )]
    pub xds_root_file: PathBuf,
    /// File with the bearer token that proves which pod this is. Read again for every connection.
    #[arg(
        long,
        env = "AMBIT_TOKEN_FILE",
        default_value = "/var/run/secrets/ambit/token",
        value_name = "FILE"
    )]
    pub token_file: PathBuf,
    /// Life of certificates to ask for.
    #[arg(long, env = "AMBIT_CERTIFICATE_TTL", default_value = "24h", value_parser = parse_duration, value_name = "DURATION")]
    #[serde(serialize_with = "serialize_duration")]
    pub certificate_ttl: Duration,
}

/// How traffic is carried.
#[derive(Debug, Clone, Args, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct DataPathConfig {
    /// Address and port of the HBONE listener.
    #[arg(long, env = "AMBIT_HBONE_ADDRESS", default_value = "[::]:15008", value_name = "ADDRESS:PORT")]
    pub hbone_address: SocketAddr,
    /// Worker threads; 0: one per processor.
    #[arg(long, env = "AMBIT_WORKERS", default_value_t = 0, value_name = "N")]
    pub workers: usize,
    /// How long a connection waits for what is not known yet: the first configuration, the certificate.
    #[arg(long, env = "AMBIT_UNKNOWN_WAIT", default_value = "5s", value_parser = parse_duration, value_name = "DURATION")]
    #[serde(serialize_with = "serialize_duration")]
    pub unknown_wait: Duration,
    /// How long connecting to an endpoint may take: TCP, TLS and CONNECT each.
    #[arg(long, env = "AMBIT_CONNECT_TIMEOUT", default_value = "10s", value_parser = parse_duration, value_name = "DURATION")]
    #[serde(serialize_with = "serialize_duration")]
    pub connect_timeout: Duration,
    /// How long a client may take to send a request's head, from its first octet.
    #[arg(long, env = "AMBIT_HEADER_TIMEOUT", default_value = "15s", value_parser = parse_duration, value_name = "DURATION")]
    #[serde(serialize_with = "serialize_duration")]
    pub header_timeout: Duration,
    /// How long the first octets of a connection are waited for before it is taken for one of a
    /// protocol in which the server speaks first. Only where the port's protocol is not declared.
    #[arg(long, env = "AMBIT_DETECT_TIMEOUT", default_value = "1s", value_parser = parse_duration, value_name = "DURATION")]
    #[serde(serialize_with = "serialize_duration")]
    pub detect_timeout: Duration,
    /// How long a connection may be silent between requests, or while carrying TCP.
    #[arg(long, env = "AMBIT_IDLE_TIMEOUT", default_value = "1h", value_parser = parse_duration, value_name = "DURATION")]
    #[serde(serialize_with = "serialize_duration")]
    pub idle_timeout: Duration,
    /// How long an unused connection to an endpoint is kept.
    #[arg(long, env = "AMBIT_UPSTREAM_IDLE_TIMEOUT", default_value = "1m", value_parser = parse_duration, value_name = "DURATION")]
    #[serde(serialize_with = "serialize_duration")]
    pub upstream_idle_timeout: Duration,
    /// How long a tunnel without streams is kept.
    #[arg(long, env = "AMBIT_TUNNEL_IDLE_TIMEOUT", default_value = "5m", value_parser = parse_duration, value_name = "DURATION")]
    #[serde(serialize_with = "serialize_duration")]
    pub tunnel_idle_timeout: Duration,
    /// How long a tunnel may outlive the certificate it was opened with, for streams that last.
    #[arg(long, env = "AMBIT_TUNNEL_GRACE", default_value = "24h", value_parser = parse_duration, value_name = "DURATION")]
    #[serde(serialize_with = "serialize_duration")]
    pub tunnel_grace: Duration,
}

fn as_text<S: serde::Serializer>(value: &TrustDomain, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}
