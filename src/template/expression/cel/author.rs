//! Whether an expression's value may be text that the author of a pull request chooses.

use cel::common::ast::operators;
use cel::common::ast::{EntryExpr, Expr, IdedExpr};

use super::check::literal_text;
use super::kind::kind;
use crate::template::expression::field::{FREE_FIELDS, Kind, SAFE_FIELDS};
use crate::template::expression::name::Name;

/// A name of a loop.
#[derive(Debug, Clone)]
pub(super) struct Bound {
    name: String,
    /// Whether its value may be an author's text.
    is_author_text: bool,
    /// Whether its value has free content.
    is_free: bool,
}

impl Bound {
    fn find<'b>(bound: &'b [Self], name: &str) -> Option<&'b Self> {
        bound.iter().rev().find(|bound| bound.name == name)
    }
}

/// Whether a value comes from a field with free content, in which no field's name says what it holds.
fn is_free(node: &IdedExpr, bound: &[Bound]) -> bool {
    let named = |name: &str| FREE_FIELDS.contains(&name);
    let any = |nodes: &[&IdedExpr]| nodes.iter().any(|node| is_free(node, bound));
    match &node.expr {
        Expr::Ident(name) => Bound::find(bound, name).is_some_and(|bound| bound.is_free),
        Expr::Select(select) => named(&select.field) || is_free(&select.operand, bound),
        Expr::Call(call) => {
            let mut parts: Vec<&IdedExpr> = call.target.as_deref().into_iter().chain(&call.args).collect();
            let is_key =
                matches!(call.func_name.as_str(), operators::INDEX | operators::OPT_INDEX | operators::OPT_SELECT);
            let key = parts.last().and_then(|key| literal_text(key)).filter(|_| is_key);
            if call.func_name == operators::CONDITIONAL {
                parts.remove(0);
            }
            key.is_some_and(named) || any(&parts)
        }
        Expr::List(list) => any(&list.elements.iter().collect::<Vec<_>>()),
        Expr::Map(map) => map.entries.iter().any(|entry| match &entry.expr {
            EntryExpr::MapEntry(entry) => is_free(&entry.value, bound),
            EntryExpr::StructField(field) => is_free(&field.value, bound),
        }),
        Expr::Comprehension(comprehension) => {
            any(&[&comprehension.iter_range, &comprehension.accu_init, &comprehension.loop_step])
        }
        Expr::Unspecified | Expr::Literal(_) | Expr::Struct(_) => false,
    }
}

/// Whether the value may be an author's text. `bound` has the names of enclosing loops.
pub(super) fn is_author_text(node: &IdedExpr, merges_only: bool, bound: &mut Vec<Bound>) -> bool {
    let outer = bound.len();
    if matches!(kind(node, &|name| Bound::find(bound, name).is_some()), Kind::Bool | Kind::Number) {
        return false;
    }
    let mut any = |nodes: &[&IdedExpr]| nodes.iter().any(|node| is_author_text(node, merges_only, bound));
    match &node.expr {
        Expr::Ident(name) => match Bound::find(bound, name) {
            Some(bound) => bound.is_author_text,
            None => match Name::parse(name) {
                Some(name) => name.is_author_text(merges_only),
                None => name.trim_start_matches('.') != "event",
            },
        },
        // `event.id` comes from a header that nobody signs.
        Expr::Select(select) if matches!(&select.operand.expr, Expr::Ident(name) if name == "event") => {
            select.field == "id"
        }
        Expr::Select(select) if SAFE_FIELDS.contains(&select.field.as_str()) => is_free(&select.operand, bound),
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
            let is_author_text_in_range = is_author_text(&comprehension.iter_range, merges_only, bound);
            let is_free = is_free(&comprehension.iter_range, bound);
            let item = |name: &String| Bound { name: name.clone(), is_author_text: is_author_text_in_range, is_free };
            bound.push(item(&comprehension.iter_var));
            bound.extend(comprehension.iter_var2.as_ref().map(item));
            bound.push(Bound { name: comprehension.accu_var.clone(), is_author_text: false, is_free: false });
            let step = is_author_text(&comprehension.loop_step, merges_only, bound)
                || is_author_text(&comprehension.accu_init, merges_only, bound);
            bound.truncate(outer);
            step
        }
        Expr::Unspecified | Expr::Literal(_) | Expr::Struct(_) => false,
    }
}
