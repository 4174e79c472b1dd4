//! The progress of a change, read from a Service's status.

use super::service::{Condition, Service};

/// How far a change has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Progress {
    /// Not finished; what it waits for.
    Waiting(String),
    /// The new revision is ready, and the traffic goes to its targets.
    Ready,
    /// It failed; why.
    Failed(String),
}

/// Reads the progress of the change that gave the Service this generation.
///
/// What Serving 0.47 reports of a new revision that cannot work, on a Service that works (seen with its own controllers):
///
/// | cause | while it waits | in the end |
/// |---|---|---|
/// | a tag that does not exist | `False` after a second: "Unable to fetch image" | the same |
/// | a digest that does not exist | `Unknown` | the kubelet's message: "Back-off pulling image ... not found" |
/// | the container exits | `Unknown` | "Container failed with: " and its last output |
/// | the image must not run as root | `Unknown` | the kubelet's message: "image will run as root" |
/// | it listens on another port | `Unknown` | "timed out progressing" |
/// | no room on the nodes | `Unknown` or `False` "Unschedulable" | ready, once there is room |
///
/// The end is the progress deadline, 600 seconds unless the template's `serving.knative.dev/progress-deadline` says otherwise,
/// and is before the end of the default wait. The Revision's own conditions say nothing earlier.
///
/// `Ready` alone is not enough: it may belong to the change before, and a route to the latest ready revision is ready while
/// the latest revision is not.
pub(super) fn progress(service: &Service, generation: i64) -> Progress {
    let Some(status) = &service.status else {
        return Progress::Waiting("Knative has not observed the Service yet".to_owned());
    };
    if status.observed_generation.is_none_or(|observed| observed < generation) {
        return Progress::Waiting("Knative has not observed the change yet".to_owned());
    }
    let condition = |kind: &str| status.conditions.iter().find(|condition| condition.kind == kind);
    // The parts have more precise messages than the whole.
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

/// Reads the progress of a rollback to `target`: whatever becomes of newer revisions, which nobody sees.
pub(super) fn rollback_progress(service: &Service, generation: i64, target: &str) -> Progress {
    let Some(status) = service.status.as_ref().filter(|status| status.observed_generation >= Some(generation)) else {
        return Progress::Waiting("Knative has not observed the change yet".to_owned());
    };
    let routes = status.conditions.iter().find(|condition| condition.kind == "RoutesReady");
    match routes {
        Some(routes) if routes.status == "False" => Progress::Failed(sentence(routes)),
        Some(routes) if routes.status != "True" => {
            Progress::Waiting(format!("the route is not ready yet ({})", sentence(routes)))
        }
        _ if service.percent_on(target) >= 100 => Progress::Ready,
        _ => Progress::Waiting(format!("the users are not yet on {target}")),
    }
}

/// A condition's reason and message in one line.
fn sentence(condition: &Condition) -> String {
    let reason = condition.reason.as_deref().unwrap_or_default();
    let message = condition.message.as_deref().unwrap_or_default();
    let words: Vec<&str> = [reason, message].into_iter().filter(|text| !text.is_empty()).collect();
    words.join(": ").split_whitespace().collect::<Vec<_>>().join(" ")
}
