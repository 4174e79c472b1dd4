//! GitHub's API: the credential of a call, its limits, failures and redirects.

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::header::{DATE, ETAG, IF_NONE_MATCH, LINK, LOCATION};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::Written;
use super::app::{InstallationToken, Owner, Permissions, token_request_body};
use super::call::{Answer, Call, NextPage, http_date, pause, request, retry_after, text};
use super::credential::{Credential, app_jwt, is_same, read_token};
use super::error::{ApiError, MAX_QUOTED, advice, message};
use crate::remote::Server;

/// First pause before another attempt, doubled each time up to [`MAX_BACKOFF`], with jitter.
const FIRST_BACKOFF: Duration = Duration::from_millis(500);
const MAX_BACKOFF: Duration = Duration::from_secs(30);
/// Pause after a secondary limit that names none (GitHub's documentation: at least one minute).
const SECONDARY_PAUSE: Duration = Duration::from_secs(60);
/// Redirects that are followed: a renamed repository has one.
const MAX_REDIRECTS: usize = 3;
/// Difference of clocks from which on GitHub's is believed.
const CLOCK_DIFFERENCE: i64 = 30;

/// GitHub's API at one address, and our credential for it.
pub(crate) struct Api {
    server: Server,
    credential: Credential,
    /// Failures that may pass are tried again for so long after the last success.
    patience: Duration,
    until: Instant,
    /// GitHub's clock minus ours, in seconds, if they differ much.
    clock: i64,
    /// The token of an App's installation, and what it was made for.
    installation: Option<Installation>,
    /// The last answers to calls that are polled, by path, with their `ETag`.
    polled: HashMap<String, (HeaderValue, Answer)>,
}

/// The token of an App's installation, and what it takes to make it anew.
struct Installation {
    token: SecretString,
    owner: Owner,
    permissions: Permissions,
}

/// Who a call is made as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Identity {
    /// The App itself.
    App,
    /// A token.
    Token,
}

impl Api {
    /// GitHub's API at `server`. Failures that may pass are tried again for `patience` after the last success.
    pub(crate) fn new(server: Server, credential: Credential, patience: Duration) -> Self {
        let (until, polled) = (Instant::now() + patience, HashMap::new());
        Self { server, credential, patience, until, clock: 0, installation: None, polled }
    }

    /// Its address, if it is not GitHub's public one.
    pub(crate) fn other_address(&self) -> Option<String> {
        let address = self.server.to_string();
        (!address.starts_with("https://api.github.com")).then(|| address.trim_end_matches('/').to_owned())
    }

    /// Whether the credential is an App's.
    pub(crate) fn is_app(&self) -> bool {
        matches!(self.credential, Credential::App { .. })
    }

    /// For an App: takes a token of its installation, for later calls. It is taken anew when GitHub no longer accepts it.
    /// Fails when the App is not installed there, or GitHub gives no token.
    pub(crate) async fn authenticate(
        &mut self,
        owner: impl Into<Owner>,
        permissions: &Permissions,
    ) -> Result<(), ApiError> {
        if self.is_app() {
            let (owner, permissions) = (owner.into(), permissions.clone());
            let token = self.installation_token(&owner, &permissions).await?.token;
            self.installation = Some(Installation { token, owner, permissions });
        }
        Ok(())
    }

    /// A token for a repository or an organisation: of an App, made for this; else the token itself.
    /// Fails when GitHub gives none.
    pub(crate) async fn installation_token(
        &mut self,
        owner: &Owner,
        permissions: &Permissions,
    ) -> Result<InstallationToken, ApiError> {
        match self.credential.clone() {
            Credential::TokenFile(file) => Ok(InstallationToken { token: read_token(&file)?, expires_at: None }),
            // It makes calls itself, which may come back here only if they need a token, and they need none.
            Credential::App { id, .. } => Box::pin(self.new_token(&id, owner, permissions)).await,
        }
    }

