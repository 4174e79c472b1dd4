//! Deliveries per second (one server core, one client core, 16 connections), and the time to answer by body size.

use std::sync::Arc;
use std::time::Instant;

use crate::client::{Connection, USUAL, alternate, filtered, padded, request, rounds, runtime};
use crate::servers::{OnFirstCore, Service, bare};
use crate::support::service::TEMPLATE;
use crate::support::webhook::{SHA, merged};
use crate::{median, row};

/// Compares filtered deliveries with a bare handler, many templates with one, and body sizes.
pub fn measure() {
    let _pinned = OnFirstCore::begin();
    let service = Service::default().start().pinned();
    let bare = bare().pinned();
    let usual = Arc::new(request(&filtered(USUAL)));
    let ([ours, theirs], ratio) = alternate([service.address, bare.address], &usual);
    row(
        "filtered deliveries per second (24 KiB, signed, one core)",
        &format!("{ours:.0}"),
        &format!("{theirs:.0} (bare axum handler that verifies and parses)"),
        Some(ratio),
        ">= 0.90",
    );

    // A merge that matches none of the templates, so that each one is evaluated.
    let elsewhere = Arc::new(request(&padded(merged("other/web", 5, SHA), USUAL)));
    let one = Service { templates: &many_templates(1), ..Service::default() }.start().pinned();
    for (count, target) in [(10, ""), (100, ""), (1000, ">= 0.80")] {
        let templates = many_templates(count);
        let many = Service { templates: &templates, ..Service::default() }.start().pinned();
        let ([with_many, with_one], ratio) = alternate([many.address, one.address], &elsewhere);
        row(
            &format!("filtered deliveries per second with {count} templates"),
            &format!("{with_many:.0}"),
            &format!("{with_one:.0} (one template)"),
            Some(ratio),
            target,
        );
    }

    let templates = many_templates(20);
    let of_teams = |teams| Service { templates: &templates, teams, ..Service::default() }.start().pinned();
    let ([with_many, with_one], ratio) =
        alternate([of_teams(50), of_teams(1)].each_ref().map(|server| server.address), &elsewhere);
    row(
        "filtered deliveries per second with 50 teams of 20 templates",
        &format!("{with_many:.0}"),
        &format!("{with_one:.0} (one team)"),
        Some(ratio),
        ">= 0.90",
    );

    for (size, bytes) in [
        ("1 KiB", 1 << 10),
        ("24 KiB", USUAL),
        ("256 KiB", 256 << 10),
        ("1 MiB", 1 << 20),
        ("5 MiB", 5 << 20),
        ("25 MiB", 25 << 20),
    ] {
        let request = request(&filtered(bytes));
        let tries = ((64 << 20) / bytes).clamp(3, 200);
        let runtime = runtime();
        let ([ours, theirs], ratio) = rounds(5, || {
            [service.address, bare.address].map(|address| {
                runtime.block_on(async {
                    let mut connection = Connection::open(address).await;
                    connection.deliver(&request).await;
                    let mut times = Vec::new();
                    for _ in 0..tries {
                        let started = Instant::now();
                        connection.deliver(&request).await;
                        times.push(started.elapsed().as_secs_f64() * 1e3);
                    }
                    median(&mut times)
                })
            })
        });
        row(
            &format!("time to answer a body of {size}"),
            &format!("{ours:.2} ms"),
            &format!("{theirs:.2} ms (bare axum handler)"),
            Some(ratio),
            "",
        );
    }
}

/// `count` templates with conditions, each for another repository.
pub fn many_templates(count: usize) -> String {
    let template = |index: usize| {
        TEMPLATE.replace("generateName: build-", &format!("generateName: build-{index}-")).replace(
            "\"*/*\"",
            &format!(
                "\"acme/service-{index}, acme/all-*\"\n    github-trigger.dev/on-target-branch: \"main, release/*\""
            ),
        )
    };
    (0..count).map(template).collect::<Vec<_>>().join("---")
}
