//! Matches of fields and query parameters.

use super::pattern::Pattern;
use crate::http::fields::Fields;
use crate::http::grammar::hex;

/// What a value must be.
#[derive(Debug, Clone, PartialEq)]
pub enum ValueMatch {
    /// These bytes.
    Exact(String),
    /// As a whole like this.
    Regex(Pattern),
    /// Anything.
    Present,
}

/// A field that a request must have; one value of that name is enough.
#[derive(Debug, Clone, PartialEq)]
pub struct FieldMatch {
    /// The name, in any case.
    pub name: String,
    /// Its value.
    pub value: ValueMatch,
}

impl FieldMatch {
    pub(super) fn matches(&self, fields: &Fields) -> bool {
        fields.all(self.name.as_bytes()).any(|value| match &self.value {
            ValueMatch::Exact(expected) => value == expected.as_bytes(),
            ValueMatch::Regex(pattern) => pattern.matches(value),
            ValueMatch::Present => true,
        })
    }
}

/// A query parameter that a request must have; of several with its name the first counts. Names and exact values are
/// compared without their escapes, expressions with them.
#[derive(Debug, Clone, PartialEq)]
pub struct QueryMatch {
    /// The name.
    pub name: String,
    /// Its value.
    pub value: ValueMatch,
}

impl QueryMatch {
    pub(super) fn matches(&self, query: &[u8]) -> bool {
        let split =
            |parameter: &'_ [u8]| parameter.iter().position(|&byte| byte == b'=').unwrap_or(parameter.len());
        let mut values = query
            .split(|&byte| byte == b'&')
            .filter(|parameter| !parameter.is_empty())
            .filter_map(|parameter| {
                let (name, value) = parameter.split_at(split(parameter));
                is_decoded(name, self.name.as_bytes()).then(|| value.strip_prefix(b"=").unwrap_or(value))
            });
        values.next().is_some_and(|value| match &self.value {
            ValueMatch::Exact(expected) => is_decoded(value, expected.as_bytes()),
            ValueMatch::Regex(pattern) => pattern.matches(value),
            ValueMatch::Present => true,
        })
    }
}

/// True when the text without its escapes, and with spaces for `+`, is what is expected.
fn is_decoded(text: &[u8], expected: &[u8]) -> bool {
    let mut rest = text;
    let mut decoded = std::iter::from_fn(|| {
        let (byte, after) = match rest {
            [b'%', high, low, after @ ..] if hex(*high).is_some() && hex(*low).is_some() => {
                (hex(*high)? << 4 | hex(*low)?, after)
            }
            [b'+', after @ ..] => (b' ', after),
            [byte, after @ ..] => (*byte, after),
            [] => return None,
        };
        rest = after;
        Some(byte)
    });
    decoded.by_ref().eq(expected.iter().copied())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(name: &str, value: ValueMatch, query: &str) -> bool {
        QueryMatch { name: name.to_owned(), value }.matches(query.as_bytes())
    }

    fn exact(value: &str) -> ValueMatch {
        ValueMatch::Exact(value.to_owned())
    }

    #[test]
    fn parameters_are_compared_without_escapes() {
        assert!(matches("a b", exact("c&d"), "x=1&a%20b=c%26d"));
        assert!(matches("a", exact("b c"), "a=b+c"));
        assert!(matches("a", exact("%zz"), "a=%zz"));
        assert!(!matches("a", exact("b"), "A=b") && !matches("a", exact("b"), "aa=b"));
    }

    #[test]
    fn the_first_of_several_counts_and_none_is_no_match() {
        assert!(matches("a", exact("1"), "a=1&a=2") && !matches("a", exact("2"), "a=1&a=2"));
        assert!(matches("a", exact(""), "a") && matches("a", exact(""), "a="));
        assert!(matches("a", ValueMatch::Present, "&&a") && !matches("", ValueMatch::Present, ""));
        assert!(matches("a", ValueMatch::Regex(Pattern::new("[0-9]+").expect("a pattern")), "a=12"));
    }
}
