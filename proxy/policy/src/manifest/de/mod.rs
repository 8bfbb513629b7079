//! A serde deserializer over [`Node`]: typed specs whose errors name place and field path.

mod access;
mod error;

use serde::de::{DeserializeOwned, Deserializer, Error as _, Visitor};

use super::{Content, Node, Scalar, codes, located::LOCATED, scalar::Resolved};
use access::{Entries, Items, OneOf, Parts};
pub(super) use error::{Failure, Path};

/// Reads a whole node as `T`.
pub(super) fn read<T: DeserializeOwned>(file: &str, path: &Path<'_>, node: &Node) -> Result<T, Failure> {
    T::deserialize(Reader { node, path, file })
}

/// One node, on its way into a type. Depth is bounded by the tree's own (`MAX_DEPTH`).
#[derive(Clone, Copy)]
pub(super) struct Reader<'de, 'p> {
    node: &'de Node,
    path: &'p Path<'p>,
    file: &'p str,
}

impl<'de> Reader<'de, '_> {
    fn place(&self, failure: Failure) -> Failure {
        failure.at(self.node.line, self.node.column, self.path)
    }

    fn mismatch<T>(&self, wanted: &str) -> Result<T, Failure> {
        let message = format!("expected {wanted}, found {}", self.node.describe());
        Err(self.place(Failure::new(codes::WRONG_TYPE, message)))
    }

    fn scalar(&self) -> Option<&'de Scalar> {
        match &self.node.content {
            Content::Scalar(scalar) => Some(scalar),
            _ => None,
        }
    }

    /// A string. A plain `yes`, `5` or `1.10` is refused: kubectl would send a boolean or number.
    fn text(&self) -> Result<&'de str, Failure> {
        let Some(scalar) = self.scalar() else { return self.mismatch("a string") };
        match scalar.resolve() {
            Resolved::Text => Ok(&scalar.text),
            Resolved::Null => self.mismatch("a string"),
            _ => self.mismatch("a string (put it in quotes)"),
        }
    }

    fn number<V: Visitor<'de>>(self, wanted: &str, visitor: V) -> Result<V::Value, Failure> {
        let resolved = self.scalar().map(Scalar::resolve);
        let value = match resolved {
            Some(Resolved::Integer(number)) => visitor.visit_i64(number),
            Some(Resolved::Unsigned(number)) => visitor.visit_u64(number),
            Some(Resolved::Float(number)) => visitor.visit_f64(number),
            _ => return self.mismatch(wanted),
        };
        value.map_err(|failure| self.place(failure))
    }

    fn items<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        let Content::Sequence(items) = &self.node.content else { return self.mismatch("a list") };
        let access = Items::new(items, self.path, self.file);
        visitor.visit_seq(access).map_err(|failure| self.place(failure))
    }

    fn entries<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        let Content::Mapping(entries) = &self.node.content else {
            return self.mismatch("a mapping");
        };
        let access = Entries::new(entries, self.path, self.file);
        visitor.visit_map(access).map_err(|failure| self.place(failure))
    }
}

/// Numbers of every width go one way: the visitor checks the range.
macro_rules! numbers {
    ($wanted:literal: $($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
            self.number($wanted, visitor)
        }
    )*};
}

impl<'de> Deserializer<'de> for Reader<'de, '_> {
    type Error = Failure;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        let scalar = match &self.node.content {
            Content::Sequence(_) => return self.items(visitor),
            Content::Mapping(_) => return self.entries(visitor),
            Content::Scalar(scalar) => scalar,
        };
        let value = match scalar.resolve() {
            Resolved::Null => visitor.visit_unit(),
            Resolved::Bool(value) => visitor.visit_bool(value),
            // As serde_json: whole numbers from 0 on are unsigned.
            Resolved::Integer(number) => match u64::try_from(number) {
                Ok(number) => visitor.visit_u64(number),
                Err(_) => visitor.visit_i64(number),
            },
            Resolved::Unsigned(number) => visitor.visit_u64(number),
            Resolved::Float(number) => visitor.visit_f64(number),
            Resolved::Text => visitor.visit_borrowed_str(&scalar.text),
        };
        value.map_err(|failure| self.place(failure))
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        match self.scalar().map(Scalar::resolve) {
            Some(Resolved::Bool(value)) => visitor.visit_bool(value).map_err(|failure| self.place(failure)),
            _ => self.mismatch("true or false"),
        }
    }

    numbers! { "a whole number":
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128
    }
    numbers! { "a number": deserialize_f32 deserialize_f64 }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        self.deserialize_str(visitor)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        visitor.visit_borrowed_str(self.text()?).map_err(|failure| self.place(failure))
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        self.deserialize_str(visitor)
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        self.deserialize_str(visitor)
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        let value = if self.node.is_null() { visitor.visit_none() } else { visitor.visit_some(self) };
        value.map_err(|failure| self.place(failure))
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        if !self.node.is_null() {
            return self.mismatch("nothing (null)");
        }
        visitor.visit_unit().map_err(|failure| self.place(failure))
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Failure> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Failure> {
        visitor.visit_newtype_struct(self).map_err(|failure| self.place(failure))
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        self.items(visitor)
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _len: usize, visitor: V) -> Result<V::Value, Failure> {
        self.items(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _len: usize,
        visitor: V,
    ) -> Result<V::Value, Failure> {
        self.items(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        self.entries(visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Failure> {
        if name == LOCATED {
            return visitor.visit_seq(Parts::new(self)).map_err(|failure| self.place(failure));
        }
        self.entries(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Failure> {
        let access = match &self.node.content {
            Content::Scalar(_) => OneOf::Name(self, self.text()?),
            Content::Mapping(entries) => match entries.as_slice() {
                [(key, value)] => OneOf::Entry(self, key, value),
                _ => return self.mismatch("a mapping with exactly one key"),
            },
            Content::Sequence(_) => return self.mismatch("a string or a mapping with one key"),
        };
        visitor.visit_enum(access).map_err(|failure| self.place(failure))
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        self.deserialize_str(visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        visitor.visit_unit()
    }
}

/// An error of the deserializer itself, which cannot happen with types derived by serde.
fn misuse(what: &str) -> Failure {
    Failure::custom(what)
}
