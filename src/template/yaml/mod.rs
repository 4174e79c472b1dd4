//! Parses YAML text into a tree of values with positions.
//!
//! The tree keeps the values as written: text stays text, and a plain scalar that YAML parsers interpret differently
//! (`yes`, `0123`, `1.10`) is a finding instead of a guess. The content of `{{ }}` is never interpreted here; an
//! unquoted `key: {{.Name}}`, which YAML would parse as two nested mappings, is parsed as text.

mod node;
mod plain;
mod unquoted;

use std::collections::HashMap;

use granit_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Span, StructureStyle, Tag};

pub(crate) use node::{Fault, Key, Node, Position, Value};
use plain::plain;
use unquoted::{PRIVATE_USE_MESSAGE, forbidden_characters, is_stand_in, protect_unquoted, restore};

/// Maximum number of nodes in one file, with aliases resolved; the largest real templates have some thousands.
const MAX_NODES: usize = 100_000;
/// Maximum bytes of text in one file, with aliases resolved.
const MAX_TEXT_BYTES: usize = 4 << 20;
/// Maximum depth of nested collections; Kubernetes' own decoder stops long before its stack overflows.
const MAX_DEPTH: usize = 64;

/// Parses `source`; returns every document that is not empty, and all faults.
///
/// A syntax error ends the parsing; the documents before it are still returned, so that their own faults are found in
/// the same run.
pub(crate) fn parse(source: &str) -> (Vec<Node>, Vec<Fault>) {
    let source = source.strip_prefix('\u{FEFF}').unwrap_or(source);
    if let Some(fault) = forbidden_characters(source) {
        return (Vec::new(), vec![fault]);
    }
    let (source, placeholders) = protect_unquoted(source);
    let options = granit_parser::options! {
        disallow_directives: true,
        emit_comments: false,
        flow_nesting_limit: MAX_DEPTH,
        block_nesting_limit: MAX_DEPTH,
    };
    let mut reader = Reader {
        events: Parser::new_from_str_with_options(&source, options),
        source: &source,
        lines: source.lines().collect(),
        placeholders,
        anchors: HashMap::new(),
        faults: Vec::new(),
        nodes: 0,
        text: 0,
    };
    let mut documents = Vec::new();
    if let Err(Stop(fault)) = reader.documents(&mut documents) {
        reader.faults.push(fault);
    }
    (documents, reader.faults)
}

/// A fault that ends the parsing, because the rest of the text cannot be trusted.
struct Stop(Fault);

struct Reader<'a> {
    events: Parser<'a, granit_parser::StrInput<'a>>,
    source: &'a str,
    lines: Vec<&'a str>,
    placeholders: Vec<String>,
    anchors: HashMap<usize, Option<Node>>,
    faults: Vec<Fault>,
    nodes: usize,
    text: usize,
}

impl<'a> Reader<'a> {
    fn documents(&mut self, documents: &mut Vec<Node>) -> Result<(), Stop> {
        loop {
            match self.next()? {
                (Event::StreamEnd, _) => return Ok(()),
                (Event::DocumentStart(..), _) => {
                    let (event, span) = self.next()?;
                    let node = self.node(event, span, 0)?;
                    if node.value != Value::Null {
                        documents.push(node);
                    }
                    self.anchors.clear();
                }
                _ => {}
            }
        }
    }

    fn next(&mut self) -> Result<(Event<'a>, Span), Stop> {
        match self.events.next_event() {
            Some(Ok(next)) => Ok(next),
            Some(Err(error)) => Err(Stop(self.explain(&error))),
            None => Ok((Event::StreamEnd, Span::empty(Marker::new(0, 1, 0)))),
        }
    }

    /// Converts a scan error into a fault with a hint for the template's author.
    fn explain(&self, error: &ScanError) -> Fault {
        let at = Position::from(*error.marker());
        let line = self.lines.get(at.line - 1).copied().unwrap_or_default();
        let hint = if line.trim_start_matches(' ').starts_with('\t') {
            "; indent with spaces, YAML does not allow a tab here"
        } else if line.contains("{{") {
            "; put a value that contains {{ }} in quotes"
        } else {
            ""
        };
        Fault { at, message: format!("not valid YAML: {}{hint}", error.info()) }
    }

    fn fault(&mut self, at: impl Into<Position>, message: impl Into<String>) {
        self.faults.push(Fault { at: at.into(), message: message.into() });
    }

