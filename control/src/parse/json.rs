//! JSON of any kind to [`Node`]. serde_json reads it level by level as raw slices, whose place in the text gives the line.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::node::{Entry, Node, Value};

/// Reads JSON.
///
/// # Errors
/// The first syntax error, with its line.
pub(super) fn from_json(text: &str) -> Result<Node<'static>, Vec<(u32, String)>> {
    let lines = Lines::of(text);
    let root: &RawValue = serde_json::from_str(text).map_err(|error| vec![syntax_error(&error)])?;
    lines.node(root, 0).map_err(|(line, message)| vec![(line, message)])
}

fn syntax_error(error: &serde_json::Error) -> (u32, String) {
    (error.line() as u32, format!("expected JSON: {error}"))
}

/// Where each line of a text begins.
struct Lines {
    start: usize,
    begins: Vec<usize>,
}

impl Lines {
    fn of(text: &str) -> Self {
        let begins = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        Self { start: text.as_ptr() as usize, begins: begins.collect() }
    }

    /// The line of a slice of the text.
    fn line(&self, part: &str) -> u32 {
        let offset = (part.as_ptr() as usize).saturating_sub(self.start);
        self.begins.partition_point(|begin| *begin <= offset) as u32 + 1
    }

    fn node(&self, raw: &RawValue, depth: usize) -> Result<Node<'static>, (u32, String)> {
        let (text, line) = (raw.get(), self.line(raw.get()));
        if depth > super::DEPTH_MAX {
            return Err((line, "expected fewer levels of lists and maps inside each other".into()));
        }
        let wrong = |error: serde_json::Error| (line, format!("expected JSON: {error}"));
        let value = match text.as_bytes().first() {
            Some(b'{') => self.map(serde_json::from_str(text).map_err(wrong)?, depth)?,
            Some(b'[') => self.list(&serde_json::from_str::<Vec<&RawValue>>(text).map_err(wrong)?, depth)?,
            _ => return Ok(Node { line, ..Node::from_json(&serde_json::from_str(text).map_err(wrong)?) }),
        };
        Ok(Node { line, value })
    }

    fn list(&self, items: &[&RawValue], depth: usize) -> Result<Value<'static>, (u32, String)> {
        items.iter().map(|raw| self.node(raw, depth + 1)).collect::<Result<_, _>>().map(Value::List)
    }

    fn map(&self, Entries(entries): Entries<'_>, depth: usize) -> Result<Value<'static>, (u32, String)> {
        let entry = |(key, raw): (String, &RawValue)| {
            Ok(Entry { key: key.into(), line: self.line(raw.get()), node: self.node(raw, depth + 1)? })
        };
        entries.into_iter().map(entry).collect::<Result<_, _>>().map(Value::Map)
    }
}

/// A map's entries in order, doubles included.
struct Entries<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Entries<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(EntriesVisitor).map(Entries)
    }
}

struct EntriesVisitor;

impl<'de> Visitor<'de> for EntriesVisitor {
    type Value = Vec<(String, &'de RawValue)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_know_their_lines() {
        let node = from_json("{\n \"a\": 1,\n\t\"b\": [\n  true, \n  {\"c\": \"\\ud83d\\ude00\"}]}").unwrap();
        let line = |path: &str| node.line_of(&super::super::Pointer::from(path));
        assert_eq!((line("/a"), line("/b/0"), line("/b/1/c")), (Some(2), Some(4), Some(5)));
    }

    #[test]
    fn syntax_errors_have_a_line() {
        assert_eq!(from_json("{\n\"a\": }").unwrap_err()[0].0, 2);
        assert!(from_json(&"[".repeat(100_000)).is_err());
        assert!(from_json(&format!("{}{}", "[".repeat(100), "]".repeat(100))).is_err());
    }
}
