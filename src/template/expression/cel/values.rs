//! The event's values for CEL, and CEL's values as JSON.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, OnceLock};

use cel::common::types::{CelBool, CelDouble, CelInt, CelList, CelMap, CelMapKey, CelNull, CelString, CelUInt};
use cel::common::value::{CowVal, Val};
use cel::context::VariableResolver;
use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value as Json;

use super::meter::Meter;
use crate::github::Event;
use crate::json;
use crate::template::expression::name::Name;
use crate::template::expression::path::Path;

/// A value that borrows from the event; `None` if the event lacks it.
type Slot<'e> = OnceLock<Option<Box<dyn Val + 'e>>>;

/// The event's values, each built once, when it is asked for.
pub(super) struct Variables<'e> {
    event: &'e Event,
    meter: &'e Meter,
    slots: BTreeMap<&'e str, Slot<'e>>,
}

impl<'e> Variables<'e> {
    /// Provides the values with these names; charges `meter` for those that are built.
    pub(super) fn new(event: &'e Event, names: &'e BTreeSet<String>, meter: &'e Arc<Meter>) -> Self {
        Self { event, meter, slots: names.iter().map(|name| (name.as_str(), OnceLock::new())).collect() }
    }

    fn build(&self, name: &str) -> Option<Box<dyn Val + 'e>> {
        if let Some(name) = Name::parse(name) {
            return Some(Box::new(CelString::from(name.value(self.event)?)));
        }
        if let Some(path) = Path::parse(name) {
            let raw = path.find_raw(&self.event.payload)?;
            if !self.meter.charge(json::memory(raw.get().as_bytes()), true) {
                return None;
            }
            return serde_json::from_str::<Built<'e>>(raw.get()).ok().map(|built| built.0);
        }
        match name {
            "headers" => Some(self.headers()),
            "event" => Some(self.event()),
            _ => None,
        }
    }

    /// The `x-github-*` and `ce-*` headers; templates must not see the signature or other headers.
    fn headers(&self) -> Box<dyn Val + 'e> {
        let ours = |name: &str| name.starts_with("x-github-") || name.starts_with("ce-");
        map(self.event.headers.iter().filter(|(name, _)| ours(name)))
    }

    fn event(&self) -> Box<dyn Val + 'e> {
        let event = self.event;
        let source = event.repository.as_ref().and_then(|repository| repository.url());
        let fields = [
            ("type", Some(event.kind.as_str())),
            ("action", event.action.as_deref()),
            ("id", Some(event.delivery.as_str())),
            ("source", source),
        ];
        map(fields.into_iter().filter_map(|(name, value)| Some((name, value?))))
    }
}

fn map<'e>(entries: impl Iterator<Item = (&'e str, &'e str)>) -> Box<dyn Val + 'e> {
    let value = |text: &'e str| -> Box<dyn Val + 'e> { Box::new(CelString::from(text)) };
    Box::new(CelMap::from(entries.map(|(key, text)| (CelMapKey::from(key), value(text))).collect::<HashMap<_, _>>()))
}

impl VariableResolver for Variables<'_> {
    /// CEL resolves the longest name first (`body.a.b` before `body.a` and `body`), so that only used values are built.
    fn resolve<'b>(&'b self, variable: &str) -> Option<CowVal<'b, 'b>> {
        let (name, slot) = self.slots.get_key_value(variable.trim_start_matches('.'))?;
        slot.get_or_init(|| self.build(name)).as_deref().map(CowVal::Borrowed)
    }
}

/// A CEL value out of JSON; text without escapes is borrowed.
struct Built<'j>(Box<dyn Val + 'j>);

impl<'j> Deserialize<'j> for Built<'j> {
    fn deserialize<D: Deserializer<'j>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(BuiltVisitor)
    }
}

struct BuiltVisitor;

impl<'j> Visitor<'j> for BuiltVisitor {
    type Value = Built<'j>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(Built(Box::new(CelNull)))
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Self::Value, E> {
        Ok(Built(Box::new(CelBool::from(value))))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Self::Value, E> {
        Ok(Built(Box::new(CelInt::from(value))))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Self::Value, E> {
        match i64::try_from(value) {
            Ok(value) => self.visit_i64(value),
            Err(_) => Ok(Built(Box::new(CelUInt::from(value)))),
        }
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Self::Value, E> {
        Ok(Built(Box::new(CelDouble::from(value))))
    }

    fn visit_borrowed_str<E: Error>(self, text: &'j str) -> Result<Self::Value, E> {
        Ok(Built(Box::new(CelString::from(text))))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Built(Box::new(CelString::from(text.to_owned()))))
    }

    fn visit_seq<S: SeqAccess<'j>>(self, mut items: S) -> Result<Self::Value, S::Error> {
        let mut list = Vec::new();
        while let Some(Built(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(Built(Box::new(CelList::from(list))))
    }

    fn visit_map<M: MapAccess<'j>>(self, mut entries: M) -> Result<Self::Value, M::Error> {
        let mut map = HashMap::new();
        while let Some((Key(key), Built(value))) = entries.next_entry()? {
            map.insert(key, value);
        }
        Ok(Built(Box::new(CelMap::from(map))))
    }
}

struct Key<'j>(CelMapKey<'j>);

impl<'j> Deserialize<'j> for Key<'j> {
    fn deserialize<D: Deserializer<'j>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(KeyVisitor)
    }
}

struct KeyVisitor;

impl<'j> Visitor<'j> for KeyVisitor {
    type Value = Key<'j>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_borrowed_str<E: Error>(self, text: &'j str) -> Result<Self::Value, E> {
        Ok(Key(CelMapKey::from(text)))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Key(CelMapKey::from(text.to_owned())))
    }
}

/// Converts a value to JSON. Returns `None` for a value that JSON does not have.
pub(super) fn to_json(value: &dyn Val) -> Option<Json> {
    if let Some(text) = value.downcast_ref::<CelString<'_>>() {
        return Some(text.inner().into());
    }
    if let Some(list) = value.downcast_ref::<CelList<'_>>() {
        return list.inner().iter().map(|item| to_json(&**item)).collect();
    }
    if let Some(map) = value.downcast_ref::<CelMap<'_>>() {
        let entries = map.inner().iter().map(|(key, value)| Some((key_text(key), to_json(&**value)?)));
        return entries.collect::<Option<_>>().map(Json::Object);
    }
    if let Some(value) = value.downcast_ref::<CelBool>() {
        return Some((*value.inner()).into());
    }
    if let Some(value) = value.downcast_ref::<CelInt>() {
        return Some((*value.inner()).into());
    }
    if let Some(value) = value.downcast_ref::<CelUInt>() {
        return Some((*value.inner()).into());
    }
    if let Some(value) = value.downcast_ref::<CelDouble>() {
        return serde_json::Number::from_f64(*value.inner()).map(Json::Number);
    }
    value.downcast_ref::<CelNull>().map(|_| Json::Null)
}

fn key_text(key: &CelMapKey<'_>) -> String {
    match key {
        CelMapKey::Bool(key) => key.inner().to_string(),
        CelMapKey::Int(key) => key.inner().to_string(),
        CelMapKey::UInt(key) => key.inner().to_string(),
        CelMapKey::String(key) => key.inner().to_owned(),
    }
}
