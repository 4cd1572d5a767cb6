//! Text to [`Model`], with every error at once.
//!
//! ```text
//!   text ─ quick, what is plain ──────────────▶ Node ─▶ serde ─▶ Model
//!       └─ node and json, all else and errors ──▲         │ error at a path: report it, take that node out, try again
//!                                               └─────────┘
//! ```
//!
//! What was taken out is remembered, so that what follows from it is not reported as well.

mod de;
mod json;
mod node;
mod quick;
mod source;

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

pub use node::{Entry, Node, Value};
pub use source::{Kept, Source};

use crate::model::Model;

/// Errors reported at most.
pub const ERRORS_MAX: usize = 100;

/// Lists and maps inside each other at most.
const DEPTH_MAX: usize = 32;

/// A JSON pointer (RFC 6901), as text.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Pointer(String);

impl Pointer {
    /// The whole document.
    pub fn root() -> Self {
        Self::default()
    }

    /// The pointer of `name` below this one.
    pub fn child(&self, name: &str) -> Self {
        let mut text = String::with_capacity(self.0.len() + 1 + name.len());
        text.push_str(&self.0);
        text.push('/');
        match name.contains(['~', '/']) {
            true => text.push_str(&name.replace('~', "~0").replace('/', "~1")),
            false => text.push_str(name),
        }
        Self(text)
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The names on the way, as they are written in the document.
    pub fn segments(&self) -> impl Iterator<Item = String> {
        self.0.split('/').skip(1).map(|segment| segment.replace("~1", "/").replace("~0", "~"))
    }

    /// The first `count` names of it.
    pub fn prefix(&self, count: usize) -> Self {
        let end = self.0.match_indices('/').nth(count).map_or(self.0.len(), |(at, _)| at);
        Self(self.0[..end].into())
    }

    /// How many names it has.
    pub fn len(&self) -> usize {
        self.0.matches('/').count()
    }

    /// True for the whole document.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// True when this is `other` or something inside it.
    pub fn is_within(&self, other: &Pointer) -> bool {
        self.0.strip_prefix(&other.0).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// The pointer above, and the last name as it is written in the document.
    fn split_last(&self) -> Option<(Pointer, String)> {
        let at = self.0.rfind('/')?;
        let last = self.segments().last()?;
        Some((Self(self.0[..at].into()), last))
    }
}

impl From<&str> for Pointer {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl From<String> for Pointer {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One thing that is wrong (or, as a warning, odd) in a configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// Where.
    pub path: Pointer,
    /// The line it stands in, when it came from a text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// What was expected.
    pub message: String,
    /// The other object that the fault is about.
    #[serde(skip)]
    pub refers: Option<Pointer>,
}

impl Fault {
    /// A fault whose line is not known yet.
    pub fn new(path: impl Into<Pointer>, message: impl Into<String>) -> Self {
        Self { path: path.into(), line: None, message: message.into(), refers: None }
    }

    /// The same fault, which is also about `object`.
    #[must_use]
    pub fn about(self, object: impl Into<Pointer>) -> Self {
        Self { refers: Some(object.into()), ..self }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "{line}: ")?;
        }
        let path = if self.path.is_empty() { "/" } else { self.path.as_str() };
        write!(f, "{path}: {}", self.message)
    }
}

/// The form a text is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// YAML 1.2.
    Yaml,
    /// JSON.
    Json,
}

impl Format {
    /// What `text` looks like: JSON when it begins with a brace and is JSON as far as that can be seen.
    pub fn sniff(text: &str) -> Self {
        let begins_as_json = text.trim_start().starts_with('{');
        let quoted = text.trim_start().trim_start_matches('{').trim_start().starts_with(['"', '}']);
        if begins_as_json && quoted { Format::Json } else { Format::Yaml }
    }
}

/// Reads a text as a tree.
///
/// # Errors
/// The syntax error, or every key that stands twice.
pub fn read(text: &str, format: Format) -> Result<Node<'_>, Vec<Fault>> {
    let text = without_mark(text);
    let quick = match format {
        Format::Yaml => quick::from_yaml(text),
        Format::Json => quick::from_json(text),
    };
    quick.map_or_else(|| read_any(text, format), Ok)
}

/// Reads a text as a tree with the readers that know all of the format, and what is wrong with a text. What [`read`]
/// gives is this; only sooner, where the text is plain.
///
/// # Errors
/// As [`read`].
pub fn read_any(text: &str, format: Format) -> Result<Node<'static>, Vec<Fault>> {
    let text = without_mark(text);
    let read = match format {
        Format::Yaml => node::from_yaml(text),
        Format::Json => json::from_json(text),
    };
    read.map_err(|faults| faults.into_iter().map(at_line).collect())
}

