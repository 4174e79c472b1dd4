//! Image references, checked for syntax without contacting a registry.

use std::fmt;
use std::str::FromStr;

/// A valid image reference: `[registry/]path[:tag][@digest]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Image(String);

/// Why an image reference is invalid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ImageError {
    /// The reference is empty.
    #[error("the image is empty; give registry/path:tag or registry/path@sha256:...")]
    Empty,
    /// A placeholder such as `$(params.tag)` was not replaced.
    #[error("the image {0:?} contains a placeholder that the pipeline did not replace; Tekton's syntax is $(params.x)")]
    Placeholder(String),
    /// The reference contains white space or control characters.
    #[error("the image {0:?} contains white space or control characters; remove them")]
    Whitespace(String),
    /// There is no tag after the colon; Knative would accept that.
    #[error("the image {0:?} has an empty tag; remove the colon or, better, give a digest")]
    EmptyTag(String),
    /// The digest, tag, registry or path is invalid.
    #[error("the image {image:?} has {what}")]
    Malformed {
        /// The whole reference.
        image: String,
        /// The invalid part and its syntax.
        what: &'static str,
    },
}

impl Image {
    /// Whether it has the tag `latest`, or none, and no digest: it may stand for another image tomorrow.
    pub(crate) fn is_moving(&self) -> bool {
        let name = self.0.rsplit('/').next().unwrap_or(&self.0);
        !name.contains('@') && name.split_once(':').is_none_or(|(_, tag)| tag == "latest")
    }

    /// The reference, unchanged.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Image {
    type Err = ImageError;

    /// Checks a reference against the grammar of `distribution/reference`.
    fn from_str(text: &str) -> Result<Self, ImageError> {
        let malformed = |what| ImageError::Malformed { image: text.to_owned(), what };
        if text.is_empty() {
            return Err(ImageError::Empty);
        }
        if ["${", "$(", "{{"].iter().any(|opening| text.contains(opening)) {
            return Err(ImageError::Placeholder(text.to_owned()));
        }
        if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(ImageError::Whitespace(text.to_owned()));
        }
        let (name, digest) = text.split_once('@').map_or((text, None), |(name, digest)| (name, Some(digest)));
        if digest.is_some_and(|digest| !is_digest(digest)) {
            return Err(malformed("an invalid digest after the @; write sha256: and 64 hexadecimal digits"));
        }
        // A colon before the last slash belongs to the registry's port.
        let last = name.rfind('/').map_or(0, |slash| slash + 1);
        let (name, tag) = match name[last..].find(':') {
            Some(colon) => (&name[..last + colon], Some(&name[last + colon + 1..])),
            None => (name, None),
        };
        match tag {
            Some("") => return Err(ImageError::EmptyTag(text.to_owned())),
            Some(tag) if !is_tag(tag) => {
                return Err(malformed("an invalid tag; letters, digits and ._- are allowed"));
            }
            _ => {}
        }
        let mut parts = name.split('/').peekable();
        if let Some(first) = parts.peek()
            && name.contains('/')
            && (first.contains(['.', ':']) || *first == "localhost")
        {
            if !is_registry(first) {
                return Err(malformed("an invalid registry; write a host name, with :port if needed"));
            }
            parts.next();
        }
        if !parts.all(is_path_part) {
            return Err(malformed("an invalid path; lower case letters, digits and ._-/ are allowed"));
        }
        Ok(Self(text.to_owned()))
    }
}

fn is_digest(text: &str) -> bool {
    let hex = |text: &str, length: usize| text.len() == length && text.bytes().all(|b| b.is_ascii_hexdigit());
    match text.split_once(':') {
        Some(("sha256", digest)) => hex(digest, 64),
        Some(("sha512", digest)) => hex(digest, 128),
        _ => false,
    }
}

fn is_tag(text: &str) -> bool {
    text.len() <= 128
        && !text.starts_with(['.', '-'])
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

fn is_registry(text: &str) -> bool {
    let (host, port) = text.rsplit_once(':').unwrap_or((text, "1"));
    !host.is_empty()
        && !port.is_empty()
        && port.bytes().all(|b| b.is_ascii_digit())
        && host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'[' | b']' | b':'))
}

fn is_path_part(text: &str) -> bool {
    let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    ends(text.chars().next())
        && ends(text.chars().next_back())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_valid_references_unchanged() {
        let digest = "a".repeat(64);
        for image in [
            "nginx",
            "nginx:1.27",
            "acme/web",
            "registry.example.com/acme/web:main-ec26c3e5",
            "registry.example.com:5000/acme/web",
            "localhost/web",
            "localhost:5000/web:x",
            &format!("ghcr.io/acme/web@sha256:{digest}"),
            &format!("ghcr.io/acme/web:1.0@sha256:{digest}"),
        ] {
            assert_eq!(image.parse::<Image>().expect(image).as_str(), image);
        }
    }

    #[test]
    fn rejects_invalid_references_with_cause() {
        let refused = |image: &str| image.parse::<Image>().expect_err(image).to_string();
        assert!(refused("").contains("is empty"));
        for image in ["r/web:${inputs.params.tag}", "$(params.image)", "r/web:{{ tag }}", "r/web:$(x", "r/${a"] {
            assert!(refused(image).contains("placeholder"), "{image}");
        }
        for image in [" ", "r/web: 1", "r/web:1\n", "r/w\u{a0}eb", "r/web\0"] {
            assert!(refused(image).contains("white space"), "{image:?}");
        }
        for image in ["r/web:", "web:", "r:5000/web:", &format!("web:@sha256:{}", "a".repeat(64))] {
            assert!(refused(image).contains("empty tag"), "{image}");
        }
        for image in ["web@", "web@sha256:", "web@sha256:abc", "web@md5:abc", &format!("web@sha256:{}", "g".repeat(64))]
        {
            assert!(refused(image).contains("digest"), "{image}");
        }
        for image in ["web:-x", "web:a/b:c$", "web:ü", &format!("web:{}", "x".repeat(129))] {
            assert!(refused(image).contains("tag") || refused(image).contains("path"), "{image}");
        }
        for image in
            ["Acme/Web", "/web", "web/", "a//b", "r.example.com/", "r.example.com:x/web", "-web", "https://r/web"]
        {
            refused(image);
        }
    }
}
