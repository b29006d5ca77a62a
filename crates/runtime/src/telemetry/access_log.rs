//! The access log: one line per connection, when it has ended, with Istio's keys.
//!
//! Target `access`, message `connection complete`; at ERROR when the connection failed or was refused,
//! otherwise at INFO.

use std::net::SocketAddr;
use std::time::Duration;

use ambit_mesh::decide::ResponseFlag;
use ambit_mesh::identity::SpiffeId;
use tracing::Level;
use tracing::field;

use super::tcp::Reporter;

/// What is known of a connection at its end.
#[derive(Clone, Copy, Debug)]
pub struct AccessLog<'a> {
    /// Which end reports.
    pub reporter: Reporter,
    /// The client.
    pub source: End<'a>,
    /// The server. At the destination of a tunnel its address is the tunnel's, with port 15008.
    pub destination: End<'a>,
    /// The authority of the CONNECT request, if there is a tunnel.
    pub hbone_authority: Option<&'a str>,
    /// Host name of the service that was asked for.
    pub service: Option<&'a str>,
    /// The name that the client's TLS asks for, where it was read.
    pub requested_server_name: Option<&'a str>,
    /// Octets from client to server.
    pub request_bytes: u64,
    /// Octets from server to client.
    pub response_bytes: u64,
    /// From accept to the end of both directions.
    pub duration: Duration,
    /// Why it failed, in words. A denial names policy and rule.
    pub error: Option<&'a str>,
    /// Why it failed, as the metrics have it.
    pub flag: ResponseFlag,
    /// What let it through although no policy allows it.
    pub bypass: Option<&'a str>,
}

/// One end of a connection; `None` where unknown.
#[derive(Clone, Copy, Debug)]
pub struct End<'a> {
    /// Address and port.
    pub address: SocketAddr,
    /// The pod.
    pub workload: Option<&'a str>,
    /// Its namespace.
    pub namespace: Option<&'a str>,
    /// Who it has proven to be; `None` without mutual TLS.
    pub identity: Option<&'a SpiffeId>,
    /// Its cluster.
    pub cluster: Option<&'a str>,
}

impl AccessLog<'_> {
    /// Writes the line.
    pub fn emit(&self) {
        // The bytes are told from the side of the workload that the line is about, unlike in the
        // metrics: what a client sent is `bytes_sent` in its own line and `bytes_recv` in the server's.
        let (direction, sent, received) = match self.reporter {
            Reporter::Source => ("outbound", self.request_bytes, self.response_bytes),
            Reporter::Waypoint => ("waypoint", self.request_bytes, self.response_bytes),
            Reporter::Destination => ("inbound", self.response_bytes, self.request_bytes),
        };
        let duration = format!("{}ms", self.duration.as_millis());
        let flag = (self.flag != ResponseFlag::None).then_some(self.flag.as_str());
        // The level of an event is part of its call site, so there are two.
        macro_rules! line {
            ($level:expr) => {
                tracing::event!(
                    target: "access",
                    parent: None,
                    $level,
                    src.addr = %self.source.address,
                    src.workload = self.source.workload,
                    src.namespace = self.source.namespace,
                    src.identity = self.source.identity.map(field::display),
                    src.cluster = self.source.cluster,
                    dst.addr = %self.destination.address,
                    dst.hbone_addr = self.hbone_authority,
                    dst.service = self.service,
                    dst.workload = self.destination.workload,
                    dst.namespace = self.destination.namespace,
                    dst.identity = self.destination.identity.map(field::display),
                    dst.cluster = self.destination.cluster,
                    requested_server_name = self.requested_server_name,
                    direction,
                    bytes_sent = sent,
                    bytes_recv = received,
                    duration,
                    error = self.error,
                    flag,
                    bypass = self.bypass,
                    "connection complete"
                )
            };
        }
        match self.error {
            None => line!(Level::INFO),
            Some(_) => line!(Level::ERROR),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    use super::*;

    /// Where the lines of a test go.
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(octets)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn written(record: &AccessLog<'_>) -> String {
        let lines = Lines::default();
        let output = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .without_time()
            .with_ansi(false)
            .with_writer(move || output.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, || record.emit());
        let octets = lines.0.lock().unwrap().clone();
        String::from_utf8(octets).unwrap()
    }

    #[test]
    fn keys_and_their_order_are_those_of_istio() {
        let (client, server) = (
            "spiffe://cluster.local/ns/shop/sa/cart".parse().unwrap(),
            "spiffe://cluster.local/ns/shop/sa/stock".parse().unwrap(),
        );
        let mut record = AccessLog {
            reporter: Reporter::Source,
            source: End {
                address: "10.0.1.2:40000".parse().unwrap(),
                workload: Some("cart-1"),
                namespace: Some("shop"),
                identity: Some(&client),
                cluster: Some("Kubernetes"),
            },
            destination: End {
                address: "10.0.2.3:15008".parse().unwrap(),
                workload: Some("stock-1"),
                namespace: Some("shop"),
                identity: Some(&server),
                cluster: None,
            },
            hbone_authority: Some("10.0.2.3:8080"),
            service: Some("stock.shop.svc.cluster.local"),
            requested_server_name: None,
            request_bytes: 10,
            response_bytes: 2000,
            duration: Duration::from_micros(12_900),
            error: None,
            flag: ResponseFlag::None,
            bypass: None,
        };
        assert_eq!(
            written(&record),
            " INFO access: connection complete src.addr=10.0.1.2:40000 src.workload=\"cart-1\" \
             src.namespace=\"shop\" src.identity=spiffe://cluster.local/ns/shop/sa/cart \
             src.cluster=\"Kubernetes\" dst.addr=10.0.2.3:15008 dst.hbone_addr=\"10.0.2.3:8080\" \
             dst.service=\"stock.shop.svc.cluster.local\" dst.workload=\"stock-1\" \
             dst.namespace=\"shop\" dst.identity=spiffe://cluster.local/ns/shop/sa/stock \
             direction=\"outbound\" bytes_sent=10 bytes_recv=2000 duration=\"12ms\"\n"
        );

        record.reporter = Reporter::Destination;
        record.error = Some("denied by shop/lock: no rule of an ALLOW policy matched");
        record.flag = ResponseFlag::Denied;
        let line = written(&record);
        assert!(line.starts_with("ERROR access: connection complete src.addr="), "{line}");
        assert!(
            line.ends_with(
                "direction=\"inbound\" bytes_sent=2000 bytes_recv=10 duration=\"12ms\" \
                 error=\"denied by shop/lock: no rule of an ALLOW policy matched\" flag=\"DENY\"\n"
            ),
            "{line}"
        );
    }
}
