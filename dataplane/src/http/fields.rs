//! The fields of a head or trailer section, in order, over one reused buffer.
//!
//! ```text
//!   bytes  │first line│name: value│name: value│…│what filters add│      grows to `room`, never moves what it has
//!   list   [name, value] [name, value] …                                spans of `bytes`, in the order to be sent
//! ```
//!
//! What is replaced or removed stays in the buffer until the next message; a filter chain that fills the buffer is
//! told so. The size counts what is in the list, as HTTP/2 does (RFC 9113 section 6.5.2): name, value and 32.

use httparse::{EMPTY_HEADER, Error, Status};

use super::grammar::{is_field_value, is_token};
use super::limits::HttpLimits;
use super::names::Name;
use super::refusal::Fault;
use super::twins::{has_twin, names_have_underscore};

/// A part of the buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Span {
    pub(super) at: u32,
    pub(super) len: u32,
}

impl Span {
    pub(super) fn new(at: usize, len: usize) -> Self {
        Self { at: at as u32, len: len as u32 }
    }

    /// The same part without its first `len` bytes; empty when it has no more.
    pub(super) fn without_start(self, len: usize) -> Self {
        let len = len.min(self.len as usize) as u32;
        Self { at: self.at + len, len: self.len - len }
    }

    pub(super) fn of(self, bytes: &[u8]) -> &[u8] {
        bytes.get(self.at as usize..(self.at + self.len) as usize).unwrap_or_default()
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Field {
    pub(super) name: Span,
    pub(super) value: Span,
    pub(super) known: Name,
}

impl Field {
    pub(super) fn size(&self) -> usize {
        (self.name.len + self.value.len) as usize + FIELD_OVERHEAD
    }
}

/// Why a filter's change was not made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// Not a field name, or not a field value: the operator's mistake.
    #[error("not a field name or value")]
    Invalid,
    /// A field that the serialiser writes itself: Host, Connection and its like, lengths and codings.
    #[error("a field that is written by the proxy itself")]
    Reserved,
    /// The head would be larger than its limit.
    #[error("the head is full")]
    Full,
}

/// Fields in the order in which they are sent. Names compare without case and are sent as they came.
///
/// Look-ups are linear: a head has few fields, and the names are compared by length first.
#[derive(Debug)]
pub struct Fields {
    pub(super) bytes: Vec<u8>,
    pub(super) list: Vec<Field>,
    /// Which known names may be in the list, a bit each.
    pub(super) present: u32,
    pub(super) size: usize,
    /// `bytes.len() <= room`, `size <= size_max`, `list.len() <= count_max`.
    pub(super) room: usize,
    pub(super) size_max: usize,
    pub(super) count_max: usize,
}

impl Fields {
    /// An empty set for a head; takes all its memory now.
    pub(super) fn for_head(limits: &HttpLimits) -> Self {
        let count = limits.fields.min(HttpLimits::FIELDS_MAX) + HttpLimits::EDIT_FIELDS;
        Self::with_room(limits.buffer(), limits.head + HttpLimits::EDIT_BYTES, count)
    }

    /// An empty set for a trailer section; takes all its memory now.
    pub fn for_trailers(limits: &HttpLimits) -> Self {
        Self::with_room(limits.trailer, limits.trailer, limits.trailer_fields.min(HttpLimits::FIELDS_MAX))
    }

    fn with_room(room: usize, size_max: usize, count_max: usize) -> Self {
        let (bytes, list) = (Vec::with_capacity(room), Vec::with_capacity(count_max));
        Self { bytes, list, present: 0, size: 0, room, size_max, count_max }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Bytes of all names and values, and 32 for each field.
    pub fn size(&self) -> usize {
        self.size
    }

    /// All names and values in order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.list.iter().map(|field| (field.name.of(&self.bytes), field.value.of(&self.bytes)))
    }

