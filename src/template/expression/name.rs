//! Predefined names in templates: those of the seed and those of Pipelines-as-Code.

use std::borrow::Cow;

use super::field::{EventScope, Place};
use crate::github::Event;

macro_rules! names {
    ($($(#[$doc:meta])* $variant:ident = $text:literal,)*) => {
        /// A predefined name for a value of the event.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Name {
            $($(#[$doc])* $variant,)*
        }

        impl Name {
            /// All names, in the order of the documentation.
            pub(crate) const ALL: &[Name] = &[$(Name::$variant,)*];

            /// The name in templates.
            pub(crate) fn as_str(self) -> &'static str {
                match self {
                    $(Name::$variant => $text,)*
                }
            }
        }
    };
}

names! {
    /// Full hash of the merge commit; without a merge, of the pushed commit or the pull request's head (the seed's
    /// name).
    Commitid = "Commitid",
    /// First eight digits of the commit's hash (the seed's name).
    ShortCommitid = "ShortCommitid",
    /// Target branch (the seed's name).
    Branch = "Branch",
    /// Time of the merge as `YYYYMMDDHHMMSS` in UTC (the seed's name).
    TimeString = "TimeString",
    /// Same value as `Commitid`.
    Revision = "revision",
    /// Same value as `Branch`.
    TargetBranch = "target_branch",
    /// Source branch.
    SourceBranch = "source_branch",
    /// URL of the repository's page; `git clone` accepts it.
    RepoUrl = "repo_url",
    /// Owner of the repository, e.g. `acme`.
    RepoOwner = "repo_owner",
    /// Name of the repository without its owner, e.g. `web`.
    Repo = "repo_name",
    /// GitHub login of the event's sender; for a merge, the user that merged.
    Sender = "sender",
    /// GitHub's name of the event, e.g. `pull_request`.
    EventType = "event_type",
    /// Number of the pull request.
    PullRequestNumber = "pull_request_number",
}

impl Name {
    /// Parses a name, with or without the seed's leading dot. Returns `None` for any other text.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let text = text.strip_prefix('.').unwrap_or(text);
        Self::ALL.iter().copied().find(|name| name.as_str() == text)
    }

    /// Whether its value is text that an author chooses, and that does harm in a place. GitHub restricts names of owners and
    /// repositories; the target branch of a merge exists before it, and who may push one may change what is in it.
    pub(super) fn is_author_text(self, place: Place) -> bool {
        match self {
            Self::SourceBranch | Self::Sender => place != Place::Reference,
            Self::Branch | Self::TargetBranch => {
                matches!(place, Place::Code(scope) if scope != EventScope::Merges)
            }
            Self::Commitid | Self::ShortCommitid | Self::Revision => place == Place::Reference,
            Self::TimeString
            | Self::RepoUrl
            | Self::RepoOwner
            | Self::Repo
            | Self::EventType
            | Self::PullRequestNumber => false,
        }
    }

    /// The name's value in `event`; `None` if the event does not contain it.
    pub(crate) fn value(self, event: &Event) -> Option<Cow<'_, str>> {
        let commit = event.commit();
        let subject = &event.subject;
        let repository = || event.repository_name().and_then(|name| name.split_once('/'));
        match self {
            Self::Commitid | Self::Revision => commit.map(|commit| commit.as_str().into()),
            Self::ShortCommitid => commit.map(|commit| commit.short().into()),
            Self::Branch | Self::TargetBranch => subject.target_branch.as_deref().map(Cow::Borrowed),
            Self::SourceBranch => subject.source_branch.as_deref().map(Cow::Borrowed),
            Self::TimeString => event.time().map(|at| at.strftime("%Y%m%d%H%M%S").to_string().into()),
            Self::RepoUrl => event.repository.as_ref().and_then(|repository| repository.url()).map(Cow::Borrowed),
            Self::RepoOwner => repository().map(|(owner, _)| owner.into()),
            Self::Repo => repository().map(|(_, name)| name.into()),
            Self::Sender => event.sender.as_deref().map(Cow::Borrowed),
            Self::EventType => Some(event.kind.as_str().into()),
            Self::PullRequestNumber => subject.number.map(|number| number.to_string().into()),
        }
    }
}
