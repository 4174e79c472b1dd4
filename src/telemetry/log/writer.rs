//! Log lines on their way to standard error: gathered for a moment, written by a thread of its own.
//!
//! A delivery waits for no pipe: a line costs it a copy, a collector that does not read costs lines, which are counted,
//! and many lines cost one call. The price is that a killed process loses the lines of its last milliseconds.

use std::io::{self, Write};
use std::mem;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

/// How long lines are gathered.
const GATHER: Duration = Duration::from_millis(10);
/// Bytes that wait for a collector that does not read; what does not fit is lost.
const MAX_WAITING: usize = 1 << 20;

/// Takes lines; cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct LineWriter(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    bytes: Vec<u8>,
    lost: usize,
    closed: bool,
}

/// Writes out what is waiting when it is dropped.
#[derive(Debug)]
#[must_use = "lines that are not written yet are lost without it"]
pub struct LogGuard {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl LineWriter {
    /// Begins to write to `target`. Without a thread for it, lines wait for the guard.
    pub(super) fn start(target: impl Write + Send + 'static) -> (Self, LogGuard) {
        let writer = Self::default();
        let shared = Arc::clone(&writer.0);
        let thread = thread::Builder::new().name("log".into()).spawn(move || shared.write_to(target));
        let guard = LogGuard { shared: Arc::clone(&writer.0), thread: thread.ok() };
        (writer, guard)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, line: &[u8]) {
        let mut waiting = self.lock();
        if waiting.bytes.len() + line.len() > MAX_WAITING {
            waiting.lost += 1;
            return;
        }
        let first = waiting.bytes.is_empty();
        waiting.bytes.extend_from_slice(line);
        drop(waiting);
        // Whoever writes takes everything that came until then.
        if first {
            self.changed.notify_one();
        }
    }

    fn write_to(&self, mut target: impl Write) {
        let mut batch = Vec::new();
        loop {
            let mut waiting = self.lock();
            while waiting.bytes.is_empty() && !waiting.closed {
                waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
            }
            if !waiting.closed {
                drop(waiting);
                thread::sleep(GATHER);
                waiting = self.lock();
            }
            let closed = waiting.closed;
            let lost = mem::take(&mut waiting.lost);
            mem::swap(&mut waiting.bytes, &mut batch);
            drop(waiting);
            // Standard error that takes nothing leaves nobody to tell.
            let _ = target.write_all(&batch);
            if lost > 0 {
                let _ = writeln!(target, "{lost} log lines were lost: nobody read them in time");
            }
            let _ = target.flush();
            batch.clear();
            if closed {
                return;
            }
        }
    }
}

impl Drop for LogGuard {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.changed.notify_one();
        if let Some(thread) = self.thread.take() {
            // A panic there was reported by the runtime.
            let _ = thread.join();
        }
    }
}

impl Write for &LineWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for LineWriter {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Default)]
    struct Target(Arc<Mutex<Vec<u8>>>);

    impl Write for Target {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("the bytes").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn every_line_is_written_in_order_before_the_guard_is_gone() {
        let target = Target::default();
        let (writer, guard) = LineWriter::start(target.clone());
        let lines: Vec<String> = (0..1000).map(|number| format!("line {number}\n")).collect();
        for line in &lines {
            (&writer).write_all(line.as_bytes()).expect("a line");
        }
        drop(guard);
        assert_eq!(String::from_utf8_lossy(&target.0.lock().expect("the bytes")), lines.concat());
    }

    #[test]
    fn lines_that_nobody_reads_are_counted() {
        let target = Target::default();
        let blocked = target.0.lock().expect("the bytes");
        let (writer, guard) = LineWriter::start(target.clone());
        let line = [b'x'; 1024];
        for _ in 0..5000 {
            (&writer).write_all(&line).expect("a line");
        }
        drop(blocked);
        drop(guard);
        let written = target.0.lock().expect("the bytes").clone();
        assert!(written.len() < 4 << 20, "{}", written.len());
        assert!(String::from_utf8_lossy(&written).contains("log lines were lost"));
    }
}
