//! [`Node`]: a document as a tree in which every place knows its line. YAML that `quick` leaves is read here, JSON in
//! `json`.

use std::borrow::Cow;

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError};

use super::{Fault, Pointer};

/// One value of a document, and where it stands. Borrows what it can of the text.
#[derive(Debug, Clone, PartialEq)]
pub struct Node<'t> {
    /// Its line, from 1; 0 when it did not come from a text.
    pub line: u32,
    /// What it is.
    pub value: Value<'t>,
}

/// What a node is. Of large documents the tree is what takes room: 24 bytes, and a node 32.
#[derive(Debug, Clone, PartialEq)]
pub enum Value<'t> {
    /// Nothing: `null`, `~`, or left empty.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A whole number beyond those.
    Large(Box<i128>),
    /// Another number.
    Float(f64),
    /// Text.
    Text(Cow<'t, str>),
    /// A list.
    List(Box<[Node<'t>]>),
    /// A map, in the document's order.
    Map(Box<[Entry<'t>]>),
    /// Taken out, because it was refused and reported.
    Removed,
}

/// One entry of a map.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry<'t> {
    /// Its key.
    pub key: Cow<'t, str>,
    /// The key's line.
    pub line: u32,
    /// Its value.
    pub node: Node<'t>,
}

impl Value<'_> {
    /// A whole number.
    pub(super) fn whole(number: i128) -> Self {
        i64::try_from(number).map_or_else(|_| Value::Large(Box::new(number)), Value::Int)
    }
}

impl<'t> Node<'t> {
    /// A node that came from no text.
    pub fn from_json(json: &serde_json::Value) -> Node<'static> {
        let value = match json {
            serde_json::Value::Null => Value::Null,
            serde_json::Value::Bool(value) => Value::Bool(*value),
            serde_json::Value::Number(number) => number_value(number),
            serde_json::Value::String(text) => Value::Text(text.clone().into()),
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
    pub fn at(&self, pointer: &Pointer) -> Option<&Node<'t>> {
        pointer.segments().try_fold(self, |node, segment| Some(node.step(&segment)?.0))
    }

    /// The node that `pointer` names.
    pub fn at_mut(&mut self, pointer: &Pointer) -> Option<&mut Node<'t>> {
        pointer.segments().try_fold(self, |node, segment| node.step_mut(&segment))
    }

    /// Puts `node` at `pointer`, whose parent must be a map or a long enough list.
    pub fn put(&mut self, pointer: &Pointer, node: Node<'t>) {
        let Some((parent, last)) = pointer.split_last() else { return };
        if self.at(&parent).is_none() && parent.segments().next().is_some() {
            self.put(&parent, Node { line: 0, value: Value::Map(Box::default()) });
        }
        let Some(holder) = self.at_mut(&parent) else { return };
        match holder.step_mut(&last) {
            Some(place) => *place = node,
            None => holder.append(&last, node),
        }
    }

    fn append(&mut self, key: &str, node: Node<'t>) {
        if matches!(self.value, Value::Null | Value::Removed) {
            self.value = Value::Map(Box::default());
        }
        match &mut self.value {
            Value::Map(entries) => {
                push(entries, Entry { key: key.to_string().into(), line: 0, node });
            }
            Value::List(items) => push(items, node),
            _ => (),
        }
    }

    fn step(&self, segment: &str) -> Option<(&Node<'t>, u32)> {
        match &self.value {
            Value::Map(entries) => {
                entries.iter().find(|entry| entry.key == segment).map(|entry| (&entry.node, entry.line))
            }
            Value::List(items) => items.get(segment.parse::<usize>().ok()?).map(|node| (node, node.line)),
            _ => None,
        }
    }

    fn step_mut(&mut self, segment: &str) -> Option<&mut Node<'t>> {
        match &mut self.value {
            Value::Map(entries) => {
                entries.iter_mut().find(|entry| entry.key == segment).map(|entry| &mut entry.node)
            }
            Value::List(items) => items.get_mut(segment.parse::<usize>().ok()?),
            _ => None,
        }
    }
}

impl Entry<'static> {
    fn from_json((key, value): (&String, &serde_json::Value)) -> Self {
        Entry { key: key.clone().into(), line: 0, node: Node::from_json(value) }
    }
}

fn push<T>(list: &mut Box<[T]>, item: T) {
    let mut items = std::mem::take(list).into_vec();
    items.push(item);
    *list = items.into();
}

fn number_value(number: &serde_json::Number) -> Value<'static> {
    match (number.as_i64(), number.as_u64()) {
        (Some(value), _) => Value::Int(value),
        (None, Some(value)) => Value::whole(value.into()),
        (None, None) => Value::Float(number.as_f64().unwrap_or(f64::NAN)),
    }
}

/// Reads YAML of any kind.
///
/// # Errors
/// The first syntax error, with its line; or every anchor, alias, tag and second document.
pub(super) fn from_yaml(text: &str) -> Result<Node<'static>, Vec<(u32, String)>> {
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
    root: Option<Node<'static>>,
    open: Vec<Frame>,
    documents: usize,
    /// Levels that were too deep to keep.
    skipped: usize,
    refused: Vec<(u32, String)>,
}

