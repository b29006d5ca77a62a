//! The common part of every program's configuration: values that a person writes, the flags that
//! all programs have, and the report of everything that is wrong at once.
//!
//! What a program needs beyond it stands in the program.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use serde::{Serialize, Serializer};

mod duration;

use duration::format_duration;
pub use duration::{InvalidDuration, parse_duration};

/// The flags that every program has.
#[derive(Clone, Debug, clap::Args, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct CommonFlags {
    /// Where the admin pages are served. They can end the program: keep them on a loopback address.
    #[arg(long, env = "AMBIT_ADMIN_ADDRESS", value_name = "IP:PORT", default_value = "127.0.0.1:15000")]
    pub admin_address: SocketAddr,
    /// Where the readiness probe is answered.
    #[arg(long, env = "AMBIT_READINESS_ADDRESS", value_name = "IP:PORT", default_value = "[::]:15021")]
    pub readiness_address: SocketAddr,
    /// Where metrics are served.
    #[arg(long, env = "AMBIT_METRICS_ADDRESS", value_name = "IP:PORT", default_value = "[::]:15020")]
    pub metrics_address: SocketAddr,
    /// How log lines are written.
    #[arg(long, env = "AMBIT_LOG_FORMAT", value_enum, default_value_t)]
    pub log_format: LogFormat,
    /// What is logged: a level (off, error, warn, info, debug, trace), or levels by module as in
    /// info,ambit_hbone=debug.
    #[arg(long, env = "AMBIT_LOG_LEVEL", value_name = "LEVEL", default_value = "info")]
    pub log_level: crate::telemetry::logging::Levels,
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// The effective configuration, as `/config` shows it.
///
/// A configuration type holds paths of secrets, never secrets.
pub fn effective(config: &impl Serialize) -> String {
    match serde_json::to_string_pretty(config) {
        Ok(text) => text,
        Err(error) => format!("cannot be printed: {error}"),
    }
}

/// For `#[serde(serialize_with)]` on durations: `90s` rather than seconds and nanoseconds.
///
/// # Errors
/// When the serializer fails.
pub fn serialize_duration<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format_duration(*duration))
}

/// Collects what is wrong with a configuration, so that a person reads all of it at once.
#[derive(Debug, Default)]
pub struct Check {
    problems: Vec<String>,
}

impl Check {
    /// Reports an error and goes on without a value.
    pub fn ok<T, E: fmt::Display>(&mut self, flag: &str, result: Result<T, E>) -> Option<T> {
        result.map_err(|error| self.problems.push(format!("{flag}: {error}"))).ok()
    }

    /// Everything that was reported.
    ///
    /// # Errors
    /// When anything was.
    pub fn finish(self) -> Result<(), InvalidConfig> {
        if self.problems.is_empty() { Ok(()) } else { Err(InvalidConfig { problems: self.problems }) }
    }
}

/// Everything that is wrong with a configuration.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the configuration is not valid:\n  {}", problems.join("\n  "))]
pub struct InvalidConfig {
    /// One sentence each.
    pub problems: Vec<String>,
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, clap::Parser, Serialize)]
    struct Flags {
        #[command(flatten)]
        #[serde(flatten)]
        common: CommonFlags,
    }

    #[test]
    fn the_defaults_are_the_ports_that_istio_uses() {
        let flags = Flags::try_parse_from(["program"]).unwrap();
        assert_eq!(flags.common.admin_address, "127.0.0.1:15000".parse().unwrap());
        assert_eq!(flags.common.readiness_address, "[::]:15021".parse().unwrap());
        assert_eq!(flags.common.metrics_address, "[::]:15020".parse().unwrap());
    }

    #[test]
    fn the_effective_configuration_is_printed_with_the_names_of_the_flags() {
        let flags = Flags::try_parse_from(["program", "--log-format=json"]).unwrap();
        let text = effective(&flags);
        for line in
            [r#""log-format": "json""#, r#""log-level": "info""#, r#""metrics-address": "[::]:15020""#]
        {
            assert!(text.contains(line), "{line} is not in {text}");
        }
    }

    #[test]
    fn all_problems_are_reported_at_once() {
        let mut check = Check::default();
        assert_eq!(check.ok("--drain-timeout", parse_duration("25s")), Some(Duration::from_secs(25)));
        assert_eq!(check.ok("--workers", "x".parse::<u16>()), None);
        assert_eq!(check.ok("--certificate-ttl", parse_duration("1 day")), None);
        let error = check.finish().unwrap_err();
        assert_eq!(error.problems.len(), 2);
        assert!(error.to_string().contains("\n  --workers: invalid digit"), "{error}");
    }
}
