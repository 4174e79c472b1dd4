//! Teams behind one service. A folder below the mounted secrets, and one of the same name below the mounted templates, are
//! a team: what is proven by its secrets sees its templates and no others. Files at the top of both belong together, too.

use std::fmt;
use std::sync::Arc;

use crate::names::{InvalidName, check_dns_label};

/// A team, by the name of its folders, or the top level. The top level comes first in order.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Team(Option<Arc<str>>);

impl Team {
    /// The files that are in no team's folder.
    pub(crate) const TOP: Self = Self(None);

    /// The team of a folder with this name, which may be invalid, see [`Self::check`].
    pub(crate) fn of_folder(name: &str) -> Self {
        Self(Some(name.into()))
    }

    /// The name of the team's folders; `None` for the top level.
    pub(crate) fn name(&self) -> Option<&str> {
        self.0.as_deref()
    }

    /// Checks that the name can be the value of a label, and the name of a namespace.
    /// Fails when it is not a DNS-1123 label.
    pub(crate) fn check(&self) -> Result<(), InvalidName> {
        self.name().map_or(Ok(()), |name| check_dns_label("the team's folder", name))
    }
}

impl fmt::Display for Team {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "team {name}"),
            None => f.write_str("the top level"),
        }
    }
}
