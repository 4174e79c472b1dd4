//! `cargo bench`: speed and memory, each figure with a comparison that is measured in the same run.
//!
//! Timings differ by machine and by minute; the ratios are more stable. By default, this measures the program that
//! cargo builds; `--program PATH` measures another one, such as the static program of the image. The servers for
//! comparison are built once, static, from `benches/baseline/`.

#![allow(clippy::expect_used, clippy::panic, clippy::print_stderr, clippy::print_stdout, missing_docs)]

#[path = "../tests/support/mod.rs"]
mod support;

#[path = "../tests/cluster/harness/mod.rs"]
mod harness;

#[path = "../tests/cluster/product.rs"]
#[allow(dead_code)]
mod product;

mod client;
mod cluster;
mod created;
mod event_listener;
mod lint;
mod load;
mod memory;
mod servers;
mod startup;

use std::env;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use support::service::PROGRAM;

const HELP: &str = "cargo bench -- [PART...] [--program PATH] [--event-listener]
parts: startup load created memory lint (default: these), cluster (needs root, takes a quarter of an hour)
--program PATH     measure this github-trigger program instead of the one that cargo built
--event-listener   compare start, load and kill with Tekton Triggers' EventListener as well";

static MEASURED: OnceLock<PathBuf> = OnceLock::new();

/// The program to measure.
fn program() -> &'static Path {
    MEASURED.get().map_or(Path::new(PROGRAM), PathBuf::as_path)
}

fn main() {
    if let Some(folders) = harness::sandbox::inside() {
        return cluster::measure_inside(folders);
    }
    let mut parts = Vec::new();
    let mut with_event_listener = false;
    let mut arguments = env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            // cargo adds this flag.
            "--bench" => {}
            "--event-listener" => with_event_listener = true,
            "--program" => {
                let path = arguments.next().map(PathBuf::from).filter(|path| path.is_file());
                let path = path.unwrap_or_else(|| end_with("--program needs the path of a program"));
                let path = path.canonicalize().unwrap_or_else(|error| end_with(&error.to_string()));
                let _ = MEASURED.set(path);
            }
            "startup" | "load" | "created" | "memory" | "lint" | "cluster" => parts.push(argument),
            _ => end_with(HELP),
        }
    }
    println!("| figure | service | compared with | ratio | target |");
    println!("|---|---:|---:|---:|---:|");
    for (part, measure) in [
        ("startup", startup::measure as fn()),
        ("load", load::measure),
        ("created", created::measure),
        ("memory", memory::measure),
        ("lint", lint::measure),
    ] {
        if parts.is_empty() || parts.iter().any(|named| named == part) {
            measure();
        }
    }
    if parts.iter().any(|named| named == "cluster") {
        cluster::measure();
    }
    if with_event_listener {
        event_listener::measure();
    }
}

fn end_with(message: &str) -> ! {
    eprintln!("{message}");
    std::process::exit(2)
}

/// Prints one row of the Markdown table.
fn row(figure: &str, service: &str, compared: &str, ratio: Option<f64>, target: &str) {
    let ratio = ratio.map(|ratio| format!("{ratio:.2}")).unwrap_or_default();
    println!("| {figure} | {service} | {compared} | {ratio} | {target} |");
}

/// The median; sorts `values`, which must not be empty.
fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
