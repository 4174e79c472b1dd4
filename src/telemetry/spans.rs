//! Spans: where the time of a delivery or a command went. Without a collector no span is made.

use std::time::SystemTime;

use opentelemetry::trace::{SpanBuilder, SpanKind, Status, TraceContextExt, Tracer as _};
use opentelemetry::{Context, KeyValue, Value};
use opentelemetry_sdk::trace::SdkTracer;

use super::trace::TraceContext;

/// Makes spans if a collector takes them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tracer(Option<SdkTracer>);

/// A span that ends when it is dropped; empty if no collector takes it.
#[derive(Debug, Default)]
pub(crate) struct Span(Option<Live>);

#[derive(Debug)]
struct Live {
    tracer: SdkTracer,
    context: Context,
}

impl Tracer {
    pub(super) fn new(tracer: SdkTracer) -> Self {
        Self(Some(tracer))
    }

    /// Whether spans are exported.
    pub(crate) fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Begins the span of a request whose first byte came at `start`, under the sender's span if there is one.
    pub(crate) fn server(&self, name: &'static str, parent: Option<&TraceContext>, start: SystemTime) -> Span {
        self.begin(SpanBuilder::from_name(name).with_kind(SpanKind::Server).with_start_time(start), parent)
    }

    /// Begins the span of a command, under the span that started the process if there is one.
    pub(crate) fn command(&self, name: &'static str, parent: Option<&TraceContext>) -> Span {
        self.begin(SpanBuilder::from_name(name).with_kind(SpanKind::Internal), parent)
    }

    fn begin(&self, builder: SpanBuilder, parent: Option<&TraceContext>) -> Span {
        let Some(tracer) = &self.0 else { return Span(None) };
        let parent = parent
            .map_or_else(Context::new, |parent| Context::new().with_remote_span_context(parent.span_context().clone()));
        let span = tracer.build_with_context(builder, &parent);
        Span(Some(Live { tracer: tracer.clone(), context: Context::new().with_span(span) }))
    }
}

impl Span {
    /// Begins a span below this one.
    pub(crate) fn child(&self, name: &'static str) -> Self {
        self.below(SpanBuilder::from_name(name))
    }

    /// Begins the span of an outgoing call below this one.
    pub(crate) fn call(&self, name: &'static str) -> Self {
        self.below(SpanBuilder::from_name(name).with_kind(SpanKind::Client))
    }

    /// Adds a finished span below this one.
    pub(crate) fn past(&self, name: &'static str, start: SystemTime, end: SystemTime) {
        if let Span(Some(live)) = self.below(SpanBuilder::from_name(name).with_start_time(start)) {
            live.context.span().end_with_timestamp(end);
        }
    }

    fn below(&self, builder: SpanBuilder) -> Self {
        Self(self.0.as_ref().map(|live| {
            let span = live.tracer.build_with_context(builder, &live.context);
            Live { tracer: live.tracer.clone(), context: Context::new().with_span(span) }
        }))
    }

    /// Sets an attribute.
    pub(crate) fn set(&self, key: &'static str, value: impl Into<Value>) {
        if let Some(live) = &self.0 {
            live.context.span().set_attribute(KeyValue::new(key, value));
        }
    }

    /// Marks the span as failed.
    pub(crate) fn fail(&self, message: &str) {
        if let Some(live) = &self.0 {
            live.context.span().set_status(Status::error(message.to_owned()));
        }
    }

    /// Whether the span is exported.
    pub(crate) fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// The context that a callee continues; `None` without a collector.
    pub(crate) fn context(&self) -> Option<TraceContext> {
        let live = self.0.as_ref()?;
        Some(live.context.span().span_context().clone().into())
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.context.span().end();
    }
}
