//! Text to Kubernetes objects that remember where each field stood.
//!
//! One YAML parser (saphyr-parser) reads multi-document YAML and JSON into [`Node`] trees; a serde
//! deserializer over them gives typed specs whose errors name file, line, column and field path.
//! Scalars mean what they mean to kubectl; what kubectl would change on the way (`on:` as a key,
//! `yes` where a string is wanted) is refused with a hint to quote it. All input is bounded by
//! [`limits`]. Every [`Problem`] has a code of [`codes`].

pub mod codes;
mod de;
mod documents;
mod duration;
mod json;
pub mod limits;
mod located;
mod metadata;
mod node;
mod object;
mod problem;
mod scalar;
pub(crate) mod suggest;
#[cfg(test)]
mod tests;
mod tree;

pub use duration::parse_duration;
pub use located::Located;
pub use metadata::Metadata;
pub use node::{Content, Key, Node, Scalar};
pub use object::{Object, from_str, parse};
pub use problem::{Place, Problem, Severity};
