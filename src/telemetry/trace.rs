//! W3C Trace Context, level 1: `traceparent` and `tracestate` as OpenTelemetry's [`SpanContext`].

use std::collections::HashMap;

use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};

/// Longest `tracestate` that is passed on; the specification asks for at least 512.
const MAX_STATE: usize = 512;

/// A position in a trace: the caller's span, under which the next one belongs.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TraceContext(SpanContext);

impl TraceContext {
    /// Parses `00-<32 hex>-<16 hex>-<2 hex>`, in lower case and with ids that are not zero, and the vendors' state.
    /// Stricter than OpenTelemetry's own parser, which takes ids of any length. A later version is read as far as
    /// version 00 goes, as the specification asks. Returns `None` for any other `traceparent`; an invalid `tracestate`
    /// is dropped.
    pub(crate) fn parse(traceparent: &str, tracestate: Option<&str>) -> Option<Self> {
        let mut fields = traceparent.trim().split('-');
        let (version, trace, span, flags) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        let hex = |text: &str, length: usize| {
            text.len() == length && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        };
        let legal = hex(version, 2)
            && version != "ff"
            && (version != "00" || fields.next().is_none())
            && hex(trace, 32)
            && hex(span, 16)
            && hex(flags, 2);
        if !legal {
            return None;
        }
        let state = tracestate.map(str::trim).filter(|state| state.len() <= MAX_STATE);
        let state = state.and_then(|state| state.parse::<TraceState>().ok()).unwrap_or_default();
        let flags = TraceFlags::new(u8::from_str_radix(flags, 16).ok()?);
        let context =
            SpanContext::new(TraceId::from_hex(trace).ok()?, SpanId::from_hex(span).ok()?, flags, true, state);
        context.is_valid().then_some(Self(context))
    }

    /// The context in a process' environment: `TRACEPARENT` and `TRACESTATE`, or Tekton's own form, the JSON object of
    /// its annotation `tekton.dev/taskrunSpanContext`.
    pub(crate) fn from_environment() -> Option<Self> {
        let variable = |name: &str| std::env::var(name).ok();
        let parent = variable("TRACEPARENT")?;
        match serde_json::from_str::<HashMap<String, String>>(&parent) {
            Ok(carrier) => Self::parse(carrier.get("traceparent")?, carrier.get("tracestate").map(String::as_str)),
            Err(_) => Self::parse(&parent, variable("TRACESTATE").as_deref()),
        }
    }

    /// `00-<trace>-<span>-<flags>`.
    pub(crate) fn traceparent(&self) -> String {
        let Self(context) = self;
        format!("00-{:032x}-{:016x}-{:02x}", context.trace_id(), context.span_id(), context.trace_flags())
    }

    /// The vendors' state; `None` without the header.
    pub(crate) fn tracestate(&self) -> Option<String> {
        Some(self.0.trace_state().header()).filter(|state| !state.is_empty())
    }

    /// The trace's id, printed as 32 hex digits.
    pub(crate) fn trace_id(&self) -> TraceId {
        self.0.trace_id()
    }

    /// The span's identity for OpenTelemetry.
    pub(crate) fn span_context(&self) -> &SpanContext {
        &self.0
    }
}

impl From<SpanContext> for TraceContext {
    fn from(context: SpanContext) -> Self {
        Self(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn parses_the_specifications_example() {
        let context = TraceContext::parse(PARENT, Some("congo=t61rcWkgMzE")).expect("a context");
        assert_eq!(context.traceparent(), PARENT);
        assert_eq!(context.tracestate().as_deref(), Some("congo=t61rcWkgMzE"));
        assert_eq!(context.trace_id().to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        let later = TraceContext::parse(&format!("cc{}-what-comes-later", &PARENT[2..]), Some("")).expect("a context");
        assert_eq!((later.traceparent().as_str(), later.tracestate()), (PARENT, None));
    }

    #[test]
    fn rejects_invalid_parents() {
        for wrong in [
            "",
            "00",
            &PARENT[..54],
            &PARENT.to_uppercase(),
            &PARENT.replace("00-4", "ff-4"),
            &format!("{PARENT}-more"),
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f-00f067aa0ba902b7-01",
        ] {
            assert_eq!(TraceContext::parse(wrong, None), None, "{wrong}");
        }
    }
}
