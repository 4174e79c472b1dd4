//! Whether an expression's value may be text that an author chooses, and that does harm in a place.

use cel::common::ast::operators;
use cel::common::ast::{EntryExpr, Expr, IdedExpr};

use super::check::{is_namespace, literal_text};
use super::kind::kind;
use crate::template::expression::field::{FREE_FIELDS, Kind, Place, is_author_path, is_safe_field};
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

/// The value that a field is selected of, and the field, in each notation; `None` for any other expression.
fn selection(node: &IdedExpr) -> Option<(&IdedExpr, &str)> {
    match &node.expr {
        Expr::Select(select) => Some((&select.operand, &select.field)),
        Expr::Call(call) => match (call.func_name.as_str(), call.args.as_slice()) {
            (operators::INDEX | operators::OPT_INDEX | operators::OPT_SELECT, [operand, key]) => {
                Some((operand, literal_text(key)?))
            }
            _ => None,
        },
        _ => None,
    }
}

/// The variable that a chain of fields begins with, and the fields; `None` if it begins with anything else.
fn path<'n>(node: &'n IdedExpr, bound: &[Bound]) -> Option<(&'n str, Vec<&'n str>)> {
    if let Some((operand, field)) = selection(node) {
        let (name, mut fields) = path(operand, bound)?;
        fields.push(field);
        return Some((name, fields));
    }
    match &node.expr {
        Expr::Ident(name) if Bound::find(bound, name).is_none() => Some((name.trim_start_matches('.'), Vec::new())),
        _ => None,
    }
}

/// Whether a value comes from a field with free content, in which no field's name says what it holds, or from a map that the
/// expression makes of an author's text.
fn is_free(node: &IdedExpr, place: Place, bound: &[Bound]) -> bool {
    let any = |nodes: &[&IdedExpr]| nodes.iter().any(|node| is_free(node, place, bound));
    if let Some((operand, field)) = selection(node) {
        return FREE_FIELDS.contains(&field) || is_free(operand, place, bound);
    }
    match &node.expr {
        Expr::Ident(name) => Bound::find(bound, name).is_some_and(|bound| bound.is_free),
        Expr::Call(call) => any(&parts(call.func_name.as_str(), call.target.as_deref(), &call.args)),
        Expr::List(list) => any(&list.elements.iter().collect::<Vec<_>>()),
        Expr::Map(map) => map.entries.iter().any(|entry| is_author_text(value(&entry.expr), place, bound)),
        Expr::Comprehension(comprehension) => {
            any(&[&comprehension.iter_range, &comprehension.accu_init, &comprehension.loop_step])
        }
        Expr::Select(_) | Expr::Unspecified | Expr::Literal(_) | Expr::Struct(_) => false,
    }
}

/// What the value of a call may hold: of a condition, not what decides.
fn parts<'n>(function: &str, target: Option<&'n IdedExpr>, arguments: &'n [IdedExpr]) -> Vec<&'n IdedExpr> {
    let decisive = usize::from(function == operators::CONDITIONAL);
    let target = target.filter(|target| !is_namespace(target));
    target.into_iter().chain(arguments.iter().skip(decisive)).collect()
}

fn value(entry: &EntryExpr) -> &IdedExpr {
    match entry {
        EntryExpr::MapEntry(entry) => &entry.value,
        EntryExpr::StructField(field) => &field.value,
    }
}

/// Whether the value may be an author's text that does harm in a place. `bound` has the names of enclosing loops.
pub(super) fn is_author_text(node: &IdedExpr, place: Place, bound: &[Bound]) -> bool {
    if matches!(kind(node, &|name| Bound::find(bound, name).is_some()), Kind::Bool | Kind::Number) {
        return false;
    }
    let any = |nodes: &[&IdedExpr]| nodes.iter().any(|node| is_author_text(node, place, bound));
    if let Some((operand, field)) = selection(node) {
        return match path(node, bound) {
            Some(("body", fields)) => is_author_path(&fields, place),
            // Only hashes of commits matter there.
            _ if place == Place::Reference => !is_safe_field(field, place),
            // `event.id` comes from a header that nobody signs.
            Some(("event", fields)) => fields == ["id"] || (fields == ["action"] && is_author_path(&fields, place)),
            _ if is_safe_field(field, place) => is_free(operand, place, bound),
            _ => is_author_text(operand, place, bound),
        };
    }
    match &node.expr {
        Expr::Ident(name) => match Bound::find(bound, name) {
            Some(bound) => bound.is_author_text,
            None => Name::parse(name).map_or(place != Place::Reference, |name| name.is_author_text(place)),
        },
        // What is chosen by a harmless text is chosen all the same.
        Expr::Call(call) if matches!(call.func_name.as_str(), "slug" | "encode") && matches!(place, Place::Code(_)) => {
            false
        }
        Expr::Call(call) => any(&parts(call.func_name.as_str(), call.target.as_deref(), &call.args)),
        Expr::List(list) => any(&list.elements.iter().collect::<Vec<_>>()),
        Expr::Map(map) => map.entries.iter().any(|entry| match &entry.expr {
            EntryExpr::MapEntry(entry) => any(&[&entry.key, &entry.value]),
            EntryExpr::StructField(_) => any(&[value(&entry.expr)]),
        }),
        Expr::Comprehension(comprehension) => {
            let item = |name: &String| Bound {
                name: name.clone(),
                is_author_text: is_author_text(&comprehension.iter_range, place, bound),
                is_free: is_free(&comprehension.iter_range, place, bound),
            };
            let accumulator = Bound { name: comprehension.accu_var.clone(), is_author_text: false, is_free: false };
            let mut inner = bound.to_vec();
            inner.push(item(&comprehension.iter_var));
            inner.extend(comprehension.iter_var2.as_ref().map(item));
            inner.push(accumulator);
            [&comprehension.loop_step, &comprehension.accu_init].iter().any(|part| is_author_text(part, place, &inner))
        }
        Expr::Select(_) | Expr::Unspecified | Expr::Literal(_) | Expr::Struct(_) => false,
    }
}
