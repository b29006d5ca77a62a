//! One source of manifests: YAML with placeholders, and when it applies. Pure.
//!
//! `${path}` stands for a setting as it is, `${path|quote}` for a quoted text, `${path|json}` for any
//! value in YAML's flow form, `${path|join}` for a quoted list with commas. A line
//! `# ambit:when PATH` makes the whole source depend on a setting.

use serde_json::Value;

use super::Values;

/// A source, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Its name, which files written from it carry.
    pub name: &'static str,
    condition: Condition,
    pieces: Vec<Piece>,
}

/// When a source applies.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Condition {
    /// Always.
    Always,
    /// When this setting is true.
    When(String),
    /// Except in a Helm release that lives in the mesh's namespace, which exists by then.
    UnlessReleaseNamespace,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Setting { path: String, form: Form },
}

/// How a setting is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Plain,
    Quote,
    Json,
    Join,
}

/// What is wrong with a source, or with the values for it.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TemplateError {
    /// A placeholder is not closed, or of no known form.
    #[error("manifest {name}: the placeholder ${{{text} is malformed")]
    Placeholder {
        /// The source.
        name: &'static str,
        /// What follows the opening.
        text: String,
    },
    /// A directive is not known.
    #[error("manifest {name}: {line:?} is no directive")]
    Directive {
        /// The source.
        name: &'static str,
        /// The line.
        line: String,
    },
    /// A setting that is not among the values.
    #[error("manifest {name}: there is no setting {path}")]
    NoSetting {
        /// The source.
        name: &'static str,
        /// The setting.
        path: String,
    },
}

impl Source {
    /// Reads a source.
    ///
    /// # Errors
    /// When a placeholder or a directive is malformed.
    pub fn parse(name: &'static str, text: &str) -> Result<Self, TemplateError> {
        let mut condition = Condition::Always;
        let mut body = String::new();
        for line in text.lines() {
            match line.strip_prefix("# ambit:") {
                None => body.extend([line, "\n"]),
                Some("helm-unless-release-namespace") => condition = Condition::UnlessReleaseNamespace,
                Some(directive) => match directive.strip_prefix("when ") {
                    Some(path) => condition = Condition::When(path.to_owned()),
                    None => return Err(TemplateError::Directive { name, line: line.to_owned() }),
                },
            }
        }
        Ok(Self { name, condition, pieces: pieces(name, &body)? })
    }

    /// Whether it applies with these values.
    pub fn applies(&self, values: &Values) -> bool {
        match &self.condition {
            Condition::Always | Condition::UnlessReleaseNamespace => true,
            Condition::When(path) => values.get(path) == Some(&Value::Bool(true)),
        }
    }

    /// The source with these values.
    ///
    /// # Errors
    /// When it names a setting that is not among them.
    pub fn render(&self, values: &Values) -> Result<String, TemplateError> {
        let mut text = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text(plain) => text.push_str(plain),
                Piece::Setting { path, form } => {
                    let value = values
                        .get(path)
                        .ok_or_else(|| TemplateError::NoSetting { name: self.name, path: path.clone() })?;
                    text.push_str(&form.write(value));
                }
            }
        }
        Ok(text)
    }

    /// The source as a template of Helm's.
    pub fn helm(&self) -> String {
        let mut text = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text(plain) => text.push_str(plain),
                Piece::Setting { path, form } => text.push_str(&form.helm(path)),
            }
        }
        match &self.condition {
            Condition::Always => text,
            Condition::When(path) => format!("{{{{- if .Values.{path} }}}}\n{text}{{{{- end }}}}\n"),
            Condition::UnlessReleaseNamespace => {
                format!("{{{{- if ne .Release.Namespace \"ambit-system\" }}}}\n{text}{{{{- end }}}}\n")
            }
        }
    }
}

impl Form {
    fn write(self, value: &Value) -> String {
        match self {
            Self::Plain => plain(value),
            Self::Quote => Value::String(plain(value)).to_string(),
            Self::Json => value.to_string(),
            Self::Join => {
                let items: Vec<_> = value.as_array().into_iter().flatten().map(plain).collect();
                Value::String(items.join(",")).to_string()
            }
        }
    }

    fn helm(self, path: &str) -> String {
        match self {
            Self::Plain => format!("{{{{ .Values.{path} }}}}"),
            Self::Quote => format!("{{{{ .Values.{path} | quote }}}}"),
            Self::Json => format!("{{{{ .Values.{path} | toJson }}}}"),
            Self::Join => format!("{{{{ join \",\" .Values.{path} | quote }}}}"),
        }
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}

fn pieces(name: &'static str, text: &str) -> Result<Vec<Piece>, TemplateError> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        // A placeholder is short: the rest of its line says enough.
        let line = || after.lines().next().unwrap_or_default().to_owned();
        let malformed = || TemplateError::Placeholder { name, text: line() };
        let (inside, remaining) = after.split_once('}').ok_or_else(malformed)?;
        let (path, form) = match inside.split_once('|') {
            None => (inside, Form::Plain),
            Some((path, "quote")) => (path, Form::Quote),
            Some((path, "json")) => (path, Form::Json),
            Some((path, "join")) => (path, Form::Join),
            Some(_) => return Err(malformed()),
        };
        pieces.push(Piece::Text(before.to_owned()));
        pieces.push(Piece::Setting { path: path.to_owned(), form });
        rest = remaining;
    }
    pieces.push(Piece::Text(rest.to_owned()));
    Ok(pieces)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_written_in_every_form() {
        let source = Source::parse(
            "a",
            "# About.\n# ambit:when podMonitor.enabled\ntag: ${image.tag|quote}\nn: ${control.replicas}\n\
             list: ${tokenAudiences|join}\nmap: ${ztunnel.seLinuxOptions|json}\n",
        )
        .unwrap();
        let mut values = Values::defaults().unwrap();
        assert!(!source.applies(&values));
        values.set("podMonitor.enabled=true").unwrap();
        assert!(source.applies(&values));
        assert_eq!(
            source.render(&values).unwrap(),
            "# About.\ntag: \"0.1.0\"\nn: 2\nlist: \"ambit-ca\"\nmap: {}\n"
        );
        assert_eq!(
            source.helm(),
            "{{- if .Values.podMonitor.enabled }}\n# About.\ntag: {{ .Values.image.tag | quote }}\n\
             n: {{ .Values.control.replicas }}\nlist: {{ join \",\" .Values.tokenAudiences | quote }}\n\
             map: {{ .Values.ztunnel.seLinuxOptions | toJson }}\n{{- end }}\n"
        );
    }

    #[test]
    fn mistakes_in_a_source_are_found() {
        for text in ["a: ${b\n", "a: ${b|shout}\n", "# ambit:whenever x\n"] {
            assert!(Source::parse("a", text).is_err(), "{text}");
        }
        let source = Source::parse("a", "${no.such}").unwrap();
        assert!(source.render(&Values::defaults().unwrap()).is_err());
    }
}
