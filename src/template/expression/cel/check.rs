//! Rejects expressions that are certain to be expensive, and names and functions that do not exist.

use cel::common::ast::{CallExpr, EntryExpr, Expr, IdedExpr, LiteralValue, operators};

use super::kind::kind;
use super::migration;
use crate::template::expression::error::Error;
use crate::template::expression::field::Kind;
use crate::template::expression::name::Name;
use crate::template::nearest::nearest;

/// Variables besides [`Name`].
const VARIABLES: &[&str] = &["body", "headers", "event"];

/// Allowed functions: CEL's standard library without times, its strings and encoders extensions, `slug` and `marshalJSON`.
#[rustfmt::skip]
const FUNCTIONS: &[&str] = &[
    "size", "contains", "startsWith", "endsWith", "matches", "string", "int", "uint", "double", "bool", "bytes",
    "type", "dyn", "charAt", "indexOf", "lastIndexOf", "join", "lowerAscii", "upperAscii", "trim", "replace",
    "split", "substring", "format", "quote", "reverse", "of", "ofNonZeroValue", "none", "hasValue", "value", "or",
    "orValue", "slug", "marshalJSON", "encode", "decode",
];

/// Maximum nesting depth of an expression; far below the depth at which the stack overflows.
const MAX_DEPTH: usize = 64;
/// Maximum number of loops (`all`, `exists`, `exists_one`, `filter`, `map`) in one expression.
const MAX_LOOPS: usize = 8;
/// Maximum nesting of loops; a loop over the result of a loop counts as nested.
const MAX_NESTED_LOOPS: usize = 2;
/// Maximum nesting of `has`, which is evaluated with its operand twice.
const MAX_NESTED_HAS: usize = 3;
/// Maximum factor by which all `replace` calls of an expression together may lengthen a text.
const MAX_GROWTH_FACTOR: usize = 64;
/// Namespaces of functions that are called as `namespace.function(...)`.
const NAMESPACES: &[&str] = &["strings", "optional", "base64"];
/// Fields of `event`.
const EVENT_FIELDS: &[&str] = &["type", "action", "id", "source"];

/// Checks an expression.
/// Fails when it uses an unknown name or function, or exceeds a limit.
pub(super) fn check(expression: &IdedExpr) -> Result<(), Error> {
    CostLimits::default().visit(expression, &mut Scope::default(), 0)
}

/// What an expression is inside of.
#[derive(Default)]
struct Scope {
    /// Names bound by the enclosing loops.
    bound: Vec<String>,
    /// Number of enclosing `has`.
    has: usize,
}

impl Scope {
    fn binds(&self, name: &str) -> bool {
        self.bound.iter().any(|bound| bound == name)
    }
}

/// Checks an expression against the limits, and counts its loops and the growth by `replace`.
struct CostLimits {
    loops: usize,
    growth: usize,
}

impl Default for CostLimits {
    fn default() -> Self {
        Self { loops: 0, growth: 1 }
    }
}

impl CostLimits {
    /// Walks an expression; `depth` is 1000 per enclosing loop plus 1 per enclosing expression.
    fn visit(&mut self, node: &IdedExpr, scope: &mut Scope, depth: usize) -> Result<(), Error> {
        const LOOP: usize = 1000;
        if depth % LOOP > MAX_DEPTH {
            return Err(Error::TooCostly("it is nested too deeply; split it over several values"));
        }
        let inner = depth + 1;
        match &node.expr {
            Expr::Unspecified | Expr::Literal(_) => Ok(()),
            Expr::Ident(name) => check_name(name, scope),
            Expr::Select(select) => {
                check_field(&select.operand, &select.field, scope)?;
                scope.has += usize::from(select.test);
                if scope.has > MAX_NESTED_HAS {
                    return Err(Error::TooCostly("`has` is nested too deeply; split it over several conditions"));
                }
                self.visit(&select.operand, scope, inner)?;
                scope.has -= usize::from(select.test);
                Ok(())
            }
            Expr::Call(call) => {
                self.function(&call.func_name, &call.args)?;
                check_operands(call, scope)?;
                if let Some(target) = &call.target
                    && !is_namespace(target)
                {
                    self.visit(target, scope, inner)?;
                }
                call.args.iter().try_for_each(|argument| self.visit(argument, scope, inner))
            }
            Expr::List(list) => list.elements.iter().try_for_each(|element| self.visit(element, scope, inner)),
            Expr::Map(map) => map.entries.iter().try_for_each(|entry| self.entry(&entry.expr, scope, inner)),
            Expr::Struct(_) => Err(Error::Syntax("messages are not supported; write a map".into())),
            Expr::Comprehension(comprehension) => {
                self.loops += 1;
                if self.loops > MAX_LOOPS || depth / LOOP >= MAX_NESTED_LOOPS {
                    return Err(Error::TooCostly("too many loops; use at most eight, nested at most two deep"));
                }
                let inner = inner + LOOP;
                self.visit(&comprehension.iter_range, scope, inner)?;
                let outer = scope.bound.len();
                scope.bound.extend([comprehension.iter_var.clone(), comprehension.accu_var.clone()]);
                scope.bound.extend(comprehension.iter_var2.clone());
                let parts = [
                    &comprehension.accu_init,
                    &comprehension.loop_cond,
                    &comprehension.loop_step,
                    &comprehension.result,
                ];
                parts.into_iter().try_for_each(|part| self.visit(part, scope, inner))?;
                scope.bound.truncate(outer);
                Ok(())
            }
        }
    }

