//! Unquoted `{{ ... }}`, which is not valid YAML: while YAML is parsed, a character that templates must not contain
//! replaces it.

use std::borrow::Cow;

use super::node::{Fault, Position};
use crate::template::placeholder;

/// First of the characters that replace an unquoted placeholder while YAML is parsed.
const STAND_IN: u32 = 0xF_0000;
/// Pads a stand-in to the length of its placeholder, so that columns stay correct.
const FILLER: char = '\u{F_FFFD}';

/// Message for a template that contains one of these characters.
pub(super) const PRIVATE_USE_MESSAGE: &str =
    "a private-use character (U+F0000 and up) is not allowed in a template; remove it";

pub(super) fn is_stand_in(character: char) -> bool {
    (STAND_IN..=u32::from(FILLER)).contains(&u32::from(character))
}

pub(super) fn forbidden_characters(source: &str) -> Option<Fault> {
    for (index, line) in source.lines().enumerate() {
        if let Some(column) = line.chars().position(is_stand_in) {
            let at = Position { line: index + 1, column: column + 1 };
            return Some(Fault { at, message: PRIVATE_USE_MESSAGE.into() });
        }
    }
    None
}

/// Replaces each placeholder of a value that begins, unquoted, with `{{` by a stand-in of the same length.
///
/// Works by line and does not know whether a line belongs to a block scalar: a placeholder there is put back unchanged,
/// because a block scalar has no escapes.
pub(super) fn protect_unquoted(source: &str) -> (Cow<'_, str>, Vec<String>) {
    if !source.contains("{{") {
        return (Cow::Borrowed(source), Vec::new());
    }
    let mut placeholders = Vec::new();
    let mut protected = String::with_capacity(source.len());
    for line in source.split_inclusive('\n') {
        match value_start(line).filter(|&start| line[start..].starts_with("{{")) {
            Some(start) => {
                protected.push_str(&line[..start]);
                protect_line(&line[start..], &mut protected, &mut placeholders);
            }
            None => protected.push_str(line),
        }
    }
    (Cow::Owned(protected), placeholders)
}

fn protect_line(mut rest: &str, protected: &mut String, placeholders: &mut Vec<String>) {
    while let Some(begin) = rest.find("{{") {
        let Some(length) = placeholder::length(&rest[begin..]) else {
            break;
        };
        let Some(stand_in) = u32::try_from(placeholders.len())
            .ok()
            .and_then(|index| char::from_u32(STAND_IN + index))
            .filter(|&character| is_stand_in(character) && character != FILLER)
        else {
            break;
        };
        let whole = &rest[begin..begin + length];
        protected.push_str(&rest[..begin]);
        protected.push(stand_in);
        protected.extend(std::iter::repeat_n(FILLER, whole.chars().count() - 1));
        placeholders.push(whole.to_owned());
        rest = &rest[begin + length..];
    }
    protected.push_str(rest);
}

/// Byte offset of a line's value: after its indentation, any `- ` and one `key: `.
fn value_start(line: &str) -> Option<usize> {
    let mut start = line.len() - line.trim_start_matches(' ').len();
    while let Some(rest) = line[start..].strip_prefix("- ") {
        start = line.len() - rest.trim_start_matches(' ').len();
    }
    let rest = &line[start..];
    if rest.starts_with("{{") {
        return Some(start);
    }
    let key_length = match rest.chars().next()? {
        quote @ ('"' | '\'') => rest[1..].find(quote)? + 2,
        first if is_key_character(first) => rest.find(|c| !is_key_character(c))?,
        _ => return None,
    };
    let value = rest[key_length..].trim_start_matches(' ').strip_prefix(':')?;
    let trimmed = value.trim_start_matches(' ');
    (trimmed.len() < value.len()).then(|| line.len() - trimmed.len())
}

fn is_key_character(character: char) -> bool {
    character.is_alphanumeric() || matches!(character, '_' | '-' | '.' | '/')
}

/// Puts back the placeholders that [`protect_unquoted`] replaced.
pub(super) fn restore(placeholders: &[String], text: &str) -> String {
    if !text.chars().any(is_stand_in) {
        return text.to_owned();
    }
    let mut restored = String::with_capacity(text.len());
    for character in text.chars() {
        if character == FILLER {
            continue;
        }
        match (u32::from(character).checked_sub(STAND_IN)).and_then(|index| placeholders.get(index as usize)) {
            Some(placeholder) if is_stand_in(character) => restored.push_str(placeholder),
            _ => restored.push(character),
        }
    }
    restored
}
