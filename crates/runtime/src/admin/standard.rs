//! The pages that every program has.

use http::StatusCode;

use super::{Query, Reply, Router};
use crate::readiness::Readiness;
use crate::shutdown::ShutdownHandle;
use crate::telemetry::logging::LogControl;
use crate::telemetry::metrics::Metrics;

/// The content type of Prometheus' text format, version 0.0.4.
const PROMETHEUS_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

impl Router {
    /// `GET /healthz/ready`: 200 when nothing is pending, otherwise 500 and what is.
    #[must_use]
    pub fn with_readiness(self, readiness: &Readiness) -> Self {
        let readiness = readiness.clone();
        self.get("/healthz/ready", "whether the program can do its work", move |_| {
            let pending = readiness.pending();
            if pending.is_empty() {
                return Reply::text("ready\n");
            }
            Reply::text(format!("not ready: {}\n", pending.join(", ")))
                .with_status(StatusCode::INTERNAL_SERVER_ERROR)
        })
    }

    /// `GET /metrics`, and the same under the path that Istio's scrape annotations name.
    #[must_use]
    pub fn with_metrics(self, metrics: &Metrics) -> Self {
        let (metrics, same) = (metrics.clone(), metrics.clone());
        self.get("/metrics", "metrics in Prometheus' text format", move |_| exposition(&metrics)).get(
            "/stats/prometheus",
            "the same",
            move |_| exposition(&same),
        )
    }

    /// `GET /config`: the effective configuration, as printed by [`crate::config::effective`].
    #[must_use]
    pub fn with_config(self, effective: String) -> Self {
        self.get("/config", "the effective configuration", move |_| {
            Reply::new("application/json", effective.clone().into())
        })
    }

    /// `POST /logging`: shows or changes what is logged.
    #[must_use]
    pub fn with_logging(self, control: &LogControl) -> Self {
        let control = control.clone();
        self.post("/logging", "?level=debug, ?level=scope:debug,.. , ?scope=debug or ?reset", move |query| {
            set_levels(&control, query)
        })
    }

    /// `POST /quitquitquit`: ends the program as SIGTERM does.
    #[must_use]
    pub fn with_quit(self, shutdown: ShutdownHandle) -> Self {
        self.post("/quitquitquit", "drain and end", move |_| {
            shutdown.request();
            Reply::text("shutdown now\n")
        })
    }
}

fn exposition(metrics: &Metrics) -> Reply {
    Reply::new(PROMETHEUS_TEXT, metrics.render().into())
}

fn set_levels(control: &LogControl, query: &Query) -> Reply {
    let changed = query.parameters().try_fold(control.levels(), |levels, parameter| match parameter {
        ("reset", "") => Ok(control.initial().clone()),
        ("level", change) => levels.with(change),
        (scope, level) => levels.with(&format!("{scope}={level}")),
    });
    match changed {
        Ok(levels) => {
            let text = format!("log level: {levels}\n");
            control.set(levels);
            Reply::text(text)
        }
        Err(problem) => Reply::text(format!("{problem}\n")).with_status(StatusCode::BAD_REQUEST),
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;
    use crate::telemetry::logging::Levels;

    #[test]
    fn levels_are_changed_and_reset_by_query() {
        let (control, _filter) = LogControl::detached("info".parse::<Levels>().unwrap());
        let router = Router::new("test").with_logging(&control);
        let rows = [
            ("", 200, "log level: info\n"),
            ("level=debug", 200, "log level: debug\n"),
            (
                "level=ztunnel::outbound:trace,h2=off",
                200,
                "log level: debug,h2=off,ztunnel::outbound=trace\n",
            ),
            ("access=warn", 200, "log level: debug,access=warn,h2=off,ztunnel::outbound=trace\n"),
            ("level=loud", 400, "\"loud\" is not a log level"),
            ("reset", 200, "log level: info\n"),
        ];
        for (query, status, body) in rows {
            let reply = router.answer(&Method::POST, "/logging", Some(query));
            assert_eq!(reply.status().as_u16(), status, "{query}");
            assert!(reply.body().starts_with(body), "{query}: {}", reply.body());
        }
    }
}
