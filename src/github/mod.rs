//! GitHub: the typed, tolerant reading of a delivery's payload, and in `api` its REST API.

pub(crate) mod api;
mod event;
mod identity;
mod object;
mod paths;
mod payload;
mod shape;

pub(crate) use event::{Commit, Event, NotAMerge};

#[cfg(test)]
mod tests;
