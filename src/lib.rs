//! github-trigger: a merged GitHub pull request becomes a Tekton PipelineRun.
//!
//! Data flows one way, and only the ends do I/O:
//!
//! | step | module | what leaves here |
//! |---|---|---|
//! | HTTP: limits, deadline, answers | [`server`] | 405, 413, 415, 503 |
//! | bytes and headers to one authenticated delivery | [`delivery`] | 401 |
//! | the typed event | [`event`] | 400 |
//! | which templates, and the runs they make | [`template`] | "ignored, because ...", 422 |
//! | the Kubernetes API | [`cluster`] | 503 |
//!
//! The other end of the pipeline is [`deploy`]: today's Knative Service and a wish to the next change.
//!
//! Beside the road: [`secrets`] and [`reload`] over [`mounted`] files, [`trace`], [`telemetry`], and [`cli`], which puts
//! it all together.

pub mod cli;
pub mod cluster;
pub mod delivery;
pub mod deploy;
pub mod event;
pub mod mounted;
pub mod reload;
pub mod secrets;
pub mod server;
pub mod telemetry;
pub mod template;
pub mod trace;
