//! Puts the meter around the operands of an expression: see [`meter`](super::meter).

use std::collections::BTreeSet;
use std::mem;

use cel::common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedExpr, LiteralValue, operators};
use cel::common::types::{CelBool, CelInt, CelUInt};

use super::absent::TEXT;
use super::check::{is_namespace, literal_length};
use super::meter::FUNCTION;
use super::order::FUNCTION as ORDERED;
use crate::json::VALUE;

/// Work for a regular expression, which is compiled at each use.
const REGEX: u64 = 16 << 10;

/// Operators whose operands are read in place, or not at all.
const FREE: [&str; 6] = [
    operators::CONDITIONAL,
    operators::LOGICAL_AND,
    operators::LOGICAL_OR,
    operators::LOGICAL_NOT,
    operators::NOT_STRICTLY_FALSE,
    operators::INDEX,
];

/// Operators and functions that copy nothing of their operands.
#[rustfmt::skip]
const READERS: &[&str] = &[
    operators::EQUALS, operators::NOT_EQUALS, operators::LESS, operators::LESS_EQUALS, operators::GREATER,
    operators::GREATER_EQUALS, operators::IN, "size", "contains", "startsWith", "endsWith", "matches", "int", "uint",
    "double", "bool", "type",
];

/// Operators whose results are as small as their operands, if these are numbers.
const ARITHMETIC: &[&str] = &[
    operators::ADD,
    operators::SUBSTRACT,
    operators::MULTIPLY,
    operators::DIVIDE,
    operators::MODULO,
    operators::NEGATE,
];

/// Puts the meter around the operands of an expression, and collects the names that it may ask a resolver for.
pub(super) fn instrument(node: &mut IdedExpr, names: &mut BTreeSet<String>) {
    collect(node, names);
    match &mut node.expr {
        Expr::Unspecified | Expr::Literal(_) | Expr::Ident(_) | Expr::Struct(_) => {}
        Expr::Select(select) => instrument(&mut select.operand, names),
        Expr::List(list) => list.elements.iter_mut().for_each(|element| wrap_inside(element, names)),
        Expr::Map(map) => {
            for entry in &mut map.entries {
                if let EntryExpr::MapEntry(entry) = &mut entry.expr {
                    wrap_inside(&mut entry.key, names);
                    wrap_inside(&mut entry.value, names);
                }
            }
        }
        Expr::Comprehension(comprehension) => instrument_loop(comprehension, names),
        Expr::Call(call) => {
            instrument_call(call, names);
            // The field of an optional is copied.
            if matches!(call.func_name.as_str(), operators::OPT_SELECT | operators::OPT_INDEX) {
                wrap(node, None);
            }
        }
    }
}

/// Adds the name that an identifier, or a chain of fields on one, spells.
fn collect(node: &IdedExpr, names: &mut BTreeSet<String>) {
    fn spell(node: &IdedExpr) -> Option<String> {
        match &node.expr {
            // The seed's leading dot means the same name.
            Expr::Ident(name) => Some(name.trim_start_matches('.').to_owned()),
            Expr::Select(select) if !select.test => Some(format!("{}.{}", spell(&select.operand)?, select.field)),
            _ => None,
        }
    }
    names.extend(spell(node));
}

fn instrument_call(call: &mut CallExpr, names: &mut BTreeSet<String>) {
    let name = call.func_name.as_str();
    let how = how(name, &call.args);
    let others = if ARITHMETIC.contains(&name) { how.clone() } else { READERS.contains(&name).then(reads) };
    let is_free = FREE.contains(&name) || matches!(name, operators::OPT_SELECT | operators::OPT_INDEX);
    call.args.iter_mut().for_each(|argument| instrument(argument, names));
    let target = call.target.as_deref_mut().filter(|target| !is_namespace(target));
    let has_target = target.is_some();
    if let Some(target) = target {
        instrument(target, names);
        wrap(target, how.clone());
    }
    if is_free {
        return;
    }
    for (index, argument) in call.args.iter_mut().enumerate() {
        let is_first = index == 0 && !has_target;
        wrap(argument, if is_first { how.clone() } else { others.clone() });
    }
}

