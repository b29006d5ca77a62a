//! The settings of an installation: a tree of YAML values, of which a user replaces some.

use serde_json::{Map, Value};

use super::DEFAULT_VALUES;

/// A tree of settings that has every setting there is.
#[derive(Clone, Debug, PartialEq)]
pub struct Values(Value);

/// Why settings cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ValuesError {
    /// The text is not YAML, or no mapping.
    #[error("the values are not a YAML mapping: {message}")]
    NotYaml {
        /// What the parser said.
        message: String,
    },
    /// A setting that does not exist.
    #[error("there is no setting {path}: `ambit manifests values` prints all of them")]
    Unknown {
        /// Its path.
        path: String,
    },
    /// A setting of another kind of value.
    #[error("setting {path} is {expected}, not {found}")]
    Kind {
        /// Its path.
        path: String,
        /// What it is.
        expected: &'static str,
        /// What was given.
        found: String,
    },
    /// An assignment without `=`.
    #[error("--set {text:?} is not of the form PATH=VALUE")]
    NotAnAssignment {
        /// What was given.
        text: String,
    },
}

impl Values {
    /// The values of `deploy/helm/values.yaml`.
    ///
    /// # Errors
    /// Never, for the file that is built in: a test reads it.
    pub fn defaults() -> Result<Self, ValuesError> {
        parse(DEFAULT_VALUES).map(Self)
    }

    /// Replaces what `text`, YAML as Helm reads it, gives other values for.
    ///
    /// # Errors
    /// When it names a setting that does not exist, or gives one a value of another kind.
    pub fn merge(&mut self, text: &str) -> Result<(), ValuesError> {
        merge(&mut self.0, parse(text)?, "")
    }

    /// Replaces one setting: `a.b=value`, where the value is YAML.
    ///
    /// # Errors
    /// As [`merge`](Self::merge).
    pub fn set(&mut self, assignment: &str) -> Result<(), ValuesError> {
        let (path, value) = assignment
            .split_once('=')
            .ok_or_else(|| ValuesError::NotAnAssignment { text: assignment.to_owned() })?;
        let value = serde_saphyr::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()));
        let tree = path
            .rsplit('.')
            .fold(value, |inner, key| Value::Object(Map::from_iter([(key.to_owned(), inner)])));
        merge(&mut self.0, tree, "")
    }

    /// The value at a path of keys joined by dots.
    pub fn get(&self, path: &str) -> Option<&Value> {
        path.split('.').try_fold(&self.0, |value, key| value.get(key))
    }
}

fn parse(text: &str) -> Result<Value, ValuesError> {
    let value: Value =
        serde_saphyr::from_str(text).map_err(|error| ValuesError::NotYaml { message: error.to_string() })?;
    match value {
        Value::Object(_) => Ok(value),
        Value::Null => Ok(Value::Object(Map::new())),
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Err(ValuesError::NotYaml { message: format!("found {}", kind(&value)) })
        }
    }
}

fn merge(into: &mut Value, from: Value, path: &str) -> Result<(), ValuesError> {
    match (into, from) {
        // A mapping without keys of its own is the user's to fill: node selectors and the like.
        (Value::Object(into), Value::Object(from)) if !is_free(path, into) => {
            for (key, value) in from {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                let known = into.get_mut(&key).ok_or_else(|| ValuesError::Unknown { path: path.clone() })?;
                merge(known, value, &path)?;
            }
            Ok(())
        }
        (into, from) if kind(into) == kind(&from) => {
            *into = from;
            Ok(())
        }
        // `--set image.tag=1` and `workers: "0"` mean what they say in both forms.
        (into @ Value::String(_), from @ (Value::Number(_) | Value::Bool(_))) => {
            *into = Value::String(from.to_string());
            Ok(())
        }
        (into, from) => {
            Err(ValuesError::Kind { path: path.to_owned(), expected: kind(into), found: from.to_string() })
        }
    }
}

/// Whether the keys of the mapping at `path` are the user's own.
fn is_free(path: &str, mapping: &Map<String, Value>) -> bool {
    const FREE: [&str; 3] = ["resources", "nodeSelector", "seLinuxOptions"];
    mapping.is_empty() || FREE.iter().any(|name| path.rsplit('.').next() == Some(name))
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a mapping",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_replace_what_they_name_and_nothing_else() {
        let mut values = Values::defaults().unwrap();
        values.merge("image: {tag: 2.0.0}\ncontrol: {nodeSelector: {pool: system}}").unwrap();
        values.set("control.replicas=3").unwrap();
        values.set("meshRanges=[10.0.0.0/8]").unwrap();
        let text = |path: &str| values.get(path).unwrap().to_string();
        assert_eq!(text("image.tag"), r#""2.0.0""#);
        assert_eq!(text("image.registry"), r#""ambit.dev""#);
        assert_eq!(text("control.replicas"), "3");
        assert_eq!(text("control.nodeSelector"), r#"{"pool":"system"}"#);
        assert_eq!(text("meshRanges"), r#"["10.0.0.0/8"]"#);
    }

    #[test]
    fn what_does_not_exist_or_is_another_kind_of_value_is_refused() {
        let mut values = Values::defaults().unwrap();
        for (rule, result) in [
            ("a misspelt name", values.merge("imag: {}")),
            ("a misspelt name below", values.set("control.replica=3")),
            ("a text for a list", values.set("meshRanges=10.0.0.0/8")),
            ("a text for a number", values.set("control.replicas=many")),
            ("no assignment", values.set("control.replicas")),
            ("no mapping", values.merge("- a")),
        ] {
            assert!(result.is_err(), "{rule}");
        }
        assert_eq!(values, Values::defaults().unwrap(), "nothing of it holds");
    }
}
