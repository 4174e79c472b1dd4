//! Spans: what a delivery's time went into, for whoever collects traces. Without a collector nothing is made.

use std::time::SystemTime;

use opentelemetry::trace::{
    SpanBuilder, SpanContext, SpanId, SpanKind, Status, TraceContextExt, TraceFlags, TraceId, TraceState, Tracer as _,
};
use opentelemetry::{Context, KeyValue, Value};
use opentelemetry_sdk::trace::SdkTracer;

use crate::trace::TraceContext;

/// Makes spans, if anybody collects them.
#[derive(Debug, Clone, Default)]
pub struct Tracer(Option<SdkTracer>);

/// A span that ends when it is dropped; nothing, if nobody collects it.
#[derive(Debug, Default)]
pub struct Span(Option<Live>);

#[derive(Debug)]
struct Live {
    tracer: SdkTracer,
    context: Context,
}

impl Tracer {
    /// One whose spans are collected.
    pub(super) fn new(tracer: SdkTracer) -> Self {
        Self(Some(tracer))
    }

    /// Whether anybody collects spans.
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Begins the span of a request that came at `start`, in its sender's trace if it has one.
    pub fn server(&self, name: &'static str, parent: Option<&TraceContext>, start: SystemTime) -> Span {
        self.begin(name, SpanKind::Server, parent, Some(start))
    }

    /// Begins the span of a command, in the trace that it was started in if there is one.
    pub fn command(&self, name: &'static str, parent: Option<&TraceContext>) -> Span {
        self.begin(name, SpanKind::Internal, parent, None)
    }

    fn begin(
        &self,
        name: &'static str,
        kind: SpanKind,
        parent: Option<&TraceContext>,
        start: Option<SystemTime>,
    ) -> Span {
        let Some(tracer) = &self.0 else { return Span(None) };
        let mut builder = SpanBuilder::from_name(name).with_kind(kind);
        builder.start_time = start;
        let parent =
            parent.and_then(remote).map_or_else(Context::new, |remote| Context::new().with_remote_span_context(remote));
        let span = tracer.build_with_context(builder, &parent);
        Span(Some(Live { tracer: tracer.clone(), context: Context::new().with_span(span) }))
    }
}

impl Span {
    /// Begins a span below this one.
    pub fn child(&self, name: &'static str) -> Self {
        self.below(SpanBuilder::from_name(name))
    }

    /// Begins the span of a call below this one.
    pub fn call(&self, name: &'static str) -> Self {
        self.below(SpanBuilder::from_name(name).with_kind(SpanKind::Client))
    }

    /// A span below this one that is over.
    pub fn past(&self, name: &'static str, start: SystemTime, end: SystemTime) {
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

    /// Adds what is known.
    pub fn set(&self, key: &'static str, value: impl Into<Value>) {
        if let Some(live) = &self.0 {
            live.context.span().set_attribute(KeyValue::new(key, value));
        }
    }

    /// Marks it as failed.
    pub fn fail(&self, why: &str) {
        if let Some(live) = &self.0 {
            live.context.span().set_status(Status::error(why.to_owned()));
        }
    }

    /// Whether anybody collects it.
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// What others need to continue it.
    pub fn context(&self) -> Option<TraceContext> {
        let live = self.0.as_ref()?;
        let span = live.context.span();
        let context = span.span_context();
        let (trace, id, flags) = (context.trace_id(), context.span_id(), context.trace_flags());
        TraceContext::parse(&format!("00-{trace:032x}-{id:016x}-{flags:02x}"), Some(&context.trace_state().header()))
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.context.span().end();
    }
}

/// A caller's context as the library has it.
fn remote(context: &TraceContext) -> Option<SpanContext> {
    let mut fields = context.traceparent().split('-').skip(1);
    let trace = TraceId::from_hex(fields.next()?).ok()?;
    let span = SpanId::from_hex(fields.next()?).ok()?;
    let flags = TraceFlags::new(u8::from_str_radix(fields.next()?, 16).ok()?);
    let state = context.tracestate().and_then(|state| state.parse::<TraceState>().ok()).unwrap_or_default();
    Some(SpanContext::new(trace, span, flags, true, state))
}
