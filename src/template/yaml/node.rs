//! A YAML document as a tree of values with positions.

use granit_parser::Marker;
use serde_json::Number;

/// A position in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Position {
    /// Line number, from 1.
    pub(crate) line: usize,
    /// Column in characters, from 1.
    pub(crate) column: usize,
}

impl From<Marker> for Position {
    fn from(marker: Marker) -> Self {
        Self { line: marker.line().max(1), column: marker.col() + 1 }
    }
}

/// A fault at a position; the caller knows the file's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Position of the fault.
    pub(crate) at: Position,
    /// The problem and its fix.
    pub(crate) message: String,
}

/// A value and its position.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    /// Position of its first character.
    pub(crate) at: Position,
    /// Value with aliases resolved.
    pub(crate) value: Value,
    /// Indentation of a block scalar's lines (`|`) in characters, which are then as they are in the file; `None` for any
    /// other value.
    pub(crate) indentation: Option<usize>,
}

/// A YAML value of a JSON type.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    /// `null`, `~` or an empty value.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number in JSON notation.
    Number(Number),
    /// Any other scalar.
    Text(String),
    /// A list.
    Sequence(Vec<Node>),
    /// A map in file order; keys are unique.
    Mapping(Vec<(Key, Node)>),
}

/// A mapping key and its position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Key {
    /// Position of its first character.
    pub(crate) at: Position,
    /// Text of the key, without quotes.
    pub(crate) name: String,
}

impl Node {
    /// The position in the file of the byte `offset` of the text: its own line in a block scalar, else the begin of the value.
    pub(crate) fn position_in(&self, offset: usize) -> Position {
        let (Some(indentation), Some(before)) = (self.indentation, self.text().and_then(|text| text.get(..offset)))
        else {
            return self.at;
        };
        let line = before.matches('\n').count();
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count();
        Position { line: self.at.line + line, column: indentation + column + 1 }
    }

    /// The value of `key`; `None` if this is not a mapping or lacks the key.
    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|(_, node)| node)
    }

    /// The entry of `key`; `None` if this is not a mapping or lacks the key.
    pub(crate) fn entry(&self, key: &str) -> Option<&(Key, Node)> {
        self.entries().iter().find(|(candidate, _)| candidate.name == key)
    }

    /// The entries of a mapping; empty for any other value.
    pub(crate) fn entries(&self) -> &[(Key, Node)] {
        match &self.value {
            Value::Mapping(entries) => entries,
            _ => &[],
        }
    }

    /// The items of the list at `key`; none if it is missing or no list.
    pub(crate) fn items(&self, key: &str) -> &[Node] {
        match self.get(key).map(|list| &list.value) {
            Some(Value::Sequence(items)) => items,
            _ => &[],
        }
    }

    /// The text of a text scalar; `None` for any other value.
    pub(crate) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Kind of the value for messages, for example `a list`.
    pub(crate) fn kind(&self) -> &'static str {
        match self.value {
            Value::Null => "nothing",
            Value::Bool(_) => "a boolean",
            Value::Number(_) => "a number",
            Value::Text(_) => "text",
            Value::Sequence(_) => "a list",
            Value::Mapping(_) => "a map",
        }
    }
}
