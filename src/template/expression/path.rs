//! One value of a JSON text, found without building the rest of it.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

/// `body.a.b`, without `body`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path(Vec<String>);

impl Path {
    /// Reads `body`, or `body.` and field names in a row; nothing for any other expression.
    pub fn parse(source: &str) -> Option<Self> {
        let source = source.strip_prefix('.').unwrap_or(source);
        let mut fields = source.split('.');
        if fields.next() != Some("body") {
            return None;
        }
        fields.map(|field| is_field(field).then(|| field.to_owned())).collect::<Option<_>>().map(Self)
    }

    /// Whether it is `body` alone.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value in `json`; nothing if it is not there, or `json` is no JSON.
    pub fn find(&self, json: &[u8]) -> Option<Value> {
        let mut reader = serde_json::Deserializer::from_slice(json);
        Follow(&self.0).deserialize(&mut reader).ok().flatten()
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("body")?;
        self.0.iter().try_for_each(|field| write!(f, ".{field}"))
    }
}

/// An identifier of CEL that is none of its own words.
fn is_field(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        && !matches!(text, "in" | "true" | "false" | "null")
}

/// Follows the fields down, skipping everything else.
struct Follow<'p>(&'p [String]);

impl<'de> DeserializeSeed<'de> for Follow<'_> {
    type Value = Option<Value>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        if self.0.is_empty() {
            return serde::Deserialize::deserialize(deserializer).map(Some);
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Follow<'_> {
    type Value = Option<Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let Some((field, rest)) = self.0.split_first() else { return Ok(None) };
        let mut found = None;
        while let Some(wanted) = map.next_key_seed(Is(field))? {
            if wanted {
                found = map.next_value_seed(Follow(rest))?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(None)
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
}

/// Compares a key without keeping it.
struct Is<'p>(&'p str);

impl<'de> DeserializeSeed<'de> for Is<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Is<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<bool, E> {
        Ok(key == self.0)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn find(path: &str, json: &Value) -> Option<Value> {
        Path::parse(path).expect("a path").find(json.to_string().as_bytes())
    }

    #[test]
    fn finds_any_kind_of_value() {
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
    fn other_expressions_are_no_path() {
        for other in
            ["bodyguard", "body.a[0]", "body.a.size()", "body..a", "body.", "body.0", "body.a + 1", "body.in", "x"]
        {
            assert_eq!(Path::parse(other), None, "{other}");
        }
    }
}
