//! [`Node`]: a document as a tree in which every place knows its line. YAML is read here, JSON in `json`.

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError};

use super::{Fault, Pointer};

/// One value of a document, and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Its line, from 1; 0 when it did not come from a text.
    pub line: u32,
    /// What it is.
    pub value: Value,
}

/// What a node is.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Nothing: `null`, `~`, or left empty.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Int(i128),
    /// Another number.
    Float(f64),
    /// Text.
    Text(String),
    /// A list.
    List(Vec<Node>),
    /// A map, in the document's order.
    Map(Vec<Entry>),
    /// Taken out, because it was refused and reported.
    Removed,
}

/// One entry of a map.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Its key.
    pub key: String,
    /// The key's line.
    pub line: u32,
    /// Its value.
    pub node: Node,
}

impl Node {
    /// A node that came from no text.
    pub fn from_json(json: &serde_json::Value) -> Self {
        let value = match json {
            serde_json::Value::Null => Value::Null,
            serde_json::Value::Bool(value) => Value::Bool(*value),
            serde_json::Value::Number(number) => number_value(number),
            serde_json::Value::String(text) => Value::Text(text.clone()),
            serde_json::Value::Array(items) => Value::List(items.iter().map(Node::from_json).collect()),
            serde_json::Value::Object(map) => Value::Map(map.iter().map(Entry::from_json).collect()),
        };
        Node { line: 0, value }
    }

    /// The line of the place that `pointer` names, or of the nearest place above it that there is.
    pub fn line_of(&self, pointer: &Pointer) -> Option<u32> {
        let (mut node, mut line) = (self, self.line);
        for segment in pointer.segments() {
            let Some((below, its_line)) = node.step(&segment) else { break };
            (node, line) = (below, its_line);
        }
        (line > 0).then_some(line)
    }

    /// The node that `pointer` names.
    pub fn at(&self, pointer: &Pointer) -> Option<&Node> {
        pointer.segments().try_fold(self, |node, segment| Some(node.step(&segment)?.0))
    }

    /// The node that `pointer` names.
    pub fn at_mut(&mut self, pointer: &Pointer) -> Option<&mut Node> {
        pointer.segments().try_fold(self, |node, segment| node.step_mut(&segment))
    }

    /// Puts `node` at `pointer`, whose parent must be a map or a long enough list.
    pub fn put(&mut self, pointer: &Pointer, node: Node) {
        let Some((parent, last)) = pointer.split_last() else { return };
        if self.at(&parent).is_none() && parent.segments().next().is_some() {
            self.put(&parent, Node { line: 0, value: Value::Map(Vec::new()) });
        }
        let Some(holder) = self.at_mut(&parent) else { return };
        match holder.step_mut(&last) {
            Some(place) => *place = node,
            None => holder.append(&last, node),
        }
    }

    fn append(&mut self, key: &str, node: Node) {
        if matches!(self.value, Value::Null | Value::Removed) {
            self.value = Value::Map(Vec::new());
        }
        match &mut self.value {
            Value::Map(entries) => entries.push(Entry { key: key.into(), line: 0, node }),
            Value::List(items) => items.push(node),
            _ => (),
        }
    }

    fn step(&self, segment: &str) -> Option<(&Node, u32)> {
        match &self.value {
            Value::Map(entries) => {
                entries.iter().find(|entry| entry.key == segment).map(|entry| (&entry.node, entry.line))
            }
            Value::List(items) => items.get(segment.parse::<usize>().ok()?).map(|node| (node, node.line)),
            _ => None,
        }
    }

    fn step_mut(&mut self, segment: &str) -> Option<&mut Node> {
        match &mut self.value {
            Value::Map(entries) => {
                entries.iter_mut().find(|entry| entry.key == segment).map(|entry| &mut entry.node)
            }
            Value::List(items) => items.get_mut(segment.parse::<usize>().ok()?),
            _ => None,
        }
    }
}

impl Entry {
    fn from_json((key, value): (&String, &serde_json::Value)) -> Self {
        Entry { key: key.clone(), line: 0, node: Node::from_json(value) }
    }
}

