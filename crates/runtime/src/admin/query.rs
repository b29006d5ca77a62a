//! The query of a request: `a=1&b`.

use percent_encoding::percent_decode_str;

/// The parameters of a request in their order, percent-decoded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    parameters: Vec<(String, String)>,
}

impl Query {
    /// Reads the part after `?`. A parameter without `=` has the empty value.
    pub fn parse(text: &str) -> Self {
        let decode = |part: &str| percent_decode_str(part).decode_utf8_lossy().into_owned();
        let parameters = text
            .split('&')
            .filter(|parameter| !parameter.is_empty())
            .map(|parameter| parameter.split_once('=').unwrap_or((parameter, "")))
            .map(|(name, value)| (decode(name), decode(value)))
            .collect();
        Self { parameters }
    }

    /// The value of the first parameter of this name.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.parameters().find(|(candidate, _)| *candidate == name).map(|(_, value)| value)
    }

    /// Names and values in their order.
    pub fn parameters(&self) -> impl Iterator<Item = (&str, &str)> {
        self.parameters.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_read_and_decoded() {
        let query = Query::parse("level=ztunnel%3A%3Aproxy%3Ddebug&reset&a=1&a=2&&=x");
        assert_eq!(query.value("level"), Some("ztunnel::proxy=debug"));
        assert_eq!(query.value("reset"), Some(""));
        assert_eq!(query.value("a"), Some("1"));
        assert_eq!(query.value("b"), None);
        assert_eq!(query.parameters().count(), 5);
        assert_eq!(Query::parse(""), Query::default());
    }
}
