//! YAML as configurations are written: indented maps and lists, maps and lists in brackets on one line, text that is
//! plain or in quotes, comments.
//!
//! ```text
//!   pools:                      map, column 0
//!     web:                      map, column 2
//!       members:                map, column 4
//!         - {address: …}        list, column 6; each ends at the first line that begins further left
//! ```

use std::borrow::Cow;

use super::{Cursor, Objects, Quick};
use crate::parse::node::{Entry, Node, Value, key_text, scalar};

/// Reads YAML; none when it is not plain.
pub(in crate::parse) fn from_yaml(text: &str) -> Option<Node<'_>> {
    from_yaml_beside(text, Objects::default()).map(|(node, _)| node)
}

/// Reads what is new in YAML; none when it is not plain.
pub(in crate::parse) fn from_yaml_beside<'t>(text: &'t str, objects: Objects<'t>) -> Option<Quick<'t>> {
    if is_unusual(text) {
        return None;
    }
    let mut lines = Lines { cursor: Cursor::new(text, objects), begin: 0, column: 0 };
    lines.find_content();
    if lines.column == 0 && text.get(lines.cursor.at..)?.starts_with("---\n") {
        lines.cursor.at += 3;
        lines.end_line()?;
    }
    let node = lines.block(NOWHERE)?;
    (lines.column == NOWHERE).then(|| (node, lines.cursor.objects.found()))
}

/// True when there are control characters, or what could be a byte order mark.
fn is_unusual(text: &str) -> bool {
    let unusual = |byte: &u8| *byte < b' ' && *byte != b'\n' || *byte == 0x7f || *byte == 0xef;
    // By pieces without a way out in between: these are done many bytes at once.
    text.as_bytes().chunks(PIECE).any(|piece| piece.iter().fold(false, |found, byte| found | unusual(byte)))
}

/// Bytes that are looked at together.
const PIECE: usize = 4_096;

/// The column left of all others: that of the document's parent, and of its end.
const NOWHERE: isize = -1;

/// A key longer than this is not a simple one, which YAML allows 1,024 characters.
const KEY_MAX: usize = 1_000;

/// A cursor that knows where in its line it is.
struct Lines<'t> {
    cursor: Cursor<'t>,
    /// Where the line begins.
    begin: usize,
    /// Where its content begins; [`NOWHERE`] at the end.
    column: isize,
}

/// A key or value that is neither list nor map.
struct Scalar<'t> {
    line: u32,
    value: Value<'t>,
}

impl<'t> Lines<'t> {
    /// Ends the line, which has nothing more to say, and goes to the next one that says something.
    fn end_line(&mut self) -> Option<()> {
        let is_over = self.is_line_over();
        self.find_content();
        is_over.then_some(())
    }

    fn find_content(&mut self) {
        loop {
            self.cursor.skip_spaces();
            match self.cursor.peek() {
                Some(b'\n') => {
                    self.cursor.at += 1;
                    (self.cursor.line, self.begin) = (self.cursor.line + 1, self.cursor.at);
                }
                Some(b'#') => _ = self.cursor.take_while(|byte| byte != b'\n'),
                Some(_) => return self.column = self.here(),
                None => return self.column = NOWHERE,
            }
        }
    }

    /// The column of what comes next.
    fn here(&self) -> isize {
        (self.cursor.at - self.begin) as isize
    }

    /// True when `byte` comes next, and behind it a space or the end of the line.
    fn stands_alone(&self, byte: u8) -> bool {
        let behind = self.cursor.byte(self.cursor.at + 1);
        self.cursor.peek() == Some(byte) && matches!(behind, None | Some(b' ' | b'\n'))
    }

