//! A campaign of faults: many merges by every delivery path, while the components around the service fail.
//!
//! `cargo test --test campaign` runs a short one; `cargo test --test campaign -- --merges 5000 --seed 7` a long one.
//! The same seed gives the same plan. The campaign fails if there is, at the end, an acknowledged merge without a run,
//! a merge with more than one run, a run for a forged or unmerged pull request, or a merge whose redelivery fails.
//!
//! Then as many merges are missed, in all ways that we know, and `recover` must build each of them, once. Then a quarter as many
//! Services are deployed to by several merges at the same time, and the newest must win.

#![allow(clippy::expect_used, clippy::panic, clippy::print_stderr, clippy::print_stdout, missing_docs)]

#[path = "../support/mod.rs"]
mod support;

mod missed;
mod order;
mod plan;
mod roads;
mod stage;
mod verdict;

use std::collections::{BTreeMap, VecDeque};
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use futures_util::future::join_all;

use plan::{Delivery, Round};
use roads::{Roads, Told};
use stage::Stage;
use support::go::say;
use verdict::Verdict;

/// Number of concurrent senders.
const SENDERS: usize = 12;

struct Options {
    seed: u64,
    merges: u64,
    acts: Vec<&'static str>,
}

/// The parts of a campaign; a name on the command line selects some, as usual.
const ACTS: [&str; 3] = ["campaign::faults", "campaign::missed", "campaign::order"];

fn main() -> ExitCode {
    let options = match options(std::env::args().skip(1)) {
        Ok(Some(options)) => options,
        Ok(None) => return ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            return ExitCode::from(2);
        }
    };
    Verdict::check_itself();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(play(&options))
}

/// Parses the command line. Returns `None` if `cargo test` selects other tests.
///
/// # Errors
/// If `--seed` or `--merges` has no positive number.
fn options(arguments: impl Iterator<Item = String>) -> Result<Option<Options>, String> {
    let mut options = Options { seed: 1, merges: 400, acts: Vec::new() };
    let mut arguments = arguments.peekable();
    let mut named = Vec::new();
    while let Some(argument) = arguments.next() {
        let target = match argument.as_str() {
            "--seed" => &mut options.seed,
            "--merges" => &mut options.merges,
            "--list" => return Ok(None),
            // Flags for the other tests' harness, for example `--nocapture`.
            flag if flag.starts_with('-') => continue,
            name => {
                named.push(name.to_owned());
                continue;
            }
        };
        let value = arguments.next().and_then(|value| value.parse().ok()).filter(|value| *value > 0);
        *target = value.ok_or(format!("{argument} needs a positive number; usage: [--merges N] [--seed N]"))?;
    }
    let is_wanted = |act: &&str| named.is_empty() || named.iter().any(|name| act.contains(name.as_str()));
    options.acts = ACTS.into_iter().filter(is_wanted).collect();
    Ok(Some(options).filter(|options| !options.acts.is_empty()))
}

async fn play(options: &Options) -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    for act in &options.acts {
        let problems = match *act {
            "campaign::faults" => {
                if faults(options).await == ExitCode::FAILURE {
                    code = ExitCode::FAILURE;
                }
                continue;
            }
            "campaign::missed" => missed::play(options.seed, options.merges).await,
            _ => order::play(options.seed, options.merges / 4).await,
        };
        problems.iter().for_each(|problem| println!("FAILED: {problem}"));
        if !problems.is_empty() {
            code = ExitCode::FAILURE;
        }
    }
    code
}

/// The first act: deliveries while everything around the service fails.
async fn faults(options: &Options) -> ExitCode {
    let started = Instant::now();
    let Some(mut stage) = Stage::build(options.seed).await else { return ExitCode::SUCCESS };
    let rounds = plan::rounds(options.seed, options.merges);
    let roads = stage.roads();
    let mut verdict = Verdict::default();
    let mut faults = BTreeMap::new();
    let count = rounds.len();
    for (index, Round { fault, place, sends }) in rounds.into_iter().enumerate() {
        if index % 20 == 0 {
            say(&format!("campaign: round {index} of {count}, {} s", started.elapsed().as_secs()));
        }
        let (told, ()) = tokio::join!(send_all(&roads, sends), stage.play(fault, place));
        verdict.told(told);
        *faults.entry(fault).or_insert(0) += 1;
    }
    stage.recover();
    verdict.acknowledged_exist(&stage.runs());

    let (unacknowledged, acknowledged) = verdict.redeliveries(options.merges);
    verdict.redelivered(send_all(&roads, unacknowledged).await, "unacknowledged merge");
    verdict.redelivered(send_all(&roads, acknowledged).await, "acknowledged merge");
    verdict.all_exist(&stage.runs(), options.merges);
    verdict.logs(&stage.logs());

    println!("campaign: seed {}, {} pull requests, {} s", options.seed, options.merges, started.elapsed().as_secs());
    let faults: Vec<String> = faults.iter().map(|(fault, count)| format!("{fault:?} {count}")).collect();
    println!("faults: {}", faults.join(", "));
    println!("peak memory of a service: {} MiB", stage.memory() / 1024);
    verdict.conclude()
}

/// Sends all deliveries with [`SENDERS`] concurrent senders and returns each one's answer.
async fn send_all(roads: &Roads, sends: impl IntoIterator<Item = Delivery>) -> Vec<(Delivery, Told)> {
    let queue = Arc::new(Mutex::new(sends.into_iter().collect::<VecDeque<_>>()));
    let senders = (0..SENDERS).map(|_| {
        let (queue, roads) = (Arc::clone(&queue), roads.clone());
        tokio::spawn(async move {
            let mut told = Vec::new();
            loop {
                let next = queue.lock().expect("the queue").pop_front();
                let Some(delivery) = next else { return told };
                tokio::time::sleep(delivery.pause).await;
                let answer = roads.send(&delivery).await;
                told.push((delivery, answer));
            }
        })
    });
    join_all(senders).await.into_iter().flat_map(|told| told.expect("a sender")).collect()
}
