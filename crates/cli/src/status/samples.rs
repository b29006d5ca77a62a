//! Metrics as an agent serves them: the few that are asked for. Pure.

use std::collections::BTreeMap;

/// Samples by name and labels, as they are written.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Samples(BTreeMap<String, f64>);

impl Samples {
    /// Reads the Prometheus text format; lines that are no samples are skipped.
    pub fn parse(text: &str) -> Self {
        let sample = |line: &str| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        };
        Self(text.lines().filter(|line| !line.starts_with('#')).filter_map(sample).collect())
    }

    /// The sample without labels of this name.
    pub fn value(&self, name: &str) -> Option<f64> {
        self.0.get(name).copied()
    }

    /// The value of `label` in the first sample of `name`.
    pub fn label(&self, name: &str, label: &str) -> Option<&str> {
        let labels = self.0.keys().find_map(|key| key.strip_prefix(name)?.strip_prefix('{'))?;
        let (_, rest) = labels.split_once(&format!("{label}=\""))?;
        rest.split_once('"').map(|(value, _)| value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_found_by_name_and_labels() {
        let samples = Samples::parse(
            "# HELP x About.\n# TYPE x gauge\nx 3\nistio_build{component=\"ztunnel\",tag=\"0.1.0\"} 1\nbroken\n",
        );
        assert_eq!(samples.value("x"), Some(3.0));
        assert_eq!(samples.label("istio_build", "tag"), Some("0.1.0"));
        assert_eq!((samples.value("y"), samples.label("y", "tag")), (None, None));
    }
}
