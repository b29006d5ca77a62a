//! Envoy as a waypoint, set up for the same work as Ambit's: tunnels of mutual TLS on both sides, requests
//! routed and authorized by the client's identity, and a line of log for each.
//!
//! It is built as Istio builds its waypoints: a listener ends tunnels and hands what is in them to an
//! internal one, which takes the requests; the upstream is an internal listener that opens tunnels.

use ambit_tests::apps::NGINX;
use ambit_tests::certificates::Authority;
use ambit_tests::pod::Pod;
use anyhow::Result;
use serde_json::{Value, json};

use super::Stage;
use super::stand::{other_path, other_principal};
use super::way::Running;
use crate::proxies::envoy::configuration::{access_log, address, http2_options, kind, tls, unlimited};
use crate::proxies::envoy::{ADMIN, Credentials, HBONE, METRICS, OneEnd};

/// Starts it in its pod, for the requests of `client` to `server`.
///
/// # Errors
/// When it does not start.
pub(super) fn start(
    pod: &Pod,
    (client, server): (&Pod, &Pod),
    workers: u16,
    stage: Stage,
) -> Result<Running> {
    let end = OneEnd { pod, port: HBONE, workers };
    let credentials = end.credentials(&Authority::of_control()?)?;
    let bootstrap = json!({
        "bootstrap_extensions": [{ "name": "internal", "typed_config": {
            "@type": kind("extensions.bootstrap.internal_listener.v3.InternalListener"),
        } }],
        "static_resources": {
            "listeners": [tunnels(&credentials), requests(stage, &client.identity()), encapsulation(server)],
            "clusters": [
                internal("requests", &json!({ "name": "internal", "typed_config": {
                    "@type": kind("extensions.transport_sockets.internal_upstream.v3.InternalUpstreamTransport"),
                    "transport_socket": { "name": "raw", "typed_config": {
                        "@type": kind("extensions.transport_sockets.raw_buffer.v3.RawBuffer"),
                    } },
                } })),
                internal("server", &Value::Null),
                hbone(&credentials, server),
            ],
        },
    });
    let proxy = end.start(bootstrap, COUNTER)?;
    Ok(Running {
        namespace: pod.namespace().clone(),
        pid: proxy.pid(),
        page: (ADMIN, METRICS),
        counter: COUNTER,
        _proxy: Some(proxy),
    })
}

/// Requests that were answered with 200.
const COUNTER: (&str, &[&str]) = (
    "envoy_http_downstream_rq_xx",
    &["envoy_response_code_class=\"2\"", "envoy_http_conn_manager_prefix=\"requests\""],
);

/// Under which the requests' listener finds the client's identity.
const PEER: &str = "ambit.peer";

