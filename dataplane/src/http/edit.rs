//! What filters write piece by piece: values made of parts, lists that grow, paths that begin otherwise.

use super::fields::{EditError, Field, Fields, Span, check};

impl Fields {
    /// Adds a field whose value is these parts, one after the other.
    ///
    /// # Errors
    ///
    /// As [`EditError`] says; nothing is changed then.
    pub fn add_parts<'a>(
        &mut self,
        name: &[u8],
        parts: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<(), EditError> {
        let start = self.bytes.len();
        let stored = self.store_parts(parts).and_then(|value| self.add_stored(name, value));
        if stored.is_err() {
            self.bytes.truncate(start);
        }
        stored
    }

    fn store_parts<'a>(&mut self, parts: impl IntoIterator<Item = &'a [u8]>) -> Result<Span, EditError> {
        let at = self.bytes.len();
        for part in parts {
            self.store(&[part]).ok_or(EditError::Full)?;
        }
        Ok(Span::new(at, self.bytes.len() - at))
    }

    fn add_stored(&mut self, name: &[u8], value: Span) -> Result<(), EditError> {
        let known = check(name, value.of(&self.bytes))?;
        let at = self.store(&[name]).ok_or(EditError::Full)?;
        let field = Field { name: Span::new(at, name.len()), value, known };
        let grown = self.size + field.size();
        if self.list.len() == self.count_max || grown > self.size_max {
            return Err(EditError::Full);
        }
        self.list.push(field);
        self.present |= known.bit();
        self.size = grown;
        Ok(())
    }

    /// Adds an element to the list that the fields of this name are; they become one field, in the first one's place
    /// (RFC 9110 section 5.3).
    ///
    /// # Errors
    ///
    /// As [`EditError`] says; nothing is changed then.
    pub fn append(&mut self, name: &[u8], element: &[u8]) -> Result<(), EditError> {
        check(name, element)?;
        let Some(first) = self.position(name) else { return self.add(name, element) };
        let start = self.bytes.len();
        let value = self.store_joined(first, name, element)?;
        let joined = Field { value, ..self.list[first] };
        let grown = self.size - self.size_of(name) + joined.size();
        if grown > self.size_max {
            self.bytes.truncate(start);
            return Err(EditError::Full);
        }
        self.list[first] = joined;
        self.remove_after(first + 1, name);
        self.size = grown;
        Ok(())
    }

    /// Writes the values of this name, of which `first` is the first, and the element.
    fn store_joined(&mut self, first: usize, name: &[u8], element: &[u8]) -> Result<Span, EditError> {
        let at = self.bytes.len();
        for index in first..self.list.len() {
            let Field { name: found, value, .. } = self.list[index];
            if value.len > 0 && found.of(&self.bytes).eq_ignore_ascii_case(name) {
                let copied = self.copy(value).and_then(|()| self.store(&[SEPARATOR]));
                copied.ok_or_else(|| self.forget(at))?;
            }
        }
        self.store(&[element]).ok_or_else(|| self.forget(at))?;
        Ok(Span::new(at, self.bytes.len() - at))
    }

    fn size_of(&self, name: &[u8]) -> usize {
        let same = |field: &&Field| field.name.of(&self.bytes).eq_ignore_ascii_case(name);
        self.list.iter().filter(same).map(Field::size).sum()
    }

    /// Puts bytes and then a part of the buffer at its end; where they lie, or `None` when there is no room for all.
    pub(super) fn store_before(&mut self, bytes: &[u8], rest: Span) -> Option<Span> {
        let at = self.store(&[bytes])?;
        self.copy(rest).or_else(|| {
            self.forget(at);
            None
        })?;
        Some(Span::new(at, bytes.len() + rest.len as usize))
    }

    /// Puts a part of the buffer at its end once more.
    fn copy(&mut self, part: Span) -> Option<()> {
        let (start, end) = (part.at as usize, (part.at + part.len) as usize);
        let fits = end <= self.bytes.len() && end - start <= self.room - self.bytes.len();
        fits.then(|| self.bytes.extend_from_within(start..end))
    }

    fn forget(&mut self, at: usize) -> EditError {
        self.bytes.truncate(at);
        EditError::Full
    }
}

const SEPARATOR: &[u8] = b", ";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::HttpLimits;

    fn fields(with: &[(&str, &str)]) -> Fields {
        let mut fields = Fields::for_head(&HttpLimits::default());
        for (name, value) in with {
            fields.add(name.as_bytes(), value.as_bytes()).expect("room");
        }
        fields
    }

    fn shown(fields: &Fields) -> String {
        let line =
            |(name, value): (&[u8], &[u8])| format!("{}={};", name.escape_ascii(), value.escape_ascii());
        fields.iter().map(line).collect()
    }

    fn true_size(fields: &Fields) -> usize {
        fields.iter().map(|(name, value)| name.len() + value.len() + 32).sum()
    }

    #[test]
    fn parts_make_one_value() {
        let mut fields = fields(&[("a", "1")]);
        fields.add_parts(b"b", [&b"x"[..], b"", b": y"]).expect("room");
        fields.add_parts(b"c", []).expect("room");
        assert_eq!(shown(&fields), "a=1;b=x: y;c=;");
        assert_eq!(fields.size(), true_size(&fields));
    }

    #[test]
    fn parts_are_checked_as_a_whole_and_leave_nothing_behind() {
        let mut fields = fields(&[]);
        let filled = fields.bytes.len();
        assert_eq!(fields.add_parts(b"a", [&b"x"[..], b"\r\nb: y"]), Err(EditError::Invalid));
        assert_eq!(fields.add_parts(b"a", [&b"x"[..], b" "]), Err(EditError::Invalid));
        assert_eq!(fields.add_parts(b"a b", [&b"x"[..]]), Err(EditError::Invalid));
        assert_eq!(fields.add_parts(b"Host", [&b"x"[..]]), Err(EditError::Reserved));
        assert_eq!(fields.add_parts(b"a", [&[b'v'; 50_000][..]; 2]), Err(EditError::Full));
        assert_eq!(fields.add_parts(b"a", [&[b'v'; 41_000][..]]), Err(EditError::Full));
        assert_eq!((fields.bytes.len(), fields.size(), fields.len()), (filled, 0, 0));
    }

    #[test]
    fn a_list_becomes_one_field_where_it_began() {
        let mut fields = fields(&[("List", "1"), ("x", "y"), ("list", ""), ("LIST", "2, 3")]);
        fields.append(b"list", b"4").expect("room");
        assert_eq!(shown(&fields), "List=1, 2, 3, 4;x=y;");
        assert_eq!(fields.size(), true_size(&fields));
        fields.append(b"new", b"5").expect("room");
        assert_eq!(shown(&fields), "List=1, 2, 3, 4;x=y;new=5;");
    }

    #[test]
    fn a_list_that_grows_over_and_over_ends_when_the_buffer_does() {
        let mut fields = fields(&[("a", &"v".repeat(1_000))]);
        let grown = (0..1_000).take_while(|_| fields.append(b"a", b"w").is_ok()).count();
        assert!((20..60).contains(&grown), "{grown}");
        let before = (shown(&fields), fields.size(), fields.bytes.len());
        assert_eq!(fields.append(b"a", b"w"), Err(EditError::Full));
        assert_eq!((shown(&fields), fields.size(), fields.bytes.len()), before);
    }
}