    /// Asks for a token of the App's installation on a repository or organisation.
    async fn new_token(
        &mut self,
        app: &str,
        owner: &Owner,
        permissions: &Permissions,
    ) -> Result<InstallationToken, ApiError> {
        let name = owner.as_str();
        let (path, what) = (format!("{}/installation", owner.path()), format!("the App's installation on {name}"));
        let installation = match self.call_as(Identity::App, Call::get(&path, &what, "to be an App")).await {
            Err(ApiError::NotFound { .. }) => {
                return Err(ApiError::NotInstalled { id: app.to_owned(), owner: name.to_owned() });
            }
            answer => answer?,
        };
        let Some(id) = installation.body["id"].as_u64() else { return Err(self.not_github()) };
        let path = format!("/app/installations/{id}/access_tokens");
        let body = token_request_body(owner, permissions, &installation.path);
        let what = format!("a token for {name} with the permissions {permissions}");
        let permission = "these permissions, granted on the App's page and accepted by the installation's owner";
        match self.call_as(Identity::App, Call::post(&path, &body, &what, permission).repeatable()).await {
            Err(ApiError::Refused { what, status: StatusCode::UNPROCESSABLE_ENTITY, message }) => {
                Err(ApiError::Forbidden { what, message, advice: format!("the App needs {permission}") })
            }
            answer => InstallationToken::from_answer(&answer?.body).ok_or_else(|| self.not_github()),
        }
    }

    /// Makes a call with a token.
    pub(super) async fn call(&mut self, call: Call<'_>) -> Result<Answer, ApiError> {
        self.call_as(Identity::Token, call).await
    }

    /// Makes a call as the App itself, or with a token.
    pub(super) async fn call_as(&mut self, identity: Identity, call: Call<'_>) -> Result<Answer, ApiError> {
        let answer = self.attempts(call, identity).await;
        if answer.is_ok() {
            self.until = Instant::now() + self.patience;
        }
        answer
    }

    /// Reads the items of all pages of a list, until `is_enough` says so of those of one page.
    /// Fails when a page cannot be read.
    pub(super) async fn pages(
        &mut self,
        identity: Identity,
        first: Call<'_>,
        mut is_enough: impl FnMut(&[Value]) -> bool,
    ) -> Result<Vec<Value>, ApiError> {
        let mut items = Vec::new();
        let mut path = first.path.to_owned();
        loop {
            let answer = self.call_as(identity, Call { path: &path, ..first }).await?;
            let Value::Array(page) = answer.body else { return Err(self.not_github()) };
            let is_last = page.is_empty() || is_enough(&page);
            items.extend(page);
            match answer.next {
                Some(next) if !is_last => {
                    let next = next.below(&path);
                    if next == path {
                        return Ok(items);
                    }
                    path = next;
                }
                _ => return Ok(items),
            }
        }
    }

