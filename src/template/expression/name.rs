//! The names of the seed and of Pipelines-as-Code.

use std::borrow::Cow;

use crate::github::Event;

macro_rules! names {
    ($($(#[$doc:meta])* $variant:ident = $text:literal,)*) => {
        /// A name that stands for a value of the event.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Name {
            $($(#[$doc])* $variant,)*
        }

        impl Name {
            /// Every name, in the order of the documentation.
            pub(crate) const ALL: &[Name] = &[$(Name::$variant,)*];

            /// How it is written.
            pub(crate) fn as_str(self) -> &'static str {
                match self {
                    $(Name::$variant => $text,)*
                }
            }
        }
    };
}

names! {
    /// The full commit: the merge commit of a merge, else the commit pushed or the head of the pull request (the seed's
    /// name).
    Commitid = "Commitid",
    /// The commit's first eight digits (the seed's name).
    ShortCommitid = "ShortCommitid",
    /// The branch merged into (the seed's name).
    Branch = "Branch",
    /// The moment of the merge, `YYYYMMDDHHMMSS`, UTC (the seed's name).
    TimeString = "TimeString",
    /// The full commit.
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
    Repo = "repo_name",
    /// The login of who merged.
    Sender = "sender",
    /// The event's name, e.g. `pull_request`.
    EventType = "event_type",
    /// The pull request's number.
    PullRequestNumber = "pull_request_number",
}

impl Name {
    /// The name that is written so, with or without the seed's leading dot.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let text = text.strip_prefix('.').unwrap_or(text);
        Self::ALL.iter().copied().find(|name| name.as_str() == text)
    }

    /// The value that the name has in `event`, if the event carries it.
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
