//! A Kubernetes node with Tekton and Knative on this machine, in minutes: `cargo run --example cluster`.
//!
//! It needs root on Linux; CONTRIBUTING.md says what it starts. It runs until you press Ctrl-C, and leaves nothing behind.

#![allow(clippy::expect_used, clippy::panic, clippy::print_stderr, clippy::print_stdout)]

#[path = "../tests/support/mod.rs"]
mod support;

#[path = "../tests/cluster/harness/mod.rs"]
mod harness;

use std::net::SocketAddr;
use std::process::ExitCode;

use harness::gateway::Forward;
use harness::{Cluster, names, sandbox};

/// Port of the API server on this machine.
const API_PORT: u16 = 6443;
/// Port of the ingress on this machine.
const INGRESS_PORT: u16 = 8880;

fn main() -> ExitCode {
    let Some(folders) = sandbox::inside() else {
        let forwards = [
            Forward { port: API_PORT, to: SocketAddr::new(names::NODE, names::API_PORT) },
            Forward { port: INGRESS_PORT, to: SocketAddr::new(names::PUBLIC, 80) },
        ];
        return sandbox::outside(&forwards).unwrap_or_else(|why| {
            eprintln!("cannot start a cluster: {why}; see CONTRIBUTING.md");
            ExitCode::FAILURE
        });
    };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let cluster = runtime.block_on(Cluster::start(folders));
    let kubeconfig = cluster.kubeconfig_for_outside(API_PORT);
    println!("export KUBECONFIG={}", kubeconfig.display());
    println!("A Knative Service NAME in NAMESPACE is at http://NAME.NAMESPACE.{}:{INGRESS_PORT}/", names::DOMAIN);
    println!("Press Ctrl-C to end the cluster.");
    loop {
        std::thread::park();
    }
}