    async fn attempts(&mut self, call: Call<'_>, identity: Identity) -> Result<Answer, ApiError> {
        let mut backoff = FIRST_BACKOFF;
        let mut path = call.path.to_owned();
        let mut redirects = 0;
        let mut last: Option<SecretString> = None;
        let mut is_renewed = false;
        loop {
            let token = self.token_now(identity)?;
            let was_tried = last.as_ref().is_some_and(|last| is_same(last, &token));
            let left = self.until.saturating_duration_since(Instant::now());
            let known = self.polled.get(&path).filter(|_| call.is_polled);
            let mut request = request(&call, &path, &token)?;
            if let Some((tag, _)) = known {
                request.headers_mut().insert(IF_NONE_MATCH, tag.clone());
            }
            let sent = self.server.send(request, left).await;
            let (pause, error) = match sent {
                Err(error) if error.is_temporary() => (None, ApiError::Remote(error)),
                Err(error) => return Err(error.into()),
                Ok(response) => {
                    let (head, body) = response.into_parts();
                    let (status, headers) = (head.status, head.headers);
                    if let (StatusCode::NOT_MODIFIED, Some((_, answer))) = (status, self.polled.get(&path)) {
                        return Ok(answer.clone());
                    }
                    let is_empty = body.is_empty();
                    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
                    if status.is_success() {
                        return match body {
                            Value::Null if !(is_empty && call.may_be_empty) => Err(self.not_github()),
                            body => {
                                let answer = Answer { body, path, next: self.next_page(&headers) };
                                if let (true, Some(tag)) = (call.is_polled, headers.get(ETAG)) {
                                    self.polled.insert(answer.path.clone(), (tag.clone(), answer.clone()));
                                }
                                Ok(answer)
                            }
                        };
                    }
                    if status.is_redirection() {
                        path = self.redirected(&headers, &token)?;
                        redirects += 1;
                        if redirects > MAX_REDIRECTS {
                            return Err(ApiError::Refused {
                                what: call.what.to_owned(),
                                status,
                                message: "it redirects without end".to_owned(),
                            });
                        }
                        continue;
                    }
                    if status == StatusCode::UNAUTHORIZED
                        && !was_tried
                        // Each installation token is another one.
                        && !(is_renewed && self.is_app())
                        && self.renew_credential(identity, &headers).await?
                    {
                        is_renewed = true;
                        last = Some(token);
                        continue;
                    }
                    match self.limit(status, &headers, &body) {
                        Some(pause) => (Some(pause), ApiError::RateLimit(pause)),
                        None if status.is_server_error() || status == StatusCode::REQUEST_TIMEOUT => {
                            (retry_after(&headers), ApiError::Server(status))
                        }
                        None => return Err(self.refusal(&call, status, &body, &token)),
                    }
                }
            };
            if !call.is_repeatable && !matches!(error, ApiError::RateLimit(_)) {
                // It may have been done: the caller must read before it writes again.
                return Err(error);
            }
            let pause = pause.unwrap_or_else(|| backoff.mul_f64(0.5 + fastrand::f64() / 2.0));
            if Instant::now() + pause >= self.until {
                return Err(error);
            }
            tracing::warn!(error = %error, "trying again in {} ms", pause.as_millis());
            sleep(pause).await;
            backoff = (backoff * 2).min(MAX_BACKOFF);
        }
    }

    /// The token for a call, read from its file again.
    fn token_now(&self, identity: Identity) -> Result<SecretString, ApiError> {
        Ok(match (&self.credential, identity, &self.installation) {
            (Credential::TokenFile(file), _, _) => read_token(file)?,
            (Credential::App { .. }, Identity::Token, Some(installation)) => installation.token.clone(),
            (Credential::App { id, key_file }, ..) => app_jwt(id, key_file, now() + self.clock)?,
        })
    }

    /// After a 401: whether another attempt makes sense. A token file may have been replaced since it was read, an
    /// installation's token may have ended, and an App's clock may be wrong.
    async fn renew_credential(&mut self, identity: Identity, headers: &HeaderMap) -> Result<bool, ApiError> {
        if !self.is_app() {
            return Ok(true);
        }
        if let (Identity::Token, Some(installation)) = (identity, &self.installation) {
            let (owner, permissions) = (installation.owner.clone(), installation.permissions.clone());
            let token = self.installation_token(&owner, &permissions).await?.token;
            self.installation = Some(Installation { token, owner, permissions });
            return Ok(true);
        }
        let theirs = text(headers, &DATE).and_then(http_date);
        let difference = theirs.map_or(0, |theirs| theirs - now());
        let is_news = (difference - self.clock).abs() > CLOCK_DIFFERENCE;
        if is_news {
            tracing::warn!(seconds = difference, "our clock differs from GitHub's");
            self.clock = difference;
        }
        Ok(is_news)
    }

    /// The next page, from the header `Link`.
    fn next_page(&self, headers: &HeaderMap) -> Option<NextPage> {
        let links = text(headers, &LINK)?.split(',');
        let next = links.filter_map(|link| link.split_once(';')).find(|(_, rel)| rel.contains("rel=\"next\""))?.0;
        let target: Uri = next.trim().strip_prefix('<')?.strip_suffix('>')?.parse().ok()?;
        match self.server.path_below(&target) {
            Some(path) => Some(NextPage::Path(path)),
            None => target.query().map(|query| NextPage::Query(query.to_owned())),
        }
    }

