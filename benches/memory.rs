//! Resident memory, idle and after a load, and the size of the program.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::client::{Connection, USUAL, filtered, request, runtime};
use crate::servers::Service;
use crate::{program, row};

const DELIVERIES: u32 = 100_000;
const CONNECTIONS: usize = 64;

/// Resident memory after one delivery and after 100,000, and the program's size.
pub fn measure() {
    let service = Service { ..Service::default() }.start();
    drop(service.connect());
    let request = Arc::new(request(&filtered(USUAL)));
    let runtime = runtime();
    runtime.block_on(async { Connection::open(service.address).await.deliver(&request).await });
    row("idle RSS", &format!("{:.1} MiB", service.memory("VmRSS")), "", None, "");

    let left = Arc::new(AtomicU32::new(DELIVERIES));
    let address = service.address;
    runtime.block_on(async {
        let senders: Vec<_> = (0..CONNECTIONS)
            .map(|_| {
                let (left, request) = (Arc::clone(&left), Arc::clone(&request));
                tokio::spawn(async move {
                    let mut connection = Connection::open(address).await;
                    let one_less = |left: u32| left.checked_sub(1);
                    while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok() {
                        connection.deliver(&request).await;
                    }
                })
            })
            .collect();
        for sender in senders {
            sender.await.expect("all deliveries");
        }
    });
    let (after, peak) = (service.memory("VmRSS"), service.memory("VmHWM"));
    row(
        "RSS after 100,000 deliveries of 24 KiB, 64 connections",
        &format!("{after:.1} MiB (at most {peak:.1})"),
        "",
        None,
        "<= 16 MiB",
    );
    let size = fs::metadata(program()).expect("the program").len();
    let megabytes = f64::from(u32::try_from(size).expect("a size")) / 1e6;
    row("size of the program", &format!("{megabytes:.1} MB"), "", None, "");
}