fn number_value(number: &serde_json::Number) -> Value {
    match (number.as_i64(), number.as_u64()) {
        (Some(value), _) => Value::Int(value.into()),
        (None, Some(value)) => Value::Int(value.into()),
        (None, None) => Value::Float(number.as_f64().unwrap_or(f64::NAN)),
    }
}

/// Reads YAML.
///
/// # Errors
/// The first syntax error, with its line; or every anchor, alias, tag and second document.
pub(super) fn from_yaml(text: &str) -> Result<Node, Vec<(u32, String)>> {
    let mut builder = Builder::default();
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| vec![syntax_error(text, &error)])?;
        builder.on_event(event, span.start.line() as u32);
    }
    if builder.refused.is_empty() {
        return Ok(builder.root.unwrap_or(Node { line: 1, value: Value::Null }));
    }
    builder.refused.truncate(super::ERRORS_MAX);
    Err(builder.refused)
}

fn syntax_error(text: &str, error: &ScanError) -> (u32, String) {
    let line = error.marker().line();
    let source = text.lines().nth(line.saturating_sub(1)).unwrap_or_default();
    let hint = if source.trim_start().starts_with('\t') || source.contains("\t") {
        " (YAML is indented with spaces, not tabs)"
    } else if source.contains(": *") || source.contains("- *") {
        " (a * needs quotes: \"*\")"
    } else if source.contains("]:") || source.contains("]/") {
        " (an address in brackets needs quotes: \"[2001:db8::1]:80\")"
    } else {
        ""
    };
    (line as u32, format!("expected YAML: {}{hint}", error.info()))
}

/// Turns events into nodes. A frame is a list or map that is not finished.
#[derive(Default)]
struct Builder {
    root: Option<Node>,
    open: Vec<Frame>,
    documents: usize,
    /// Levels that were too deep to keep.
    skipped: usize,
    refused: Vec<(u32, String)>,
}

struct Frame {
    node: Node,
    key: Option<(String, u32)>,
}

impl Builder {
    fn on_event(&mut self, event: Event<'_>, line: u32) {
        match event {
            Event::DocumentStart(_) => self.on_document(line),
            Event::Scalar(text, style, anchor, tag) => {
                self.refuse_extras(line, anchor, tag.is_some());
                self.on_node(Node { line, value: scalar(&text, style) });
            }
            Event::Alias(_) => {
                self.refuse(line, "expected a value; aliases (*name) are not used here: write the value out");
                self.on_node(Node { line, value: Value::Null });
            }
            Event::SequenceStart(anchor, tag) => {
                self.refuse_extras(line, anchor, tag.is_some());
                self.on_open(Node { line, value: Value::List(Vec::new()) });
            }
            Event::MappingStart(anchor, tag) => {
                self.refuse_extras(line, anchor, tag.is_some());
                self.on_open(Node { line, value: Value::Map(Vec::new()) });
            }
            Event::SequenceEnd | Event::MappingEnd => self.on_close(),
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => (),
        }
    }

    fn refuse(&mut self, line: u32, message: &str) {
        self.refused.push((line, message.into()));
    }

    fn refuse_extras(&mut self, line: u32, anchor: usize, tagged: bool) {
        if anchor > 0 {
            self.refuse(line, "expected a value; anchors (&name) are not used here: write the value out");
        }
        if tagged {
            self.refuse(line, "expected a value; tags (!name) are not used here");
        }
    }

    fn on_document(&mut self, line: u32) {
        self.documents += 1;
        if self.documents == 2 {
            self.refuse(line, "expected one document; a second one begins here");
        }
    }

    fn on_open(&mut self, node: Node) {
        if self.open.len() >= super::DEPTH_MAX {
            if self.skipped == 0 {
                self.refuse(node.line, "expected fewer levels of lists and maps inside each other");
            }
            self.skipped += 1;
            return;
        }
        self.open.push(Frame { node, key: None });
    }

    fn on_close(&mut self) {
        if self.skipped > 0 {
            self.skipped -= 1;
            if self.skipped == 0 {
                self.on_node(Node { line: 0, value: Value::Null });
            }
            return;
        }
        if let Some(frame) = self.open.pop() {
            self.on_node(frame.node);
        }
    }

