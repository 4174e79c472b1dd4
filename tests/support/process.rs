//! Child processes, polling and free ports.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, MutexGuard};

/// Poll interval of [`eventually`].
const POLL_INTERVAL: Duration = Duration::from_millis(5);
/// Poll interval of [`comes_true`], which mostly sends a delivery.
const ASK_INTERVAL: Duration = Duration::from_millis(50);

/// Waits for its turn, until the result is dropped, of the tests that use up a machine: two of them at a time would measure
/// each other.
pub async fn alone() -> MutexGuard<'static, ()> {
    static MACHINE: Mutex<()> = Mutex::const_new(());
    MACHINE.lock().await
}

/// Polls `look` until it returns `Some`. Returns `None` if it does not within `limit`.
pub fn eventually<T>(limit: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + limit;
    loop {
        let seen = look();
        if seen.is_some() || Instant::now() >= end {
            return seen;
        }
        std::thread::sleep(POLL_INTERVAL);
    }
}

/// Asks again and again until it is so. Returns false if it is not within `limit`.
pub async fn comes_true(limit: Duration, is_so: impl AsyncFn() -> bool) -> bool {
    let end = Instant::now() + limit;
    while !is_so().await {
        if Instant::now() >= end {
            return false;
        }
        tokio::time::sleep(ASK_INTERVAL).await;
    }
    true
}

/// A child process that ends with this one: a shell kills it when this process's end of a pipe closes.
pub struct Guarded(Child);

impl Guarded {
    /// Starts a program and appends its output to a log file.
    pub fn spawn(command: &[String], log: &Path) -> Self {
        let log = fs::OpenOptions::new().create(true).append(true).open(log).expect("a log file");
        let script =
            r#"exec 3<&0; "$@" </dev/null 3<&- & child=$!; (cat <&3 >/dev/null; kill -9 $child) & wait $child"#;
        let child = Command::new("sh")
            .args(["-c", script, "sh"])
            .args(command)
            .stdin(Stdio::piped())
            .stdout(log.try_clone().expect("a log file"))
            .stderr(log)
            .spawn()
            .expect("a shell");
        Self(child)
    }

    /// Whether it has exited.
    pub fn has_ended(&mut self) -> bool {
        self.0.try_wait().is_ok_and(|status| status.is_some())
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// A value of `/proc/<pid>/status` in KiB, e.g. `VmRSS`.
pub fn memory(pid: u32, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a status");
    let line = status.lines().find(|line| line.starts_with(field)).expect("the field");
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number")
}

/// Free ports on 127.0.0.1, each given once. They are below those that the system gives to connections: one of the thousands
/// that other tests open would take the port before it is used, or a client that waits for the listener connect to itself.
pub fn free_ports<const N: usize>() -> [u16; N] {
    const FIRST: u16 = 12_000;
    const COUNT: u32 = 16_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let next = || loop {
        let number = NEXT.fetch_add(1, Ordering::Relaxed).wrapping_add(std::process::id().wrapping_mul(101));
        let port = FIRST + u16::try_from(number % COUNT).expect("a port");
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    };
    std::array::from_fn(|_| next())
}