    fn node(&mut self, event: Event<'a>, span: Span, depth: usize) -> Result<Node, Stop> {
        let at = Position::from(span.start);
        self.nodes += 1;
        if self.nodes > MAX_NODES || depth > MAX_DEPTH {
            return Err(Stop(too_large(at)));
        }
        let mut indentation = None;
        let (anchor, value) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                if style == ScalarStyle::Literal {
                    indentation = self.indentation_of(at);
                }
                self.refuse_escaped_stand_ins(&text, span);
                (anchor, self.scalar(&text, style, tag.as_deref(), at)?)
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.collection_tag(tag.as_deref(), "seq", at);
                self.anchors.insert(anchor, None);
                (anchor, self.sequence(depth)?)
            }
            Event::MappingStart(style, anchor, tag) => {
                self.collection_tag(tag.as_deref(), "map", at);
                self.refuse_unprotected_placeholder(style, span);
                self.anchors.insert(anchor, None);
                (anchor, self.mapping(depth)?)
            }
            Event::Alias(id) => return self.alias(id, at),
            other => {
                let message = format!("not valid YAML: expected a value, got {other:?}");
                return Err(Stop(Fault { at, message }));
            }
        };
        let node = Node { at, value, indentation };
        if anchor != 0 {
            self.anchors.insert(anchor, Some(node.clone()));
        }
        Ok(node)
    }

    /// Indentation of a block scalar, which begins with its first line.
    fn indentation_of(&self, at: Position) -> Option<usize> {
        let mut lines = self.lines.get(at.line - 1..)?.iter();
        let line = lines.find(|line| !line.trim().is_empty())?;
        Some(line.chars().take_while(|&c| c == ' ').count())
    }

    fn sequence(&mut self, depth: usize) -> Result<Value, Stop> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(Value::Sequence(items)),
                (event, span) => items.push(self.node(event, span, depth + 1)?),
            }
        }
    }

    fn mapping(&mut self, depth: usize) -> Result<Value, Stop> {
        let mut entries: Vec<(Key, Node)> = Vec::new();
        let mut seen: HashMap<String, Position> = HashMap::new();
        loop {
            let key = match self.next()? {
                (Event::MappingEnd, _) => return Ok(Value::Mapping(entries)),
                (event, span) => self.key(event, span, depth)?,
            };
            let (event, span) = self.next()?;
            let value = self.node(event, span, depth + 1)?;
            if let Some(first) = seen.insert(key.name.clone(), key.at) {
                let message = format!(
                    "duplicate key `{}` in one map (first on line {}); remove one of them",
                    key.name, first.line
                );
                self.fault(key.at, message);
            } else {
                entries.push((key, value));
            }
        }
    }

    fn key(&mut self, event: Event<'a>, span: Span, depth: usize) -> Result<Key, Stop> {
        let at = Position::from(span.start);
        // A key is kept as text: here `on:` is not a boolean and `1.10:` is not a number.
        if let Event::Scalar(text, _, _, tag) = &event {
            if tag.is_some() {
                self.fault(at, "a key has a tag; remove the tag");
            }
            self.refuse_escaped_stand_ins(text, span);
            let name = restore(&self.placeholders, text);
            if name == "<<" {
                self.fault(at, "`<<` (merge) is not part of YAML 1.2; write the fields out");
            }
            return Ok(Key { at, name });
        }
        self.node(event, span, depth + 1)?;
        self.fault(at, "a key must be plain text");
        Ok(Key { at, name: String::new() })
    }

    fn alias(&mut self, id: usize, at: Position) -> Result<Node, Stop> {
        let Some(Some(node)) = self.anchors.get(&id) else {
            let message = "an alias refers to the value that contains it; write the value out".into();
            return Err(Stop(Fault { at, message }));
        };
        let node = node.clone();
        let (nodes, text) = weigh(&node);
        self.nodes += nodes;
        self.text += text;
        if self.nodes > MAX_NODES || self.text > MAX_TEXT_BYTES {
            return Err(Stop(too_large(at)));
        }
        Ok(node)
    }

    fn collection_tag(&mut self, tag: Option<&Tag>, expected: &str, at: Position) {
        if let Some(tag) = tag
            && !tag.is_yaml_core_schema_tag(expected)
        {
            self.fault(at, format!("the tag `{}` is not supported in a template; remove it", tag.original()));
        }
    }

    fn scalar(&mut self, text: &str, style: ScalarStyle, tag: Option<&Tag>, at: Position) -> Result<Value, Stop> {
        self.text += text.len();
        if self.text > MAX_TEXT_BYTES {
            return Err(Stop(too_large(at)));
        }
        let restored = restore(&self.placeholders, text);
        if let Some(tag) = tag {
            if !tag.is_yaml_core_schema_tag("str") {
                let message = format!(
                    "the tag `{}` is not supported in a template; remove it, and quote the value if it is text",
                    tag.original()
                );
                self.fault(at, message);
            }
            return Ok(Value::Text(restored));
        }
        if style != ScalarStyle::Plain || restored.len() != text.len() || restored.contains("{{") {
            return Ok(Value::Text(restored));
        }
        Ok(plain(&restored).unwrap_or_else(|error| {
            self.fault(at, error.to_string());
            Value::Text(restored)
        }))
    }

    /// A YAML parser cannot distinguish an unquoted placeholder in a flow list (`[{{.A}}]`) from a map of maps.
    fn refuse_unprotected_placeholder(&mut self, style: StructureStyle, span: Span) {
        if style != StructureStyle::Flow {
            return;
        }
        let begins = span.start.byte_offset().and_then(|offset| self.source.get(offset..));
        if begins.is_some_and(|rest| rest.starts_with("{{")) {
            self.fault(span.start, "a placeholder inside [ ] or { } must be in quotes: \"{{ ... }}\"");
        }
    }

    /// Otherwise an escape such as `\U000F0000` would be mistaken for a placeholder.
    fn refuse_escaped_stand_ins(&mut self, text: &str, span: Span) {
        let count = |text: &str| text.chars().filter(|&character| is_stand_in(character)).count();
        let found = count(text);
        if found > 0 && span.slice(self.source).is_none_or(|written| count(written) != found) {
            self.fault(span.start, PRIVATE_USE_MESSAGE);
        }
    }
}

fn too_large(at: Position) -> Fault {
    Fault { at, message: "the template has too many values, levels or aliases; make it shorter".into() }
}

fn weigh(node: &Node) -> (usize, usize) {
    match &node.value {
        Value::Text(text) => (1, text.len()),
        Value::Sequence(items) => sum(items.iter()),
        Value::Mapping(entries) => sum(entries.iter().map(|(_, node)| node)),
        _ => (1, 0),
    }
}

fn sum<'n>(nodes: impl Iterator<Item = &'n Node>) -> (usize, usize) {
    nodes.map(weigh).fold((1, 0), |(nodes, text), (n, t)| (nodes + n, text + t))
}

#[cfg(test)]
mod tests;
