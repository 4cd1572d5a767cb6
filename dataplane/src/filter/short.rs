//! Short texts that filters make without taking memory.

use std::fmt;
use std::io::{Cursor, Write};

use crate::http::EditError;

/// A text of at most `N` bytes, on the stack.
pub(super) struct Short<const N: usize>(Cursor<[u8; N]>);

impl<const N: usize> Short<N> {
    /// # Errors
    /// [`EditError::Full`] when the text is longer.
    pub(super) fn of(text: fmt::Arguments) -> Result<Self, EditError> {
        let mut out = Cursor::new([0; N]);
        out.write_fmt(text).map_err(|_| EditError::Full)?;
        Ok(Self(out))
    }

    pub(super) fn bytes(&self) -> &[u8] {
        let len = self.0.position() as usize;
        self.0.get_ref().get(..len).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_fits_or_is_none() {
        let four = Short::<4>::of(format_args!("{}-{}", 12, 3));
        assert_eq!(four.map(|text| text.bytes().to_vec()), Ok(b"12-3".to_vec()));
        assert!(matches!(Short::<4>::of(format_args!("{}-{}", 12, 34)), Err(EditError::Full)));
    }
}
