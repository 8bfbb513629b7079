//! A value that remembers where it stood.

use std::{fmt, marker::PhantomData, ops::Deref, sync::Arc};

use serde::{
    Deserialize, Deserializer,
    de::{Error as _, SeqAccess, Visitor},
};

use super::{Place, Problem};

/// The struct name by which [`Located`] asks this module's deserializer for a place.
pub(super) const LOCATED: &str = "$fhirward::Located";
/// The five parts that the deserializer then hands over, in this order.
pub(super) const PARTS: &[&str] = &["file", "line", "column", "field", "value"];

/// A value with its place and field path. Deserializes only from [`super::Object::field`],
/// [`super::from_str`] and the like; any other deserializer gives an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located<T> {
    /// The value.
    pub value: T,
    /// Where it stands.
    pub place: Place,
    /// Its field path from the document's root (`spec.jwtRules[0].jwks`).
    pub field: String,
}

impl<T> Located<T> {
    /// An error about this value.
    #[must_use]
    pub fn error(&self, code: &'static str, message: impl Into<String>) -> Problem {
        Problem::error(code, self.place.clone(), self.field.clone(), message)
    }

    /// A warning about this value.
    #[must_use]
    pub fn warning(&self, code: &'static str, message: impl Into<String>) -> Problem {
        Problem::warning(code, self.place.clone(), self.field.clone(), message)
    }
}

impl<T> Deref for Located<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Located<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_struct(LOCATED, PARTS, LocatedVisitor(PhantomData))
    }
}

struct LocatedVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for LocatedVisitor<T> {
    type Value = Located<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value read by the manifest parser")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<Self::Value, A::Error> {
        fn next<'de, V: Deserialize<'de>, A: SeqAccess<'de>>(parts: &mut A) -> Result<V, A::Error> {
            parts.next_element()?.ok_or_else(|| A::Error::custom("a located value is incomplete"))
        }
        let file: String = next(&mut parts)?;
        let (line, column) = (next(&mut parts)?, next(&mut parts)?);
        let field = next(&mut parts)?;
        let value = next(&mut parts)?;
        Ok(Located { value, place: Place { file: Arc::from(file), line, column }, field })
    }
}
