//! Which lines are logged: a level for everything, and others by scope.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;

/// A level for everything, and levels of scopes: a scope is a log target and what lies below it, such
/// as `ztunnel::outbound` or `access`. Written as `info,access=warn`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Levels {
    everything: LevelFilter,
    scopes: BTreeMap<String, LevelFilter>,
}

impl Levels {
    /// These levels with a change: `debug` for everything that has no level of its own,
    /// `scope=debug` or `scope:debug` for one scope, or several such parts with commas between them.
    ///
    /// # Errors
    /// When a part holds no level.
    pub fn with(mut self, change: &str) -> Result<Self, InvalidLevel> {
        for part in change.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            // A scope may hold colons (`ztunnel::outbound:debug`), a level holds none.
            match part.rsplit_once(['=', ':']) {
                None => self.everything = parse_level(part)?,
                Some((scope, level)) => {
                    self.scopes.insert(scope.into(), parse_level(level)?);
                }
            }
        }
        Ok(self)
    }

    pub(super) fn to_targets(&self) -> Targets {
        Targets::new()
            .with_default(self.everything)
            .with_targets(self.scopes.iter().map(|(scope, level)| (scope.clone(), *level)))
    }
}

impl FromStr for Levels {
    type Err = InvalidLevel;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self { everything: LevelFilter::INFO, scopes: BTreeMap::new() }.with(text)
    }
}

impl fmt::Display for Levels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.everything)?;
        self.scopes.iter().try_for_each(|(scope, level)| write!(f, ",{scope}={level}"))
    }
}

impl Serialize for Levels {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

fn parse_level(text: &str) -> Result<LevelFilter, InvalidLevel> {
    match text.to_ascii_lowercase().as_str() {
        "off" => Ok(LevelFilter::OFF),
        "error" => Ok(LevelFilter::ERROR),
        "warn" | "warning" => Ok(LevelFilter::WARN),
        "info" => Ok(LevelFilter::INFO),
        "debug" => Ok(LevelFilter::DEBUG),
        "trace" => Ok(LevelFilter::TRACE),
        _ => Err(InvalidLevel { text: text.into() }),
    }
}

/// A text is not a level.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a log level: write off, error, warn, info, debug or trace, or <scope>=<level>")]
pub struct InvalidLevel {
    /// What was read.
    pub text: String,
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn levels_read_back_as_they_are_written() {
        for (text, written) in [
            ("info", "info"),
            ("", "info"),
            ("WARN", "warn"),
            ("debug, access=off", "debug,access=off"),
            ("h2=trace", "info,h2=trace"),
            ("ztunnel::outbound:debug,warn", "warn,ztunnel::outbound=debug"),
        ] {
            let levels: Levels = text.parse().unwrap();
            assert_eq!(levels.to_string(), written);
            assert_eq!(written.parse::<Levels>().unwrap(), levels);
        }
    }

    #[test]
    fn a_word_that_is_no_level_is_refused() {
        for text in ["loud", "access=", "access=1", "info,,x:y"] {
            assert!(text.parse::<Levels>().is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn a_scope_covers_what_lies_below_it() {
        let targets = "warn,ztunnel=debug".parse::<Levels>().unwrap().to_targets();
        assert!(targets.would_enable("ztunnel::outbound", &Level::DEBUG));
        assert!(!targets.would_enable("h2", &Level::INFO));
    }
}
