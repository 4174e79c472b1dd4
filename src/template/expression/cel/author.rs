//! Whether an expression's value may be text that the author of a pull request chooses.

use cel::common::ast::operators;
use cel::common::ast::{EntryExpr, Expr, IdedExpr};

use super::kind::kind;
use crate::template::expression::field::{FREE_FIELDS, Kind, SAFE_FIELDS};
use crate::template::expression::name::Name;

/// Whether a chain of fields goes through one with free content.
fn is_free(node: &IdedExpr) -> bool {
    match &node.expr {
        Expr::Select(select) => FREE_FIELDS.contains(&select.field.as_str()) || is_free(&select.operand),
        _ => false,
    }
}

/// Whether the value may be an author's text. `bound` has the names of enclosing loops, and whether theirs may be.
pub(super) fn is_author_text(node: &IdedExpr, merges_only: bool, bound: &mut Vec<(String, bool)>) -> bool {
    let names: Vec<String> = bound.iter().map(|(name, _)| name.clone()).collect();
    if matches!(kind(node, &|name| names.iter().any(|bound| bound == name)), Kind::Bool | Kind::Number) {
        return false;
    }
    let mut any = |nodes: &[&IdedExpr]| nodes.iter().any(|node| is_author_text(node, merges_only, bound));
    match &node.expr {
        Expr::Ident(name) => match bound.iter().rev().find(|(bound, _)| bound == name) {
            Some((_, tainted)) => *tainted,
            None => match Name::parse(name) {
                Some(name) => name.is_author_text(merges_only),
                None => name.trim_start_matches('.') != "event",
            },
        },
        // `event.id` comes from a header that nobody signs.
        Expr::Select(select) if matches!(&select.operand.expr, Expr::Ident(name) if name == "event") => {
            select.field == "id"
        }
        Expr::Select(select) if SAFE_FIELDS.contains(&select.field.as_str()) => is_free(&select.operand),
        Expr::Select(select) => is_author_text(&select.operand, merges_only, bound),
        Expr::Call(call) => match call.func_name.as_str() {
            "slug" | "encode" => false,
            operators::CONDITIONAL => any(&call.args.iter().skip(1).collect::<Vec<_>>()),
            _ => any(&call.target.as_deref().into_iter().chain(&call.args).collect::<Vec<_>>()),
        },
        Expr::List(list) => any(&list.elements.iter().collect::<Vec<_>>()),
        Expr::Map(map) => map.entries.iter().any(|entry| match &entry.expr {
            EntryExpr::MapEntry(entry) => any(&[&entry.key, &entry.value]),
            EntryExpr::StructField(field) => any(&[&field.value]),
        }),
        Expr::Comprehension(comprehension) => {
            let range = is_author_text(&comprehension.iter_range, merges_only, bound);
            bound.push((comprehension.iter_var.clone(), range));
            bound.extend(comprehension.iter_var2.clone().map(|name| (name, range)));
            bound.push((comprehension.accu_var.clone(), false));
            let step = is_author_text(&comprehension.loop_step, merges_only, bound)
                || is_author_text(&comprehension.accu_init, merges_only, bound);
            bound.truncate(names.len());
            step
        }
        Expr::Unspecified | Expr::Literal(_) | Expr::Struct(_) => false,
    }
}
