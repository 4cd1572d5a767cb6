//! The quick way from a text to a [`Node`]: plain YAML and JSON in one pass, nearly all of it borrowed.
//!
//! What is not plain is left to the readers that know everything: they give the same tree where both give one, and
//! only they can say what is wrong. Not plain are, in YAML: anchors, aliases, tags, directives and a second document;
//! text of several lines; tabs; lists and maps in brackets over several lines; keys that are no text; empty
//! values in brackets; in both: `\u`. `tests/quick.rs` holds both against each other.

mod json;
mod objects;
mod yaml;

use super::DEPTH_MAX;
use super::node::{Entry, Node, Value};

pub(super) use json::{from_json, from_json_beside};
pub(super) use objects::{Found, Objects, Place, Section};
pub(super) use yaml::{from_yaml, from_yaml_beside};

/// A tree of what is new, and what stands in its sections.
pub(super) type Quick<'t> = (Node<'t>, [Vec<Found<'t>>; 2]);

/// A text, and how far it is read.
struct Cursor<'t> {
    text: &'t str,
    at: usize,
    line: u32,
    /// Lists and maps that are not finished.
    open: usize,
    /// What is in them, one behind the other: each is copied out once, at its size.
    items: Vec<Node<'t>>,
    entries: Vec<Entry<'t>>,
    objects: Objects<'t>,
}

impl<'t> Cursor<'t> {
    fn new(text: &'t str, objects: Objects<'t>) -> Self {
        Self { text, at: 0, line: 1, open: 0, items: Vec::new(), entries: Vec::new(), objects }
    }

    /// What is not read yet.
    fn rest(&self) -> &'t str {
        self.text.get(self.at..).unwrap_or_default()
    }

    /// True for the map of a section whose objects are kept, before it is entered.
    fn is_section(&self) -> bool {
        self.open == 1 && self.objects.is_in_section()
    }

    /// Steps over text that stood at a `former` place, too.
    fn skip_same(&mut self, former: usize) {
        let (len, breaks) = self.objects.size(former).unwrap_or_default();
        (self.at, self.line) = (self.at + len, self.line + breaks);
    }

    /// The byte that comes next; none at the end.
    #[inline]
    fn peek(&self) -> Option<u8> {
        self.byte(self.at)
    }

    #[inline]
    fn byte(&self, at: usize) -> Option<u8> {
        self.text.as_bytes().get(at).copied()
    }

    /// Steps over `byte` where it comes next.
    #[inline]
    fn take(&mut self, byte: u8) -> bool {
        let is_next = self.peek() == Some(byte);
        self.at += usize::from(is_next);
        is_next
    }

    #[inline]
    fn skip_spaces(&mut self) {
        while self.peek() == Some(b' ') {
            self.at += 1;
        }
    }

    /// Steps over what is `wanted`, and returns it.
    #[inline]
    fn take_while(&mut self, wanted: impl Fn(u8) -> bool) -> &'t str {
        let start = self.at;
        while self.peek().is_some_and(&wanted) {
            self.at += 1;
        }
        self.text.get(start..self.at).unwrap_or_default()
    }

    /// Begins a list or map; none when it is too deep.
    fn enter(&mut self) -> Option<()> {
        self.open += 1;
        (self.open <= DEPTH_MAX).then_some(())
    }

    /// Ends a list, of the items from the `begin`-th on.
    fn list_from(&mut self, begin: usize) -> Value<'t> {
        self.open -= 1;
        Value::List(self.items.drain(begin..).collect())
    }

    /// Ends a map, of the entries from the `begin`-th on.
    fn map_from(&mut self, begin: usize) -> Value<'t> {
        self.open -= 1;
        Value::Map(self.entries.drain(begin..).collect())
    }
}
