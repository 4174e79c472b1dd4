//! A limit on the memory of all request bodies together.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bodies of a declared length up to this size may use the whole budget.
const SMALL: u64 = 1 << 20;
/// A quarter of the budget is reserved for small bodies, so that large ones never block them.
const RESERVED_FOR_SMALL: u64 = 4;

/// The budget; shared by all requests.
#[derive(Debug)]
pub(crate) struct Budget {
    limit: u64,
    /// Bytes of the largest body.
    largest: u64,
    used: AtomicU64,
}

/// The bytes of one request; returned to the budget when dropped.
#[derive(Debug)]
pub(crate) struct Share {
    budget: Arc<Budget>,
    /// How far the use of the whole budget may go for this request.
    allowed: u64,
    bytes: u64,
}

impl Budget {
    /// A budget of `limit` bytes for bodies of at most `largest` bytes. One that is alone may have so many, also of the reserve.
    pub(crate) fn new(limit: u64, largest: u64) -> Arc<Self> {
        Arc::new(Self { limit, largest, used: AtomicU64::new(0) })
    }

    /// An empty share for a body that has at most `most` bytes.
    ///
    /// It is large from the start if it may become so: many bodies of unknown length would otherwise fill the reserve of the
    /// small ones while they grow.
    pub(crate) fn share(self: &Arc<Self>, most: u64) -> Share {
        let reserved = if most <= SMALL { 0 } else { self.limit / RESERVED_FOR_SMALL };
        Share { budget: Arc::clone(self), allowed: self.limit - reserved, bytes: 0 }
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
        let grown = self.budget.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
            // Otherwise a limit that is not much above the largest body would keep that out for ever.
            let allowed = if used == self.bytes { self.allowed.max(self.budget.largest) } else { self.allowed };
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
        let budget = Budget::new(100, 100);
        let mut share = budget.share(100);
        assert!(share.grow_to(60));
        assert!(share.grow_to(100));
        assert!(!share.grow_to(101));
        assert!(!budget.share(1).grow_to(1));
        drop(share);
        assert_eq!(budget.used(), 0);
        assert!(budget.share(100).grow_to(100));
    }

    #[test]
    fn large_bodies_leave_room_for_small_ones() {
        let budget = Budget::new(40 << 20, 25 << 20);
        let mut large = budget.share(31 << 20);
        assert!(!large.grow_to(31 << 20));
        assert!(large.grow_to(30 << 20));
        assert!(!budget.share(2 << 20).grow_to(1));
        assert!(budget.share(1 << 20).grow_to(1 << 20));
    }

    #[test]
    fn the_largest_body_fits_if_it_is_alone() {
        let budget = Budget::new(8 << 20, 8 << 20);
        let mut alone = budget.share(8 << 20);
        assert!(alone.grow_to(4 << 20) && alone.grow_to(8 << 20));
        drop(alone);
        let mut first = budget.share(8 << 20);
        assert!(first.grow_to(4 << 20));
        let mut second = budget.share(8 << 20);
        assert!(second.grow_to(2 << 20) && !second.grow_to(3 << 20));
        assert!(!first.grow_to(5 << 20), "not alone");
        assert!(budget.share(1 << 20).grow_to(1 << 20), "room for small ones");
    }

    #[test]
    fn growing_bodies_leave_room_for_small_ones() {
        let budget = Budget::new(40 << 20, 25 << 20);
        let mut growing: Vec<Share> = (0..200).map(|_| budget.share(25 << 20)).collect();
        let grown = growing.iter_mut().filter_map(|share| share.grow_to(512 << 10).then_some(())).count();
        assert_eq!(grown, 60);
        assert!(budget.share(64 << 10).grow_to(64 << 10));
    }
}
