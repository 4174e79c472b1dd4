//! CEL with limits on time, memory and stack.
//!
//! The `cel` crate has no such limits. Expressions that are certain to be expensive are rejected when they are compiled
//! ([`check`]); all others are metered while they are evaluated ([`meter`]). Callers evaluate them outside the serving
//! threads ([`Expression::needs_cel`](super::Expression::needs_cel)).

mod absent;
mod author;
mod check;
mod instrument;
mod kind;
mod meter;
mod migration;
mod needed;
mod order;
mod values;

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};
use std::thread;

use cel::common::ast::IdedExpr;
use cel::extractors::This;
use cel::{Context, Env, ExecutionError, Value};
use serde_json::Value as Json;

use super::error::{Error, EvaluationError};
use super::field::{Kind, Place};
use super::name::Name;
use crate::github::Event;
use meter::{Function, Meter};
use values::Variables;

/// Stack of the parser in bytes; the longest expression needs less than a quarter of it, even unoptimised.
const PARSER_STACK_BYTES: usize = 32 << 20;
/// Longest payload, in bytes, of which expressions are evaluated. GitHub's largest usual ones, pushes of 2,048 commits, have
/// some 2 MiB.
const MAX_PAYLOAD: usize = 8 << 20;
/// Most memory that the values of a payload may take. Together with [`GROWTH`] for three evaluations at the same time, it
/// is what the default of `--max-buffered-bytes` leaves to large bodies.
const MAX_PAYLOAD_MEMORY: u64 = 24 << 20;
/// Memory, in bytes, that an expression may take besides the payload's values.
const GROWTH: u64 = 8 << 20;

/// A compiled and checked CEL expression.
#[derive(Clone)]
pub(crate) struct Program {
    source: Arc<str>,
    /// With the meter's calls.
    expression: Arc<IdedExpr>,
    /// Names of variables and paths that the expression may ask for.
    names: Arc<BTreeSet<String>>,
    /// Predefined names that are read for every event.
    needed: Vec<Name>,
    /// Kind of its value.
    pub(super) kind: Kind,
    /// The places where its value may be an author's text that does harm.
    harmful_in: Vec<Place>,
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
        let added =
            env.add_extension(cel::extensions::strings).and_then(|()| env.add_extension(cel::extensions::encoders));
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
        check::check(program.expression())?;
        let mut expression = program.expression().clone();
        let kind = kind::kind(&expression, &|_| false);
        let harmful_in =
            Place::ALL.into_iter().filter(|place| author::is_author_text(&expression, *place, &[])).collect();
        let needed = needed::names(&expression);
        absent::rewrite(&mut expression);
        let mut names = BTreeSet::new();
        instrument::instrument(&mut expression, &mut names);
        let (expression, names) = (Arc::new(expression), Arc::new(names));
        Ok(Self { source: source.into(), expression, names, needed, kind, harmful_in })
    }

    /// The predefined names without whose values it has none.
    pub(super) fn needed_names(&self) -> Vec<Name> {
        self.needed.clone()
    }

    /// Whether its value may be text that an author chooses, and that does harm in a place.
    pub(super) fn is_author_text(&self, place: Place) -> bool {
        self.harmful_in.contains(&place)
    }

    /// The expression as written.
    pub(super) fn source(&self) -> &str {
        &self.source
    }

    /// Evaluates the expression for `event` and returns its value as JSON.
    /// Fails when there is no value, the payload is too large, or the evaluation takes too much memory or time.
    pub(super) fn evaluate(&self, event: &Event) -> Result<Json, EvaluationError> {
        let limit = memory(event).ok_or(EvaluationError::LargePayload(event.payload.len()))?;
        let meter = Arc::new(Meter::new(limit, event.deadline));
        let value = self.run(event, &meter);
        // Some operators go on after an error of one operand.
        if meter.is_exhausted() { Err(EvaluationError::TooCostly) } else { value }
    }

    fn run(&self, event: &Event, meter: &Arc<Meter>) -> Result<Json, EvaluationError> {
        let variables = Variables::new(event, &self.names, meter);
        let mut context = Context::with_env(environment());
        context.set_variable_resolver(&variables);
        context
            .add_function("slug", |This(text): This<Arc<String>>| super::slug::slug(&text))
            .and_then(|()| context.add_function(meter::FUNCTION, Arc::clone(meter).into_function()))
            .and_then(|()| context.add_function(order::FUNCTION, Box::new(order::ordered) as Function))
            .and_then(|()| context.add_function(absent::PRESENT, Box::new(absent::present) as Function))
            .and_then(|()| context.add_function(absent::TEXT, Box::new(absent::text) as Function))
            .and_then(|()| context.add_function("marshalJSON", Box::new(absent::marshal_json) as Function))
            .map_err(|error| EvaluationError::Cel(error.to_string()))?;
        let value = Value::resolve_val(&self.expression, &context).map_err(|error| self.explain(error))?;
        values::to_json(&*value).ok_or(EvaluationError::Kind("of a type that JSON does not have; convert it"))
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
            let may_be_null = [left, right].iter().any(|value| matches!(value, Value::Null));
            let advice = if may_be_null { "; read a field that may be null as a.?b.orValue(\"\")" } else { "" };
            format!("the operator `{operator}` does not take {} and {}{advice}", kind(left), kind(right))
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

/// Memory in bytes that one evaluation for `event` may take; `None` if its payload is too large for expressions.
pub(crate) fn memory(event: &Event) -> Option<u64> {
    if event.payload.len() > MAX_PAYLOAD {
        return None;
    }
    Some(event.value_memory()).filter(|&memory| memory <= MAX_PAYLOAD_MEMORY).map(|memory| memory + GROWTH)
}
