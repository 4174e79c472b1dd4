//! Support for tests and benchmarks: the program as a child process, signed deliveries, and the API servers that it
//! calls.

#![allow(dead_code, missing_docs, clippy::expect_used, clippy::panic)]

pub mod cloud_event;
pub mod command;
pub mod control_plane;
pub mod fake_api;
pub mod gitea;
pub mod github;
pub mod go;
pub mod http;
pub mod mount;
pub mod peers;
pub mod process;
pub mod prometheus;
pub mod proxy;
pub mod receiver;
pub mod service;
pub mod serving;
pub mod teams;
pub mod tokens;
pub mod webhook;