struct Frame {
    line: u32,
    key: Option<(Cow<'static, str>, u32)>,
    parts: Parts,
}

enum Parts {
    List(Vec<Node<'static>>),
    Map(Vec<Entry<'static>>),
}

impl From<Frame> for Node<'static> {
    fn from(Frame { line, parts, .. }: Frame) -> Self {
        let value = match parts {
            Parts::List(items) => Value::List(items.into()),
            Parts::Map(entries) => Value::Map(entries.into()),
        };
        Node { line, value }
    }
}

impl Builder {
    fn on_event(&mut self, event: Event<'_>, line: u32) {
        match event {
            Event::DocumentStart(_) => self.on_document(line),
            Event::Scalar(text, style, anchor, tag) => {
                self.refuse_extras(line, anchor, tag.is_some());
                self.on_node(Node {
                    line,
                    value: scalar(text.into_owned().into(), style == ScalarStyle::Plain),
                });
            }
            Event::Alias(_) => {
                self.refuse(line, "expected a value; aliases (*name) are not used here: write the value out");
                self.on_node(Node { line, value: Value::Null });
            }
            Event::SequenceStart(anchor, tag) => {
                self.refuse_extras(line, anchor, tag.is_some());
                self.on_open(line, Parts::List(Vec::new()));
            }
            Event::MappingStart(anchor, tag) => {
                self.refuse_extras(line, anchor, tag.is_some());
                self.on_open(line, Parts::Map(Vec::new()));
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

    fn on_open(&mut self, line: u32, parts: Parts) {
        if self.open.len() >= super::DEPTH_MAX {
            if self.skipped == 0 {
                self.refuse(line, "expected fewer levels of lists and maps inside each other");
            }
            self.skipped += 1;
            return;
        }
        self.open.push(Frame { line, key: None, parts });
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
            self.on_node(frame.into());
        }
    }

    fn on_node(&mut self, node: Node<'static>) {
        if self.skipped > 0 || self.documents > 1 {
            return;
        }
        let Some(frame) = self.open.last_mut() else {
            self.root = Some(node);
            return;
        };
        match &mut frame.parts {
            Parts::List(items) => items.push(node),
            Parts::Map(entries) => match frame.key.take() {
                Some((key, line)) => entries.push(Entry { key, line, node }),
                None => frame.key = Some((key_text(node.value), node.line)),
            },
        }
    }
}

/// A map's key as text. A list or map as a key stays recognisable in the "unknown field" error.
pub(super) fn key_text(value: Value<'_>) -> Cow<'_, str> {
    match value {
        Value::Text(text) => text,
        Value::Int(number) => number.to_string().into(),
        Value::Large(number) => number.to_string().into(),
        Value::Float(number) => number.to_string().into(),
        Value::Bool(value) => value.to_string().into(),
        Value::Null => "null".into(),
        Value::List(_) => "[…]".into(),
        Value::Map(_) | Value::Removed => "{…}".into(),
    }
}

/// YAML 1.2's core schema for plain scalars; whatever is quoted is text.
pub(super) fn scalar(text: Cow<'_, str>, is_plain: bool) -> Value<'_> {
    if !is_plain {
        return Value::Text(text);
    }
    match &*text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        other => number(other).unwrap_or(Value::Text(text)),
    }
}

fn number(text: &str) -> Option<Value<'static>> {
    let radix =
        |prefix, radix| text.strip_prefix(prefix).map(|digits| i128::from_str_radix(digits, radix).ok());
    if let Some(number) = radix("0x", 16).or_else(|| radix("0o", 8)) {
        return number.map(Value::whole);
    }
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if !digits.starts_with(|first: char| first.is_ascii_digit() || first == '.') {
        return None;
    }
    if digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().ok().map(Value::whole);
    }
    let float = digits.bytes().all(|byte| byte.is_ascii_digit() || b".eE+-".contains(&byte));
    if float { text.parse().ok().map(Value::Float) } else { None }
}

/// True when a key stands twice in one map, anywhere in the tree. Allocates only for maps of more than a few keys.
pub(super) fn has_duplicates(node: &Node<'_>) -> bool {
    match &node.value {
        Value::Map(entries) => {
            stands_twice(entries) || entries.iter().any(|entry| has_duplicates(&entry.node))
        }
        Value::List(items) => items.iter().any(has_duplicates),
        _ => false,
    }
}

fn stands_twice(entries: &[Entry<'_>]) -> bool {
    if entries.len() <= FEW {
        let stands_before = |(place, entry): (usize, &Entry<'_>)| {
            entries[..place].iter().any(|earlier| earlier.key == entry.key)
        };
        return entries.iter().enumerate().any(stands_before);
    }
    let mut seen = std::collections::HashSet::with_capacity(entries.len());
    !entries.iter().all(|entry| seen.insert(&*entry.key))
}

/// Keys that are sooner compared with each other than hashed.
const FEW: usize = 12;

/// Every key that stands twice in one map. The second one is taken out.
pub(super) fn take_duplicates(node: &mut Node<'_>, path: &Pointer, faults: &mut Vec<Fault>) {
    match &mut node.value {
        Value::Map(entries) => {
            let mut seen = std::collections::HashMap::with_capacity(entries.len());
            let mut kept = std::mem::take(entries).into_vec();
            kept.retain(|entry| match seen.get(&entry.key) {
                Some(first) => {
                    faults.push(duplicate(path, entry, *first));
                    false
                }
                None => {
                    seen.insert(entry.key.clone(), entry.line);
                    true
                }
            });
            *entries = kept.into();
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

fn duplicate(path: &Pointer, entry: &Entry<'_>, first: u32) -> Fault {
    let message = format!("expected \"{}\" once; it stands in line {first} already", entry.key);
    Fault {
        path: path.child(&entry.key),
        line: (entry.line > 0).then_some(entry.line),
        message,
        refers: None,
    }
}
