//! A JSON value read so that nothing is dropped or multiplied: a key that is there twice is an error, and aliases can't
//! make a small text a large value.

use std::{cell::Cell, fmt};

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// What is left of the size that a text's value may have: about a unit a value and a byte of text.
#[derive(Clone, Copy)]
pub(super) struct Strict<'b>(pub(super) &'b Cell<usize>);

impl Strict<'_> {
    fn spend<E: Error>(self, size: usize) -> Result<(), E> {
        let left = self.0.get().checked_sub(size + 1);
        self.0.set(left.ok_or_else(|| E::custom("the aliases make this document far larger than its text"))?);
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value that JSON has")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        self.spend(0).map(|()| Value::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        self.spend(0).map(|()| Value::from(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        self.spend(0).map(|()| Value::from(value))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        self.spend(0)?;
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("JSON has no such number"))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        self.spend(value.len()).map(|()| Value::from(value))
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        self.spend(0).map(|()| Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Value, A::Error> {
        self.spend(0)?;
        let mut all = Vec::new();
        while let Some(one) = from.next_element_seed(self)? {
            all.push(one);
        }
        Ok(Value::Array(all))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<Value, A::Error> {
        self.spend(0)?;
        let mut all = Map::new();
        while let Some(key) = from.next_key::<String>()? {
            self.spend(key.len())?;
            if all.contains_key(&key) {
                return Err(A::Error::custom(format!("the key {key:?} is there twice")));
            }
            all.insert(key, from.next_value_seed(self)?);
        }
        Ok(Value::Object(all))
    }
}
