//! The predefined names that an expression reads for every event.

use cel::common::ast::{EntryExpr, Expr, IdedExpr, operators};

use super::check::is_namespace;
use crate::template::expression::name::Name;

/// The names that are read whatever the event holds: not those in a branch of a condition or in the body of a loop.
pub(super) fn names(expression: &IdedExpr) -> Vec<Name> {
    let mut names = Vec::new();
    collect(expression, &mut names);
    names
}

fn collect(node: &IdedExpr, names: &mut Vec<Name>) {
    match &node.expr {
        Expr::Unspecified | Expr::Literal(_) | Expr::Struct(_) => {}
        Expr::Ident(name) => names.extend(Name::parse(name)),
        Expr::Select(select) => collect(&select.operand, names),
        Expr::Call(call) => match call.func_name.as_str() {
            // One operand alone may decide.
            operators::LOGICAL_AND | operators::LOGICAL_OR => {}
            operators::CONDITIONAL => call.args.iter().take(1).for_each(|condition| collect(condition, names)),
            _ => {
                let target = call.target.as_deref().filter(|target| !is_namespace(target));
                target.into_iter().chain(&call.args).for_each(|part| collect(part, names));
            }
        },
        Expr::List(list) => list.elements.iter().for_each(|element| collect(element, names)),
        Expr::Map(map) => {
            for entry in &map.entries {
                if let EntryExpr::MapEntry(entry) = &entry.expr {
                    [&entry.key, &entry.value].into_iter().for_each(|part| collect(part, names));
                }
            }
        }
        Expr::Comprehension(comprehension) => collect(&comprehension.iter_range, names),
    }
}
