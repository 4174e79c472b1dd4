//! The order in which a loop goes through a map, which CEL leaves open: that of its keys, so that the same event gives the same
//! run each time.

use std::cmp::Ordering;

use cel::common::types::{CelList, CelMap, CelMapKey, CelString};
use cel::common::value::{CowVal, Val};
use cel::{ExecutionError, FunctionContext};

/// Name of the function around what a loop goes through, which no expression can write.
pub(super) const FUNCTION: &str = "@ordered";

/// The keys of a map as a list in their order; any other value as it is.
pub(super) fn ordered<'c, 'v>(call: &mut FunctionContext<'c, 'v>) -> Result<CowVal<'c, 'v>, ExecutionError> {
    let value = call.args.pop().ok_or_else(ExecutionError::missing_argument_or_target)?;
    let Some(map) = value.downcast_ref::<CelMap<'_>>() else { return Ok(value) };
    let mut keys: Vec<&CelMapKey<'_>> = map.inner().keys().collect();
    keys.sort_by(|one, other| compare(one, other));
    let keys: Vec<Box<dyn Val + 'v>> = keys.into_iter().map(owned).collect();
    Ok(CowVal::owned(CelList::from(keys)))
}

fn compare(one: &CelMapKey<'_>, other: &CelMapKey<'_>) -> Ordering {
    match (one, other) {
        (CelMapKey::Bool(one), CelMapKey::Bool(other)) => one.inner().cmp(other.inner()),
        (CelMapKey::Int(one), CelMapKey::Int(other)) => one.inner().cmp(other.inner()),
        (CelMapKey::UInt(one), CelMapKey::UInt(other)) => one.inner().cmp(other.inner()),
        (CelMapKey::String(one), CelMapKey::String(other)) => one.inner().cmp(other.inner()),
        _ => kind(one).cmp(&kind(other)),
    }
}

fn kind(key: &CelMapKey<'_>) -> u8 {
    match key {
        CelMapKey::Bool(_) => 0,
        CelMapKey::Int(_) => 1,
        CelMapKey::UInt(_) => 2,
        CelMapKey::String(_) => 3,
    }
}

fn owned<'v>(key: &CelMapKey<'_>) -> Box<dyn Val + 'v> {
    match key {
        CelMapKey::Bool(key) => Box::new(*key),
        CelMapKey::Int(key) => Box::new(*key),
        CelMapKey::UInt(key) => Box::new(*key),
        CelMapKey::String(key) => Box::new(CelString::from(key.inner().to_owned())),
    }
}