    /// The values of this name in order. A value is a line's; a list may go on in the next.
    pub fn all<'a>(&'a self, name: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        self.iter().filter(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// The first value of this name.
    pub fn get<'a>(&'a self, name: &'a [u8]) -> Option<&'a [u8]> {
        self.all(name).next()
    }

    /// Adds a field after the others.
    ///
    /// # Errors
    ///
    /// As [`EditError`] says; nothing is changed then.
    pub fn add(&mut self, name: &[u8], value: &[u8]) -> Result<(), EditError> {
        let known = check(name, value)?;
        let grown = self.size + name.len() + value.len() + FIELD_OVERHEAD;
        if self.list.len() == self.count_max || grown > self.size_max {
            return Err(EditError::Full);
        }
        let at = self.store(&[name, value]).ok_or(EditError::Full)?;
        let (name, value) = (Span::new(at, name.len()), Span::new(at + name.len(), value.len()));
        self.list.push(Field { name, value, known });
        self.present |= known.bit();
        self.size = grown;
        Ok(())
    }

    /// Gives the first field of this name the value and removes the others; adds one when there is none.
    ///
    /// # Errors
    ///
    /// As [`EditError`] says; nothing is changed then.
    pub fn set(&mut self, name: &[u8], value: &[u8]) -> Result<(), EditError> {
        check(name, value)?;
        let Some(first) = self.position(name) else { return self.add(name, value) };
        let grown = self.size - self.list[first].value.len as usize + value.len();
        if grown > self.size_max {
            return Err(EditError::Full);
        }
        let at = self.store(&[value]).ok_or(EditError::Full)?;
        self.list[first].value = Span::new(at, value.len());
        self.size = grown;
        self.remove_after(first + 1, name);
        Ok(())
    }

    /// Removes every field of this name.
    pub fn remove(&mut self, name: &[u8]) {
        self.remove_after(0, name);
    }

    pub(super) fn remove_after(&mut self, first: usize, name: &[u8]) {
        let mut index = 0;
        self.retain(|found, _| {
            index += 1;
            index <= first || !found.eq_ignore_ascii_case(name)
        });
    }

    pub(super) fn position(&self, name: &[u8]) -> Option<usize> {
        self.iter().position(|(found, _)| found.eq_ignore_ascii_case(name))
    }
}

/// What parsers and the serialiser do with the buffer.
impl Fields {
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.list.clear();
        (self.present, self.size) = (0, 0);
    }

    /// Bytes and fields that a section may have.
    pub(super) fn section_limits(&self) -> (usize, usize) {
        (self.room, self.count_max)
    }

    /// Puts bytes at the end of the buffer; where they begin, or `None` when there is no room for all.
    pub(super) fn store(&mut self, parts: &[&[u8]]) -> Option<usize> {
        let at = self.bytes.len();
        let len: usize = parts.iter().map(|part| part.len()).sum();
        if len > self.room - at {
            return None;
        }
        parts.iter().for_each(|part| self.bytes.extend_from_slice(part));
        Some(at)
    }

    /// The values of a known name in order.
    pub(super) fn known(&self, name: Name) -> impl Iterator<Item = &[u8]> {
        let list = if self.present & name.bit() == 0 { &[][..] } else { &self.list };
        list.iter().filter(move |field| field.known == name).map(|field| field.value.of(&self.bytes))
    }

    /// The first two values of a known name.
    pub(super) fn known_pair(&self, name: Name) -> (Option<&[u8]>, Option<&[u8]>) {
        let mut values = self.known(name);
        (values.next(), values.next())
    }

    /// The names and values with what is known of them, in order.
    pub(super) fn iter_known(&self) -> impl Iterator<Item = (&[u8], &[u8], Name)> {
        self.list.iter().map(|field| (field.name.of(&self.bytes), field.value.of(&self.bytes), field.known))
    }

    /// Where the first value of a known name lies.
    pub(super) fn known_span(&self, name: Name) -> Option<Span> {
        self.list.iter().find(|field| field.known == name).map(|field| field.value)
    }

