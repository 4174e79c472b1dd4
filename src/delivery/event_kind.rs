//! The name of an event: GitHub's `X-GitHub-Event`.

use std::fmt;

/// Longest name; GitHub's longest has some 30 characters.
const MAX_LENGTH: usize = 64;

macro_rules! kinds {
    ($($kind:ident = $name:literal,)+) => {
        /// An event's name. Those that this program treats differently from others have a variant.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub(crate) enum EventKind {
            $(#[doc = concat!("`", $name, "`")] $kind,)+
            /// Any other name: lower case letters, digits and `_`.
            Other(Box<str>),
        }

        impl EventKind {
            /// Parses a name. Returns `None` if it has another form than GitHub's names, or more than 64 characters.
            pub(crate) fn parse(text: &str) -> Option<Self> {
                let legal = !text.is_empty()
                    && text.len() <= MAX_LENGTH
                    && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
                match text {
                    $($name => Some(Self::$kind),)+
                    _ => legal.then(|| Self::Other(text.into())),
                }
            }

            /// The name as GitHub writes it.
            pub(crate) fn as_str(&self) -> &str {
                match self {
                    $(Self::$kind => $name,)+
                    Self::Other(name) => name,
                }
            }
        }
    };
}

kinds! {
    Ping = "ping",
    PullRequest = "pull_request",
    Push = "push",
    Issues = "issues",
    Release = "release",
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_names_of_githubs_form() {
        assert_eq!(EventKind::parse("pull_request"), Some(EventKind::PullRequest));
        assert_eq!(EventKind::parse("workflow_run").expect("a name").as_str(), "workflow_run");
        assert_eq!(EventKind::Push.as_str(), "push");
        for wrong in ["", "Push", "pull request", "push.x", "ü", &"x".repeat(65)] {
            assert_eq!(EventKind::parse(wrong), None, "{wrong}");
        }
    }
}
