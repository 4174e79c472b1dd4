//! A path to one value of the JSON payload.

use std::fmt;

use serde_json::Value;
use serde_json::value::RawValue;

use super::field::{Kind, Place, is_author_path};
use crate::json;

/// A path such as `body.a.b`, stored as the field names after `body`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Path(Vec<String>);

impl Path {
    /// Parses `body`, or `body.` and field names joined by dots. Returns `None` for any other expression.
    pub(crate) fn parse(source: &str) -> Option<Self> {
        let source = source.strip_prefix('.').unwrap_or(source);
        let mut fields = source.split('.');
        if fields.next() != Some("body") {
            return None;
        }
        fields.map(|field| is_field(field).then(|| field.to_owned())).collect::<Option<_>>().map(Self)
    }

    /// Whether the path is `body` alone.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether its value may be an author's text that does harm in a place.
    pub(super) fn is_author_text(&self, place: Place) -> bool {
        is_author_path(&self.0, place)
    }

    /// The kind of its value, as far as it is known.
    pub(super) fn kind(&self) -> Kind {
        Kind::of_path(&self.0)
    }

    /// Finds the value in `json`. Returns `None` if the path does not exist or `json` is not valid JSON.
    pub(crate) fn find(&self, json: &[u8]) -> Option<Value> {
        serde_json::from_str(self.find_raw(json)?.get()).ok()
    }

    /// Finds the value's text in `json`; takes no memory for the rest of it.
    pub(crate) fn find_raw<'j>(&self, json: &'j [u8]) -> Option<&'j RawValue> {
        let Some((first, others)) = self.0.split_first() else { return serde_json::from_slice(json).ok() };
        let mut value = field(json, first)?;
        for name in others {
            value = field(value.get().as_bytes(), name)?;
        }
        Some(value)
    }
}

fn field<'j>(json: &'j [u8], name: &str) -> Option<&'j RawValue> {
    json::fields(json, &[name]).ok()?.into_iter().next().flatten()
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("body")?;
        self.0.iter().try_for_each(|field| write!(f, ".{field}"))
    }
}

/// Whether `text` is a CEL identifier and not a keyword.
fn is_field(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        && !matches!(text, "in" | "true" | "false" | "null")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn find(path: &str, json: &Value) -> Option<Value> {
        Path::parse(path).expect("a path").find(json.to_string().as_bytes())
    }

    #[test]
    fn finds_values_of_any_kind() {
        let json = json!({"a": {"b": [1, {"c": null}], "d": "x\"y", "": 1}, "e": 1.5, "f": true, "g": null});
        assert_eq!(find("body.a.d", &json), Some(json!("x\"y")));
        assert_eq!(find(".body.a.b", &json), Some(json!([1, {"c": null}])));
        assert_eq!(find("body.e", &json), Some(json!(1.5)));
        assert_eq!(find("body.g", &json), Some(Value::Null));
        for missing in ["body.x", "body.a.x", "body.e.x", "body.f.x", "body.g.x", "body.a.d.x", "body.a.b.c"] {
            assert_eq!(find(missing, &json), None, "{missing}");
        }
        assert_eq!(Path(vec!["a".into()]).find(b"{\"a\": 1"), None);
    }

    #[test]
    fn rejects_other_expressions() {
        for other in
            ["bodyguard", "body.a[0]", "body.a.size()", "body..a", "body.", "body.0", "body.a + 1", "body.in", "x"]
        {
            assert_eq!(Path::parse(other), None, "{other}");
        }
    }
}
