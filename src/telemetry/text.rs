//! The text form of a log line, as the seed's log collection parses it:
//! `(\d+-\d+-\d+\s+\d+:\d+:\d+)\s+(\w+)\s+(.*)`.

use std::cell::RefCell;
use std::fmt::{self, Write};

use jiff::Timestamp;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Formats one event as one line, whatever its fields hold.
pub(super) struct Line;

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        SECOND.with_borrow_mut(|second| write!(writer, "{} {} ", second.now(), event.metadata().level()))?;
        let mut fields = Fields { writer: &mut writer, result: Ok(()) };
        event.record(&mut fields);
        fields.result?;
        writeln!(writer)
    }
}

thread_local! {
    static SECOND: RefCell<Second> = RefCell::default();
}

/// The time as text; most lines share it with the line before.
#[derive(Default)]
struct Second {
    of: i64,
    text: String,
}

impl Second {
    fn now(&mut self) -> &str {
        let now = Timestamp::now();
        if self.of != now.as_second() || self.text.is_empty() {
            self.of = now.as_second();
            self.text = now.strftime("%Y-%m-%d %H:%M:%S").to_string();
        }
        &self.text
    }
}

/// Writes fields as they come; the message, which tracing records first, without its name.
struct Fields<'a, 'w> {
    writer: &'a mut Writer<'w>,
    result: fmt::Result,
}

impl Fields<'_, '_> {
    fn add_text(&mut self, field: &Field, value: &str) {
        let written = match field.name() {
            "message" => write!(self.writer, "{}", Escaped(value)),
            name if is_plain(value) => write!(self.writer, " {name}={value}"),
            // Debug escapes quotes and everything that does not print, line breaks among it.
            name => write!(self.writer, " {name}={value:?}"),
        };
        self.result = self.result.and(written);
    }

    /// For what cannot need an escape.
    fn add_plain(&mut self, field: &Field, value: impl fmt::Display) {
        let written = write!(self.writer, " {}={value}", field.name());
        self.result = self.result.and(written);
    }
}

impl Visit for Fields<'_, '_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.add_text(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add_plain(field, format_args!("{value:.2}"));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add_plain(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add_plain(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add_plain(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add_text(field, &format!("{value:?}"));
    }
}

fn is_plain(value: &str) -> bool {
    !value.is_empty() && value.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'"' | b'\\' | b'='))
}

/// A message without line breaks or other control characters.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            if character.is_control() || matches!(character, '\u{2028}' | '\u{2029}') {
                write!(f, "{}", character.escape_default())?;
            } else {
                f.write_char(character)?;
            }
        }
        Ok(())
    }
}
