//! Taking in a request's body: bounded in size, in time, and together with all others in memory.

use axum::body::Body;
use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_LENGTH;
use http_body_util::BodyExt;
use std::time::Duration;
use tokio::time::{Instant, timeout, timeout_at};

use super::budget::{Budget, Share};
use std::sync::Arc;

/// A body grows from this, doubled as bytes arrive: what is claimed but not sent takes no memory.
const FIRST_CAPACITY: u64 = 32 << 10;
/// What is read and thrown away of a body that was refused, so that the sender gets to see the answer.
const MAX_DISCARDED: u64 = 64 << 20;
/// How long that may take.
const DISCARD_TIME: Duration = Duration::from_secs(5);

/// A whole body and its share of the budget.
#[derive(Debug)]
pub(super) struct Taken {
    /// The raw bytes.
    pub(super) bytes: Bytes,
    /// Held as long as the bytes are needed.
    pub(super) share: Share,
}

/// Why a body was not taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum IntakeError {
    #[error("the body is larger than {0} bytes")]
    TooLarge(u64),
    #[error("too many bytes of other deliveries are in memory (--max-buffered-bytes)")]
    Busy,
    #[error("the body did not arrive within the deadline")]
    TooSlow,
    #[error("the body ended before it was complete")]
    Broken,
}

/// The length that the sender claims, if it claims one.
pub(super) fn declared_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Reads the whole body.
pub(super) async fn take(
    body: &mut Body,
    declared: Option<u64>,
    limit: u64,
    budget: &Arc<Budget>,
    until: Instant,
) -> Result<Taken, IntakeError> {
    if declared.is_some_and(|length| length > limit) {
        return Err(IntakeError::TooLarge(limit));
    }
    let most = declared.unwrap_or(limit);
    let mut share = budget.share();
    let mut bytes = Vec::new();
    loop {
        let frame = match timeout_at(until, body.frame()).await {
            Err(_) => return Err(IntakeError::TooSlow),
            Ok(None) => {
                return Ok(Taken { bytes: bytes.into(), share });
            }
            Ok(Some(Err(_))) => return Err(IntakeError::Broken),
            Ok(Some(Ok(frame))) => frame,
        };
        let Ok(data) = frame.into_data() else {
            continue;
        };
        let needed = (bytes.len() + data.len()) as u64;
        if needed > limit {
            return Err(IntakeError::TooLarge(limit));
        }
        // Most bodies come in one piece, with their head: then there is nothing to gather.
        if bytes.is_empty() && declared == Some(needed) {
            return if share.grow_to(needed) { Ok(Taken { bytes: data, share }) } else { Err(IntakeError::Busy) };
        }
        let capacity = bytes.capacity() as u64;
        if needed > capacity {
            let wanted = (capacity * 2).max(FIRST_CAPACITY).min(most).max(needed);
            if !share.grow_to(wanted) {
                return Err(IntakeError::Busy);
            }
            // Within `limit`, which is far below what a usize holds.
            bytes.reserve_exact(usize::try_from(wanted).unwrap_or(data.len()) - bytes.len());
        }
        bytes.extend_from_slice(&data);
    }
}

/// Reads on behind an answer that was given before the body's end.
///
/// Closing a connection with unread bytes resets it, and a sender whose connection is reset may never see the answer.
/// A sender that waits for `100 Continue` has sent nothing and needs none of this.
pub(super) fn discard(mut body: Body, waits_to_send: bool) {
    if waits_to_send || http_body::Body::is_end_stream(&body) {
        return;
    }
    tokio::spawn(timeout(DISCARD_TIME, async move {
        let mut discarded = 0;
        while let Some(Ok(frame)) = body.frame().await {
            discarded += frame.data_ref().map_or(0, Bytes::len) as u64;
            if discarded > MAX_DISCARDED {
                return;
            }
        }
    }));
}
