//! CEL with limits on time, memory and stack.
//!
//! The `cel` crate has no such limits, so that expensive expressions are rejected at compile time (see [`CostLimits`]).
//! The others run in time linear in the payload, or quadratic with a nested loop. Callers evaluate them outside the
//! serving threads ([`Expression::needs_cel`](super::Expression::needs_cel)).

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::thread;

use cel::common::ast::{EntryExpr, Expr, IdedExpr, LiteralValue};
use cel::common::value::{CowVal, Val};
use cel::context::VariableResolver;
use cel::extractors::This;
use cel::{Context, Env, ExecutionError, Value};
use serde_json::Value as Json;

use super::path::Path;
use super::{Error, EvaluationError, Name};
use crate::github::Event;
use crate::template::nearest::nearest;

/// Maximum nesting depth of an expression; far below the depth at which the stack overflows.
const MAX_DEPTH: usize = 64;
/// Maximum number of loops (`all`, `exists`, `exists_one`, `filter`, `map`) in one expression.
const MAX_LOOPS: usize = 8;
/// Maximum nesting of loops; a loop over the result of a loop counts as nested.
const MAX_NESTED_LOOPS: usize = 2;
/// Maximum factor by which all `replace` calls of an expression together may lengthen a text.
const MAX_GROWTH_FACTOR: usize = 64;

/// Stack of the parser in bytes; the longest expression needs less than a quarter of it, even unoptimised.
const PARSER_STACK_BYTES: usize = 32 << 20;
/// Variables besides [`Name`].
const VARIABLES: &[&str] = &["body", "headers", "event"];

/// Allowed functions: CEL's standard library, its strings extension, and `slug`.
#[rustfmt::skip]
const FUNCTIONS: &[&str] = &[
    "size", "contains", "startsWith", "endsWith", "matches", "string", "int", "uint", "double", "bool", "bytes",
    "type", "dyn", "charAt", "indexOf", "lastIndexOf", "join", "lowerAscii", "upperAscii", "trim", "replace",
    "split", "substring", "format", "quote", "reverse", "of", "ofNonZeroValue", "none", "hasValue", "value", "or",
    "orValue", "slug",
];

/// Namespaces of functions that are called as `namespace.function(...)`.
const NAMESPACES: &[&str] = &["strings", "optional"];

/// A compiled and checked CEL expression.
#[derive(Clone)]
pub(crate) struct Program {
    source: Arc<str>,
    program: Arc<cel::Program>,
}

impl std::fmt::Debug for Program {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Program").field(&self.source).finish()
    }
}

/// The environment shared by all expressions; built when the first one is compiled.
fn environment() -> Arc<Env> {
    static ENVIRONMENT: OnceLock<Arc<Env>> = OnceLock::new();
    let build = || {
        let mut env = Env::stdlib();
        // Fails only if an overload is declared twice; a test would catch that.
        let added = env.add_extension(cel::extensions::strings);
        debug_assert!(added.is_ok(), "{added:?}");
        Arc::new(env)
    };
    Arc::clone(ENVIRONMENT.get_or_init(build))
}

impl Program {
    /// Parses `source` (at most [`super::MAX_LENGTH`] characters) and rejects expensive expressions, on a thread of its own:
    /// the depth of the CEL parser grows with the length of the text.
    pub(super) fn compile(source: &str) -> Result<Self, Error> {
        let failed = |why: &str| Error::Syntax(format!("the CEL parser failed ({why}); please report it"));
        thread::scope(|scope| {
            let parser =
                thread::Builder::new().stack_size(PARSER_STACK_BYTES).spawn_scoped(scope, || Self::parse(source));
            parser.map_err(|error| failed(&error.to_string()))?.join().map_err(|_| failed("panic"))?
        })
    }

    fn parse(source: &str) -> Result<Self, Error> {
        let program = environment().compile(source).map_err(|errors| {
            let first = errors.errors.first().map_or_else(|| errors.to_string(), |error| error.msg.clone());
            Error::Syntax(first.chars().map(|c| if c.is_control() { ' ' } else { c }).take(200).collect())
        })?;
        CostLimits::default().visit(program.expression(), &mut Scope::default(), 0)?;
        Ok(Self { source: source.into(), program: Arc::new(program) })
    }

