//! What a request says about where it comes from, before it is authenticated. It helps to find the sender's settings and the
//! secret to try first; nothing may be allowed because of it.

use bytes::Bytes;
use http::HeaderMap;
use memchr::{memchr, memmem};

use super::decoded::ClaimedHook;
use super::webhook;

/// Names of repositories that are looked for. A pull request has two, its fork's and its own.
const MAX_NAMES: usize = 3;
/// Longest name of a repository, `owner/name`.
const MAX_NAME: usize = 201;
const FIELD: &[u8] = b"\"full_name\"";

/// The claims of a request.
pub(crate) struct Claims {
    headers: HeaderMap,
    body: Bytes,
}

impl Claims {
    pub(super) fn new(headers: HeaderMap, body: Bytes) -> Self {
        Self { headers, body }
    }

    /// The webhook that the headers name.
    pub(crate) fn hook(&self) -> Option<ClaimedHook> {
        webhook::claimed_hook(&self.headers)
    }

    /// The first different values of `full_name` in the body. It is searched as text and not parsed.
    pub(crate) fn repositories(&self) -> Vec<&str> {
        repositories(&self.body)
    }
}

fn repositories(body: &[u8]) -> Vec<&str> {
    let mut names = Vec::new();
    for begin in memmem::find_iter(body, FIELD) {
        let rest = body[begin + FIELD.len()..].trim_ascii_start();
        let value = rest.strip_prefix(b":").map(<[u8]>::trim_ascii_start).and_then(|value| value.strip_prefix(b"\""));
        let end = value.and_then(|value| memchr(b'"', &value[..value.len().min(MAX_NAME + 1)]));
        let name = value.zip(end).and_then(|(value, end)| str::from_utf8(&value[..end]).ok());
        if let Some(name) = name
            && !names.contains(&name)
        {
            names.push(name);
            if names.len() == MAX_NAMES {
                break;
            }
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_repositories_that_a_body_names() {
        let body =
            br#"{"pull_request":{"head":{"repo":{"full_name": "fork/web"}},"base":{"repo":{"full_name":"acme/web"}}},
            "repository":{"full_name" : "acme/web","full_name":5,"full_name"#;
        assert_eq!(repositories(body), ["fork/web", "acme/web"]);
        assert!(repositories(b"\"full_name\"").is_empty());
        assert!(repositories(b"\"full_name\":\"\xff\"").is_empty());
        assert!(repositories(format!("\"full_name\":\"{}\"", "x".repeat(500)).as_bytes()).is_empty());
        let many: String = (0..9).map(|index| format!("\"full_name\":\"a/{index}\"")).collect();
        assert_eq!(repositories(many.as_bytes()).len(), MAX_NAMES);
    }
}