fn without_mark(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

fn at_line((line, message): (u32, String)) -> Fault {
    Fault { line: (line > 0).then_some(line), ..Fault::new("", message) }
}

/// What became of a tree.
#[derive(Debug)]
pub struct Parsed {
    /// What could be understood; `None` when too little is left to make a model.
    pub model: Option<Model>,
    /// Everything that could not.
    pub faults: Vec<Fault>,
    /// What was taken out of the tree.
    pub removed: BTreeSet<Pointer>,
}

/// Makes a model of a tree.
pub fn parse(document: &Node<'_>) -> Parsed {
    match parse_right(document) {
        Some(model) => Parsed { model: Some(model), faults: Vec::new(), removed: BTreeSet::new() },
        None => parse_by_parts(document),
    }
}

/// Makes a model of a tree with which nothing is wrong; `None` of any other.
pub(crate) fn parse_right(document: &Node<'_>) -> Option<Model> {
    let is_clear = !node::has_duplicates(document);
    is_clear.then(|| Model::deserialize(de::Reader(document)).ok()).flatten()
}

/// Takes out of a copy of the tree whatever is wrong, until the rest makes a model.
fn parse_by_parts(document: &Node<'_>) -> Parsed {
    let mut tree = document.clone();
    let mut parsed = Parsed { model: None, faults: Vec::new(), removed: BTreeSet::new() };
    node::take_duplicates(&mut tree, &Pointer::root(), &mut parsed.faults);
    while parsed.faults.len() < ERRORS_MAX {
        match Model::deserialize(de::Reader(&tree)) {
            Ok(model) => {
                parsed.model = Some(model);
                return parsed;
            }
            Err(error) => {
                if !parsed.take_out(&mut tree, &error) {
                    return parsed;
                }
            }
        }
    }
    parsed
}

impl Parsed {
    /// Reports `error` and takes its place out of the tree; false when nothing can be taken out any more.
    fn take_out(&mut self, tree: &mut Node<'_>, error: &de::Error) -> bool {
        let path = error.path.iter().rev().fold(Pointer::root(), |path, name| path.child(name));
        let line = tree.line_of(&path);
        match &error.what {
            de::What::Wrong(message) => {
                self.report(path.clone(), line, message.clone());
                self.neutralise(tree, path)
            }
            de::What::Unknown { message, meant } => {
                self.report(path.clone(), line, message.clone());
                // Its absence under the right name is the same mistake.
                self.removed.extend(meant.iter().filter_map(|meant| Some(path.split_last()?.0.child(meant))));
                self.neutralise(tree, path)
            }
            de::What::Missing(field) => {
                let lost = match field.contains('|') {
                    true => self.removed.iter().any(|gone| gone.is_within(&path)),
                    false => self.removed.contains(&path.child(field)),
                };
                if !lost {
                    let place = if field.contains('|') { path.clone() } else { path.child(field) };
                    let what = format!("\"{}\"", field.replace('|', "\" or \""));
                    self.report(place, line, format!("expected {what}, which has no default"));
                }
                let missing = path.child(field);
                if stand_in(&missing).is_some() {
                    return self.neutralise(tree, missing);
                }
                self.neutralise(tree, path)
            }
            de::What::Hollow => self.neutralise(tree, path),
        }
    }

    fn report(&mut self, path: Pointer, line: Option<u32>, message: String) {
        self.faults.push(Fault { path, line, message, refers: None });
    }

    /// Puts a stand-in where there is one, so that the object around it is checked too; else takes the node out.
    fn neutralise(&mut self, tree: &mut Node<'_>, path: Pointer) -> bool {
        let before = tree.at(&path).map(|node| node.value.clone());
        let value = stand_in(&path).unwrap_or(Value::Removed);
        if path.is_empty() || before.as_ref() == Some(&value) {
            return false;
        }
        tree.put(&path, Node { line: 0, value });
        self.removed.insert(path);
        true
    }
}

/// What a required value is replaced with when it is refused or missing. What follows from it is not reported.
fn stand_in(path: &Pointer) -> Option<Value<'static>> {
    let segments: Vec<String> = path.segments().collect();
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    match segments[..] {
        ["version"] => Some(Value::Int(1)),
        ["ports" | "self_ips"] => Some(Value::Map(Box::default())),
        ["virtual_servers", _, "destination"] | ["snat_pools", _, "addresses"] => {
            Some(Value::List(Box::default()))
        }
        ["self_ips", _, "address"] => Some(Value::Text("0.0.0.0/32".into())),
        ["self_ips", _, "port"] => Some(Value::Text("0".into())),
        ["routes", _, "gateway"] => Some(Value::Text("0.0.0.0".into())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointers_escape_and_come_back() {
        let path = Pointer::root().child("pools").child("a/b~c").child("0");
        assert_eq!(path.as_str(), "/pools/a~1b~0c/0");
        assert_eq!(path.segments().collect::<Vec<_>>(), ["pools", "a/b~c", "0"]);
        assert_eq!((path.prefix(2).as_str(), path.len()), ("/pools/a~1b~0c", 3));
        assert!(path.is_within(&"/pools".into()) && !path.is_within(&"/poo".into()));
    }

    #[test]
    fn yaml_extras_are_refused_with_their_line() {
        for (text, line, part) in [
            ("a: 1\nb: *x\n", 2, "quotes"),
            ("a: &x 1\nb: 2\n", 1, "anchors"),
            ("a: 1\nb: !!int 2\n", 2, "tags"),
            ("a: 1\n---\nb: 2\n", 2, "second"),
            ("a:\n\tb: 1\n", 2, "spaces"),
            ("a: [1\nb: 2\n", 2, "YAML"),
        ] {
            let faults = read(text, Format::Yaml).unwrap_err();
            assert!(faults[0].message.contains(part), "{text:?}: {}", faults[0]);
            assert_eq!(faults[0].line, Some(line), "{text:?}: {}", faults[0]);
        }
    }

    #[test]
    fn a_key_that_stands_twice_is_found_among_few_and_among_many() {
        for count in [1, 12, 13, 100] {
            let keys: String = (0..count).map(|key| format!("  k{key}: {{a: 1}}\n")).collect();
            let of =
                |more: &str| node::has_duplicates(&read(&format!("x:\n{keys}{more}"), Format::Yaml).unwrap());
            let twice = format!("  k{}: 1\n", count - 1);
            assert_eq!((of(""), of(&twice), of("  y: [1, {b: 1, b: 2}]\n")), (false, true, true), "{count}");
        }
    }

    #[test]
    fn form_is_seen_from_the_text() {
        assert_eq!(Format::sniff(" {\"version\": 1}"), Format::Json);
        assert_eq!(Format::sniff("{version: 1}"), Format::Yaml);
        assert_eq!(Format::sniff("version: 1"), Format::Yaml);
    }
}