    fn entry(&mut self, entry: &EntryExpr, scope: &mut Scope, depth: usize) -> Result<(), Error> {
        match entry {
            EntryExpr::StructField(field) => self.visit(&field.value, scope, depth),
            EntryExpr::MapEntry(entry) => {
                self.visit(&entry.key, scope, depth)?;
                self.visit(&entry.value, scope, depth)
            }
        }
    }

    fn function(&mut self, name: &str, arguments: &[IdedExpr]) -> Result<(), Error> {
        // Operators have internal function names such as `_+_`.
        let is_written = name.chars().all(|c| c.is_ascii_alphanumeric());
        if is_written && !FUNCTIONS.contains(&name) {
            let help = match (migration::function(name), nearest(name, FUNCTIONS.iter().copied())) {
                (Some(here), _) => here.to_owned(),
                (None, Some(near)) => format!("did you mean `{near}`?"),
                (None, None) => format!("known functions are {}", FUNCTIONS.join(", ")),
            };
            return Err(Error::UnknownFunction { name: name.to_owned(), help });
        }
        if name == "matches"
            && let Some(pattern) = arguments.last().and_then(literal_text)
        {
            regex::Regex::new(pattern).map_err(|error| Error::Regex(error.to_string().replace('\n', " ")))?;
        }
        if name == "replace" {
            let [old, new, ..] = arguments else { return Ok(()) };
            let (Some(old), Some(new)) = (literal_length(old), literal_length(new)) else {
                return Err(Error::TooCostly("write the arguments of `replace` as literal text"));
            };
            // Replacing the empty text inserts the new text around every character.
            self.growth = self.growth.saturating_mul(if old == 0 { new + 1 } else { new.div_ceil(old).max(1) });
            if self.growth > MAX_GROWTH_FACTOR {
                return Err(Error::TooCostly("`replace` could make the text too long; replace less"));
            }
        }
        Ok(())
    }
}

/// A literal text; `None` for any other expression.
pub(super) fn literal_text(node: &IdedExpr) -> Option<&str> {
    match &node.expr {
        Expr::Literal(LiteralValue::String(text)) => Some(text.inner()),
        _ => None,
    }
}

/// Whether it is the variable `name`, and no name of a loop.
fn is_variable(node: &IdedExpr, name: &str, scope: &Scope) -> bool {
    matches!(&node.expr, Expr::Ident(found) if found.trim_start_matches('.') == name && !scope.binds(found))
}

/// Rejects a field of `headers` or `event` that is never there.
fn check_field(operand: &IdedExpr, field: &str, scope: &Scope) -> Result<(), Error> {
    if is_variable(operand, "headers", scope) {
        let lower = field.to_ascii_lowercase();
        return match lower.as_str() {
            name if !(name.starts_with("x-github-") || name.starts_with("ce-")) => {
                Err(Error::Never(format!("headers has only x-github-* and ce-* headers, not `{field}`")))
            }
            name if name != field => Err(Error::Never(format!("headers has names in lower case; write `{name}`"))),
            _ => Ok(()),
        };
    }
    if is_variable(operand, "event", scope) && !EVENT_FIELDS.contains(&field) {
        return Err(Error::Never(format!("event has no field `{field}`; its fields are {}", EVENT_FIELDS.join(", "))));
    }
    Ok(())
}

/// Rejects comparisons and lookups that can never be true.
fn check_operands(call: &CallExpr, scope: &Scope) -> Result<(), Error> {
    let [one, other] = call.args.as_slice() else { return Ok(()) };
    match call.func_name.as_str() {
        operators::INDEX | operators::OPT_INDEX | operators::OPT_SELECT => {
            literal_text(other).map_or(Ok(()), |field| check_field(one, field, scope))
        }
        operators::IN => literal_text(one).map_or(Ok(()), |field| check_field(other, field, scope)),
        operators::EQUALS | operators::NOT_EQUALS => {
            if [one, other].into_iter().any(|operand| is_variable(operand, "event", scope)) {
                return Err(Error::Never("event is a map here; write event.type for its name".into()));
            }
            let [one, other] = [one, other].map(|operand| kind(operand, &|name| scope.binds(name)));
            if one == other || one == Kind::Any || other == Kind::Any {
                return Ok(());
            }
            let (one, other) = (one.as_str(), other.as_str());
            Err(Error::Never(format!(
                "{one} never equals {other}; write a field of it, or compare values of the same kind"
            )))
        }
        _ => Ok(()),
    }
}

/// Length of a literal text in bytes; `None` for any other expression.
pub(super) fn literal_length(node: &IdedExpr) -> Option<usize> {
    match &node.expr {
        Expr::Literal(LiteralValue::String(text)) => Some(text.inner().len()),
        _ => None,
    }
}

/// Whether it is the namespace of a function, and not a value.
pub(super) fn is_namespace(node: &IdedExpr) -> bool {
    matches!(&node.expr, Expr::Ident(name) if NAMESPACES.contains(&name.as_str()))
}

fn check_name(written: &str, scope: &Scope) -> Result<(), Error> {
    let name = written.strip_prefix('.').unwrap_or(written);
    let is_type =
        matches!(name, "int" | "uint" | "double" | "bool" | "string" | "bytes" | "list" | "map" | "null_type");
    if Name::parse(name).is_some() || VARIABLES.contains(&name) || is_type || scope.binds(written) {
        return Ok(());
    }
    let candidates = || Name::ALL.iter().map(|name| name.as_str()).chain(VARIABLES.iter().copied());
    let help = match (migration::name(name), nearest(name, candidates())) {
        (Some(here), _) => here.to_owned(),
        (None, Some(near)) => format!("did you mean `{near}`?"),
        (None, None) => format!("known names are {}", candidates().collect::<Vec<_>>().join(", ")),
    };
    Err(Error::UnknownName { name: name.to_owned(), help })
}
