//! Splits strings into `{{ expression }}` placeholders and the literal text around them.

use super::expression::{self, Expression};

/// A string scalar of a template: a sequence of literal texts and expressions.
#[derive(Debug, Clone)]
pub(crate) struct Text {
    /// In the order of the text; two literals are never adjacent.
    pub(crate) parts: Vec<Part>,
}

/// A piece of a [`Text`].
#[derive(Debug, Clone)]
pub(crate) enum Part {
    /// Text that is kept unchanged.
    Literal(String),
    /// Expression that is replaced by its value.
    Expression(Expression),
}

/// Why a text with placeholders does not compile.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TextError {
    /// A placeholder has no closing braces.
    #[error("a placeholder `{{{{` has no closing `}}}}`; close it in the same value")]
    Unclosed,
    /// The expression in a placeholder does not compile.
    #[error(transparent)]
    Expression(#[from] expression::Error),
}

impl Text {
    /// The expression, if the text is one placeholder and nothing else.
    pub(crate) fn whole(&self) -> Option<&Expression> {
        match self.parts.as_slice() {
            [Part::Expression(expression)] => Some(expression),
            _ => None,
        }
    }

    /// The literal parts, each with its index among all parts.
    pub(crate) fn literals(&self) -> impl Iterator<Item = (usize, &str)> {
        self.parts.iter().enumerate().filter_map(|(index, part)| match part {
            Part::Literal(literal) => Some((index, literal.as_str())),
            Part::Expression(_) => None,
        })
    }

    /// Whether an expression needs the CEL interpreter.
    pub(crate) fn needs_cel(&self) -> bool {
        self.parts.iter().any(|part| matches!(part, Part::Expression(expression) if expression.needs_cel()))
    }

    /// Splits `source` at its placeholders and compiles their expressions.
    /// Errors: one for each placeholder that is not closed or does not compile, with its offset in bytes.
    pub(crate) fn compile(source: &str) -> Result<Self, Vec<(usize, TextError)>> {
        let mut parts = Vec::new();
        let mut faults = Vec::new();
        let mut rest = source;
        while let Some(begin) = rest.find("{{") {
            if begin > 0 {
                parts.push(Part::Literal(rest[..begin].to_owned()));
            }
            let at = source.len() - rest.len() + begin;
            let Some(length) = length(&rest[begin..]) else {
                faults.push((at, TextError::Unclosed));
                rest = "";
                break;
            };
            match Expression::compile(&rest[begin + 2..begin + length - 2]) {
                Ok(expression) => parts.push(Part::Expression(expression)),
                Err(error) => faults.push((at, error.into())),
            }
            rest = &rest[begin + length..];
        }
        if !rest.is_empty() {
            parts.push(Part::Literal(rest.to_owned()));
        }
        if faults.is_empty() { Ok(Self { parts }) } else { Err(faults) }
    }
}

/// Tekton's variables in a text: the offset of each in bytes, the whole `$(...)`, and what stands between the parentheses.
/// Of variables in each other, the innermost.
pub(crate) fn tekton_variables(text: &str) -> impl Iterator<Item = (usize, &str, &str)> {
    let mut begins = text.match_indices("$(").map(|(at, _)| at).peekable();
    std::iter::from_fn(move || {
        let at = begins.next()?;
        let written = text.get(at..begins.peek().copied().unwrap_or(text.len()))?;
        Some(written.find(')').map(|end| (at, &written[..=end], &written[2..end])))
    })
    .flatten()
}

/// Whether `text` contains a placeholder, closed or not.
pub(crate) fn present(text: &str) -> bool {
    text.contains("{{")
}

/// Length in bytes, with braces, of the placeholder at the beginning of `text`; `None` without a closed placeholder.
///
/// A `}}` inside a quoted string of the expression does not close it.
pub(crate) fn length(text: &str) -> Option<usize> {
    let inner = text.strip_prefix("{{")?;
    let mut quote = None;
    let mut characters = inner.char_indices();
    while let Some((index, character)) = characters.next() {
        match (quote, character) {
            (Some(_), '\\') => {
                characters.next();
            }
            (Some(open), close) if open == close => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(character),
            (None, '}') if inner[index..].starts_with("}}") => return Some(2 + index + 2),
            (None, _) => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::length;

    #[test]
    fn length_ends_at_the_first_closing_braces() {
        assert_eq!(length("{{.Branch}}-{{.X}}"), Some(11));
        assert_eq!(length("{{}}"), Some(4));
    }

    #[test]
    fn length_skips_braces_inside_quotes() {
        assert_eq!(length(r#"{{ "}}" }}x"#), Some(10));
        assert_eq!(length(r#"{{ "\"}}" }}"#), Some(12));
        assert_eq!(length("{{ '}}' }}"), Some(10));
    }

    #[test]
    fn length_is_none_without_closed_placeholder() {
        assert_eq!(length("{{ a }"), None);
        assert_eq!(length("{{ 'a }}"), None);
        assert_eq!(length("a"), None);
    }
}
