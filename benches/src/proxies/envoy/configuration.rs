//! Envoy's resources for both ends of HBONE.
//!
//! Windows and stream limits are large enough that flow control does not hold it back; limits that
//! count connections are lifted.

use serde_json::{Value, json};

use super::super::redirect::OUTBOUND;
use super::{Credentials, HBONE, KEY_EXCHANGE};

/// The end that takes redirected connections and opens a tunnel for each to where it was bound for.
pub(super) fn client(credentials: &Credentials, server_identity: &str) -> Value {
    let tcp_proxy = json!({
        "@type": kind("extensions.filters.network.tcp_proxy.v3.TcpProxy"),
        "stat_prefix": "captured",
        "cluster": "hbone",
        "tunneling_config": { "hostname": "%DOWNSTREAM_LOCAL_ADDRESS%" },
        "access_log": access_log(
            "%START_TIME% %DOWNSTREAM_REMOTE_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %UPSTREAM_HOST% \
             sent=%BYTES_SENT% received=%BYTES_RECEIVED% %DURATION% %RESPONSE_FLAGS%\n",
        ),
    });
    let listener = json!({
        "name": "captured",
        "address": address("0.0.0.0", OUTBOUND),
        "additional_addresses": [{ "address": address("::", OUTBOUND) }],
        "listener_filters": [{ "name": "original_dst", "typed_config": {
            "@type": kind("extensions.filters.listener.original_dst.v3.OriginalDst"),
        } }],
        "filter_chains": [{ "filters": [{ "name": "tcp", "typed_config": tcp_proxy }] }],
    });
    let http2 = json!({
        "@type": kind("extensions.upstreams.http.v3.HttpProtocolOptions"),
        "explicit_http_config": { "http2_protocol_options": http2_options() },
    });
    let cluster = json!({
        "name": "hbone",
        "type": "ORIGINAL_DST",
        "lb_policy": "CLUSTER_PROVIDED",
        "connect_timeout": "5s",
        // Tunnels stay, as they do with Ambit, however long the other paths take their turns.
        "cleanup_interval": "3600s",
        "original_dst_lb_config": { "upstream_port_override": HBONE },
        "circuit_breakers": unlimited(),
        "typed_extension_protocol_options": { "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": http2 },
        "transport_socket": { "name": "tls", "typed_config": {
            "@type": kind("extensions.transport_sockets.tls.v3.UpstreamTlsContext"),
            // Neither end of Ambit resumes sessions.
            "max_session_keys": 0,
            "common_tls_context": tls(credentials, &json!({ "exact": server_identity })),
        } },
    });
    json!({ "listeners": [listener], "clusters": [cluster] })
}

/// The end that ends tunnels and connects to the authority asked for.
pub(super) fn server(credentials: &Credentials) -> Value {
    let route = json!({
        "match": { "connect_matcher": {} },
        "route": {
            "cluster": "application",
            "timeout": "0s",
            "upgrade_configs": [{ "upgrade_type": "CONNECT", "connect_config": {} }],
        },
    });
    let manager = json!({
        "@type": kind("extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "hbone",
        "codec_type": "HTTP2",
        "http2_protocol_options": http2_options(),
        "stream_idle_timeout": "0s",
        "access_log": access_log(
            "%START_TIME% %REQ(:AUTHORITY)% %DOWNSTREAM_PEER_URI_SAN% %RESPONSE_CODE% %UPSTREAM_HOST% \
             sent=%BYTES_SENT% received=%BYTES_RECEIVED% %DURATION% %RESPONSE_FLAGS%\n",
        ),
        "route_config": { "virtual_hosts": [{ "name": "any", "domains": ["*"], "routes": [route] }] },
        "http_filters": [{ "name": "router", "typed_config": {
            "@type": kind("extensions.filters.http.router.v3.Router"),
        } }],
        "upgrade_configs": [{ "upgrade_type": "CONNECT" }],
    });
    let listener = json!({
        "name": "hbone",
        "address": address("0.0.0.0", HBONE),
        "additional_addresses": [{ "address": address("::", HBONE) }],
        "filter_chains": [{
            "transport_socket": { "name": "tls", "typed_config": {
                "@type": kind("extensions.transport_sockets.tls.v3.DownstreamTlsContext"),
                "require_client_certificate": true,
                "disable_stateless_session_resumption": true,
                "disable_stateful_session_resumption": true,
                "common_tls_context": tls(credentials, &json!({ "prefix": "spiffe://cluster.local/" })),
            } },
            "filters": [{ "name": "http", "typed_config": manager }],
        }],
    });
    let cluster = json!({
        "name": "application",
        "type": "ORIGINAL_DST",
        "lb_policy": "CLUSTER_PROVIDED",
        "connect_timeout": "5s",
        "circuit_breakers": unlimited(),
        "original_dst_lb_config": { "use_http_header": true, "http_header_name": ":authority" },
    });
    json!({ "listeners": [listener], "clusters": [cluster] })
}

pub(crate) fn http2_options() -> Value {
    json!({
        "allow_connect": true,
        "max_concurrent_streams": 200,
        "initial_stream_window_size": 4 << 20,
        "initial_connection_window_size": 16 << 20,
    })
}

/// BoringSSL prefers AES-128-GCM in TLS 1.3 and offers no setting for it: what was agreed on is
/// checked by the counters.
pub(crate) fn tls(credentials: &Credentials, identity: &Value) -> Value {
    json!({
        "alpn_protocols": ["h2"],
        "tls_params": {
            "tls_minimum_protocol_version": "TLSv1_3",
            "tls_maximum_protocol_version": "TLSv1_3",
            "ecdh_curves": [KEY_EXCHANGE],
        },
        "tls_certificates": [{
            "certificate_chain": { "filename": credentials.certificate },
            "private_key": { "filename": credentials.key },
        }],
        "validation_context": {
            "trusted_ca": { "filename": credentials.root },
            "match_typed_subject_alt_names": [{ "san_type": "URI", "matcher": identity }],
        },
    })
}

pub(crate) fn access_log(format: &str) -> Value {
    json!([{ "name": "stdout", "typed_config": {
        "@type": kind("extensions.access_loggers.stream.v3.StdoutAccessLog"),
        "log_format": { "text_format_source": { "inline_string": format } },
    } }])
}

pub(crate) fn unlimited() -> Value {
    const MANY: u32 = 1_000_000;
    json!({ "thresholds": [{
        "max_connections": MANY, "max_pending_requests": MANY, "max_requests": MANY, "max_connection_pools": MANY,
    }] })
}

pub(crate) fn kind(name: &str) -> String {
    format!("type.googleapis.com/envoy.{name}")
}

pub(crate) fn address(ip: &str, port: u16) -> Value {
    json!({ "socket_address": { "address": ip, "port_value": port } })
}