    /// Keeps the fields for which `keep` of the name and what is known is true.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&[u8], Name) -> bool) {
        self.retain_fields(|bytes, field| keep(field.name.of(bytes), field.known));
    }

    /// Keeps the fields for which `keep` of the whole buffer, the name and what is known is true.
    pub(super) fn retain_with(&mut self, mut keep: impl FnMut(&[u8], &[u8], Name) -> bool) {
        self.retain_fields(|bytes, field| keep(bytes, field.name.of(bytes), field.known));
    }

    fn retain_fields(&mut self, mut keep: impl FnMut(&[u8], &Field) -> bool) {
        let Self { bytes, list, size, .. } = self;
        list.retain(|field| {
            let kept = keep(bytes, field);
            if !kept {
                *size -= field.size();
            }
            kept
        });
    }

    /// Reads the lines that the buffer holds from `start` to its end, of which the last is empty.
    pub(super) fn index(&mut self, start: usize, lines: usize, size_max: usize) -> Result<(), Fault> {
        match lines {
            0..=SHORT => self.index_with::<SHORT>(start)?,
            _ => self.index_with::<{ HttpLimits::FIELDS_MAX }>(start)?,
        }
        if names_have_underscore(&self.bytes[start..]) {
            self.drop_twins();
        }
        if self.size > size_max { Err(Fault::HeadTooLarge) } else { Ok(()) }
    }

    fn index_with<const N: usize>(&mut self, start: usize) -> Result<(), Fault> {
        let mut headers = [EMPTY_HEADER; N];
        let section = self.bytes.get(start..).unwrap_or_default();
        let found = match httparse::parse_headers(section, &mut headers) {
            Ok(Status::Complete((used, found))) if used == section.len() => found,
            Ok(_) | Err(Error::HeaderName) => return Err(Fault::FieldName),
            Err(Error::TooManyHeaders) => return Err(Fault::TooManyFields),
            Err(_) => return Err(Fault::FieldValue),
        };
        let origin = self.bytes.as_ptr() as usize;
        let span = |part: &[u8]| Span::new((part.as_ptr() as usize).saturating_sub(origin), part.len());
        for header in found {
            let name = header.name.as_bytes();
            self.size += name.len() + header.value.len() + FIELD_OVERHEAD;
            let value = if header.value.is_empty() { Span::default() } else { span(header.value) };
            let known = Name::of(name);
            self.present |= known.bit();
            self.list.push(Field { name: span(name), value, known });
        }
        Ok(())
    }

    /// Removes fields that an origin which takes `_` for `-` would mistake for another one of this message, or for
    /// one that says who asks or where the message ends.
    fn drop_twins(&mut self) {
        for index in (0..self.list.len()).rev() {
            let name = self.list[index].name.of(&self.bytes);
            if name.contains(&b'_') && has_twin(name, self.iter().map(|(other, _)| other)) {
                let field = self.list.remove(index);
                self.size -= field.size();
            }
        }
    }
}

pub(super) fn check(name: &[u8], value: &[u8]) -> Result<Name, EditError> {
    if !is_token(name) || !is_field_value(value) {
        return Err(EditError::Invalid);
    }
    let known = Name::of(name);
    if known.is_reserved() { Err(EditError::Reserved) } else { Ok(known) }
}

/// What a field costs beside its name and value (RFC 9113 section 6.5.2).
const FIELD_OVERHEAD: usize = 32;
/// Fields of most heads; more take a longer array on the stack.
const SHORT: usize = 24;

#[cfg(test)]
mod tests {
    use super::*;

    fn read(section: &[u8]) -> Result<Fields, Fault> {
        let mut fields = Fields::for_head(&HttpLimits::default());
        fields.store(&[section]).expect("room");
        let lines = section.iter().filter(|&&byte| byte == b'\n').count();
        fields.index(0, lines, 32 << 10).map(|()| fields)
    }

    fn shown(fields: &Fields) -> String {
        fields
            .iter()
            .map(|(name, value)| format!("{}={};", name.escape_ascii(), value.escape_ascii()))
            .collect()
    }

