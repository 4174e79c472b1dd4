//! The token of an App's installation, for one repository or an organisation.

use std::fmt;

use secrecy::SecretString;
use serde_json::{Map, Value, json};

use super::RepositoryName;

/// Permissions of a token, for example `contents: read`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Permissions(Map<String, Value>);

/// An invalid permission.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not a permission; write NAME:read or NAME:write, e.g. contents:read")]
pub(crate) struct PermissionError(String);

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
    /// Parses `name:level` pairs.
    /// Fails with the first invalid one.
    pub(crate) fn parse<'t>(texts: impl IntoIterator<Item = &'t str>) -> Result<Self, PermissionError> {
        let mut permissions = Map::new();
        for text in texts {
            let legal =
                |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
            match text.split_once(':') {
                Some((name, level @ ("read" | "write" | "admin"))) if legal(name) => {
                    permissions.insert(name.to_owned(), level.into());
                }
                _ => return Err(PermissionError(text.to_owned())),
            }
        }
        Ok(Self(permissions))
    }
}

/// As GitHub's JSON.
impl fmt::Display for Permissions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Value::from(self.0.clone()).fmt(f)
    }
}

/// The body of the request for a token with these permissions and no others. `path` is where GitHub answered for the
/// installation: a renamed repository has redirected us to its number.
pub(super) fn token_request_body(owner: &Owner, permissions: &Permissions, path: &str) -> Value {
    let mut body = json!({"permissions": permissions.0});
    if let Owner::Repository(repository) = owner {
        let number = path.strip_prefix("/repositories/").and_then(|rest| rest.strip_suffix("/installation"));
        match number.and_then(|number| number.parse::<u64>().ok()) {
            Some(number) => body["repository_ids"] = json!([number]),
            None => body["repositories"] = json!([repository.name()]),
        }
    }
    body
}

impl InstallationToken {
    /// The token in GitHub's answer. `None` if it is missing, or has characters that are not allowed in a header or in git's
    /// files.
    pub(super) fn from_answer(body: &Value) -> Option<Self> {
        let is_safe = |b: u8| b.is_ascii_alphanumeric() || b"_-.".contains(&b);
        let token = body["token"].as_str().filter(|token| !token.is_empty() && token.bytes().all(is_safe))?;
        Some(Self { token: token.to_owned().into(), expires_at: body["expires_at"].as_str().map(str::to_owned) })
    }
}
