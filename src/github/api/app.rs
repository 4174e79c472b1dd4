//! The token of an App's installation, for one repository or an organisation.

use http::StatusCode;
use secrecy::SecretString;
use serde_json::{Map, Value, json};

use super::RepositoryName;
use super::call::Call;
use super::client::{Api, Identity};
use super::error::ApiError;

/// Permissions of a token, for example `contents: read`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Permissions(Map<String, Value>);

/// What a token is for.
#[derive(Debug, Clone)]
pub(crate) enum Owner {
    /// One repository.
    Repository(RepositoryName),
    /// An organisation and those of its repositories on which the App is installed.
    Organization(String),
}

impl From<&RepositoryName> for Owner {
    fn from(name: &RepositoryName) -> Self {
        Self::Repository(name.clone())
    }
}

impl Owner {
    /// Its name on GitHub.
    pub(crate) fn as_str(&self) -> &str {
        match self {
            Self::Repository(name) => name.as_str(),
            Self::Organization(name) => name,
        }
    }

    /// The beginning of its paths in the API.
    pub(super) fn path(&self) -> String {
        match self {
            Self::Repository(name) => format!("/repos/{}", name.as_str()),
            Self::Organization(name) => format!("/orgs/{name}"),
        }
    }
}

/// A token of an App's installation.
#[derive(Debug)]
pub(crate) struct InstallationToken {
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

/// Asks for a token of the App's installation on a repository or organisation, with these permissions and no others.
pub(super) async fn token(
    api: &mut Api,
    app: &str,
    owner: &Owner,
    permissions: &Permissions,
) -> Result<InstallationToken, ApiError> {
    let name = owner.as_str();
    let path = format!("{}/installation", owner.path());
    let what = format!("the App's installation on {name}");
    let installation = match api.call_as(Identity::App, Call::get(&path, &what, "to be an App")).await {
        Err(ApiError::NotFound { .. }) => {
            return Err(ApiError::NotInstalled { id: app.to_owned(), owner: name.to_owned() });
        }
        answer => answer?,
    };
    let Some(id) = installation.body["id"].as_u64() else { return Err(api.not_github()) };
    let path = format!("/app/installations/{id}/access_tokens");
    let mut body = json!({"permissions": permissions.0});
    if let Owner::Repository(repository) = owner {
        // A renamed repository has redirected us to its number.
        let number =
            installation.path.strip_prefix("/repositories/").and_then(|rest| rest.strip_suffix("/installation"));
        match number.and_then(|number| number.parse::<u64>().ok()) {
            Some(number) => body["repository_ids"] = json!([number]),
            None => body["repositories"] = json!([repository.name()]),
        }
    }
    let what = format!("a token for {name} with the permissions {}", Value::from(permissions.0.clone()));
    let permission = "these permissions, granted on the App's page and accepted by the installation's owner";
    let answer = match api.call_as(Identity::App, Call::post(&path, &body, &what, permission).repeatable()).await {
        Err(ApiError::Refused { what, status: StatusCode::UNPROCESSABLE_ENTITY, message }) => {
            let advice = format!("the App needs {permission}");
            return Err(ApiError::Forbidden { what, message, advice });
        }
        answer => answer?,
    };
    // It goes into a header and into git's files.
    let is_token =
        |token: &&str| !token.is_empty() && token.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b));
    match answer.body["token"].as_str().filter(is_token) {
        Some(token) => {
            let expires_at = answer.body["expires_at"].as_str().map(str::to_owned);
            Ok(InstallationToken { token: token.to_owned().into(), expires_at })
        }
        None => Err(api.not_github()),
    }
}
