//! The program as a command that ends.

use std::path::Path;
use std::process::{Command, Output};

use super::github::TOKEN;
use super::service::PROGRAM;

/// The end of a command.
#[derive(Debug)]
pub struct End {
    pub code: Option<i32>,
    pub out: String,
    pub log: String,
}

impl From<Output> for End {
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Self { code: output.status.code(), out: text(output.stdout), log: text(output.stderr) }
    }
}

/// Runs the program, without a cluster.
pub async fn run(args: &[&str]) -> End {
    run_with(None, args).await
}

/// Runs the program with the cluster of a kubeconfig. No credential of GitHub's may be in its log.
pub async fn run_with(kubeconfig: Option<&Path>, args: &[&str]) -> End {
    let mut command = Command::new(PROGRAM);
    command.env_clear().args(args);
    if let Some(kubeconfig) = kubeconfig {
        command.env("KUBECONFIG", kubeconfig);
    }
    let output = tokio::task::spawn_blocking(move || command.output().expect("the program")).await.expect("an end");
    let end = End::from(output);
    assert!(!end.log.contains(TOKEN) && !end.log.contains("ghs_"), "a credential in {}", end.log);
    end
}
