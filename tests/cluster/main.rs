//! The whole road on a real node: see `harness`.
//!
//! `cargo test --test cluster` runs all of it; a name selects tests, as usual.

#![allow(clippy::expect_used, clippy::panic, clippy::print_stderr, clippy::print_stdout, missing_docs)]

#[path = "../support/mod.rs"]
mod support;

mod deployer;
mod eventing;
mod harness;
mod observability;
mod product;
mod recover;
mod road;
mod serving;

use std::process::ExitCode;
use std::sync::{Arc, OnceLock};

use libtest_mimic::{Arguments, Trial};
use tokio::runtime::Runtime;

use harness::{Cluster, sandbox};
use product::Product;
use support::go::say;

/// What tests share. Inside the sandbox only.
struct Stage {
    runtime: Runtime,
    cluster: Arc<Cluster>,
    product: OnceLock<Product>,
}

impl Stage {
    /// The installed project, with its image in the registry. The first test that needs it installs it.
    fn product(&self) -> &Product {
        self.product.get_or_init(|| Product::install(&self.cluster))
    }
}

/// Says how the node is, when a test panics.
struct OnFailure<'a>(&'a Cluster);

impl Drop for OnFailure<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            say(&format!("cluster: the node: {}", self.0.condition()));
        }
    }
}

fn main() -> ExitCode {
    let (mut arguments, names) = arguments();
    let selected = |stage| {
        let mut trials = trials(stage);
        trials.retain(|trial| names.is_empty() || names.iter().any(|name| trial.name().contains(name)));
        trials
    };
    let Some(folders) = sandbox::inside() else {
        let skipped = |trial: &Trial| arguments.skip.iter().any(|name| trial.name().contains(name));
        if arguments.list || selected(None).iter().all(skipped) {
            return libtest_mimic::run(&arguments, selected(None)).exit_code();
        }
        return sandbox::outside(&[]).unwrap_or_else(|why| {
            say(&format!("skipped: tests on a whole Kubernetes node ({why}); see CONTRIBUTING.md"));
            if std::env::var_os("REQUIRE_CLUSTER").is_some() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
        });
    };
    let runtime = Runtime::new().expect("a runtime");
    let cluster = Arc::new(runtime.block_on(Cluster::start(folders)));
    // They share one node, and some measure.
    arguments.test_threads = Some(1);
    let stage = Stage { runtime, cluster, product: OnceLock::new() };
    libtest_mimic::run(&arguments, selected(Some(Arc::new(stage)))).exit_code()
}

/// The command line, and the names of tests in it: the standard harness takes several, this one only one.
fn arguments() -> (Arguments, Vec<String>) {
    const WITH_VALUE: [&str; 5] = ["--skip", "--test-threads", "--logfile", "--color", "--format"];
    let (mut options, mut names) = (Vec::new(), Vec::new());
    let mut all = std::env::args();
    options.extend(all.next());
    while let Some(argument) = all.next() {
        let has_value = WITH_VALUE.contains(&argument.as_str());
        if argument.starts_with('-') {
            options.push(argument)
        } else {
            names.push(argument)
        }
        if has_value {
            options.extend(all.next());
        }
    }
    (Arguments::from_iter(options), names)
}

/// All tests, in their order. Without a stage they have only names.
fn trials(stage: Option<Arc<Stage>>) -> Vec<Trial> {
    let mut trials = Vec::new();
    macro_rules! tests {
        ($($module:ident::$name:ident),* $(,)?) => {$({
            let stage = stage.clone();
            trials.push(Trial::test(concat!(stringify!($module), "::", stringify!($name)), move || {
                let stage = stage.ok_or("not in the sandbox")?;
                let _told = OnFailure(&stage.cluster);
                stage.runtime.block_on($module::$name(Arc::clone(&stage)));
                Ok(())
            }));
        })*};
    }
    tests!(
        road::leads_from_merge_to_page,
        recover::builds_a_missed_merge,
        recover::leaves_out_builds_that_nobody_needs,
        serving::answers_from_zero_pods,
        serving::loses_no_acknowledged_merge,
        serving::follows_a_rotated_secret,
        serving::survives_hostile_load_within_its_memory,
        eventing::delivers_or_keeps_each_event,
        eventing::sends_tokens_that_the_service_checks,
        observability::traces_a_merge_and_alerts_on_lines,
        deployer::sends_users_where_it_says,
        deployer::deploys_a_moving_tag_each_time,
        deployer::says_why_a_revision_fails,
        deployer::names_the_command_to_look_with,
        deployer::waits_while_knative_may_recover,
        deployer::mends_traffic_to_a_deleted_revision,
        deployer::ends_well_while_users_are_moved,
        deployer::refuses_a_service_that_is_being_deleted,
        deployer::deploys_the_newest_merge,
    );
    trials
}
