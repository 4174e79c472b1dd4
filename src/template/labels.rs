//! Labels with placeholders that are invalid whatever the event.

use super::expression::{Expression, Name};
use super::placeholder::{Part, Text};
use crate::names;

/// Why no event gives a valid label; `None` if one may.
pub(super) fn fault(text: &Text) -> Option<String> {
    match text.parts.as_slice() {
        [] => return None,
        [Part::Literal(literal)] => return names::value_fault(literal),
        _ => {}
    }
    let is_url = |part: &Part| matches!(part, Part::Expression(Expression::Name(Name::RepoUrl)));
    if text.parts.iter().any(is_url) {
        return Some("a label value cannot be a URL; put it into an annotation instead".to_owned());
    }
    if let Some((_, literal)) = text.literals().find(|(_, literal)| !names::can_be_part_of_value(literal)) {
        return Some(format!("a label value cannot contain `{literal}`; put the value into an annotation instead"));
    }
    let at_edge = |part: Option<&Part>, edge: fn(&str) -> Option<char>| match part {
        Some(Part::Literal(literal)) => edge(literal).filter(|character| !character.is_ascii_alphanumeric()),
        _ => None,
    };
    let first = at_edge(text.parts.first(), |literal| literal.chars().next());
    let last = at_edge(text.parts.last(), |literal| literal.chars().next_back());
    if let Some(character) = first.or(last) {
        return Some(format!("a label value begins and ends with a letter or digit, not with `{character}`"));
    }
    let length: usize = text.literals().map(|(_, literal)| literal.len()).sum();
    (length > names::MAX_LABEL_LENGTH)
        .then(|| format!("a label value has at most {} characters", names::MAX_LABEL_LENGTH))
}