    /// The pause that a rate limit asks for; `None` if the answer is not about a limit.
    fn limit(&self, status: StatusCode, headers: &HeaderMap, body: &Value) -> Option<Duration> {
        if status != StatusCode::TOO_MANY_REQUESTS && status != StatusCode::FORBIDDEN {
            return None;
        }
        let number = |name: &HeaderName| text(headers, name)?.parse::<i64>().ok();
        let seconds = |seconds: i64| pause(u64::try_from(seconds).unwrap_or(0));
        if let Some(after) = retry_after(headers) {
            return Some(after);
        }
        if number(&HeaderName::from_static("x-ratelimit-remaining")) == Some(0) {
            let reset = number(&HeaderName::from_static("x-ratelimit-reset"));
            return Some(reset.map_or(SECONDARY_PAUSE, |reset| seconds(reset.saturating_sub(now() + self.clock))));
        }
        let is_secondary = message(body).contains("secondary rate limit");
        (is_secondary || status == StatusCode::TOO_MANY_REQUESTS).then_some(SECONDARY_PAUSE)
    }

    /// The path of a redirect below our address.
    fn redirected(&self, headers: &HeaderMap, token: &SecretString) -> Result<String, ApiError> {
        let location = text(headers, &LOCATION).unwrap_or("nowhere (no Location)");
        // It may repeat what it got.
        let shown = location.replace(token.expose_secret(), "***");
        let elsewhere = || ApiError::Redirect(shown.chars().take(MAX_QUOTED).collect());
        let target: Uri = location.parse().map_err(|_| elsewhere())?;
        self.server.path_below(&target).ok_or_else(elsewhere)
    }

    /// The error for an answer that is not GitHub's.
    pub(super) fn not_github(&self) -> ApiError {
        ApiError::NotGitHub(self.server.to_string())
    }

    /// Does `work` again as long as GitHub is away and our patience lasts: work that looks before it writes. What it then
    /// finds may be its own.
    pub(super) async fn retry_write(
        &mut self,
        work: impl AsyncFn(&mut Self) -> Result<Written, ApiError>,
    ) -> Result<Written, ApiError> {
        let mut backoff = FIRST_BACKOFF;
        let mut is_again = false;
        loop {
            match work(self).await {
                Ok(Written::Before) if is_again => return Ok(Written::New),
                Err(error @ (ApiError::Server(_) | ApiError::Remote(_)))
                    if error.is_temporary() && Instant::now() + backoff < self.until =>
                {
                    tracing::warn!(error = %error, "looking again in {} ms", backoff.as_millis());
                    sleep(backoff).await;
                    backoff = (backoff * 2).min(MAX_BACKOFF);
                    is_again = true;
                }
                outcome => return outcome,
            }
        }
    }

    fn refusal(&self, call: &Call<'_>, status: StatusCode, body: &Value, token: &SecretString) -> ApiError {
        let (what, file, permission) =
            (call.what.to_owned(), self.credential.file().display().to_string(), call.permission);
        // A server that repeats what it got must not bring it into a log.
        let message = message(body).replace(token.expose_secret(), "***");
        match status {
            // GitHub's own refusals are JSON; a page is another server's, or the wrong path.
            _ if body.is_null() && status.is_client_error() => self.not_github(),
            StatusCode::UNAUTHORIZED => ApiError::Unauthorized { file, message },
            StatusCode::FORBIDDEN => {
                let advice = advice(&message, &file, permission);
                ApiError::Forbidden { what, message, advice }
            }
            StatusCode::NOT_FOUND => ApiError::NotFound { what, file, permission },
            _ => ApiError::Refused { what, status, message },
        }
    }
}

/// Seconds since 1970.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
