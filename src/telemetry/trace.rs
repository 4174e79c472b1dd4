//! The trace that a delivery belongs to: W3C Trace Context, level 1.

use std::collections::HashMap;

use http::{HeaderMap, HeaderName};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// A caller's place in a trace (`traceparent`), and what its vendors add (`tracestate`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceContext {
    traceparent: String,
    tracestate: Option<String>,
}

impl TraceContext {
    /// Reads the two headers; nothing if the first is not `00-<32 hex>-<16 hex>-<2 hex>` with ids that are not all
    /// zeros. A later version is read as far as this one goes, as the specification asks.
    pub fn parse(traceparent: &str, tracestate: Option<&str>) -> Option<Self> {
        let traceparent = traceparent.trim();
        let mut fields = traceparent.split('-');
        let (version, trace, span, flags) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        let hex = |text: &str, length: usize| {
            text.len() == length && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        };
        let set = |text: &str| text.bytes().any(|b| b != b'0');
        let legal = hex(version, 2)
            && version != "ff"
            && (version != "00" || fields.next().is_none())
            && hex(trace, 32)
            && set(trace)
            && hex(span, 16)
            && set(span)
            && hex(flags, 2);
        let tracestate = tracestate.map(str::trim).filter(|state| {
            !state.is_empty() && state.len() <= 512 && state.bytes().all(|b| (0x20..0x7f).contains(&b))
        });
        legal.then(|| Self {
            traceparent: format!("00-{trace}-{span}-{flags}"),
            tracestate: tracestate.map(str::to_owned),
        })
    }

    /// The context of an HTTP request.
    pub fn of_headers(headers: &HeaderMap) -> Option<Self> {
        let text = |name: &HeaderName| headers.get(name)?.to_str().ok();
        Self::parse(text(&TRACEPARENT)?, text(&TRACESTATE))
    }

    /// The context of a process that was started in a trace: `TRACEPARENT` and `TRACESTATE`, or Tekton's own form, the
    /// JSON object of its annotation `tekton.dev/taskrunSpanContext`.
    pub fn of_environment() -> Option<Self> {
        let variable = |name: &str| std::env::var(name).ok();
        let parent = variable("TRACEPARENT")?;
        match serde_json::from_str::<HashMap<String, String>>(&parent) {
            Ok(carrier) => Self::parse(carrier.get("traceparent")?, carrier.get("tracestate").map(String::as_str)),
            Err(_) => Self::parse(&parent, variable("TRACESTATE").as_deref()),
        }
    }

    /// `00-<trace>-<span>-<flags>`.
    pub fn traceparent(&self) -> &str {
        &self.traceparent
    }

    /// What the vendors on the way have added.
    pub fn tracestate(&self) -> Option<&str> {
        self.tracestate.as_deref()
    }

    /// The trace's id, 32 hex digits.
    pub fn trace_id(&self) -> &str {
        // Checked when it was read.
        self.traceparent.get(3..35).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn reads_the_specifications_example() {
        let context = TraceContext::parse(PARENT, Some("congo=t61rcWkgMzE")).expect("a context");
        assert_eq!((context.traceparent(), context.tracestate()), (PARENT, Some("congo=t61rcWkgMzE")));
        assert_eq!(context.trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
        let later = TraceContext::parse(&format!("cc{}-what-comes-later", &PARENT[2..]), Some("")).expect("a context");
        assert_eq!((later.traceparent(), later.tracestate()), (PARENT, None));
    }

    #[test]
    fn refuses_what_is_none() {
        for wrong in [
            "",
            "00",
            &PARENT[..54],
            &PARENT.to_uppercase(),
            &PARENT.replace("00-4", "ff-4"),
            &format!("{PARENT}-more"),
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
        ] {
            assert_eq!(TraceContext::parse(wrong, None), None, "{wrong}");
        }
    }
}
