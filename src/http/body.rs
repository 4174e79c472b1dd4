//! Reads a request's body, within limits of size, time and the memory of all bodies together.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_LENGTH;
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout, timeout_at};

use super::budget::{Budget, Share};
use super::listener::Origin;
use super::outcome::Reason;

/// First capacity of a buffer, doubled as bytes arrive, so that a declared length alone takes no memory.
const FIRST_CAPACITY: u64 = 32 << 10;
/// Bytes of a refused body that are read and discarded, so that the sender sees the answer.
const MAX_DISCARDED: u64 = 64 << 20;
/// Time for discarding.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(5);

/// A complete body and its share of the budget.
#[derive(Debug)]
pub(super) struct Complete {
    /// The raw bytes.
    pub(super) bytes: Bytes,
    /// To be held as long as the bytes are needed.
    pub(super) share: Share,
}

/// Why a body was not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum BodyError {
    #[error("the body is larger than {0} bytes")]
    TooLarge(u64),
    #[error("too many bytes of other deliveries are in memory (--max-buffered-bytes)")]
    Busy,
    #[error("the body did not arrive within the deadline")]
    TooSlow,
    #[error("the body ended before it was complete")]
    Broken,
}

impl From<BodyError> for Reason {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::TooLarge(_) => Self::TooLarge,
            BodyError::Busy => Self::Busy,
            BodyError::TooSlow => Self::Deadline,
            BodyError::Broken => Self::Truncated,
        }
    }
}

/// The declared length, if there is one.
pub(super) fn declared_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Reads the complete body.
pub(super) async fn read(
    body: &mut Body,
    declared: Option<u64>,
    limit: u64,
    budget: &Arc<Budget>,
    until: Instant,
) -> Result<Complete, BodyError> {
    if declared.is_some_and(|length| length > limit) {
        return Err(BodyError::TooLarge(limit));
    }
    let most = declared.unwrap_or(limit);
    let mut share = budget.share(most);
    let mut bytes = Vec::new();
    loop {
        let frame = match timeout_at(until, body.frame()).await {
            Err(_) => return Err(BodyError::TooSlow),
            Ok(None) => {
                return Ok(Complete { bytes: bytes.into(), share });
            }
            Ok(Some(Err(_))) => return Err(BodyError::Broken),
            Ok(Some(Ok(frame))) => frame,
        };
        let Ok(data) = frame.into_data() else {
            continue;
        };
        let needed = (bytes.len() + data.len()) as u64;
        if needed > limit {
            return Err(BodyError::TooLarge(limit));
        }
        // Most bodies come in one piece, together with their head, and need no buffer.
        if bytes.is_empty() && declared == Some(needed) {
            return if share.grow_to(needed) { Ok(Complete { bytes: data, share }) } else { Err(BodyError::Busy) };
        }
        let capacity = bytes.capacity() as u64;
        if needed > capacity {
            let wanted = (capacity * 2).max(FIRST_CAPACITY).min(most).max(needed);
            if !share.grow_to(wanted) {
                return Err(BodyError::Busy);
            }
            // Within `limit`, which is far below what a usize holds.
            bytes.reserve_exact(usize::try_from(wanted).unwrap_or(data.len()) - bytes.len());
        }
        bytes.extend_from_slice(&data);
    }
}

/// Discards the rest of a body whose request is answered.
///
/// Closing a connection with unread bytes resets it, and the sender may then never see the answer. A sender that waits for
/// `100 Continue` has sent no body.
pub(super) fn discard(mut body: Body, origin: Option<&Origin>, waits_to_send: bool) {
    if waits_to_send || http_body::Body::is_end_stream(&body) {
        return;
    }
    let discarding = origin.map(Origin::discard);
    tokio::spawn(timeout(DISCARD_TIMEOUT, async move {
        let _until_the_end = discarding;
        let mut discarded = 0;
        while let Some(Ok(frame)) = body.frame().await {
            discarded += frame.data_ref().map_or(0, Bytes::len) as u64;
            if discarded > MAX_DISCARDED {
                return;
            }
        }
    }));
}
