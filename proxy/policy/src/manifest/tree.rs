//! Parser events to a tree, within limits.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Span, StrInput, Tag};

use super::{
    Content, Key, Node, Place, Problem, Scalar, codes,
    documents::Document,
    json,
    limits::{MAX_ALIAS_NODES, MAX_DEPTH, MAX_NODES, MAX_OPEN_BRACKETS},
};

/// Parses one document: `Ok(None)` where it turns out to be empty.
pub(super) fn build(file: &Arc<str>, document: Document<'_>) -> Result<Option<Node>, Problem> {
    let mut builder = Builder {
        file,
        lines_before: document.lines_before,
        open: Vec::new(),
        anchors: HashMap::new(),
        nodes: 0,
        alias_nodes: 0,
        done: None,
    };
    builder.check_characters(document.text)?;
    let text = json::join_surrogates(document.text);
    let mut parser = Parser::new_from_str(&text);
    loop {
        match next(&mut parser, &builder)? {
            None | Some((Event::StreamEnd, _)) => return Ok(builder.done),
            Some((event, span)) => builder.take(event, span)?,
        }
    }
}

fn next<'t>(
    parser: &mut Parser<'t, StrInput<'t>>,
    builder: &Builder<'_>,
) -> Result<Option<(Event<'t>, Span)>, Problem> {
    parser.next_event().transpose().map_err(|error| builder.syntax(&error))
}

/// A list or mapping whose end has not been seen.
struct Open {
    node: Node,
    anchor: usize,
    /// The key whose value comes next, in a mapping.
    key: Option<Key>,
    /// Keys seen, in a mapping: a set, so that many keys cost no more than their number.
    seen: HashSet<String>,
    /// Values of `<<`, merged at the end.
    merges: Vec<Node>,
    /// Nodes inside, aliases expanded.
    weight: usize,
}

struct Builder<'a> {
    file: &'a Arc<str>,
    lines_before: usize,
    open: Vec<Open>,
    anchors: HashMap<usize, (Node, usize)>,
    nodes: usize,
    alias_nodes: usize,
    done: Option<Node>,
}