    /// Evaluates the expression for `event` and returns its value as JSON.
    pub(super) fn evaluate(&self, event: &Event) -> Result<Json, EvaluationError> {
        let variables = Variables { event };
        let mut context = Context::with_env(environment());
        context.set_variable_resolver(&variables);
        context
            .add_function("slug", |This(text): This<Arc<String>>| super::slug::slug(&text))
            .map_err(|error| EvaluationError::Cel(error.to_string()))?;
        let value = self.program.execute(&context).map_err(|error| self.explain(error))?;
        to_json(&value).ok_or(EvaluationError::Kind("of a type that JSON does not have; convert it"))
    }

    fn explain(&self, error: ExecutionError) -> EvaluationError {
        match error {
            ExecutionError::NoSuchKey(key) if self.source.contains(&**key) => {
                EvaluationError::Missing(format!("{key}` in `{}", self.source))
            }
            ExecutionError::NoSuchKey(_) => EvaluationError::Missing(self.source.to_string()),
            ExecutionError::UndeclaredReference(name) => EvaluationError::Missing(name.to_string()),
            other => EvaluationError::Cel(error_message(&other)),
        }
    }
}

/// Formats an evaluation error with types instead of values. The crate's own messages contain payload values, which
/// must not be logged, and maps in random order.
fn error_message(error: &ExecutionError) -> String {
    let kind = |value: &Value| value.type_of().to_string();
    match error {
        ExecutionError::UnsupportedBinaryOperator(operator, left, right) => {
            format!("the operator `{operator}` does not take {} and {}", kind(left), kind(right))
        }
        ExecutionError::Overflow(operator, ..) => format!("the result of `{operator}` is out of range for a number"),
        ExecutionError::DivisionByZero(_) | ExecutionError::RemainderByZero(_) => "division by zero".to_owned(),
        ExecutionError::ValuesNotComparable(left, right) => {
            format!("{} cannot be compared with {}", kind(left), kind(right))
        }
        ExecutionError::UnsupportedIndex(index, value) => {
            format!("{} cannot be an index of {}", kind(index), kind(value))
        }
        ExecutionError::IndexOutOfBounds(_) => "a list index is out of range".to_owned(),
        ExecutionError::UnsupportedKeyType(key) => format!("{} cannot be a map key", kind(key)),
        ExecutionError::UnsupportedTargetType { target } => format!("{} is not allowed here", kind(target)),
        ExecutionError::NotSupportedAsMethod { method, target } => format!("{} has no `{method}()`", kind(target)),
        ExecutionError::FunctionError { function, .. } => format!("`{function}` does not accept these arguments"),
        // These messages contain only names of functions and types.
        ExecutionError::NoSuchOverload(_)
        | ExecutionError::InvalidArgumentCount { .. }
        | ExecutionError::MissingArgumentOrTarget => error.to_string(),
        _ => "the expression has no value for this event".to_owned(),
    }
}

/// The event's values, each built on demand.
struct Variables<'e> {
    event: &'e Event,
}

impl VariableResolver for Variables<'_> {
    /// CEL resolves the longest name first (`body.a.b` before `body.a` and `body`), so that only used values are built.
    fn resolve<'b>(&'b self, variable: &str) -> Option<CowVal<'b, 'b>> {
        let variable = variable.strip_prefix('.').unwrap_or(variable);
        let value = if let Some(name) = Name::parse(variable) {
            Value::from(&*name.value(self.event)?)
        } else if let Some(path) = Path::parse(variable) {
            from_json(path.find(&self.event.payload)?)
        } else {
            match variable {
                "headers" => self.headers(),
                "event" => self.event(),
                _ => return None,
            }
        };
        Box::<dyn Val>::try_from(value).ok().map(CowVal::Owned)
    }
}

