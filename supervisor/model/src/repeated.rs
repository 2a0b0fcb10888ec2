//! JSON in which a name may occur twice in one object: read as others read it, the last one counts, and told.

use std::cell::RefCell;
use std::fmt::{self, Display};

use serde::Deserializer;
use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// A value, and the paths of fields that were given more than once, e.g. `spec.ports[0].name`.
#[derive(Clone, Debug, PartialEq)]
pub struct Read {
    /// The last one of each.
    pub value: Value,
    /// Each once, in the order in which they were met; no more than the first [`MOST`].
    pub repeated: Vec<String>,
}

/// Fields that are told of: whoever sends more has plenty to correct already.
pub const MOST: usize = 32;

/// Reads a whole text.
///
/// # Errors
/// What is not JSON, as `serde_json` tells it.
pub fn read(text: &[u8]) -> Result<Read, serde_json::Error> {
    let repeated = RefCell::default();
    let mut text = serde_json::Deserializer::from_slice(text);
    let value = Part { place: &Place::Whole, repeated: &repeated }.deserialize(&mut text)?;
    text.end()?;
    Ok(Read { value, repeated: repeated.into_inner() })
}

/// Where a value is. It becomes a text only when it has to be told, as names may be long and fields many.
enum Place<'a> {
    Whole,
    Field(&'a Place<'a>, &'a str),
    Item(&'a Place<'a>, usize),
}

impl Display for Place<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole => Ok(()),
            Self::Field(Self::Whole, name) => out.write_str(name),
            Self::Field(parent, name) => write!(out, "{parent}.{name}"),
            Self::Item(parent, at) => write!(out, "{parent}[{at}]"),
        }
    }
}

/// A value at a place.
struct Part<'a> {
    place: &'a Place<'a>,
    repeated: &'a RefCell<Vec<String>>,
}

impl Part<'_> {
    fn note(&self, place: &Place<'_>) {
        let mut repeated = self.repeated.borrow_mut();
        if repeated.len() < MOST {
            let path = place.to_string();
            if !repeated.contains(&path) {
                repeated.push(path);
            }
        }
    }
}

impl<'de> DeserializeSeed<'de> for Part<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, text: D) -> Result<Value, D::Error> {
        text.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Part<'_> {
    type Value = Value;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("any valid JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut all = Vec::new();
        loop {
            let place = Place::Item(self.place, all.len());
            match items.next_element_seed(Part { place: &place, repeated: self.repeated })? {
                Some(item) => all.push(item),
                None => return Ok(Value::Array(all)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let mut all = Map::new();
        while let Some(name) = fields.next_key::<String>()? {
            let place = Place::Field(self.place, &name);
            if all.contains_key(&name) {
                self.note(&place);
            }
            let value = fields.next_value_seed(Part { place: &place, repeated: self.repeated })?;
            all.insert(name, value);
        }
        Ok(Value::Object(all))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_last_one_counts_and_each_is_told_once() {
        let text = br#"{"a": 1, "b": [{"c": 1, "c": 2, "c": 3}, {"c": 4}], "a": null}"#;
        let found = read(text).unwrap();
        assert_eq!(found.value, json!({"a": null, "b": [{"c": 3}, {"c": 4}]}));
        assert_eq!(found.repeated, ["b[0].c", "a"]);
    }

    #[test]
    fn no_more_are_told_than_anybody_reads() {
        let fields: String = (0..100).map(|number| format!("\"{number}\":1,\"{number}\":2,")).collect();
        let found = read(format!("{{{}}}", fields.trim_end_matches(',')).as_bytes()).unwrap();
        assert_eq!((found.repeated.len(), found.value["99"].clone()), (MOST, 2.into()));
    }

    #[test]
    fn everything_else_is_read_as_it_always_is() {
        for text in ["{\"a\":[1,-2,2.5,1e3,true,false,null,\"x\\u00e4\",{}]}", "18446744073709551615", "\"\"", "[]"] {
            let found = read(text.as_bytes()).unwrap();
            assert_eq!(found.value, serde_json::from_str::<Value>(text).unwrap());
            assert_eq!(found.repeated, [""; 0]);
        }
        let deep = "[".repeat(10_000);
        for text in ["", "{\"a\":}", "{} {}", "{\"a\": 1e999}", "nul", deep.as_str()] {
            let ours = read(text.as_bytes()).unwrap_err().to_string();
            assert_eq!(ours, serde_json::from_str::<Value>(text).unwrap_err().to_string(), "{text}");
        }
    }
}
