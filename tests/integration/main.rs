//! Integration tests: the built program, over its sockets, its answers and its log, with a real Kubernetes API server.

#![allow(clippy::expect_used, clippy::panic)]

#[path = "../support/mod.rs"]
mod support;

mod alerting;
mod cloud_events;
mod commands;
mod contract;
mod control_plane;
mod deploy;
mod expensive;
mod failures;
mod gitea;
mod github;
mod hello_sample;
mod hostile;
mod judge;
mod knative;
mod manifests;
mod nothing_ran;
mod observability;
mod order;
mod recover;
mod serving;
mod teams;
mod templates;
mod why;