    #[test]
    fn order_and_case_are_kept_and_values_are_trimmed() {
        let fields = read(b"B: 1\r\na:\t 2 \r\nb:\r\n\r\n").expect("fields");
        assert_eq!(shown(&fields), "B=1;a=2;b=;");
        assert_eq!(fields.all(b"B").collect::<Vec<_>>(), [&b"1"[..], b""]);
        assert_eq!(fields.get(b"A"), Some(&b"2"[..]));
        assert_eq!(fields.get(b"c"), None);
        assert_eq!(fields.size(), 3 * 32 + 2 + 2 + 1);
    }

    #[test]
    fn set_replaces_the_first_and_removes_the_others() {
        let mut fields = read(b"a: 1\r\nx: 2\r\nA: 3\r\n\r\n").expect("fields");
        fields.set(b"a", b"long enough to need room").expect("room");
        assert_eq!(shown(&fields), "a=long enough to need room;x=2;");
        fields.set(b"new", b"").expect("room");
        fields.add(b"x", b"4").expect("room");
        fields.remove(b"a");
        assert_eq!(shown(&fields), "x=2;new=;x=4;");
        assert_eq!(fields.size(), 3 * 32 + 2 + 3 + 2);
    }

    #[test]
    fn a_filter_cannot_write_what_we_write_or_what_is_no_field() {
        let mut fields = read(b"\r\n").expect("fields");
        for name in ["Host", "Content-Length", "transfer-encoding", "Connection", "Upgrade", "TE", "Trailer"]
        {
            assert_eq!(fields.add(name.as_bytes(), b"x"), Err(EditError::Reserved), "{name}");
        }
        assert_eq!(fields.set(b"a b", b"x"), Err(EditError::Invalid));
        assert_eq!(fields.set(b"a", b"x\r\nb: y"), Err(EditError::Invalid));
        assert!(fields.is_empty());
    }

    #[test]
    fn a_full_head_takes_no_more() {
        let mut fields = read(b"\r\n").expect("fields");
        let value = [b'v'; 1000];
        let taken = (0..1000).take_while(|_| fields.add(b"n", &value).is_ok()).count();
        assert_eq!(taken, (40 << 10) / 1033);
        let mut fields = read(b"\r\n").expect("fields");
        assert_eq!((0..1000).take_while(|_| fields.add(b"n", b"").is_ok()).count(), 132);
        assert_eq!(fields.add(b"n", b""), Err(EditError::Full));
    }

    #[test]
    fn replacing_over_and_over_ends_when_the_buffer_does() {
        let mut fields = read(b"a: 1\r\n\r\n").expect("fields");
        let changes = (0..10_000).take_while(|_| fields.set(b"a", &[b'v'; 100]).is_ok()).count();
        assert_eq!(changes, (fields.room - 8) / 100);
        assert_eq!(fields.len(), 1);
    }

    #[test]
    fn names_that_an_origin_would_take_for_others_are_left_out() {
        let fields =
            read(b"X_Forwarded_For: 1\r\nmy_id: 2\r\nMy-Id: 3\r\ncontent_length: 4\r\nfree_one: 5\r\n\r\n");
        assert_eq!(shown(&fields.expect("fields")), "My-Id=3;free_one=5;");
    }

    #[test]
    fn broken_lines_are_refused() {
        for (section, fault) in [
            (&b"a b: c\r\n\r\n"[..], Fault::FieldName),
            (b"a : c\r\n\r\n", Fault::FieldName),
            (b": c\r\n\r\n", Fault::FieldName),
            (b"a\r\n\r\n", Fault::FieldName),
            (b"a: \0\r\n\r\n", Fault::FieldValue),
            (b"a: b\rc\r\n\r\n", Fault::FieldValue),
        ] {
            assert_eq!(read(section).map(|_| ()), Err(fault), "{}", section.escape_ascii());
        }
    }
}
