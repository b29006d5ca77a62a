//! Fields of a line of text.

use std::fmt::{self, Debug, Write};

use tracing::field::{Field, Visit};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::Writer;

/// Writes the message as it is and every other field as `name=value`, texts in quotes.
///
/// A line looks as tracing's own formatter makes it, but for the causes of an error, which follow it after colons; and
/// costs less: an access log's line is mostly plain texts, and one that needs no escapes is written at once.
#[derive(Debug)]
pub(super) struct TextFields;

impl<'writer> FormatFields<'writer> for TextFields {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'writer>, fields: R) -> fmt::Result {
        let mut line = Line { writer, is_empty: true, result: Ok(()) };
        fields.record(&mut line);
        line.result
    }
}

struct Line<'writer> {
    writer: Writer<'writer>,
    is_empty: bool,
    /// The first failure; nothing is written after it.
    result: fmt::Result,
}

impl Line<'_> {
    fn put(&mut self, field: &Field, write: impl FnOnce(&mut Writer<'_>) -> fmt::Result) {
        if self.result.is_ok() {
            self.result = self.try_put(field.name(), write);
        }
    }

    fn try_put(&mut self, name: &str, write: impl FnOnce(&mut Writer<'_>) -> fmt::Result) -> fmt::Result {
        if !std::mem::take(&mut self.is_empty) {
            self.writer.write_char(' ')?;
        }
        if name != MESSAGE {
            self.writer.write_str(name.strip_prefix("r#").unwrap_or(name))?;
            self.writer.write_char('=')?;
        }
        write(&mut self.writer)
    }
}

impl Visit for Line<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == MESSAGE {
            return self.record_debug(field, &format_args!("{value}"));
        }
        self.put(field, |writer| {
            if !value.bytes().all(is_plain) {
                return write!(writer, "{value:?}");
            }
            writer.write_char('"')?;
            writer.write_str(value)?;
            writer.write_char('"')
        });
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.put(field, |writer| {
            let mut escaping = Escaping(writer);
            write!(escaping, "{value}")?;
            let causes = std::iter::successors(value.source(), |cause| cause.source());
            causes.into_iter().try_for_each(|cause| write!(escaping, ": {cause}"))
        });
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let is_message = field.name() == MESSAGE;
        self.put(field, |writer| match is_message {
            true => write!(Escaping(writer), "{value:?}"),
            false => write!(writer, "{value:?}"),
        });
    }
}

const MESSAGE: &str = "message";

/// Whether it stands for itself between quotes.
fn is_plain(octet: u8) -> bool {
    matches!(octet, b' '..=b'~') && !matches!(octet, b'"' | b'\\')
}

/// What is written as it came must not speak to a terminal.
struct Escaping<'a, 'writer>(&'a mut Writer<'writer>);

impl Write for Escaping<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let is_harmless = |character: char| !character.is_control() || matches!(character, '\n' | '\t');
        if text.chars().all(is_harmless) {
            return self.0.write_str(text);
        }
        for character in text.chars() {
            match is_harmless(character) {
                true => self.0.write_char(character)?,
                false => write!(self.0, "{}", character.escape_default())?,
            }
        }
        Ok(())
    }
}