/// The listener that ends tunnels.
fn tunnels(credentials: &Credentials) -> Value {
    let route = json!({
        "match": { "connect_matcher": {} },
        "route": {
            "cluster": "requests",
            "timeout": "0s",
            "upgrade_configs": [{ "upgrade_type": "CONNECT", "connect_config": {} }],
        },
    });
    let peer = json!({ "name": "peer", "typed_config": {
        "@type": kind("extensions.filters.http.set_filter_state.v3.Config"),
        "on_request_headers": [{
            "object_key": PEER,
            "factory_key": "envoy.string",
            "format_string": { "text_format_source": { "inline_string": "%DOWNSTREAM_PEER_URI_SAN%" } },
            "shared_with_upstream": "TRANSITIVE",
        }],
    } });
    let manager = json!({
        "@type": kind("extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "tunnels",
        "codec_type": "HTTP2",
        "http2_protocol_options": http2_options(),
        "stream_idle_timeout": "0s",
        "route_config": { "virtual_hosts": [{ "name": "any", "domains": ["*"], "routes": [route] }] },
        "http_filters": [peer, router()],
        "upgrade_configs": [{ "upgrade_type": "CONNECT" }],
    });
    json!({
        "name": "tunnels",
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
    })
}

/// The listener that takes the requests.
fn requests(stage: Stage, client_identity: &str) -> Value {
    let to_server = json!({ "cluster": "server", "timeout": "0s" });
    let others = (0..stage.routes)
        .map(|number| json!({ "match": { "path": format!("/other-{number}") }, "route": to_server }));
    let routes: Vec<Value> =
        others.chain([json!({ "match": { "prefix": "/" }, "route": to_server })]).collect();
    let mut filters = Vec::new();
    if stage.rules > 0 {
        filters.push(authorization(stage.rules, client_identity));
    }
    filters.push(router());
    let manager = json!({
        "@type": kind("extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "requests",
        "codec_type": "AUTO",
        "stream_idle_timeout": "0s",
        "normalize_path": true,
        "route_config": { "virtual_hosts": [{ "name": "any", "domains": ["*"], "routes": routes }] },
        "http_filters": filters,
        // The fields of Istio's default format.
        "access_log": access_log(
            "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% \
             %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% \
             \"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" %BYTES_RECEIVED% %BYTES_SENT% %DURATION% \
             %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \
             \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\" %UPSTREAM_CLUSTER_RAW% \
             %UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% \
             %REQUESTED_SERVER_NAME% %ROUTE_NAME%\n",
        ),
    });
    json!({
        "name": "requests",
        "internal_listener": {},
        "filter_chains": [{ "filters": [{ "name": "http", "typed_config": manager }] }],
    })
}

/// The rules that Ambit's waypoint has as policies.
fn authorization(rules: u32, client_identity: &str) -> Value {
    let policies: serde_json::Map<String, Value> = (0..rules)
        .map(|number| {
            let (identity, path) = if number + 1 == rules {
                (client_identity.to_owned(), "/".to_owned())
            } else {
                let path = other_path(number);
                (format!("spiffe://{}", other_principal(number)), path.trim_end_matches('*').to_owned())
            };
            let policy = json!({
                "permissions": [{ "and_rules": { "rules": [
                    { "header": { "name": ":method", "string_match": { "exact": "GET" } } },
                    { "url_path": { "path": { "prefix": path } } },
                ] } }],
                "principals": [{ "filter_state": { "key": PEER, "string_match": { "exact": identity } } }],
            });
            // Policies are asked in the order of their names.
            (format!("rule-{number:05}"), policy)
        })
        .collect();
    json!({ "name": "authorization", "typed_config": {
        "@type": kind("extensions.filters.http.rbac.v3.RBAC"),
        "rules": { "action": "ALLOW", "policies": policies },
    } })
}

fn router() -> Value {
    json!({ "name": "router", "typed_config": {
        "@type": kind("extensions.filters.http.router.v3.Router"),
        // Answers are of one length, by which the load tells that they are whole.
        "suppress_envoy_headers": true,
    } })
}

/// The listener that puts what goes to the server into tunnels.
fn encapsulation(server: &Pod) -> Value {
    let tcp_proxy = json!({
        "@type": kind("extensions.filters.network.tcp_proxy.v3.TcpProxy"),
        "stat_prefix": "encapsulation",
        "cluster": "hbone",
        "tunneling_config": { "hostname": server.at(NGINX).to_string() },
    });
    json!({
        "name": "server",
        "internal_listener": {},
        "filter_chains": [{ "filters": [{ "name": "tcp", "typed_config": tcp_proxy }] }],
    })
}

/// A cluster whose only endpoint is the internal listener of its name.
fn internal(name: &str, transport_socket: &Value) -> Value {
    let mut cluster = json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "5s",
        "circuit_breakers": unlimited(),
        "load_assignment": { "cluster_name": name, "endpoints": [{ "lb_endpoints": [{ "endpoint": {
            "address": { "envoy_internal_address": { "server_listener_name": name } },
        } }] }] },
    });
    if !transport_socket.is_null() {
        cluster["transport_socket"] = transport_socket.clone();
    }
    cluster
}

/// Tunnels to the server.
fn hbone(credentials: &Credentials, server: &Pod) -> Value {
    let http2 = json!({
        "@type": kind("extensions.upstreams.http.v3.HttpProtocolOptions"),
        "explicit_http_config": { "http2_protocol_options": http2_options() },
    });
    json!({
        "name": "hbone",
        "type": "STATIC",
        "connect_timeout": "5s",
        "circuit_breakers": unlimited(),
        "load_assignment": { "cluster_name": "hbone", "endpoints": [{ "lb_endpoints": [{ "endpoint": {
            "address": address(&server.v4().to_string(), HBONE),
        } }] }] },
        "typed_extension_protocol_options": { "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": http2 },
        "transport_socket": { "name": "tls", "typed_config": {
            "@type": kind("extensions.transport_sockets.tls.v3.UpstreamTlsContext"),
            // Ambit's waypoint does not resume sessions either.
            "max_session_keys": 0,
            "common_tls_context": tls(credentials, &json!({ "exact": server.identity() })),
        } },
    })
}
