//! Logs: one line for each thing that happens, to stderr. Metrics: what is counted. Spans: what time went into.

mod levels;
pub mod metrics;
pub mod otlp;
pub mod spans;
mod text;
mod writer;

use std::io;
use std::str::FromStr;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use writer::LineWriter;
pub use writer::LogGuard;

/// How a line is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum LogFormat {
    /// `2026-11-22 18:00:00 INFO message key=value`, UTC.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Which lines are written: a level, or directives like `info,kube=debug`.
#[derive(Debug, Clone)]
pub struct LogFilter(String);

impl FromStr for LogFilter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        filter(text).map_err(|error| format!("{error}; write error, warn, info, debug or trace"))?;
        Ok(Self(text.to_owned()))
    }
}

fn filter(text: &str) -> Result<EnvFilter, tracing_subscriber::filter::ParseError> {
    // kube calls every attempt that fails an ERROR. Ours is the one line that says what came of all attempts.
    let quiet = if text.contains("kube") { "" } else { ",kube_client=off" };
    EnvFilter::builder().with_regex(false).parse(format!("{text}{quiet}"))
}

/// Begins to log, until the guard is dropped. Later calls change nothing.
pub fn init(format: LogFormat, level: &LogFilter) -> LogGuard {
    let (writer, guard) = LineWriter::start(io::stderr());
    let filter = filter(&level.0).unwrap_or_default();
    let registry = tracing_subscriber::registry().with(filter).with(levels::Count);
    let layer = fmt::layer().with_writer(writer);
    // A second call is a test's: the first subscriber goes on.
    let _ = match format {
        LogFormat::Text => registry.with(layer.with_ansi(false).event_format(text::Line)).try_init(),
        LogFormat::Json => {
            registry.with(layer.json().flatten_event(true).with_current_span(false).with_span_list(false)).try_init()
        }
    };
    guard
}
