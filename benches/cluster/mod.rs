//! `cargo bench -- cluster`: from a merge to the new page on a real node (see `tests/cluster`), the same with a volume between
//! clone and build, and Tekton Triggers' EventListener beside the service on this node.

mod event_listener;
mod road;

use std::process::ExitCode;

use tokio::runtime::Runtime;

use crate::end_with;
use crate::harness::Cluster;
use crate::harness::sandbox::{self, Folders};
use crate::product::Product;

/// One row for each figure.
pub fn measure() {
    event_listener::build();
    match sandbox::outside(&[]) {
        Ok(ExitCode::SUCCESS) => {}
        Ok(_) => end_with("the benchmark on the cluster failed"),
        Err(why) => end_with(&format!("cannot start a cluster: {why}; see CONTRIBUTING.md")),
    }
}

/// Measures, as the process inside the sandbox.
pub fn measure_inside(folders: Folders) {
    let runtime = Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let cluster = Cluster::start(folders).await;
        let product = Product::install(&cluster);
        road::measure(&cluster, &product).await;
        event_listener::measure(&cluster).await;
    });
}
