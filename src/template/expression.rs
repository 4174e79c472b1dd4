//! What may stand between `{{` and `}}`: the names of the seed and of Pipelines-as-Code.

use std::borrow::Cow;

use crate::event::Event;

/// A compiled expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expression {
    name: Name,
}

/// Why an expression does not compile: what is wrong and what to write.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Nothing stands between the braces.
    #[error("an empty placeholder; write a name, for example {{{{ revision }}}}")]
    Empty,
    /// The name is not one that templates know.
    #[error("unknown name `{name}` in a placeholder; {help}")]
    Unknown {
        /// What was written.
        name: String,
        /// What to write instead.
        help: String,
    },
    /// Something else than a single name.
    #[error("`{0}` is not a name; write one of {names}", names = known_names())]
    NotAName(String),
}

/// The event lacks the value of this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this event has no value for `{0}`")]
pub struct Missing(pub &'static str);

macro_rules! names {
    ($($(#[$doc:meta])* $variant:ident = $text:literal,)*) => {
        /// A name that stands for a value of the event.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Name {
            $($(#[$doc])* $variant,)*
        }

        impl Name {
            /// Every name, in the order of the documentation.
            pub const ALL: &[Name] = &[$(Name::$variant,)*];

            /// How it is written.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Name::$variant => $text,)*
                }
            }
        }
    };
}

names! {
    /// The full merge commit (the seed's name).
    Commitid = "Commitid",
    /// The first eight digits of the merge commit (the seed's name).
    ShortCommitid = "ShortCommitid",
    /// The branch merged into (the seed's name).
    Branch = "Branch",
    /// The moment of the merge, `YYYYMMDDHHMMSS`, UTC (the seed's name).
    TimeString = "TimeString",
    /// The full merge commit.
    Revision = "revision",
    /// The branch merged into.
    TargetBranch = "target_branch",
    /// The branch merged from.
    SourceBranch = "source_branch",
    /// The repository's page, which `git clone` takes.
    RepoUrl = "repo_url",
    /// The repository's owner.
    RepoOwner = "repo_owner",
    /// The repository's name without its owner.
    RepoName = "repo_name",
    /// The login of who merged.
    Sender = "sender",
    /// The event's name, e.g. `pull_request`.
    EventType = "event_type",
    /// The pull request's number.
    PullRequestNumber = "pull_request_number",
}

impl Name {
    /// The value that the name has in `event`.
    ///
    /// # Errors
    /// When the event does not carry it.
    pub fn value(self, event: &Event) -> Result<Cow<'_, str>, Missing> {
        let commit = || event.merge.as_ref().map(|merge| &merge.commit);
        let repository = || event.repository_name().and_then(|name| name.split_once('/'));
        let value = match self {
            Self::Commitid | Self::Revision => commit().map(|commit| Cow::Borrowed(commit.as_str())),
            Self::ShortCommitid => commit().map(|commit| Cow::Borrowed(commit.short())),
            Self::Branch | Self::TargetBranch => event.target_branch().map(Cow::Borrowed),
            Self::SourceBranch => event.source_branch().map(Cow::Borrowed),
            Self::TimeString => event.merged_at().map(|at| at.strftime("%Y%m%d%H%M%S").to_string().into()),
            Self::RepoUrl => event
                .repository
                .as_ref()
                .and_then(|repository| repository.html_url.as_deref().or(repository.clone_url.as_deref()))
                .map(Cow::Borrowed),
            Self::RepoOwner => repository().map(|(owner, _)| Cow::Borrowed(owner)),
            Self::RepoName => repository().map(|(_, name)| Cow::Borrowed(name)),
            Self::Sender => event.sender.as_deref().map(Cow::Borrowed),
            Self::EventType => Some(Cow::Borrowed(event.kind.as_str())),
            Self::PullRequestNumber => event
                .pull_request
                .as_ref()
                .and_then(|pull_request| pull_request.number)
                .map(|number| number.to_string().into()),
        };
        value.ok_or(Missing(self.as_str()))
    }
}

impl Expression {
    /// Compiles what stands between the braces; the seed's leading dot is optional.
    ///
    /// # Errors
    /// When it is not one of the names.
    pub fn compile(source: &str) -> Result<Self, Error> {
        let source = source.trim();
        let name = source.strip_prefix('.').unwrap_or(source);
        if name.is_empty() {
            return Err(Error::Empty);
        }
        if let Some(&name) = Name::ALL.iter().find(|candidate| candidate.as_str() == name) {
            return Ok(Self { name });
        }
        if name.chars().all(|c| c.is_alphanumeric() || c == '_') {
            return Err(Error::Unknown { name: name.to_owned(), help: suggestion(name) });
        }
        Err(Error::NotAName(source.chars().take(80).collect()))
    }

    /// The expression's value in `event`.
    ///
    /// # Errors
    /// When the event does not carry it.
    pub fn evaluate<'e>(&self, event: &'e Event) -> Result<Cow<'e, str>, Missing> {
        self.name.value(event)
    }
}

fn known_names() -> String {
    Name::ALL.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(", ")
}

fn suggestion(name: &str) -> String {
    super::nearest(name, Name::ALL.iter().map(|name| name.as_str()))
        .map_or_else(|| format!("known names are {}", known_names()), |known| format!("did you mean `{known}`?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compiles_every_name_with_and_without_the_dot() {
        for name in Name::ALL {
            let text = name.as_str();
            assert_eq!(Expression::compile(text), Ok(Expression { name: *name }));
            assert_eq!(Expression::compile(&format!(" .{text} ")), Ok(Expression { name: *name }));
        }
    }

    #[test]
    fn an_unknown_name_gets_a_suggestion() {
        let error = Expression::compile(".Comitid").expect_err("no such name");
        assert_eq!(error.to_string(), "unknown name `Comitid` in a placeholder; did you mean `Commitid`?");
        let error = Expression::compile("colour").expect_err("no such name");
        assert!(error.to_string().contains("known names are Commitid, ShortCommitid"), "{error}");
    }

    #[test]
    fn refuses_what_is_no_name() {
        assert_eq!(Expression::compile("  "), Err(Error::Empty));
        assert_eq!(Expression::compile("."), Err(Error::Empty));
        assert!(matches!(Expression::compile("a + b"), Err(Error::NotAName(_))));
    }
}
