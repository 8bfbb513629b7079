//! Lists, mappings, enums and places, one element at a time.

use serde::{
    Deserializer,
    de::{
        DeserializeSeed, EnumAccess, IntoDeserializer, MapAccess, SeqAccess, VariantAccess, Visitor,
        value::{BorrowedStrDeserializer, StringDeserializer, U32Deserializer},
    },
    forward_to_deserialize_any,
};

use super::{Failure, Path, Reader, codes, misuse};
use crate::manifest::{Key, Node};

/// The items of a list.
pub(super) struct Items<'de, 'p> {
    items: std::iter::Enumerate<std::slice::Iter<'de, Node>>,
    path: &'p Path<'p>,
    file: &'p str,
}

impl<'de, 'p> Items<'de, 'p> {
    pub(super) fn new(items: &'de [Node], path: &'p Path<'p>, file: &'p str) -> Self {
        Self { items: items.iter().enumerate(), path, file }
    }
}

impl<'de> SeqAccess<'de> for Items<'de, '_> {
    type Error = Failure;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Failure> {
        let Some((index, node)) = self.items.next() else { return Ok(None) };
        let path = Path::Index(self.path, index);
        let value = seed.deserialize(Reader { node, path: &path, file: self.file });
        value.map(Some).map_err(|failure| failure.at(node.line, node.column, &path))
    }

    fn size_hint(&self) -> Option<usize> {
        self.items.size_hint().1
    }
}

/// The entries of a mapping.
pub(super) struct Entries<'de, 'p> {
    entries: std::slice::Iter<'de, (Key, Node)>,
    value: Option<&'de (Key, Node)>,
    path: &'p Path<'p>,
    file: &'p str,
}

impl<'de, 'p> Entries<'de, 'p> {
    pub(super) fn new(entries: &'de [(Key, Node)], path: &'p Path<'p>, file: &'p str) -> Self {
        Self { entries: entries.iter(), value: None, path, file }
    }
}

impl<'de> MapAccess<'de> for Entries<'de, '_> {
    type Error = Failure;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Failure> {
        let Some(entry) = self.entries.next() else { return Ok(None) };
        self.value = Some(entry);
        let key = &entry.0;
        let path = Path::Key(self.path, &key.text);
        let found = seed.deserialize(KeyReader { key, path: &path, file: self.file });
        found.map(Some).map_err(|failure| failure.at(key.line, key.column, &path))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Failure> {
        let (key, node) = self.value.take().ok_or_else(|| misuse("a value without its key"))?;
        let path = Path::Key(self.path, &key.text);
        let value = seed.deserialize(Reader { node, path: &path, file: self.file });
        value.map_err(|failure| failure.at(node.line, node.column, &path))
    }

    fn size_hint(&self) -> Option<usize> {
        self.entries.size_hint().1
    }
}

/// A key: a string, or a number written in its shortest form where the type wants one.
struct KeyReader<'de, 'p> {
    key: &'de Key,
    path: &'p Path<'p>,
    file: &'p str,
}

impl<'de> KeyReader<'de, '_> {
    fn text(&self) -> Result<&'de str, Failure> {
        self.key.clean().map_err(|message| Failure::new(codes::AMBIGUOUS_KEY, message))
    }
}

/// Numbers as keys: parsed from the key's text.
macro_rules! key_numbers {
    ($($method:ident $visit:ident $type:ty),*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
            match self.text()?.parse::<$type>() {
                Ok(number) => visitor.$visit(number),
                Err(_) => {
                    let message = format!("expected a whole number as key, found `{}`", self.key.text);
                    Err(Failure::new(codes::WRONG_TYPE, message))
                }
            }
        }
    )*};
}

