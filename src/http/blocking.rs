//! Work on large bodies, which must not hold up the thread that serves.

use super::answer::Answer;
use super::outcome::Reason;

/// Bodies from this size on are verified and parsed on a blocking thread: it takes more than a millisecond.
const LARGE_BODY: usize = 1 << 20;

/// Does a step here, or on a blocking thread if it works on many bytes.
pub(super) async fn step<T: Send + 'static>(
    bytes: usize,
    step: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Answer> {
    if bytes < LARGE_BODY {
        return Ok(step());
    }
    tokio::task::spawn_blocking(step).await.map_err(|_| Answer::new(Reason::Defect))
}