    fn on_node(&mut self, node: Node) {
        if self.skipped > 0 || self.documents > 1 {
            return;
        }
        let Some(frame) = self.open.last_mut() else {
            self.root = Some(node);
            return;
        };
        match &mut frame.node.value {
            Value::List(items) => items.push(node),
            Value::Map(entries) => match frame.key.take() {
                Some((key, line)) => entries.push(Entry { key, line, node }),
                None => frame.key = Some((key_text(&node), node.line)),
            },
            _ => (),
        }
    }
}

/// A map's key as text. A list or map as a key stays recognisable in the "unknown field" error.
fn key_text(node: &Node) -> String {
    match &node.value {
        Value::Text(text) => text.clone(),
        Value::Int(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        Value::Bool(value) => value.to_string(),
        Value::Null => "null".into(),
        Value::List(_) => "[…]".into(),
        Value::Map(_) | Value::Removed => "{…}".into(),
    }
}

/// YAML 1.2's core schema for plain scalars; whatever is quoted is text.
fn scalar(text: &str, style: ScalarStyle) -> Value {
    if style != ScalarStyle::Plain {
        return Value::Text(text.into());
    }
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        _ => number(text).unwrap_or_else(|| Value::Text(text.into())),
    }
}

fn number(text: &str) -> Option<Value> {
    let radix =
        |prefix, radix| text.strip_prefix(prefix).map(|digits| i128::from_str_radix(digits, radix).ok());
    if let Some(number) = radix("0x", 16).or_else(|| radix("0o", 8)) {
        return number.map(Value::Int);
    }
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if !digits.starts_with(|first: char| first.is_ascii_digit() || first == '.') {
        return None;
    }
    if digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().ok().map(Value::Int);
    }
    let float = digits.bytes().all(|byte| byte.is_ascii_digit() || b".eE+-".contains(&byte));
    if float { text.parse().ok().map(Value::Float) } else { None }
}

/// True when a key stands twice in one map, anywhere in the tree. Allocates only for maps of more than a few keys.
pub(super) fn has_duplicates(node: &Node) -> bool {
    match &node.value {
        Value::Map(entries) => {
            stands_twice(entries) || entries.iter().any(|entry| has_duplicates(&entry.node))
        }
        Value::List(items) => items.iter().any(has_duplicates),
        _ => false,
    }
}

fn stands_twice(entries: &[Entry]) -> bool {
    if entries.len() <= FEW {
        let stands_before =
            |(place, entry): (usize, &Entry)| entries[..place].iter().any(|earlier| earlier.key == entry.key);
        return entries.iter().enumerate().any(stands_before);
    }
    let mut seen = std::collections::HashSet::with_capacity(entries.len());
    !entries.iter().all(|entry| seen.insert(entry.key.as_str()))
}

/// Keys that are sooner compared with each other than hashed.
const FEW: usize = 12;

/// Every key that stands twice in one map. The second one is taken out.
pub(super) fn take_duplicates(node: &mut Node, path: &Pointer, faults: &mut Vec<Fault>) {
    match &mut node.value {
        Value::Map(entries) => {
            let mut seen = std::collections::HashMap::with_capacity(entries.len());
            entries.retain(|entry| match seen.get(&entry.key) {
                Some(first) => {
                    faults.push(duplicate(path, entry, *first));
                    false
                }
                None => {
                    seen.insert(entry.key.clone(), entry.line);
                    true
                }
            });
            for entry in entries {
                take_duplicates(&mut entry.node, &path.child(&entry.key), faults);
            }
        }
        Value::List(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                take_duplicates(item, &path.child(&index.to_string()), faults);
            }
        }
        _ => (),
    }
}

fn duplicate(path: &Pointer, entry: &Entry, first: u32) -> Fault {
    let message = format!("expected \"{}\" once; it stands in line {first} already", entry.key);
    Fault {
        path: path.child(&entry.key),
        line: (entry.line > 0).then_some(entry.line),
        message,
        refers: None,
    }
}
