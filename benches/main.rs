//! `cargo bench`: how fast and how small, each figure beside what it is compared with, measured in the same run.
//!
//! Timings differ from machine to machine and from minute to minute; the ratios hold better.

#![allow(clippy::expect_used, clippy::print_stdout, missing_docs)]

#[path = "../tests/support/mod.rs"]
mod support;

mod baseline;
mod lint;
mod load;
mod memory;
mod startup;

use std::env;

fn main() {
    // This program is also the servers that the service is compared with.
    let arguments: Vec<String> = env::args().skip(1).collect();
    if let [flag, kind] = arguments.as_slice()
        && flag == baseline::FLAG
    {
        return baseline::serve(kind);
    }
    // `cargo bench -- load` measures one part; cargo itself adds `--bench`.
    let wanted = |part: &str| {
        let mut named = arguments.iter().filter(|argument| !argument.starts_with("--")).peekable();
        named.peek().is_none() || named.any(|argument| argument == part)
    };
    println!("| figure | service | compared with | ratio | target |");
    println!("|---|---:|---:|---:|---:|");
    for (part, measure) in [
        ("startup", startup::measure as fn()),
        ("load", load::measure),
        ("lint", lint::measure),
        ("memory", memory::measure),
    ] {
        if wanted(part) {
            measure();
        }
    }
}

/// One line of the table.
fn row(figure: &str, service: &str, compared: &str, ratio: Option<f64>, target: &str) {
    let ratio = ratio.map(|ratio| format!("{ratio:.2}")).unwrap_or_default();
    println!("| {figure} | {service} | {compared} | {ratio} | {target} |");
}

/// The middle value.
fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
