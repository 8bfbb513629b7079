//! A document's tree, with a place for every key and value.

use super::scalar::{self, Resolved};

/// A node of a document's tree.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Line, from 1.
    pub line: u32,
    /// Column, from 1.
    pub column: u32,
    /// What stands there.
    pub content: Content,
}

/// What a node is.
#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    /// A scalar, resolved only when it is asked for: whether `yes` is a boolean depends on what
    /// the reader expects there.
    Scalar(Scalar),
    /// A list.
    Sequence(Vec<Node>),
    /// A mapping, in the order of the document; no key stands twice.
    Mapping(Vec<(Key, Node)>),
}

/// A scalar as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scalar {
    /// Its text, unescaped.
    pub text: String,
    /// Whether it may be something else than a string: plain style, or a tag such as `!!int`.
    pub plain: bool,
}

/// A mapping's key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// Its text.
    pub text: String,
    /// Whether it may be something else than a string.
    pub plain: bool,
    /// Line, from 1.
    pub line: u32,
    /// Column, from 1.
    pub column: u32,
}

impl Node {
    /// The value of a key, where this is a mapping that has it.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entries().iter().find(|(found, _)| found.text == key).map(|(_, value)| value)
    }

    /// The value at a path of keys.
    #[must_use]
    pub fn at(&self, path: &[&str]) -> Option<&Node> {
        path.iter().try_fold(self, |node, key| node.get(key))
    }

    /// The entries of a mapping; none for anything else.
    #[must_use]
    pub fn entries(&self) -> &[(Key, Node)] {
        match &self.content {
            Content::Mapping(entries) => entries,
            _ => &[],
        }
    }

    /// The items of a list; none for anything else.
    #[must_use]
    pub fn items(&self) -> &[Node] {
        match &self.content {
            Content::Sequence(items) => items,
            _ => &[],
        }
    }

    /// The text of a scalar that is a string.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        match &self.content {
            Content::Scalar(scalar) if scalar.resolve() == Resolved::Text => Some(&scalar.text),
            _ => None,
        }
    }

    /// Whether it is null: an empty plain scalar, `~` or `null`.
    #[must_use]
    pub fn is_null(&self) -> bool {
        matches!(&self.content, Content::Scalar(scalar) if scalar.resolve() == Resolved::Null)
    }

    /// What it is, in words for a message (`the number 5`, `a list`).
    pub(super) fn describe(&self) -> String {
        match &self.content {
            Content::Sequence(_) => "a list".to_owned(),
            Content::Mapping(_) => "a mapping".to_owned(),
            Content::Scalar(scalar) => {
                let mut shown: String = scalar.text.chars().take(60).collect();
                if shown.len() < scalar.text.len() {
                    shown.push('…');
                }
                match scalar.resolve() {
                    Resolved::Null => "nothing (null)".to_owned(),
                    Resolved::Bool(_) => format!("the boolean `{shown}`"),
                    Resolved::Text => format!("the string {shown:?}"),
                    Resolved::Integer(_) | Resolved::Unsigned(_) | Resolved::Float(_) => {
                        format!("the number {shown}")
                    }
                }
            }
        }
    }
}

impl Scalar {
    /// What it is to kubectl.
    pub(super) fn resolve(&self) -> Resolved {
        if self.plain { scalar::resolve(&self.text) } else { Resolved::Text }
    }
}

impl Key {
    /// The text, unless kubectl would read the key as something else (`on:` as `true`, `010:` as
    /// `8`): a key that changes on its way is refused rather than guessed at.
    pub(super) fn clean(&self) -> Result<&str, String> {
        if !self.plain || scalar::is_clean_key(&self.text) {
            return Ok(&self.text);
        }
        Err(format!("the key `{}` is not a string to kubectl: put it in quotes", self.text))
    }
}