impl Builder<'_> {
    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), Problem> {
        let at = span.start;
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let plain = self.is_plain(style, tag.as_deref(), at)?;
                let content = Content::Scalar(Scalar { text: text.into_owned(), plain });
                self.close(self.node(at, content), anchor, 1)
            }
            Event::SequenceStart(anchor, tag) => {
                self.check_tag(tag.as_deref(), "seq", at)?;
                self.begin(at, anchor, Content::Sequence(Vec::new()))
            }
            Event::MappingStart(anchor, tag) => {
                self.check_tag(tag.as_deref(), "map", at)?;
                self.begin(at, anchor, Content::Mapping(Vec::new()))
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(at),
            Event::Alias(anchor) => self.alias(anchor, at),
            Event::Nothing | Event::StreamStart | Event::StreamEnd => Ok(()),
            Event::DocumentStart(_) | Event::DocumentEnd => Ok(()),
        }
    }

    fn begin(&mut self, at: Marker, anchor: usize, content: Content) -> Result<(), Problem> {
        if self.open.len() >= MAX_DEPTH {
            let text = format!("nested deeper than {MAX_DEPTH} levels (MAX_DEPTH)");
            return Err(self.problem(codes::TOO_LARGE, at, text));
        }
        let node = self.node(at, content);
        self.open.push(Open { node, anchor, key: None, seen: HashSet::new(), merges: Vec::new(), weight: 1 });
        Ok(())
    }

    fn end(&mut self, at: Marker) -> Result<(), Problem> {
        let Some(mut done) = self.open.pop() else { return Ok(()) };
        for merged in std::mem::take(&mut done.merges) {
            self.merge(&mut done, merged, at)?;
        }
        self.close(done.node, done.anchor, done.weight)
    }

    fn alias(&mut self, anchor: usize, at: Marker) -> Result<(), Problem> {
        let Some((node, weight)) = self.anchors.get(&anchor) else {
            let text = "an alias to an anchor that is not complete before it".to_owned();
            return Err(self.problem(codes::SYNTAX, at, text));
        };
        let weight = *weight;
        if self.alias_nodes + weight > MAX_ALIAS_NODES {
            let text = format!("aliases expand to more than {MAX_ALIAS_NODES} nodes (MAX_ALIAS_NODES)");
            return Err(self.problem(codes::TOO_LARGE, at, text));
        }
        let node = node.clone();
        self.alias_nodes += weight;
        self.close(node, 0, weight)
    }

    /// A node is complete: it becomes a key, a value, an item, or the document itself.
    fn close(&mut self, node: Node, anchor: usize, weight: usize) -> Result<(), Problem> {
        self.nodes += weight;
        if self.nodes > MAX_NODES {
            let text = format!("a document of more than {MAX_NODES} nodes (MAX_NODES)");
            return Err(self.at_node(codes::TOO_LARGE, &node, text));
        }
        if anchor != 0 {
            // The copy is paid for like an alias: anchors within anchors would be quadratic.
            self.alias_nodes += weight;
            if self.alias_nodes > MAX_ALIAS_NODES {
                let text = format!("anchors hold more than {MAX_ALIAS_NODES} nodes (MAX_ALIAS_NODES)");
                return Err(self.at_node(codes::TOO_LARGE, &node, text));
            }
            self.anchors.insert(anchor, (node.clone(), weight));
        }
        let Some(mut parent) = self.open.pop() else {
            if self.done.is_some() {
                // A marker behind a lone carriage return, which `documents::split` does not see.
                let text = "a second document begins here without a line of its own".to_owned();
                return Err(self.at_node(codes::SYNTAX, &node, text));
            }
            self.done = Some(node);
            return Ok(());
        };
        parent.weight += weight;
        let outcome = self.adopt(&mut parent, node);
        self.open.push(parent);
        outcome
    }

    fn adopt(&self, parent: &mut Open, node: Node) -> Result<(), Problem> {
        let entries = match &mut parent.node.content {
            Content::Sequence(items) => {
                items.push(node);
                return Ok(());
            }
            Content::Mapping(entries) => entries,
            Content::Scalar(_) => return Ok(()),
        };
        let Some(key) = parent.key.take() else {
            parent.key = Some(self.key(node)?);
            return Ok(());
        };
        if key.plain && key.text == "<<" {
            parent.merges.push(node);
        } else if parent.seen.insert(key.text.clone()) {
            entries.push((key, node));
        } else {
            return Err(self.duplicate(entries, &key));
        }
        Ok(())
    }

    fn key(&self, node: Node) -> Result<Key, Problem> {
        match node.content {
            Content::Scalar(Scalar { text, plain }) => {
                Ok(Key { text, plain, line: node.line, column: node.column })
            }
            _ => {
                let text = "a list or mapping cannot be a key here".to_owned();
                Err(self.at_node(codes::SYNTAX, &node, text))
            }
        }
    }

    fn duplicate(&self, entries: &[(Key, Node)], key: &Key) -> Problem {
        let first = entries.iter().find(|(known, _)| known.text == key.text);
        let line = first.map_or(0, |(known, _)| known.line);
        let place = Place { file: self.file.clone(), line: key.line, column: key.column };
        let text = format!("the key `{}` stands twice, first on line {line}", key.text);
        Problem::error(codes::DUPLICATE_KEY, place, key.text.clone(), text)
    }

    /// `<<`: the mapping's own keys win, then the earlier of several merged mappings.
    fn merge(&mut self, into: &mut Open, merged: Node, at: Marker) -> Result<(), Problem> {
        let mappings = match merged.content {
            Content::Sequence(items) => items,
            _ => vec![merged],
        };
        let Content::Mapping(entries) = &mut into.node.content else { return Ok(()) };
        for mapping in mappings {
            let Content::Mapping(inherited) = mapping.content else {
                let text = "a merge key (`<<`) takes a mapping or a list of mappings".to_owned();
                return Err(self.problem(codes::SYNTAX, at, text));
            };
            for (key, value) in inherited {
                if into.seen.insert(key.text.clone()) {
                    entries.push((key, value));
                }
            }
        }
        Ok(())
    }

    fn is_plain(&self, style: ScalarStyle, tag: Option<&Tag>, at: Marker) -> Result<bool, Problem> {
        let Some(tag) = tag else { return Ok(style == ScalarStyle::Plain) };
        match (tag.is_yaml_core_schema(), tag.suffix.as_str()) {
            (true, "str") => Ok(false),
            (true, "int" | "float" | "bool" | "null") => Ok(true),
            _ if tag.handle.is_empty() && tag.suffix == "!" => Ok(false),
            _ => Err(self.bad_tag(tag, at)),
        }
    }

    fn check_tag(&self, tag: Option<&Tag>, wanted: &str, at: Marker) -> Result<(), Problem> {
        match tag {
            Some(tag) if !(tag.is_yaml_core_schema() && tag.suffix == wanted) => Err(self.bad_tag(tag, at)),
            _ => Ok(()),
        }
    }

    fn bad_tag(&self, tag: &Tag, at: Marker) -> Problem {
        self.problem(codes::SYNTAX, at, format!("the tag `{tag}` is not supported here"))
    }

    /// What must not reach the scanner: too many open brackets, and control characters (YAML
    /// 1.2.2, 5.1), of which it takes NUL for the end and would drop what follows unseen.
    fn check_characters(&self, text: &str) -> Result<(), Problem> {
        let (mut depth, mut line) = (0_usize, 1_usize);
        for byte in text.bytes() {
            match byte {
                b'[' | b'{' => depth += 1,
                b']' | b'}' => depth = depth.saturating_sub(1),
                b'\n' => line += 1,
                b'\t' | b'\r' | 0x20.. => continue,
                _ => {
                    let text = format!("the control character U+{byte:04X} is not allowed");
                    return Err(self.problem(codes::SYNTAX, Marker::new(0, line, 0), text));
                }
            }
            if depth > MAX_OPEN_BRACKETS {
                let text = format!("more than {MAX_OPEN_BRACKETS} brackets open (MAX_OPEN_BRACKETS)");
                return Err(self.problem(codes::TOO_LARGE, Marker::new(0, line, 0), text));
            }
        }
        Ok(())
    }

    fn node(&self, at: Marker, content: Content) -> Node {
        Node { line: self.line(at), column: column(at), content }
    }

    fn line(&self, at: Marker) -> u32 {
        u32::try_from(at.line().max(1) + self.lines_before).unwrap_or(u32::MAX)
    }

    fn syntax(&self, error: &ScanError) -> Problem {
        self.problem(codes::SYNTAX, *error.marker(), error.info().to_owned())
    }

    fn problem(&self, code: &'static str, at: Marker, text: String) -> Problem {
        let place = Place { file: self.file.clone(), line: self.line(at), column: column(at) };
        Problem::error(code, place, "", text)
    }

    fn at_node(&self, code: &'static str, node: &Node, text: String) -> Problem {
        let place = Place { file: self.file.clone(), line: node.line, column: node.column };
        Problem::error(code, place, "", text)
    }
}

/// The parser counts columns from 0.
fn column(at: Marker) -> u32 {
    u32::try_from(at.col() + 1).unwrap_or(u32::MAX)
}
