//! Path templates of AuthorizationPolicy: `/users/{*}/cart`, `/static/{**}`.

use std::sync::Arc;

use super::policy::TemplatePart;

/// Whether a text of a policy is a template and not a comparison of text.
pub fn is_path_template(text: &str) -> bool {
    text.contains(['{', '}'])
}

/// Reads a template.
///
/// # Errors
/// When it is none: it begins with a slash, `{*}` and `{**}` stand for whole segments, and `{**}` is
/// the last.
pub fn path_template(text: &str) -> Result<Arc<[TemplatePart]>, InvalidTemplate> {
    let invalid = || InvalidTemplate { text: text.chars().take(200).collect() };
    let segments: Vec<&str> = text.strip_prefix('/').ok_or_else(invalid)?.split('/').collect();
    let last = segments.len() - 1;
    let part = |(at, segment): (usize, &&str)| match *segment {
        "{*}" => Ok(TemplatePart::OneSegment),
        "{**}" if at == last => Ok(TemplatePart::Rest),
        literal if literal.contains(['{', '}', '*']) => Err(invalid()),
        literal => Ok(TemplatePart::Literal(literal.into())),
    };
    segments.iter().enumerate().map(part).collect()
}

/// The text of a template.
pub fn path_template_text(parts: &[TemplatePart]) -> String {
    let mut text = String::new();
    for part in parts {
        text.push('/');
        text.push_str(match part {
            TemplatePart::Literal(literal) => literal,
            TemplatePart::OneSegment => "{*}",
            TemplatePart::Rest => "{**}",
        });
    }
    text
}

/// A text that is no path template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not a path template: it begins with a slash, {{*}} and {{**}} stand for whole segments, \
     and {{**}} is the last"
)]
pub struct InvalidTemplate {
    /// What was read, cut to a length that is safe to log.
    pub text: String,
}
