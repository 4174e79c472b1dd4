//! The kind of an expression's value, as far as it is known before an event arrives.

use cel::common::ast::{Expr, IdedExpr, LiteralValue, operators};

use crate::template::expression::field::Kind;
use crate::template::expression::name::Name;

/// The kind of an expression's value. `is_bound` tells the names of enclosing loops.
pub(super) fn kind(node: &IdedExpr, is_bound: &dyn Fn(&str) -> bool) -> Kind {
    match &node.expr {
        Expr::Literal(LiteralValue::Boolean(_)) => Kind::Bool,
        Expr::Literal(LiteralValue::String(_)) => Kind::Text,
        Expr::Literal(LiteralValue::Int(_) | LiteralValue::UInt(_) | LiteralValue::Double(_)) => Kind::Number,
        Expr::List(_) => Kind::List,
        Expr::Map(_) => Kind::Map,
        Expr::Ident(name) if is_bound(name) => Kind::Any,
        Expr::Ident(name) => match name.trim_start_matches('.') {
            "body" | "headers" | "event" => Kind::Map,
            name if Name::parse(name).is_some() => Kind::Text,
            _ => Kind::Any,
        },
        Expr::Select(select) if select.test => Kind::Bool,
        Expr::Select(_) => match chain(node) {
            Some(("event", _)) => Kind::Text,
            Some(("body", path)) if !is_bound("body") => Kind::of_path(&path),
            _ => Kind::Any,
        },
        Expr::Call(call) => match call.func_name.as_str() {
            operators::CONDITIONAL => {
                let [_, one, other] = call.args.as_slice() else { return Kind::Any };
                let one = kind(one, is_bound);
                if one == kind(other, is_bound) { one } else { Kind::Any }
            }
            operators::ADD => call.args.first().map_or(Kind::Any, |first| kind(first, is_bound)),
            operators::LOGICAL_AND
            | operators::LOGICAL_OR
            | operators::LOGICAL_NOT
            | operators::EQUALS
            | operators::NOT_EQUALS
            | operators::LESS
            | operators::LESS_EQUALS
            | operators::GREATER
            | operators::GREATER_EQUALS
            | operators::IN
            | "contains"
            | "startsWith"
            | "endsWith"
            | "matches"
            | "hasValue"
            | "bool" => Kind::Bool,
            "size" | "int" | "uint" | "double" | "indexOf" | "lastIndexOf" => Kind::Number,
            "split" => Kind::List,
            "string" | "charAt" | "join" | "lowerAscii" | "upperAscii" | "trim" | "replace" | "substring"
            | "format" | "quote" | "reverse" | "slug" | "marshalJSON" | "encode" => Kind::Text,
            _ => Kind::Any,
        },
        Expr::Comprehension(comprehension) => match &comprehension.accu_init.expr {
            // `map` and `filter` begin with an empty list, `all` and `exists` with a boolean.
            Expr::List(_) => Kind::List,
            Expr::Literal(LiteralValue::Boolean(_)) => Kind::Bool,
            // `exists_one` counts, and compares the count.
            _ => kind(&comprehension.result, is_bound),
        },
        _ => Kind::Any,
    }
}

/// The name that a chain of fields begins with, and the fields.
fn chain(node: &IdedExpr) -> Option<(&str, Vec<&str>)> {
    match &node.expr {
        Expr::Ident(name) => Some((name.trim_start_matches('.'), Vec::new())),
        Expr::Select(select) if !select.test => {
            let (name, mut path) = chain(&select.operand)?;
            path.push(&select.field);
            Some((name, path))
        }
        _ => None,
    }
}
