//! Logs: one line for each thing that happens, to stderr. Metrics: what is counted.

pub mod metrics;
mod text;

use std::io::{self, BufWriter};
use std::str::FromStr;

use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

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
    EnvFilter::builder().with_regex(false).parse(text)
}

/// Lines that wait for a collector that does not read; each place takes memory from the start.
const WAITING_LINES: usize = 4096;

/// Writes out what was logged when it is dropped.
#[must_use = "lines that are not written yet are lost without it"]
pub struct LogGuard {
    _worker: WorkerGuard,
}

/// Begins to log. Later calls change nothing.
///
/// A thread of its own writes the lines, many at a time under load: a delivery waits for no pipe, and a log collector
/// that does not read costs lines instead of merges.
pub fn init(format: LogFormat, level: &LogFilter) -> LogGuard {
    let (writer, worker) = NonBlockingBuilder::default()
        .thread_name("log")
        .buffered_lines_limit(WAITING_LINES)
        .finish(BufWriter::with_capacity(64 << 10, io::stderr()));
    let filter = filter(&level.0).unwrap_or_default();
    let registry = tracing_subscriber::registry().with(filter);
    let layer = fmt::layer().with_writer(writer);
    // A second call is a test's: the first subscriber goes on.
    let _ = match format {
        LogFormat::Text => registry.with(layer.with_ansi(false).event_format(text::Line)).try_init(),
        LogFormat::Json => {
            registry.with(layer.json().flatten_event(true).with_current_span(false).with_span_list(false)).try_init()
        }
    };
    LogGuard { _worker: worker }
}
