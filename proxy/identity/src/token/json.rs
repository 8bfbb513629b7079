//! JSON objects from strangers: no member twice at any depth, bounded depth and size.
//!
//! A member given twice is read one way by one parser and another way by the next, so such an
//! object is refused (RFC 7515 section 4, RFC 7519 section 4, RFC 8725 section 2.4).

use std::{cell::Cell, fmt};

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Bounds of one object.
#[derive(Debug, Clone, Copy)]
pub(crate) struct JsonLimits {
    /// Deepest nesting; the object itself is 1.
    pub(crate) depth: usize,
    /// Most values, counted at every depth.
    pub(crate) values: usize,
}

/// A JSON object.
///
/// # Errors
/// In the parser's words, with line and column and without the text itself.
pub(crate) fn object(text: &[u8], limits: JsonLimits) -> Result<Map<String, Value>, serde_json::Error> {
    let left = Cell::new(limits.values);
    let mut parser = serde_json::Deserializer::from_slice(text);
    let value = Seed { depth: limits.depth, left: &left }.deserialize(&mut parser)?;
    parser.end()?;
    match value {
        Value::Object(object) => Ok(object),
        _ => Err(serde_json::Error::custom("not an object")),
    }
}

#[derive(Clone, Copy)]
struct Seed<'a> {
    depth: usize,
    left: &'a Cell<usize>,
}

impl Seed<'_> {
    fn deeper<E: Error>(self) -> Result<Self, E> {
        match self.depth.checked_sub(1) {
            Some(depth) => Ok(Self { depth, left: self.left }),
            None => Err(E::custom("nested too deeply")),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        match self.left.get().checked_sub(1) {
            Some(left) => self.left.set(left),
            None => return Err(D::Error::custom("too many values")),
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("not a number"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut list = Vec::new();
        while let Some(value) = access.next_element_seed(inner)? {
            list.push(value);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut object = Map::new();
        while let Some(name) = access.next_key::<String>()? {
            if object.contains_key(&name) {
                return Err(A::Error::custom("a member is there twice"));
            }
            let value = access.next_value_seed(inner)?;
            object.insert(name, value);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    const LIMITS: JsonLimits = JsonLimits { depth: 3, values: 8 };

    #[test]
    fn takes_plain_objects() {
        let read = object(br#" {"a":1,"b":[true,null,"x"],"c":-1.5} "#, LIMITS).unwrap();
        assert_eq!(Value::Object(read), serde_json::json!({"a":1,"b":[true,null,"x"],"c":-1.5}));
    }

    #[test]
    fn refuses_what_parsers_read_differently() {
        for text in [
            &br#"{"a":1,"a":1}"#[..],
            br#"{"o":{"a":1,"a":2}}"#,
            br#"{"l":[{"a":1,"\u0061":2}]}"#,
            br#"{"a":1}{"#,
            br#"{"a":1} x"#,
            br"[1]",
            br"null",
            br#""a""#,
            br#"{"a":1e999}"#,
            br#"{"a":NaN}"#,
            br#"{'a':1}"#,
            br#"{"a":1,}"#,
            b"{\"a\":\"\xff\"}",
            br#"{"a":"\ud800"}"#,
            b"\xef\xbb\xbf{}",
            b"",
        ] {
            assert!(object(text, LIMITS).is_err(), "{}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn refuses_depth_and_size() {
        assert!(object(br#"{"a":{"b":{}}}"#, LIMITS).is_ok());
        assert!(object(br#"{"a":{"b":{"c":{}}}}"#, LIMITS).is_err());
        assert!(object(br#"{"a":[[[]]]}"#, LIMITS).is_err());
        assert!(object(br#"{"a":[1,2,3,4,5,6]}"#, LIMITS).is_ok());
        assert!(object(br#"{"a":[1,2,3,4,5,6,7]}"#, LIMITS).is_err());
        let deep = "[".repeat(100_000);
        assert!(object(format!("{{\"a\":{deep}").as_bytes(), LIMITS).is_err());
    }
}