/// Instruments a loop. `map` and `filter` append to a list, which the `cel` crate does in place if the step keeps its form.
fn instrument_loop(comprehension: &mut ComprehensionExpr, names: &mut BTreeSet<String>) {
    instrument(&mut comprehension.iter_range, names);
    wrap(&mut comprehension.iter_range, Some(reads()));
    // Of two variables, the second has a map's values.
    if comprehension.iter_var2.is_none() {
        call_around(&mut comprehension.iter_range, ORDERED, None);
    }
    instrument(&mut comprehension.accu_init, names);
    instrument(&mut comprehension.loop_cond, names);
    // `all` and `exists` go on after an error of one item; the condition of the loop ends them.
    if !matches!(comprehension.loop_cond.expr, Expr::Literal(_)) {
        wrap(&mut comprehension.loop_cond, Some(reads()));
    }
    instrument(&mut comprehension.result, names);
    let accumulator = comprehension.accu_var.clone();
    let is_accumulator = |node: &IdedExpr| matches!(&node.expr, Expr::Ident(name) if *name == accumulator);
    let is_append = |node: &IdedExpr| match &node.expr {
        Expr::Call(call) if call.func_name == operators::ADD => {
            matches!(call.args.as_slice(), [list, item] if is_accumulator(list) && matches!(item.expr, Expr::List(_)))
        }
        _ => false,
    };
    let append = |node: &mut IdedExpr, names: &mut BTreeSet<String>| {
        let Expr::Call(call) = &mut node.expr else { return };
        call.args.iter_mut().for_each(|argument| instrument(argument, names));
    };
    let step = &mut comprehension.loop_step;
    if is_append(step) {
        return append(step, names);
    }
    match &mut step.expr {
        Expr::Call(call) if call.func_name == operators::CONDITIONAL => {
            for argument in &mut call.args {
                if is_append(argument) { append(argument, names) } else { instrument(argument, names) }
            }
        }
        _ => instrument(step, names),
    }
}

fn wrap_inside(node: &mut IdedExpr, names: &mut BTreeSet<String>) {
    instrument(node, names);
    wrap(node, None);
}

fn wrap(node: &mut IdedExpr, how: Option<IdedExpr>) {
    call_around(node, FUNCTION, how);
}

fn call_around(node: &mut IdedExpr, function: &str, second: Option<IdedExpr>) {
    let id = node.id;
    let inner = mem::take(node);
    let args = std::iter::once(inner).chain(second).collect();
    *node = IdedExpr { id, expr: Expr::Call(CallExpr { func_name: function.to_owned(), target: None, args }) };
}

/// How the meter charges the value that a function works on; `None` for its size.
fn how(function: &str, arguments: &[IdedExpr]) -> Option<IdedExpr> {
    match (function, arguments) {
        // Each part becomes a value.
        ("split", [separator, ..]) if literal_length(separator).is_some() => Some(separator.clone()),
        ("split", _) => Some(factor(VALUE)),
        ("replace", [old, new, ..]) => {
            let (old, new) = (literal_length(old).unwrap_or(0), literal_length(new).unwrap_or(0));
            Some(factor(1 + if old == 0 { new as u64 } else { new.div_ceil(old) as u64 }))
        }
        ("matches", _) => Some(literal(LiteralValue::UInt(CelUInt::from(REGEX)))),
        // These work on the text as a list of characters, or write some characters as several.
        (
            "charAt" | "indexOf" | "lastIndexOf" | "substring" | "reverse" | "quote" | "format" | "string" | TEXT
            | "marshalJSON",
            _,
        ) => Some(factor(6)),
        (function, _) if ARITHMETIC.contains(&function) => Some(literal(LiteralValue::Null)),
        _ => READERS.contains(&function).then(reads),
    }
}

fn literal(value: LiteralValue) -> IdedExpr {
    IdedExpr { id: 0, expr: Expr::Literal(value) }
}

fn factor(factor: u64) -> IdedExpr {
    literal(LiteralValue::Int(CelInt::from(i64::try_from(factor).unwrap_or(i64::MAX))))
}

fn reads() -> IdedExpr {
    literal(LiteralValue::Boolean(CelBool::from(false)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn collects_the_names_and_paths_of_an_expression() {
        let program = cel::Program::compile("body.a.b.exists(x, x.c == revision) || has(body.d.e)").expect("CEL");
        let mut names = BTreeSet::new();
        instrument(&mut program.expression().clone(), &mut names);
        for name in ["body", "body.a", "body.a.b", "revision", "body.d"] {
            assert!(names.contains(name), "{name} is not in {names:?}");
        }
    }
}