    /// What begins here, further right than `parent`, with the lines that belong to it.
    fn block(&mut self, parent: isize) -> Option<Node<'t>> {
        let (line, column) = (self.cursor.line, self.here());
        let value = match self.cursor.peek()? {
            b'-' if self.stands_alone(b'-') => self.block_list(column)?,
            b'{' | b'[' => self.bracketed_line()?,
            _ => {
                let start = self.cursor.at;
                let first = self.scalar(false)?;
                if self.stands_alone(b':') {
                    self.block_map(column, first, start)?
                } else {
                    self.end_line()?;
                    first.value
                }
            }
        };
        // What stands further right would belong to it, and does not fit.
        (self.column <= parent).then_some(Node { line, value })
    }

    /// A map whose keys stand at `column`; the first one is read, and began at `start`.
    fn block_map(&mut self, column: isize, mut key: Scalar<'t>, mut start: usize) -> Option<Value<'t>> {
        if self.cursor.is_section() {
            self.cursor.at = start;
            return self.section(column);
        }
        let begin = self.cursor.entries.len();
        self.cursor.enter()?;
        loop {
            self.end_key(start)?;
            if self.cursor.open == 1 {
                let name = if let Value::Text(name) = &key.value { name } else { "" };
                self.cursor.objects.enter(name);
            }
            let node = self.map_value(column)?;
            self.cursor.entries.push(Entry { key: key_text(key.value), line: key.line, node });
            if self.column != column {
                return Some(self.cursor.map_from(begin));
            }
            (start, key) = (self.cursor.at, self.scalar(false)?);
        }
    }

    /// A map of objects whose keys stand at `column`, without those that stand as they did.
    fn section(&mut self, column: isize) -> Option<Value<'t>> {
        let begin = self.cursor.entries.len();
        self.cursor.enter()?;
        loop {
            let expected = self.cursor.objects.expected(self.cursor.rest(), column as usize);
            if !expected.is_some_and(|former| self.skip_same(former, column)) {
                self.object(column)?;
            }
            if self.column != column {
                return Some(self.cursor.map_from(begin));
            }
        }
    }

    /// An object that is not the one that should come next.
    fn object(&mut self, column: isize) -> Option<()> {
        let (start, line, rest) = (self.cursor.at, self.cursor.line, self.cursor.rest());
        let key = key_text(self.scalar(false)?.value);
        let behind = std::mem::replace(&mut self.cursor.at, start);
        let named = self.cursor.objects.named(&key, rest, column as usize);
        if named.is_some_and(|former| self.skip_same(former, column)) {
            return Some(());
        }
        self.cursor.at = behind;
        self.end_key(start)?;
        let node = self.map_value(column)?;
        // A last line without an end could go on.
        if self.column != NOWHERE || self.cursor.text.ends_with('\n') {
            let end = (self.begin, self.cursor.line);
            self.cursor.objects.push_new(key.clone(), (start, line), end, column as usize);
        }
        self.cursor.entries.push(Entry { key, line, node });
        Some(())
    }

    /// Steps over an object whose text stood at a `former` place, too; false when more belongs to it here.
    fn skip_same(&mut self, former: usize, column: isize) -> bool {
        let (start, line, begin) = (self.cursor.at, self.cursor.line, self.begin);
        self.cursor.skip_same(former);
        self.begin = self.cursor.at;
        self.find_content();
        let goes_on = self.column > column;
        if goes_on {
            (self.cursor.at, self.cursor.line, self.begin, self.column) = (start, line, begin, column);
        } else {
            self.cursor.objects.push_same(former, start, line);
        }
        !goes_on
    }

    /// Steps over the colon behind a key that began at `start`.
    fn end_key(&mut self, start: usize) -> Option<()> {
        let is_key = self.stands_alone(b':') && self.cursor.at - start <= KEY_MAX;
        self.cursor.at += 1;
        is_key.then_some(())
    }

    /// The value of a key at `column`: behind it, or in the lines below.
    fn map_value(&mut self, column: isize) -> Option<Node<'t>> {
        let line = self.cursor.line;
        if !self.is_line_over() {
            return self.rest_of_line(column);
        }
        self.end_line()?;
        if self.column > column {
            return self.block(column);
        }
        if self.column == column && self.stands_alone(b'-') {
            return Some(Node { line: self.cursor.line, value: self.block_list(column)? });
        }
        Some(Node { line, value: Value::Null })
    }

    /// True when nothing but spaces and a comment is left of the line.
    fn is_line_over(&mut self) -> bool {
        self.cursor.skip_spaces();
        matches!(self.cursor.peek(), None | Some(b'\n')) || self.is_comment()
    }

    /// True when a comment comes next: it has a space before it.
    fn is_comment(&self) -> bool {
        let before = self.cursor.at.checked_sub(1).and_then(|before| self.cursor.byte(before));
        self.cursor.peek() == Some(b'#') && before == Some(b' ')
    }

    /// A value that its line ends with; no line that follows may continue it.
    fn rest_of_line(&mut self, column: isize) -> Option<Node<'t>> {
        let line = self.cursor.line;
        let value = match self.cursor.peek()? {
            b'{' | b'[' => self.bracketed_line()?,
            _ => {
                let scalar = self.scalar(false)?;
                self.end_line()?;
                scalar.value
            }
        };
        (self.column <= column).then_some(Node { line, value })
    }

    /// A list whose dashes stand at `column`.
    fn block_list(&mut self, column: isize) -> Option<Value<'t>> {
        let begin = self.cursor.items.len();
        self.cursor.enter()?;
        while self.here() == column && self.stands_alone(b'-') {
            let line = self.cursor.line;
            self.cursor.at += 1;
            let item = self.list_item(column, line)?;
            self.cursor.items.push(item);
        }
        Some(self.cursor.list_from(begin))
    }

    fn list_item(&mut self, column: isize, line: u32) -> Option<Node<'t>> {
        if self.is_line_over() {
            self.end_line()?;
            if self.column <= column {
                return Some(Node { line, value: Value::Null });
            }
        }
        self.block(column)
    }

    /// A list or map in brackets that its line ends with.
    fn bracketed_line(&mut self) -> Option<Value<'t>> {
        let value = self.bracketed()?.value;
        self.end_line()?;
        Some(value)
    }

    fn bracketed(&mut self) -> Option<Node<'t>> {
        let line = self.cursor.line;
        let value = match self.cursor.peek()? {
            b'{' => self.bracketed_map()?,
            b'[' => self.bracketed_list()?,
            _ => self.scalar(true)?.value,
        };
        Some(Node { line, value })
    }

    fn bracketed_map(&mut self) -> Option<Value<'t>> {
        let begin = self.cursor.entries.len();
        self.cursor.enter()?;
        self.cursor.at += 1;
        loop {
            self.cursor.skip_spaces();
            if self.cursor.take(b'}') {
                return Some(self.cursor.map_from(begin));
            }
            let (start, line) = (self.cursor.at, self.cursor.line);
            let key = self.scalar(true)?.value;
            self.bracketed_entry(start, Node { line, value: key })?;
            self.next_or(b'}')?;
        }
    }

    fn bracketed_list(&mut self) -> Option<Value<'t>> {
        let begin = self.cursor.items.len();
        self.cursor.enter()?;
        self.cursor.at += 1;
        loop {
            self.cursor.skip_spaces();
            if self.cursor.take(b']') {
                return Some(self.cursor.list_from(begin));
            }
            let start = self.cursor.at;
            let mut item = self.bracketed()?;
            if self.stands_alone(b':') {
                item = self.pair(start, item)?;
            }
            self.cursor.items.push(item);
            self.next_or(b']')?;
        }
    }

    /// A list's item that is a map of one entry without braces, whose `key` began at `start`.
    fn pair(&mut self, start: usize, key: Node<'t>) -> Option<Node<'t>> {
        let (begin, line) = (self.cursor.entries.len(), key.line);
        if matches!(key.value, Value::List(_) | Value::Map(_)) {
            return None;
        }
        self.cursor.enter()?;
        self.bracketed_entry(start, key)?;
        Some(Node { line, value: self.cursor.map_from(begin) })
    }

    /// What follows a `key` in brackets that began at `start`.
    fn bracketed_entry(&mut self, start: usize, Node { line, value }: Node<'t>) -> Option<()> {
        self.end_key(start)?;
        self.cursor.skip_spaces();
        let node = self.bracketed()?;
        self.cursor.entries.push(Entry { key: key_text(value), line, node });
        Some(())
    }

    /// Behind a comma another one may follow; without one `close` must.
    fn next_or(&mut self, close: u8) -> Option<()> {
        self.cursor.skip_spaces();
        (self.cursor.take(b',') || self.cursor.peek() == Some(close)).then_some(())
    }

    fn scalar(&mut self, in_brackets: bool) -> Option<Scalar<'t>> {
        let line = self.cursor.line;
        let value = match self.cursor.peek()? {
            quote @ (b'"' | b'\'') => Value::Text(self.quoted(quote)?),
            _ => scalar(self.plain(in_brackets)?, true),
        };
        Some(Scalar { line, value })
    }

    fn quoted(&mut self, quote: u8) -> Option<Cow<'t, str>> {
        if quote == b'"' {
            return self.cursor.json_text();
        }
        self.cursor.at += 1;
        let text = self.cursor.take_while(|byte| byte != b'\'' && byte != b'\n');
        // A quote that stands twice is one inside the text.
        (self.cursor.take(quote) && self.cursor.peek() != Some(quote)).then_some(text.into())
    }

    /// Text without quotes, up to what ends it.
    fn plain(&mut self, in_brackets: bool) -> Option<Cow<'t, str>> {
        let first = self.cursor.peek()?;
        let second = self.cursor.byte(self.cursor.at + 1).unwrap_or_default();
        let begins = first.is_ascii_alphanumeric()
            || b"/_~+<=$^(".contains(&first)
            || (b"-.".contains(&first) && second.is_ascii_alphanumeric());
        if !begins {
            return None;
        }
        let start = self.cursor.at;
        while let Some(byte) = self.cursor.peek() {
            let ends = match byte {
                b'\n' => true,
                b',' | b'[' | b']' | b'{' | b'}' => in_brackets,
                b':' => self.ends_key(in_brackets),
                b'#' => self.is_comment(),
                0x80.. => return None,
                _ => false,
            };
            if ends {
                break;
            }
            self.cursor.at += 1;
        }
        let text = self.cursor.text.get(start..self.cursor.at)?.trim_end_matches(' ');
        self.cursor.at = start + text.len();
        Some(text.into())
    }

    /// True when the colon that comes next ends a key, or could.
    fn ends_key(&self, in_brackets: bool) -> bool {
        match self.cursor.byte(self.cursor.at + 1) {
            None | Some(b' ' | b'\n') => true,
            Some(b',' | b'[' | b']' | b'{' | b'}') => in_brackets,
            Some(_) => false,
        }
    }
}
