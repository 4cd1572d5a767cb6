//! Regular expressions that cost one table look-up a byte.
//!
//! They are compiled to a whole automaton when the configuration is read, and refused when that is too large; matching
//! takes no memory, and its time does not depend on the expression.

use std::sync::Arc;

use regex_automata::dfa::{Automaton, StartKind, dense};
use regex_automata::nfa::thompson;
use regex_automata::util::syntax;
use regex_automata::{Anchored, Input};

/// An expression that must match the whole text. Bytes, not Unicode: `.` is any byte but a line feed, `\d` and `\w`
/// are ASCII.
#[derive(Debug, Clone)]
pub struct Pattern {
    text: Arc<str>,
    automaton: Arc<dense::DFA<Vec<u32>>>,
}

/// By what is written, not by what it matches.
impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

/// Why an expression was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PatternError(String);

impl Pattern {
    /// Compiles an expression in the syntax of the `regex` crate. Allocates; for the control thread.
    ///
    /// # Errors
    ///
    /// [`PatternError`] when it is none, or its automaton is larger than a MiB.
    pub fn new(text: &str) -> Result<Self, PatternError> {
        let rules = syntax::Config::new().unicode(false).utf8(false);
        // On its own first: a text that closes a group it did not open is none.
        syntax::parse_with(text, &rules).map_err(|error| PatternError(reason(&error)))?;
        let sizes = dense::Config::new()
            .start_kind(StartKind::Anchored)
            .dfa_size_limit(Some(SIZE_MAX))
            .determinize_size_limit(Some(4 * SIZE_MAX));
        dense::Builder::new()
            .configure(sizes)
            .syntax(rules)
            .thompson(thompson::Config::new().utf8(false).nfa_size_limit(Some(SIZE_MAX)))
            .build(&format!("(?:{text})\\z"))
            .map(|dfa| Self { text: text.into(), automaton: Arc::new(dfa) })
            .map_err(|error| PatternError(reason(&error)))
    }

    /// True when it matches the whole text. O(bytes), no allocation.
    pub fn matches(&self, text: &[u8]) -> bool {
        let input = Input::new(text).anchored(Anchored::Yes);
        matches!(self.automaton.try_search_fwd(&input), Ok(Some(_)))
    }
}

/// The innermost cause, on one line.
fn reason(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string().lines().last().unwrap_or_default().to_owned()
}

const SIZE_MAX: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, text: &str) -> bool {
        Pattern::new(pattern).expect("a pattern").matches(text.as_bytes())
    }

    #[test]
    fn the_whole_text_must_match() {
        assert!(matches("/v[0-9]+/.*", "/v12/x"));
        assert!(!matches("/v[0-9]+", "/v12/x"));
        assert!(!matches("v1", "/v1"));
        assert!(matches("a|ab", "ab") && matches("/a|/b", "/b"));
        assert!(matches("", "") && !matches("", "a"));
    }

    #[test]
    fn broken_and_huge_expressions_are_refused() {
        for pattern in ["(", "a)|(b", "[", "a{1000}{1000}", "[01]*1[01]{20}", "\\b\u{e4}("] {
            assert!(Pattern::new(pattern).is_err(), "{pattern}");
        }
    }
}
