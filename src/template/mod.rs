//! Templates: YAML is parsed first, then values go into string scalars; a value can never become structure.
//!
//! [`load()`] reads and checks files (the same code for `lint`, for the start and for a reload), and
//! [`TemplateSet::decide`] says which templates an event is for and makes their PipelineRuns.

mod compile;
mod conditions;
mod decide;
mod expression;
mod globs;
mod label;
mod load;
mod model;
mod naming;
mod nearest;
mod placeholder;
mod render;
mod schema;
mod yaml;

pub(crate) use decide::{Decision, Ignored, Selection};
#[cfg(feature = "fuzzing")]
pub(crate) use expression::Expression;
pub(crate) use load::{Finding, LoadError, Severity, lint, load, parse};
pub(crate) use model::TemplateSet;
pub(crate) use render::{PipelineRun, RenderError, Stamp};
#[cfg(test)]
pub(crate) use yaml::Position;

#[cfg(test)]
pub(crate) mod testing {
    //! Events for tests.

    use http::HeaderMap;
    use serde_json::Value;

    use crate::delivery::{Delivery, DeliveryId, EventKind};
    use crate::github::Event;

    /// An event of this kind and payload.
    pub(crate) fn event(kind: &str, delivery: &str, payload: &Value) -> Event {
        let kind = EventKind::parse(kind).expect("a kind");
        let id = DeliveryId::parse(delivery).expect("an id");
        let mut headers = HeaderMap::new();
        headers.insert("x-github-event", kind.as_str().parse().expect("a value"));
        headers.insert("x-hub-signature-256", "sha256=0".parse().expect("a value"));
        Event::parse(Delivery::from_local_file(id, kind, headers, payload.to_string().into())).expect("an event")
    }
}
