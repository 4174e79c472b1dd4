//! Templates: YAML is parsed first, then values are put into string scalars, so that a value never becomes structure.
//!
//! [`lint()`] and [`TemplateSource`] read and check the files of each team, with the same code. [`TemplateSet::decide`] selects the
//! templates that match an event and renders their PipelineRuns.

mod compile;
mod conditions;
mod decide;
mod event_names;
mod expression;
mod finding;
mod globs;
mod injection;
mod labels;
mod load;
mod migration;
mod model;
mod naming;
mod nearest;
mod placeholder;
mod references;
mod render;
mod schema;
mod tekton;
mod yaml;

pub(crate) use decide::{Decision, Ignored, Selection};
#[cfg(feature = "fuzzing")]
pub(crate) use expression::Expression;
pub(crate) use expression::cel_memory;
pub(crate) use finding::{Finding, Severity};
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use load::parse;
pub(crate) use load::{LintedTeam, LoadError, TeamTemplates, TemplateSource, Templates, lint};
pub(crate) use model::{Template, TemplateSet};
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

    /// Builds an event; panics if an argument is invalid.
    pub(crate) fn event(kind: &str, delivery: &str, payload: &Value) -> Event {
        let kind = EventKind::parse(kind).expect("a kind");
        let id = DeliveryId::parse(delivery).expect("an id");
        let mut headers = HeaderMap::new();
        headers.insert("x-github-event", kind.as_str().parse().expect("a value"));
        headers.insert("x-hub-signature-256", "sha256=0".parse().expect("a value"));
        Event::parse(Delivery::from_local_file(id, kind, headers, payload.to_string().into())).expect("an event")
    }
}
