//! Interprets unquoted scalars. YAML parsers differ, and more than one parser reads a template.

use serde_json::Number;

use super::node::Value;

/// An unquoted scalar that YAML parsers, or people, interpret differently.
#[derive(Debug, thiserror::Error)]
#[error("`{text}` {problem}; write \"{text}\" if it is text")]
pub(super) struct Ambiguous {
    text: String,
    problem: String,
}

/// Returns the value of an unquoted scalar.
///
/// # Errors
/// When YAML parsers, or people, interpret it differently.
pub(super) fn plain(text: &str) -> Result<Value, Ambiguous> {
    match text {
        "" | "~" | "null" => return Ok(Value::Null),
        "true" => return Ok(Value::Bool(true)),
        "false" => return Ok(Value::Bool(false)),
        _ => {}
    }
    let ambiguous = |problem: &str| Err(Ambiguous { text: text.to_owned(), problem: problem.to_owned() });
    let lower = text.to_ascii_lowercase();
    match lower.as_str() {
        "null" | "true" | "false" => return ambiguous("is interpreted differently by different tools"),
        "yes" | "no" | "on" | "off" | "y" | "n" => {
            return ambiguous("is a boolean for some YAML parsers and text for others");
        }
        ".inf" | "+.inf" | "-.inf" | ".nan" => {
            return ambiguous("is a number that JSON cannot represent");
        }
        _ => {}
    }
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let numeric = digits.starts_with(|c: char| c.is_ascii_digit())
        || (digits.starts_with('.') && digits[1..].starts_with(|c: char| c.is_ascii_digit()));
    if !numeric {
        return Ok(Value::Text(text.to_owned()));
    }
    if let Ok(integer) = text.parse::<i64>()
        && integer.to_string() == text
    {
        return Ok(Value::Number(integer.into()));
    }
    let leading_zero = digits.len() > 1 && digits.bytes().all(|b| b.is_ascii_digit()) && digits.starts_with('0');
    if leading_zero {
        return ambiguous("would lose its leading zero, or be read as octal");
    }
    if let Ok(float) = text.parse::<f64>() {
        return match Number::from_f64(float) {
            Some(number) if number.to_string() == text && float.fract() != 0.0 => Ok(Value::Number(number)),
            // Go writes 1.0 as 1.
            Some(_) if float.fract() == 0.0 => ambiguous(&format!("would become the number {float}")),
            Some(number) => ambiguous(&format!("would become the number {number}")),
            None => ambiguous("is a number that JSON cannot represent"),
        };
    }
    let other_notation = ["0x", "0o", "0b"].iter().any(|prefix| {
        let body = digits.to_ascii_lowercase();
        body.strip_prefix(prefix).is_some_and(|rest| !rest.is_empty() && rest.chars().all(|c| c.is_ascii_hexdigit()))
    });
    // YAML 1.1: a number to the base of 60, such as a time or a port mapping.
    let sixty = |part: &str| matches!(part.len(), 1 | 2) && part.parse::<u8>().is_ok_and(|part| part < 60);
    let sexagesimal = digits.split_once(':').is_some_and(|(first, rest)| {
        let (rest, fraction) = rest.split_once('.').unwrap_or((rest, ""));
        let is_number = |text: &str| text.bytes().all(|b| b.is_ascii_digit() || b == b'_');
        is_number(first) && is_number(fraction) && rest.split(':').all(sixty)
    });
    let grouped = digits.contains('_') && digits.chars().all(|c| c.is_ascii_digit() || matches!(c, '_' | '.'));
    if other_notation || grouped || sexagesimal {
        return ambiguous("is a number for some YAML parsers and text for others");
    }
    Ok(Value::Text(text.to_owned()))
}
