//! Kubernetes objects, and the documents they come from.

use std::sync::Arc;

use serde::de::DeserializeOwned;

use super::{
    Metadata, Node, Place, Problem, codes, de,
    documents::{self, Document},
    limits::MAX_TEXT,
    tree,
};

/// A Kubernetes object, whole, with places.
#[derive(Debug, Clone)]
pub struct Object {
    /// `security.istio.io/v1`…
    pub api_version: String,
    /// `AuthorizationPolicy`…
    pub kind: String,
    /// Name, namespace, labels, annotations, creation time.
    pub metadata: Metadata,
    /// Start of the object.
    pub place: Place,
    /// The object's tree.
    pub root: Node,
}

impl Object {
    /// The API group, without the version (`security.istio.io`; empty for the core group).
    #[must_use]
    pub fn group(&self) -> &str {
        self.api_version.split_once('/').map_or("", |(group, _)| group)
    }

    /// The version, without the group (`v1`).
    #[must_use]
    pub fn version(&self) -> &str {
        self.api_version.split_once('/').map_or(&self.api_version, |(_, version)| version)
    }

    /// The namespace of a namespaced object: `default` where the manifest names none.
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.metadata.namespace.as_deref().unwrap_or("default")
    }

    /// `Kind namespace/name`: how problems and explanations name a namespaced object.
    #[must_use]
    pub fn label(&self) -> String {
        format!("{} {}/{}", self.kind, self.namespace(), self.metadata.name)
    }

    /// The place of a field by its path of keys, or of the nearest field above it that is there.
    #[must_use]
    pub fn place_of(&self, path: &[&str]) -> Place {
        let mut node = &self.root;
        for key in path {
            let Some(next) = node.get(key) else { break };
            node = next;
        }
        Place { file: self.place.file.clone(), line: node.line, column: node.column }
    }

    /// The typed content of one top-level field (`spec`, `data`…): `Ok(None)` where absent.
    ///
    /// # Errors
    /// The first field that does not fit, with its place and path. Types that deny unknown fields
    /// make those an error too.
    pub fn field<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, Problem> {
        let Some(node) = self.root.get(name) else { return Ok(None) };
        let root = de::Path::Root;
        let path = de::Path::Key(&root, name);
        let value = de::read(&self.place.file, &path, node);
        value.map(Some).map_err(|failure| failure.into_problem(&self.place.file).of(self.label()))
    }
}

/// Parses multi-document YAML or JSON (a JSON array or a `kind: List` is flattened) into objects.
/// Documents that fail are reported; the rest is still returned.
#[must_use]
pub fn parse(file: &str, text: &str) -> (Vec<Object>, Vec<Problem>) {
    let file: Arc<str> = Arc::from(file);
    let (mut objects, mut problems) = (Vec::new(), Vec::new());
    if let Some(problem) = too_long(&file, text) {
        return (objects, vec![problem]);
    }
    for document in documents::split(text) {
        match tree::build(&file, document) {
            Ok(Some(root)) => flatten(&file, root, &mut objects, &mut problems),
            Ok(None) => {}
            Err(problem) => problems.push(problem),
        }
    }
    (objects, problems)
}

/// Parses one document into any type: settings, PolicyTest files. Same parser, same errors.
/// An empty text is null to types that take null, and an empty mapping to all others.
///
/// # Errors
/// Syntax errors and fields that do not fit, with place and path; more than one document.
pub fn from_str<T: DeserializeOwned>(file: &str, text: &str) -> Result<T, Problem> {
    let file: Arc<str> = Arc::from(file);
    if let Some(problem) = too_long(&file, text) {
        return Err(problem);
    }
    let documents = documents::split(text);
    if let [_, second, ..] = documents.as_slice() {
        let line = u32::try_from(second.lines_before + 1).unwrap_or(u32::MAX);
        let place = Place { file, line, column: 1 };
        return Err(Problem::error(codes::SYNTAX, place, "", "expected one document, found more"));
    }
    let document = documents.first().copied().unwrap_or(Document { text: "", lines_before: 0 });
    let root = tree::build(&file, document)?.filter(|root| !root.is_null());
    let read = |node: &Node| de::read(&file, &de::Path::Root, node);
    let value = match root {
        Some(root) => read(&root),
        None => read(&empty(super::Content::Scalar(super::Scalar { text: String::new(), plain: true })))
            .or_else(|_| read(&empty(super::Content::Mapping(Vec::new())))),
    };
    value.map_err(|failure| failure.into_problem(&file))
}

fn empty(content: super::Content) -> Node {
    Node { line: 1, column: 1, content }
}

fn too_long(file: &Arc<str>, text: &str) -> Option<Problem> {
    let place = Place { file: file.clone(), line: 1, column: 1 };
    (text.len() > MAX_TEXT).then(|| {
        let message = format!("{} bytes, at most {MAX_TEXT} (MAX_TEXT)", text.len());
        Problem::error(codes::TOO_LARGE, place, "", message)
    })
}

/// One document's objects. The nesting of lists is bounded by `MAX_DEPTH`.
fn flatten(file: &Arc<str>, root: Node, objects: &mut Vec<Object>, problems: &mut Vec<Problem>) {
    if root.is_null() {
        return;
    }
    if let super::Content::Sequence(items) = root.content {
        for item in items {
            flatten(file, item, objects, problems);
        }
        return;
    }
    let is_list = root.get("apiVersion").and_then(Node::as_str) == Some("v1")
        && root.get("kind").and_then(Node::as_str) == Some("List");
    if !is_list {
        match object(file, root) {
            Ok(object) => objects.push(object),
            Err(problem) => problems.push(problem),
        }
        return;
    }
    let super::Content::Mapping(entries) = root.content else { return };
    for (key, items) in entries {
        if key.text != "items" {
            continue;
        }
        if !matches!(items.content, super::Content::Sequence(_)) && !items.is_null() {
            let place = Place { file: file.clone(), line: items.line, column: items.column };
            let message = "the items of a List must be a list";
            problems.push(Problem::error(codes::WRONG_TYPE, place, "items", message));
            continue;
        }
        flatten(file, items, objects, problems);
    }
}

fn object(file: &Arc<str>, root: Node) -> Result<Object, Problem> {
    let place = Place { file: file.clone(), line: root.line, column: root.column };
    let text_of = |name: &str| match root.get(name) {
        Some(node) => match node.as_str() {
            Some(text) if !text.is_empty() => Ok(text.to_owned()),
            _ => {
                let place = Place { file: file.clone(), line: node.line, column: node.column };
                let message = format!("`{name}` must be a string, not {}", node.describe());
                Err(Problem::error(codes::NOT_AN_OBJECT, place, name, message))
            }
        },
        None => {
            let message = format!("not a Kubernetes object: `{name}` is missing");
            Err(Problem::error(codes::NOT_AN_OBJECT, place.clone(), "", message))
        }
    };
    let (api_version, kind) = (text_of("apiVersion")?, text_of("kind")?);
    let mut object = Object { api_version, kind, metadata: Metadata::default(), place, root };
    object.metadata = match object.field::<Option<Metadata>>("metadata") {
        Ok(metadata) => metadata.flatten().unwrap_or_default(),
        // The name is not known yet: name the kind alone.
        Err(problem) => return Err(Problem { object: Some(object.kind), ..problem }),
    };
    // Kubernetes takes an empty namespace for none.
    object.metadata.namespace = object.metadata.namespace.filter(|name| !name.is_empty());
    Ok(object)
}