impl Variables<'_> {
    /// The `x-github-*` and `ce-*` headers; templates must not see the signature or other headers.
    fn headers(&self) -> Value {
        let ours = |name: &str| name.starts_with("x-github-") || name.starts_with("ce-");
        let headers = self.event.headers.iter().filter(|(name, _)| ours(name));
        Value::from(headers.map(|(name, value)| (name.to_owned(), value.to_owned())).collect::<HashMap<_, _>>())
    }

    fn event(&self) -> Value {
        let event = self.event;
        let source = event.repository.as_ref().and_then(|repository| repository.url());
        let fields = [
            ("type", Some(event.kind.as_str())),
            ("action", event.action.as_deref()),
            ("id", Some(event.delivery.as_str())),
            ("source", source),
        ];
        let present = fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned())));
        Value::from(present.collect::<HashMap<_, _>>())
    }
}

fn from_json(json: Json) -> Value {
    match json {
        Json::Null => Value::Null,
        Json::Bool(value) => Value::Bool(value),
        Json::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(integer), _) => Value::Int(integer),
            (None, Some(integer)) => Value::UInt(integer),
            (None, None) => Value::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(text) => Value::from(text),
        Json::Array(items) => Value::from(items.into_iter().map(from_json).collect::<Vec<_>>()),
        Json::Object(entries) => {
            Value::from(entries.into_iter().map(|(key, value)| (key, from_json(value))).collect::<HashMap<_, _>>())
        }
    }
}

fn to_json(value: &Value) -> Option<Json> {
    Some(match value {
        Value::Null => Json::Null,
        Value::Bool(value) => (*value).into(),
        Value::Int(value) => (*value).into(),
        Value::UInt(value) => (*value).into(),
        Value::Float(value) => Json::Number(serde_json::Number::from_f64(*value)?),
        Value::String(text) => text.as_str().into(),
        Value::List(items) => items.iter().map(to_json).collect::<Option<_>>()?,
        Value::Map(map) => Json::Object(
            map.map.iter().map(|(key, value)| Some((key.to_string(), to_json(value)?))).collect::<Option<_>>()?,
        ),
        _ => return None,
    })
}

/// Names bound by the enclosing loops.
#[derive(Default)]
struct Scope(Vec<String>);

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
            Expr::Select(select) => self.visit(&select.operand, scope, inner),
            Expr::Call(call) => {
                self.function(&call.func_name, &call.args)?;
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
                let outer = scope.0.len();
                scope.0.extend([comprehension.iter_var.clone(), comprehension.accu_var.clone()]);
                scope.0.extend(comprehension.iter_var2.clone());
                let parts = [
                    &comprehension.accu_init,
                    &comprehension.loop_cond,
                    &comprehension.loop_step,
                    &comprehension.result,
                ];
                parts.into_iter().try_for_each(|part| self.visit(part, scope, inner))?;
                scope.0.truncate(outer);
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
            let help = nearest(name, FUNCTIONS.iter().copied()).map_or_else(
                || format!("known functions are {}", FUNCTIONS.join(", ")),
                |near| format!("did you mean `{near}`?"),
            );
            return Err(Error::UnknownFunction { name: name.to_owned(), help });
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

fn literal_length(node: &IdedExpr) -> Option<usize> {
    match &node.expr {
        Expr::Literal(LiteralValue::String(text)) => Some(text.inner().len()),
        _ => None,
    }
}

fn is_namespace(node: &IdedExpr) -> bool {
    matches!(&node.expr, Expr::Ident(name) if NAMESPACES.contains(&name.as_str()))
}

fn check_name(written: &str, scope: &Scope) -> Result<(), Error> {
    let name = written.strip_prefix('.').unwrap_or(written);
    let is_type =
        matches!(name, "int" | "uint" | "double" | "bool" | "string" | "bytes" | "list" | "map" | "null_type");
    if Name::parse(name).is_some()
        || VARIABLES.contains(&name)
        || is_type
        || scope.0.iter().any(|bound| bound == written)
    {
        return Ok(());
    }
    let candidates = || Name::ALL.iter().map(|name| name.as_str()).chain(VARIABLES.iter().copied());
    let help = nearest(name, candidates()).map_or_else(
        || format!("known names are {}", candidates().collect::<Vec<_>>().join(", ")),
        |near| format!("did you mean `{near}`?"),
    );
    Err(Error::UnknownName { name: name.to_owned(), help })
}
