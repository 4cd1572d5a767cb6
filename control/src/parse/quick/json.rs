//! JSON whose text is right. What is wrong with any other serde_json says.

use std::borrow::Cow;

use super::{Cursor, Objects, Quick};
use crate::parse::node::{Entry, Node, Value};

/// Reads JSON; none when it is not right, or too deep.
pub(in crate::parse) fn from_json(text: &str) -> Option<Node<'_>> {
    from_json_beside(text, Objects::default()).map(|(node, _)| node)
}

/// Reads what is new in JSON; none when it is not right, or too deep.
pub(in crate::parse) fn from_json_beside<'t>(text: &'t str, objects: Objects<'t>) -> Option<Quick<'t>> {
    let mut cursor = Cursor::new(text, objects);
    let node = cursor.json()?;
    cursor.skip_blank();
    cursor.peek().is_none().then(|| (node, cursor.objects.found()))
}

impl<'t> Cursor<'t> {
    fn json(&mut self) -> Option<Node<'t>> {
        self.skip_blank();
        let line = self.line;
        let value = match self.peek()? {
            b'{' => self.json_map()?,
            b'[' => self.json_list()?,
            b'"' => Value::Text(self.json_text()?),
            _ => self.json_word()?,
        };
        Some(Node { line, value })
    }

    fn skip_blank(&mut self) {
        while let Some(byte @ (b' ' | b'\n' | b'\r' | b'\t')) = self.peek() {
            self.line += u32::from(byte == b'\n');
            self.at += 1;
        }
    }

    fn json_map(&mut self) -> Option<Value<'t>> {
        let (begin, is_section) = (self.entries.len(), self.is_section());
        self.enter()?;
        self.at += 1;
        self.skip_blank();
        if self.take(b'}') {
            return Some(self.map_from(begin));
        }
        loop {
            self.skip_blank();
            match is_section {
                true => self.json_object()?,
                false => self.json_entry()?,
            }
            self.skip_blank();
            if self.take(b'}') {
                return Some(self.map_from(begin));
            }
            self.take(b',').then_some(())?;
        }
    }

    fn json_entry(&mut self) -> Option<()> {
        let key = self.json_text()?;
        if self.open == 1 {
            self.objects.enter(&key);
        }
        self.json_value(key)
    }

    fn json_value(&mut self, key: Cow<'t, str>) -> Option<()> {
        self.skip_blank();
        let node = if self.take(b':') { self.json()? } else { return None };
        self.entries.push(Entry { key, line: node.line, node });
        Some(())
    }

    /// An object of a section, unless it stands as it did.
    fn json_object(&mut self) -> Option<()> {
        let (start, line, rest) = (self.at, self.line, self.rest());
        let mut same = self.objects.expected(rest, 0);
        if same.is_none() {
            let key = self.json_text()?;
            same = self.objects.named(&key, rest, 0);
            if same.is_none() {
                self.json_value(key.clone())?;
                // A map's text has an end of its own.
                if self.text.get(..self.at)?.ends_with('}') {
                    self.objects.push_new(key, (start, line), (self.at, self.line), 0);
                }
                return Some(());
            }
        }
        (self.at, self.line) = (start, line);
        self.skip_same(same?);
        self.objects.push_same(same?, start, line);
        Some(())
    }

    fn json_list(&mut self) -> Option<Value<'t>> {
        let begin = self.items.len();
        self.enter()?;
        self.at += 1;
        self.skip_blank();
        if self.take(b']') {
            return Some(self.list_from(begin));
        }
        loop {
            let item = self.json()?;
            self.items.push(item);
            self.skip_blank();
            if self.take(b']') {
                return Some(self.list_from(begin));
            }
            self.take(b',').then_some(())?;
        }
    }

    /// Text in quotes. Only one with escapes is copied; YAML has the same ones, but for pairs of surrogates.
    pub(super) fn json_text(&mut self) -> Option<Cow<'t, str>> {
        let quoted = self.at;
        self.take(b'"').then_some(())?;
        let plain = self.take_while(|byte| byte >= b' ' && byte != b'"' && byte != b'\\');
        if self.take(b'"') {
            return Some(plain.into());
        }
        while !self.take(b'"') {
            self.at += if self.peek()? == b'\\' { 2 } else { 1 };
        }
        let quoted = self.text.get(quoted..self.at)?;
        if quoted.contains("\\u") { None } else { serde_json::from_str(quoted).ok().map(Cow::Owned) }
    }

    fn json_word(&mut self) -> Option<Value<'t>> {
        let word = self.take_while(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
        Some(Node::from_json(&serde_json::from_str(word).ok()?).value)
    }
}
