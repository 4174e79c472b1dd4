//! Log lines: one for each event, to standard error.

mod levels;
mod text;
mod writer;

use std::io;
use std::str::FromStr;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

pub(crate) use levels::register_metrics;
use writer::LineWriter;
pub(crate) use writer::LogGuard;

/// Format of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum LogFormat {
    /// `2026-11-22 18:00:00 INFO message key=value`, UTC.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Lines to write: a level, or directives such as `info,kube=debug`.
#[derive(Debug, Clone)]
pub(crate) struct LogFilter(String);

impl FromStr for LogFilter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        filter(text).map_err(|error| format!("{error}; write error, warn, info, debug or trace"))?;
        Ok(Self(text.to_owned()))
    }
}

fn filter(text: &str) -> Result<EnvFilter, tracing_subscriber::filter::ParseError> {
    // kube logs every failed attempt as an ERROR. Ours is the one line about the result of all attempts.
    let quiet = if text.contains("kube") { "" } else { ",kube_client=off" };
    EnvFilter::builder().with_regex(false).parse(format!("{text}{quiet}"))
}

/// Starts logging until the guard is dropped. Panics are logged, too: printing them would block a thread as long as
/// standard error takes nothing. A second call changes nothing.
pub(crate) fn init(format: LogFormat, level: &LogFilter) -> LogGuard {
    let (writer, guard) = LineWriter::start(io::stderr());
    let filter = filter(&level.0).unwrap_or_default();
    let registry = tracing_subscriber::registry().with(filter).with(levels::Count);
    let layer = fmt::layer().with_writer(writer);
    let _ = match format {
        LogFormat::Text => registry.with(layer.with_ansi(false).event_format(text::Line)).try_init(),
        LogFormat::Json => {
            registry.with(layer.json().flatten_event(true).with_current_span(false).with_span_list(false)).try_init()
        }
    };
    std::panic::set_hook(Box::new(|panic| {
        tracing::error!(panic = %panic, "internal error; please report it");
    }));
    guard
}
