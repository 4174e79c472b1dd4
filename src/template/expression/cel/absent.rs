//! Makes a `null` of GitHub mean what authors of templates mean by it: that there is no value.
//!
//! GitHub sends `null` for an empty description, milestone or assignee. CEL takes it for a value, so that
//! `has(body.pull_request.body)` would be true, `.?body.orValue("")` be null, and `string(...)` fail. Here such a field is
//! absent for `has` and `.?`, `has` is false where a map on the way is absent, and `string` gives the empty text for null and
//! JSON for lists and maps.

use std::mem;

use cel::common::ast::{CallExpr, EntryExpr, Expr, IdedExpr, LiteralValue, operators};
use cel::common::types::{CelNull, CelOptional, CelString};
use cel::common::value::CowVal;
use cel::{ExecutionError, FunctionContext};

use super::values::to_json;

/// Names of functions that no expression can write.
pub(super) const PRESENT: &str = "@present";
pub(super) const TEXT: &str = "@text";

/// Rewrites an expression.
pub(super) fn rewrite(node: &mut IdedExpr) {
    match &mut node.expr {
        Expr::Unspecified | Expr::Literal(_) | Expr::Ident(_) | Expr::Struct(_) => {}
        Expr::Select(select) => {
            rewrite(&mut select.operand);
            if select.test {
                rewrite_has(node);
            }
        }
        Expr::List(list) => list.elements.iter_mut().for_each(rewrite),
        Expr::Map(map) => {
            for entry in &mut map.entries {
                if let EntryExpr::MapEntry(entry) = &mut entry.expr {
                    rewrite(&mut entry.key);
                    rewrite(&mut entry.value);
                }
            }
        }
        Expr::Comprehension(comprehension) => {
            let parts = [
                &mut comprehension.iter_range,
                &mut comprehension.accu_init,
                &mut comprehension.loop_cond,
                &mut comprehension.loop_step,
                &mut comprehension.result,
            ];
            parts.into_iter().for_each(rewrite);
        }
        Expr::Call(call) => {
            call.args.iter_mut().for_each(rewrite);
            call.target.iter_mut().for_each(|target| rewrite(target));
            match (call.func_name.as_str(), call.args.first_mut()) {
                ("string", Some(value)) if call.target.is_none() => wrap(value, TEXT),
                (operators::OPT_SELECT | operators::OPT_INDEX, _) => wrap(node, PRESENT),
                _ => {}
            }
        }
    }
}

/// `has(a.b)` becomes `a.b is there and not null`, and false where `a` is absent: an operand that fails is not strictly
/// false, so that the double negation of a failure is false.
fn rewrite_has(node: &mut IdedExpr) {
    let has = mem::take(node);
    let mut value = has.clone();
    if let Expr::Select(select) = &mut value.expr {
        select.test = false;
    }
    let null = IdedExpr { id: has.id, expr: Expr::Literal(LiteralValue::Null) };
    let is_value = call(operators::NOT_EQUALS, vec![value, null]);
    let mut result = call(operators::LOGICAL_AND, vec![has, is_value]);
    for function in [operators::LOGICAL_NOT, operators::NOT_STRICTLY_FALSE, operators::LOGICAL_NOT] {
        result = call(function, vec![result]);
    }
    *node = result;
}

fn wrap(node: &mut IdedExpr, function: &str) {
    let inner = mem::take(node);
    *node = call(function, vec![inner]);
}

fn call(function: &str, args: Vec<IdedExpr>) -> IdedExpr {
    let id = args.first().map_or(0, |first| first.id);
    IdedExpr { id, expr: Expr::Call(CallExpr { func_name: function.to_owned(), target: None, args }) }
}

/// [`PRESENT`]: an optional null is none.
pub(super) fn present<'c, 'v>(call: &mut FunctionContext<'c, 'v>) -> Result<CowVal<'c, 'v>, ExecutionError> {
    let value = call.args.pop().ok_or_else(ExecutionError::missing_argument_or_target)?;
    let optional = value.downcast_ref::<CelOptional<'_>>().and_then(CelOptional::inner);
    if optional.is_some_and(|inner| inner.downcast_ref::<CelNull>().is_some()) {
        return Ok(CowVal::owned(CelOptional::none()));
    }
    Ok(value)
}

/// [`TEXT`]: null as the empty text, a list or map as JSON, any other value as it is.
pub(super) fn text<'c, 'v>(call: &mut FunctionContext<'c, 'v>) -> Result<CowVal<'c, 'v>, ExecutionError> {
    let value = call.args.pop().ok_or_else(ExecutionError::missing_argument_or_target)?;
    if value.downcast_ref::<CelNull>().is_some() {
        return Ok(CowVal::owned(CelString::from("")));
    }
    match to_json(&*value) {
        Some(json) if json.is_array() || json.is_object() => Ok(CowVal::owned(CelString::from(json.to_string()))),
        _ => Ok(value),
    }
}

/// `marshalJSON(x)` or `x.marshalJSON()`: the value as JSON text.
pub(super) fn marshal_json<'c, 'v>(call: &mut FunctionContext<'c, 'v>) -> Result<CowVal<'c, 'v>, ExecutionError> {
    let value = call.this.take().or_else(|| call.args.pop()).ok_or_else(ExecutionError::missing_argument_or_target)?;
    let json = to_json(&*value).ok_or_else(|| call.error("a value that JSON does not have"))?;
    Ok(CowVal::owned(CelString::from(json.to_string())))
}
