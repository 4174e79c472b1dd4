//! Finds merges that were missed, and has them delivered: by GitHub, which keeps its log of deliveries for three days, or, where
//! no delivery is known of, from GitHub's API.
//!
//! Repeating it changes nothing: the same merge gives the same run, and what the service has accepted is not asked for again.

mod hook;
mod line;
mod log;
mod post;
mod redelivery;
mod walk;

pub(crate) use hook::{Access, RecoverError, choose_hook, find_delivery};
pub(crate) use line::{Line, Tally};
pub(crate) use walk::{Ignores, Recovery, Scope};
