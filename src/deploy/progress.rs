//! How far a change has come: a Service's status in words.

use super::service::{Condition, Service};

/// Which change is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expected {
    /// The generation that it gave the Service.
    pub generation: i64,
}

/// How far it has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// Not there yet; what it waits for.
    Waiting(String),
    /// The new revision is ready, and traffic goes where it is to go.
    Ready,
    /// It will not get there; why.
    Failed(String),
}

/// Reads a status.
///
/// `Ready` alone is not enough: it may be about the change before, and a route to the latest ready revision is ready
/// while the latest revision is not.
pub fn progress(service: &Service, expected: Expected) -> Progress {
    let Some(status) = &service.status else {
        return Progress::Waiting("Knative has not looked at the Service yet".to_owned());
    };
    if status.observed_generation.is_none_or(|observed| observed < expected.generation) {
        return Progress::Waiting("Knative has not taken up the change yet".to_owned());
    }
    let condition = |kind: &str| status.conditions.iter().find(|condition| condition.kind == kind);
    // The parts know more than the whole.
    let mut conditions = ["ConfigurationsReady", "RoutesReady", "Ready"].map(condition).into_iter().flatten();
    if let Some(failed) = conditions.find(|condition| condition.status == "False") {
        return Progress::Failed(sentence(failed));
    }
    if status.latest_created_revision_name.is_none()
        || status.latest_created_revision_name != status.latest_ready_revision_name
    {
        let name = status.latest_created_revision_name.as_deref().unwrap_or("the new revision");
        let why = condition("ConfigurationsReady").map(sentence).filter(|why| !why.is_empty());
        return Progress::Waiting(format!(
            "{name} is not ready yet{}",
            why.map_or_else(String::new, |why| format!(" ({why})"))
        ));
    }
    match condition("Ready") {
        Some(ready) if ready.status == "True" => Progress::Ready,
        Some(ready) => Progress::Waiting(format!("the route is not ready yet ({})", sentence(ready))),
        None => Progress::Waiting("the route is not ready yet".to_owned()),
    }
}

/// A condition in one line.
fn sentence(condition: &Condition) -> String {
    let reason = condition.reason.as_deref().unwrap_or_default();
    let message = condition.message.as_deref().unwrap_or_default();
    let words: Vec<&str> = [reason, message].into_iter().filter(|text| !text.is_empty()).collect();
    words.join(": ").split_whitespace().collect::<Vec<_>>().join(" ")
}
