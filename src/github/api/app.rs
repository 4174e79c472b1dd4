//! An App's token for one repository.

use secrecy::SecretString;
use serde_json::{Map, Value, json};

use super::RepositoryName;
use super::call::{Api, Call};
use super::error::ApiError;

/// Permissions of a token, for example `contents: read`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Permissions(Map<String, Value>);

/// A token for one repository.
#[derive(Debug)]
pub(crate) struct RepositoryToken {
    /// The token.
    pub(crate) token: SecretString,
    /// When it ends, as GitHub says; `None` for a token that was given to us.
    pub(crate) expires_at: Option<String>,
}

impl Permissions {
    /// Parses `name:level` pairs. The error says what to write.
    pub(crate) fn parse<'t>(texts: impl IntoIterator<Item = &'t str>) -> Result<Self, String> {
        let mut permissions = Map::new();
        for text in texts {
            let legal =
                |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
            match text.split_once(':') {
                Some((name, level @ ("read" | "write" | "admin"))) if legal(name) => {
                    permissions.insert(name.to_owned(), level.into());
                }
                _ => {
                    return Err(format!(
                        "{text:?} is not a permission; write NAME:read or NAME:write, e.g. contents:read"
                    ));
                }
            }
        }
        Ok(Self(permissions))
    }
}

/// Asks for a token of the App's installation on a repository, with these permissions and no others.
pub(super) async fn token(
    api: &mut Api,
    app: &str,
    repository: &RepositoryName,
    permissions: &Permissions,
) -> Result<RepositoryToken, ApiError> {
    let path = format!("/repos/{}/installation", repository.as_str());
    let what = format!("the App's installation on {}", repository.as_str());
    let installation = match api.call_as_app(Call::get(&path, &what, "to be an App")).await {
        Err(ApiError::NotFound { .. }) => {
            let (id, repository) = (app.to_owned(), repository.as_str().to_owned());
            return Err(ApiError::NotInstalled { id, repository });
        }
        answer => answer?,
    };
    let Some(id) = installation.body["id"].as_u64() else { return Err(api.not_github()) };
    let path = format!("/app/installations/{id}/access_tokens");
    let mut body = json!({"repositories": [repository.name()], "permissions": permissions.0});
    // A renamed repository has redirected us to its number.
    let number = installation.path.strip_prefix("/repositories/").and_then(|rest| rest.strip_suffix("/installation"));
    if let Some(number) = number.and_then(|number| number.parse::<u64>().ok()) {
        body = json!({"repository_ids": [number], "permissions": permissions.0});
    }
    let what =
        format!("a token for {} with the permissions {}", repository.as_str(), Value::from(permissions.0.clone()));
    let permission = "these permissions, granted on the App's page and accepted by the installation's owner";
    let answer = api.call_as_app(Call::post(&path, &body, &what, permission).repeatable()).await?;
    // It goes into a header and into git's files.
    let is_token =
        |token: &&str| !token.is_empty() && token.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b));
    match answer.body["token"].as_str().filter(is_token) {
        Some(token) => {
            let expires_at = answer.body["expires_at"].as_str().map(str::to_owned);
            Ok(RepositoryToken { token: token.to_owned().into(), expires_at })
        }
        None => Err(api.not_github()),
    }
}
