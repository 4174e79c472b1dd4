//! JSON that is too large to build: some of its fields as raw text, and the memory that its values would take.

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// Memory of one value, of one entry of a map, and of one map: bytes on the heap of a 64-bit machine, rounded up.
pub(crate) const VALUE: u64 = 64;
pub(crate) const ENTRY: u64 = 64;
pub(crate) const MAP: u64 = 256;

/// Returns the raw text of the fields `names` of a JSON object, in their order; of a repeated field the last one. Takes no
/// memory for other fields.
/// Fails when `json` is not valid JSON, or not an object.
pub(crate) fn fields<'j>(json: &'j [u8], names: &[&str]) -> serde_json::Result<Vec<Option<&'j RawValue>>> {
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let fields = deserializer.deserialize_map(Fields(names))?;
    deserializer.end()?;
    Ok(fields)
}

struct Fields<'n>(&'n [&'n str]);

impl<'j> Visitor<'j> for Fields<'_> {
    type Value = Vec<Option<&'j RawValue>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<M: MapAccess<'j>>(self, mut map: M) -> Result<Self::Value, M::Error> {
        let mut found = vec![None; self.0.len()];
        while let Some(index) = map.next_key_seed(Position(self.0))? {
            match index.and_then(|index: usize| found.get_mut(index)) {
                Some(field) => *field = Some(map.next_value()?),
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(found)
    }
}

/// Reads a key as its position in the list.
struct Position<'n>(&'n [&'n str]);

impl<'j> DeserializeSeed<'j> for Position<'_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'j>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Position<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<Self::Value, E> {
        Ok(self.0.iter().position(|name| *name == key))
    }
}

/// Returns the memory in bytes that the values of `json` take once they are built, an upper bound. JSON that cannot be built, e.g. with
/// the number 1e999, has none: `u64::MAX`.
pub(crate) fn memory(json: &[u8]) -> u64 {
    serde_json::from_slice::<Memory>(json).map_or(u64::MAX, |memory| memory.0)
}

struct Memory(u64);

impl<'j> Deserialize<'j> for Memory {
    fn deserialize<D: Deserializer<'j>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(MemoryVisitor)
    }
}

struct MemoryVisitor;

impl<'j> Visitor<'j> for MemoryVisitor {
    type Value = Memory;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Memory, E> {
        Ok(Memory(VALUE))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Memory, E> {
        Ok(Memory(VALUE))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Memory, E> {
        Ok(Memory(VALUE))
    }

    fn visit_u64<E>(self, _: u64) -> Result<Memory, E> {
        Ok(Memory(VALUE))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Memory, E> {
        Ok(Memory(VALUE))
    }

    fn visit_str<E>(self, text: &str) -> Result<Memory, E> {
        Ok(Memory(VALUE + text.len() as u64))
    }

    fn visit_seq<S: SeqAccess<'j>>(self, mut items: S) -> Result<Memory, S::Error> {
        let mut sum = VALUE;
        while let Some(Memory(item)) = items.next_element()? {
            sum += item;
        }
        Ok(Memory(sum))
    }

    fn visit_map<M: MapAccess<'j>>(self, mut entries: M) -> Result<Memory, M::Error> {
        let mut sum = VALUE + MAP;
        while let Some((Memory(key), Memory(value))) = entries.next_entry()? {
            sum += ENTRY + key + value;
        }
        Ok(Memory(sum))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_fields_and_ignores_the_others() {
        let found = |json: &'static str| {
            let fields = fields(json.as_bytes(), &["a", "b"]).map_err(|error| error.to_string());
            fields.map(|fields| fields.into_iter().map(|field| field.map(RawValue::get)).collect::<Vec<_>>())
        };
        assert_eq!(found(r#"{"x": {"a": 1}, "\u0062": [2], "a": 3, "a": 4}"#), Ok(vec![Some("4"), Some("[2]")]));
        assert_eq!(found("{}"), Ok(vec![None, None]));
        for invalid in ["[1, 2]", "1", "null", "{\"a\": 1", "{\"a\": 1} 2", ""] {
            assert!(found(invalid).is_err(), "{invalid}");
        }
    }

    #[test]
    fn counts_values_by_their_kind() {
        assert_eq!(memory(b"1"), VALUE);
        assert_eq!(memory(b"[1, null, \"abc\"]"), 4 * VALUE + 3);
        assert_eq!(memory(b"{\"ab\": {}}"), VALUE + MAP + ENTRY + VALUE + 2 + VALUE + MAP);
        for not_buildable in ["{".to_owned(), "[1e999]".to_owned(), format!("{}{}", "[".repeat(200), "]".repeat(200))] {
            assert_eq!(memory(not_buildable.as_bytes()), u64::MAX, "{not_buildable}");
        }
    }
}
