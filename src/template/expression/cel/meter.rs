//! Bounds the memory and the work of an evaluation.
//!
//! A call of [`FUNCTION`] is put around every operand of the compiled expression. It charges the operand's size before the
//! operation takes place: as work in every case, because each operation and each turn of a loop costs the size of what it
//! reads, and as memory if the operation copies. It fails when one of the two sums exceeds its limit.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use cel::common::types::{
    CelBool, CelBytes, CelDouble, CelInt, CelList, CelMap, CelMapKey, CelNull, CelOptional, CelString, CelUInt,
};
use cel::common::value::{CowVal, Val};
use cel::{ExecutionError, FunctionContext};

use crate::json::{ENTRY, MAP, VALUE};

/// Name of the meter's function, which no expression can write.
pub(super) const FUNCTION: &str = "@meter";
/// Most work of one evaluation, in bytes read: some seconds. The deadline often comes first.
const MAX_WORK: u64 = 1 << 30;

/// A function that may return its argument without copying it.
pub(super) type Function =
    Box<dyn for<'c, 'v> Fn(&mut FunctionContext<'c, 'v>) -> Result<CowVal<'c, 'v>, ExecutionError> + Send + Sync>;

/// What one evaluation has used of its limits.
#[derive(Debug)]
pub(super) struct Meter {
    limit: u64,
    memory: AtomicU64,
    work: AtomicU64,
    exhausted: AtomicBool,
    deadline: Option<Instant>,
}

impl Meter {
    /// A meter that allows `limit` bytes of memory, and work until `deadline`.
    pub(super) fn new(limit: u64, deadline: Option<Instant>) -> Self {
        Self { limit, memory: AtomicU64::new(0), work: AtomicU64::new(0), exhausted: AtomicBool::new(false), deadline }
    }

    /// Whether a charge has exceeded the limit or the deadline.
    pub(super) fn is_exhausted(&self) -> bool {
        self.exhausted.load(Ordering::Relaxed)
    }

    /// Charges bytes that are read, and as many of memory if they are copied. Returns whether the limits allow them.
    pub(super) fn charge(&self, bytes: u64, copies: bool) -> bool {
        let add = |sum: &AtomicU64| sum.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        let late = self.deadline.is_some_and(|deadline| Instant::now() >= deadline);
        if late || add(&self.work) > MAX_WORK || (copies && add(&self.memory) > self.limit) {
            self.exhausted.store(true, Ordering::Relaxed);
        }
        !self.is_exhausted()
    }

    /// The function that returns its first argument after charging it. A second one says how: `false` that it is only read,
    /// `null` that a number is only read, an unsigned number that so much work comes to it, a signed one so many times its
    /// size, a text that it will be split at that separator.
    pub(super) fn into_function(self: Arc<Self>) -> Function {
        Box::new(move |call| {
            let value = call.args.first().ok_or_else(ExecutionError::missing_argument_or_target)?;
            let exceeded = || ExecutionError::function_error(FUNCTION, "the limit is exceeded");
            if self.is_exhausted() {
                // Not even the size of the value is looked at: a loop that goes on after an error must end soon.
                return Err(exceeded());
            }
            let how = call.args.get(1);
            let copies = match how {
                Some(how) if how.downcast_ref::<CelNull>().is_some() => !is_number(&**value),
                Some(how) => how.downcast_ref::<CelBool>().is_none() && how.downcast_ref::<CelUInt>().is_none(),
                None => true,
            };
            if self.charge(how.map_or_else(|| weight(&**value), |how| weight_by(&**value, &**how)), copies) {
                return Ok(call.args.swap_remove(0));
            }
            Err(exceeded())
        })
    }
}

fn is_number(value: &dyn Val) -> bool {
    value.downcast_ref::<CelInt>().is_some()
        || value.downcast_ref::<CelUInt>().is_some()
        || value.downcast_ref::<CelDouble>().is_some()
}

/// The size of a value, with all that it holds.
fn weight(value: &dyn Val) -> u64 {
    if let Some(text) = value.downcast_ref::<CelString<'_>>() {
        return VALUE + text.inner().len() as u64;
    }
    if let Some(list) = value.downcast_ref::<CelList<'_>>() {
        return VALUE + list.inner().iter().map(|item| weight(&**item)).sum::<u64>();
    }
    if let Some(map) = value.downcast_ref::<CelMap<'_>>() {
        let entries = map.inner().iter();
        return VALUE + MAP + entries.map(|(key, value)| key_weight(key) + weight(&**value)).sum::<u64>();
    }
    if let Some(bytes) = value.downcast_ref::<CelBytes<'_>>() {
        return VALUE + bytes.inner().len() as u64;
    }
    if let Some(optional) = value.downcast_ref::<CelOptional<'_>>() {
        return VALUE + optional.inner().map_or(0, weight);
    }
    VALUE
}

fn key_weight(key: &CelMapKey<'_>) -> u64 {
    match key {
        CelMapKey::String(text) => ENTRY + VALUE + text.inner().len() as u64,
        _ => ENTRY + VALUE,
    }
}

fn weight_by(value: &dyn Val, how: &dyn Val) -> u64 {
    if let Some(factor) = how.downcast_ref::<CelInt>() {
        return weight(value).saturating_mul(u64::try_from(*factor.inner()).unwrap_or(1));
    }
    if how.downcast_ref::<CelBool>().is_some() || how.downcast_ref::<CelNull>().is_some() {
        return weight(value);
    }
    if let Some(more) = how.downcast_ref::<CelUInt>() {
        return weight(value).saturating_add(*more.inner());
    }
    let parts = match (value.downcast_ref::<CelString<'_>>(), how.downcast_ref::<CelString<'_>>()) {
        (Some(text), Some(separator)) if separator.inner().is_empty() => text.inner().len(),
        (Some(text), Some(separator)) => text.inner().matches(separator.inner()).count(),
        _ => 0,
    };
    weight(value).saturating_add(VALUE * parts as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_exceeds_the_limit_or_comes_late() {
        let meter = Meter::new(10, None);
        assert!(meter.charge(10, true));
        assert!(meter.charge(MAX_WORK - 10, false));
        assert!(!meter.charge(1, false) && meter.is_exhausted());
        assert!(!Meter::new(10, None).charge(11, true));
        assert!(!Meter::new(10, Some(Instant::now())).charge(0, false));
    }
}
