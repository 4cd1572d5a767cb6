//! What a message may measure at most, and how its path is read.

/// The sizes a listener takes. Every one is enforced while bytes arrive, before they are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HttpLimits {
    /// Bytes of a request line or status line, without its CRLF. More is 414.
    pub line: usize,
    /// Bytes of the fields, both as received and as HTTP/2 counts them (name, value and 32 for each). More is 431.
    pub head: usize,
    /// Fields of a head. More is 431; at most [`HttpLimits::FIELDS_MAX`].
    pub fields: usize,
    /// Bytes of a trailer section, counted as `head` is. More is 431.
    pub trailer: usize,
    /// Fields of a trailer section. More is 431.
    pub trailer_fields: usize,
    /// Bytes of body. More is 413.
    pub body: u64,
    /// How a path is read.
    pub path: PathRules,
}

impl HttpLimits {
    /// What `fields` can be at most.
    pub const FIELDS_MAX: usize = 128;
    /// Fields and bytes that filters may add to a full head.
    pub(super) const EDIT_FIELDS: usize = 32;
    pub(super) const EDIT_BYTES: usize = 8 << 10;

    /// Bytes that one head's buffer takes: the line and its normalised path, the fields, and what filters add.
    pub(super) fn buffer(&self) -> usize {
        2 * self.line + self.head + Self::EDIT_BYTES
    }
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self {
            line: 8 << 10,
            head: 32 << 10,
            fields: 100,
            trailer: 8 << 10,
            trailer_fields: 32,
            body: u64::MAX,
            path: PathRules::default(),
        }
    }
}

/// What becomes of a path before it is routed and forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PathRules {
    /// `//` becomes `/`.
    pub merge_slashes: bool,
    /// `%2F` and `%5C` are let through, as they are; otherwise they are refused.
    pub encoded_slashes: bool,
}

impl Default for PathRules {
    fn default() -> Self {
        Self { merge_slashes: true, encoded_slashes: true }
    }
}