impl<'de> Deserializer<'de> for KeyReader<'de, '_> {
    type Error = Failure;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        visitor.visit_borrowed_str(self.text()?)
    }

    key_numbers!(
        deserialize_u8 visit_u8 u8, deserialize_u16 visit_u16 u16,
        deserialize_u32 visit_u32 u32, deserialize_u64 visit_u64 u64,
        deserialize_i8 visit_i8 i8, deserialize_i16 visit_i16 i16,
        deserialize_i32 visit_i32 i32, deserialize_i64 visit_i64 i64
    );

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Failure> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        visitor.visit_some(self)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Failure> {
        if name != super::LOCATED {
            return Err(misuse("a key cannot be a struct"));
        }
        visitor.visit_seq(Parts {
            next: 0,
            at: (self.key.line, self.key.column),
            path: self.path,
            file: self.file,
            value: Some(self),
        })
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Failure> {
        visitor.visit_enum(BorrowedStrDeserializer::new(self.text()?))
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        bool i128 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map identifier
    }
}

/// The parts of a [`crate::manifest::Located`]: file, line, column, field path, then the value.
pub(super) struct Parts<'p, D> {
    next: u8,
    at: (u32, u32),
    path: &'p Path<'p>,
    file: &'p str,
    value: Option<D>,
}

impl<'de, 'p> Parts<'p, Reader<'de, 'p>> {
    pub(super) fn new(reader: Reader<'de, 'p>) -> Self {
        let at = (reader.node.line, reader.node.column);
        Self { next: 0, at, path: reader.path, file: reader.file, value: Some(reader) }
    }
}

impl<'de, D: Deserializer<'de, Error = Failure>> SeqAccess<'de> for Parts<'_, D> {
    type Error = Failure;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Failure> {
        self.next = self.next.saturating_add(1);
        match self.next {
            1 => seed.deserialize(IntoDeserializer::<Failure>::into_deserializer(self.file)),
            2 => seed.deserialize(U32Deserializer::new(self.at.0)),
            3 => seed.deserialize(U32Deserializer::new(self.at.1)),
            4 => seed.deserialize(StringDeserializer::new(self.path.to_string())),
            _ => match self.value.take() {
                Some(value) => seed.deserialize(value),
                None => return Ok(None),
            },
        }
        .map(Some)
    }
}

/// An enum: a bare name, or a mapping of one name to its content.
pub(super) enum OneOf<'de, 'p> {
    Name(Reader<'de, 'p>, &'de str),
    Entry(Reader<'de, 'p>, &'de Key, &'de Node),
}

impl<'de, 'p> EnumAccess<'de> for OneOf<'de, 'p> {
    type Error = Failure;
    type Variant = Variant<'de, 'p>;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Variant<'de, 'p>), Failure> {
        match self {
            Self::Name(reader, name) => {
                let name = seed.deserialize(BorrowedStrDeserializer::<Failure>::new(name))?;
                Ok((name, Variant { reader, content: None }))
            }
            Self::Entry(reader, key, value) => {
                let path = Path::Key(reader.path, &key.text);
                let name = seed
                    .deserialize(KeyReader { key, path: &path, file: reader.file })
                    .map_err(|failure| failure.at(key.line, key.column, &path))?;
                Ok((name, Variant { reader, content: Some((key, value)) }))
            }
        }
    }
}

/// The content of an enum's variant.
pub(super) struct Variant<'de, 'p> {
    reader: Reader<'de, 'p>,
    content: Option<(&'de Key, &'de Node)>,
}

impl<'de> Variant<'de, '_> {
    fn with<T>(self, read: impl FnOnce(Reader<'de, '_>) -> Result<T, Failure>) -> Result<T, Failure> {
        let Some((key, node)) = self.content else {
            return Err(Failure::new(codes::WRONG_TYPE, "expected a mapping with its content"));
        };
        let path = Path::Key(self.reader.path, &key.text);
        read(Reader { node, path: &path, file: self.reader.file })
            .map_err(|failure| failure.at(node.line, node.column, &path))
    }
}

impl<'de> VariantAccess<'de> for Variant<'de, '_> {
    type Error = Failure;

    fn unit_variant(self) -> Result<(), Failure> {
        match self.content {
            None => Ok(()),
            Some(_) => self.with(|reader| serde::Deserialize::deserialize(reader)),
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Failure> {
        self.with(|reader| seed.deserialize(reader))
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Failure> {
        self.with(|reader| reader.deserialize_tuple(len, visitor))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Failure> {
        self.with(|reader| reader.deserialize_map(visitor))
    }
}
