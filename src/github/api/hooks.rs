//! Webhooks and their deliveries, which GitHub keeps for three days (GitHub Enterprise Server: seven).

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use super::Owner;
use super::call::Call;
use super::client::{Api, Identity};
use super::error::ApiError;

const REPOSITORY_PERMISSION: &str = "the permission `repository_hooks: write` (webhooks; to look only: read)";
const ORGANIZATION_PERMISSION: &str = "the permission `organization_hooks: write` (its webhooks; to look only: read)";
const APP_PERMISSION: &str = "to be the App's";

/// One webhook.
#[derive(Debug, Clone)]
pub(crate) struct Hook {
    /// `None` for an App's own webhook.
    owner: Option<Owner>,
    /// Its path in the API.
    path: String,
    /// Where it delivers to.
    pub(crate) url: String,
    /// Whether it delivers at all.
    pub(crate) is_active: bool,
    /// Names of the events that it delivers; `*` for all. Empty for an App's, whose events its page lists.
    pub(crate) events: Vec<String>,
}

/// One attempt to deliver an event.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Attempt {
    /// Number of the attempt.
    pub(crate) id: u64,
    /// Id of the delivery, the same for all its attempts.
    pub(crate) guid: String,
    /// When it was made.
    pub(crate) delivered_at: Timestamp,
    /// Whether GitHub was asked for it.
    #[serde(default)]
    pub(crate) redelivery: bool,
    /// GitHub's word for how it ended, for example `OK`.
    #[serde(default)]
    pub(crate) status: Option<String>,
    /// Status of the answer; 0 or missing if there was none.
    #[serde(default)]
    pub(crate) status_code: Option<u64>,
    /// The event's name.
    pub(crate) event: String,
    /// Its action.
    #[serde(default)]
    pub(crate) action: Option<String>,
    /// Number of the repository.
    #[serde(default)]
    pub(crate) repository_id: Option<u64>,
}

impl Attempt {
    /// Whether it was answered with a success.
    pub(crate) fn is_accepted(&self) -> bool {
        self.status_code.is_some_and(|code| (200..300).contains(&code))
    }

    /// How it ended: the status of the answer, or GitHub's word.
    pub(crate) fn end(&self) -> String {
        match (self.status_code, self.status.as_deref()) {
            (Some(code), _) if code > 0 => code.to_string(),
            (_, Some(status)) if !status.is_empty() => format!("no answer ({status})"),
            _ => "no answer".to_owned(),
        }
    }
}

impl Hook {
    /// The webhooks of a repository or organisation.
    /// Fails when they cannot be read.
    pub(crate) async fn list(api: &mut Api, owner: &Owner) -> Result<Vec<Self>, ApiError> {
        let path = format!("{}/hooks?per_page=100", owner.path());
        let what = format!("the webhooks of {}", owner.as_str());
        let hooks = api.pages(Identity::Token, Call::get(&path, &what, permission(Some(owner))), |_| false).await?;
        let hook = |hook: &Value| {
            let events = hook["events"].as_array().into_iter().flatten();
            Some(Self {
                owner: Some(owner.clone()),
                path: format!("{}/hooks/{}", owner.path(), hook["id"].as_u64()?),
                url: hook["config"]["url"].as_str()?.to_owned(),
                is_active: hook["active"] == true,
                events: events.filter_map(Value::as_str).map(str::to_owned).collect(),
            })
        };
        Ok(hooks.iter().filter_map(hook).collect())
    }

    /// The App's own webhook; `None` if it has none.
    /// Fails when that cannot be read.
    pub(crate) async fn of_app(api: &mut Api) -> Result<Option<Self>, ApiError> {
        let call = Call::get("/app/hook/config", "the App's webhook", APP_PERMISSION);
        let config = match api.call_as(Identity::App, call).await {
            Err(ApiError::NotFound { .. }) => return Ok(None),
            answer => answer?.body,
        };
        let url = config["url"].as_str().filter(|url| !url.is_empty());
        Ok(url.map(|url| Self {
            owner: None,
            path: "/app/hook".to_owned(),
            url: url.to_owned(),
            is_active: true,
            events: Vec::new(),
        }))
    }

    /// Whether all that it delivers is of one repository.
    pub(crate) fn is_of_repository(&self) -> bool {
        matches!(self.owner, Some(Owner::Repository(_)))
    }

    /// Whether it delivers what happens to pull requests.
    pub(crate) fn has_pull_requests(&self) -> bool {
        self.events.is_empty() || self.events.iter().any(|event| event == "pull_request" || event == "*")
    }

    /// The attempts down to the first page with one that `is_last`, newest first; the last one and what is older is left out.
    /// Fails when the log cannot be read.
    pub(crate) async fn attempts_until(
        &self,
        api: &mut Api,
        is_last: impl Fn(&Attempt) -> bool,
    ) -> Result<Vec<Attempt>, ApiError> {
        let path = format!("{}/deliveries?per_page=100", self.path);
        let what = format!("the deliveries of the webhook {}", self.url);
        let parse = |item: &Value| Attempt::deserialize(item).ok();
        let is_enough = |page: &[Value]| page.iter().filter_map(parse).any(|attempt| is_last(&attempt));
        let call = Call::get(&path, &what, permission(self.owner.as_ref())).polled();
        let items = api.pages(self.identity(), call, is_enough).await?;
        Ok(items.iter().filter_map(parse).filter(|attempt| !is_last(attempt)).collect())
    }

    /// Reads one attempt with its request and answer, as GitHub's API gives it.
    /// Fails when it cannot be read.
    pub(crate) async fn attempt(&self, api: &mut Api, attempt: &Attempt) -> Result<Value, ApiError> {
        let path = format!("{}/deliveries/{}", self.path, attempt.id);
        let what = format!("the delivery {} of the webhook {}", attempt.guid, self.url);
        let call = Call::get(&path, &what, permission(self.owner.as_ref()));
        Ok(api.call_as(self.identity(), call).await?.body)
    }

    /// Has GitHub make another attempt. It is not over when this returns.
    /// Fails when GitHub does not.
    pub(crate) async fn redeliver(&self, api: &mut Api, attempt: &Attempt) -> Result<(), ApiError> {
        let path = format!("{}/deliveries/{}/attempts", self.path, attempt.id);
        let what = format!("to deliver {} again to {}", attempt.guid, self.url);
        let nothing = Value::Null;
        let call = Call::post(&path, &nothing, &what, permission(self.owner.as_ref()));
        // One more attempt does no harm.
        api.call_as(self.identity(), call.repeatable().may_be_empty()).await.map(drop)
    }

    fn identity(&self) -> Identity {
        if self.owner.is_some() { Identity::Token } else { Identity::App }
    }
}

fn permission(owner: Option<&Owner>) -> &'static str {
    match owner {
        Some(Owner::Repository(_)) => REPOSITORY_PERMISSION,
        Some(Owner::Organization(_)) => ORGANIZATION_PERMISSION,
        None => APP_PERMISSION,
    }
}
