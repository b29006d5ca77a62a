//! The table: its form, parsed at the border.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use control::source::yaml;
use http::{HeaderName, HeaderValue, Method};
use serde::{Deserialize, Deserializer, de};

use crate::explain::{Question, Receiver, Sender};

/// A table of requests.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Table {
    /// The directory of the configuration, relative to the table's file.
    #[serde(default)]
    pub dir: Option<PathBuf>,
    /// What a cluster would add to the directory is assumed.
    #[serde(default)]
    pub as_deployed: bool,
    /// The requests.
    pub cases: Vec<Case>,
}

/// One request, and what is to become of it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Case {
    /// What the row says, in a team's own words.
    #[serde(default)]
    pub name: Option<String>,
    /// Who sends it.
    #[serde(deserialize_with = "from_text")]
    pub from: Sender,
    /// Where to.
    #[serde(deserialize_with = "from_text")]
    pub to: Receiver,
    /// The method; `GET` by default.
    #[serde(default = "get", deserialize_with = "from_text")]
    pub method: Method,
    /// Path and query; comes before that of a URL.
    #[serde(default)]
    pub path: Option<String>,
    /// `Host`, where it differs from what a client makes of the receiver.
    #[serde(default)]
    pub authority: Option<String>,
    /// Headers.
    #[serde(default, deserialize_with = "headers")]
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Whether it is to be served.
    pub expect: Expected,
    /// The status that the client is to read; 200 stands for the application's answer.
    #[serde(default)]
    pub status: Option<u16>,
    /// The route that is to take it, `<kind>/<namespace>/<name>`.
    #[serde(default)]
    pub route: Option<OneOrMore>,
    /// The backends that it is to be shared by, `<namespace>/<service>:<port>`: all of them.
    #[serde(default)]
    pub backend: Option<OneOrMore>,
    /// The policies that are to decide it, `<namespace>/<name>`: all of them.
    #[serde(default)]
    pub policy: Option<OneOrMore>,
}

/// Whether a request is to be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Expected {
    /// It is, whatever chance decides.
    Allow,
    /// It is not, whatever chance decides.
    Deny,
}

/// One name, or a list.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum OneOrMore {
    /// One.
    One(String),
    /// A list; empty for none.
    More(Vec<String>),
}

impl OneOrMore {
    /// The names.
    pub fn names(&self) -> BTreeSet<String> {
        match self {
            Self::One(name) => [name.clone()].into(),
            Self::More(names) => names.iter().cloned().collect(),
        }
    }
}

impl Table {
    /// Reads a table.
    ///
    /// # Errors
    /// When the text is none: what is wrong, with its line.
    pub fn read(text: &str) -> Result<Self, String> {
        yaml::read(text).map_err(|error| match error.line {
            Some(line) => format!("line {line}: {}", error.message),
            None => error.message,
        })
    }
}

impl Case {
    /// The request.
    pub fn question(&self) -> Question {
        Question {
            from: self.from.clone(),
            to: self.to.clone(),
            method: self.method.clone(),
            target: self.path.clone(),
            authority: self.authority.clone(),
            headers: self.headers.clone(),
        }
    }
}

fn get() -> Method {
    Method::GET
}

fn from_text<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: std::str::FromStr<Err: std::fmt::Display>,
    D: Deserializer<'de>,
{
    String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
}

fn headers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<(HeaderName, HeaderValue)>, D::Error> {
    let texts: BTreeMap<String, String> = BTreeMap::deserialize(deserializer)?;
    let one = |(name, value): (String, String)| {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(de::Error::custom)?;
        Ok((name, HeaderValue::from_str(&value).map_err(de::Error::custom)?))
    };
    texts.into_iter().map(one).collect()
}
