//! Resident memory, and the size of the program.

use std::fs;

use http::Method;

use crate::row;
use crate::support::service::{PROGRAM, Setup};

/// Idle, after one probe was answered.
pub fn measure() {
    let service = Setup::dry_run().start();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(service.send(Method::GET, "/healthz", &[], b""));
    let idle = service.memory("VmRSS");
    row("idle RSS", &format!("{:.1} MiB", kib_to_mib(idle)), "", None, "<= 8 MiB");
    let size = fs::metadata(PROGRAM).expect("the program").len();
    row(
        "size of the program",
        &format!("{:.1} MB", f64::from(u32::try_from(size).expect("a size")) / 1e6),
        "",
        None,
        "",
    );
}

fn kib_to_mib(kib: u64) -> f64 {
    f64::from(u32::try_from(kib).expect("a size")) / 1024.0
}
