//! github-trigger: a merged GitHub pull request becomes a Tekton PipelineRun.
//!
//! Data flows one way, and only the ends do I/O:
//!
//! | step | module | answers that leave here |
//! |---|---|---|
//! | limits, deadline, one answer, one log line | `http` | 404, 405, 413, 415, 503 |
//! | bytes and headers to one authenticated delivery | `delivery` | 400, 401, 403 |
//! | the typed event | `github` | 400 |
//! | select templates, render runs | `template` | 200 ignored, 422 |
//! | the Kubernetes API | `kube` | 422, 503 |
//!
//! `deploy` is the Deployer at the pipeline's end, `recover` finds missed merges, and `why` judges each place on a merge's
//! road. `mounted` reads ConfigMaps and Secrets, `team` tells whose they are, `telemetry` has logs, metrics and traces, and
//! `cli` starts everything.

#![warn(unreachable_pub)]

pub mod cli;
mod delivery;
mod deploy;
#[cfg(feature = "fuzzing")]
#[path = "../fuzz/steps.rs"]
pub mod fuzzing;
mod github;
mod http;
mod json;
mod kube;
mod mounted;
mod names;
mod recover;
mod remote;
mod sender;
mod team;
mod telemetry;
mod template;
mod why;
