//! GitHub's events: the typed, tolerant reading of a delivery's payload.

mod event;
mod identity;
mod object;
mod payload;
mod shape;

pub(crate) use event::{Commit, Event, NotAMerge};

#[cfg(test)]
mod tests;
