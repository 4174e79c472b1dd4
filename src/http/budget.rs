//! A limit on the memory of all request bodies together.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bodies up to this size may use the whole budget.
const SMALL: u64 = 1 << 20;
/// A quarter of the budget is reserved for small bodies, so that a few large ones never block them.
const RESERVED_FOR_SMALL: u64 = 4;

/// The budget; shared by all requests.
#[derive(Debug)]
pub(crate) struct Budget {
    limit: u64,
    used: AtomicU64,
}

/// The bytes of one request; returned to the budget when dropped.
#[derive(Debug)]
pub(crate) struct Share {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Budget {
    /// A budget of `limit` bytes.
    pub(crate) fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self { limit, used: AtomicU64::new(0) })
    }

    /// An empty share.
    pub(crate) fn share(self: &Arc<Self>) -> Share {
        Share { budget: Arc::clone(self), bytes: 0 }
    }

    /// Bytes in use now.
    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }
}

impl Share {
    /// Grows the share to `bytes`. Returns false, and changes nothing, if the budget does not allow it.
    pub(crate) fn grow_to(&mut self, bytes: u64) -> bool {
        let more = bytes.saturating_sub(self.bytes);
        let limit = self.budget.limit;
        let allowed = if bytes <= SMALL { limit } else { limit - limit / RESERVED_FOR_SMALL };
        let grown = self.budget.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
            used.checked_add(more).filter(|&sum| sum <= allowed)
        });
        if grown.is_ok() {
            self.bytes += more;
        }
        grown.is_ok()
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn returns_a_dropped_share() {
        let budget = Budget::new(100);
        let mut share = budget.share();
        assert!(share.grow_to(60));
        assert!(share.grow_to(100));
        assert!(!share.grow_to(101));
        assert!(!budget.share().grow_to(1));
        drop(share);
        assert_eq!(budget.used(), 0);
        assert!(budget.share().grow_to(100));
    }

    #[test]
    fn large_bodies_leave_room_for_small_ones() {
        let budget = Budget::new(40 << 20);
        let mut large = budget.share();
        assert!(!large.grow_to(31 << 20));
        assert!(large.grow_to(30 << 20));
        assert!(!budget.share().grow_to(2 << 20));
        assert!(budget.share().grow_to(1 << 20));
    }
}
