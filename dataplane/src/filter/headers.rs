//! Sets, adds and removes fields (Gateway API: HTTPHeaderFilter).

use std::sync::Arc;

use crate::http::{EditError, Fields};

/// Removed first, then set, then added. Names and values were checked when the configuration was read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HeaderEdits {
    /// Replaced, or added where there is none.
    pub set: Vec<(Arc<str>, Arc<str>)>,
    /// Added, whatever there is.
    pub add: Vec<(Arc<str>, Arc<str>)>,
    /// Removed.
    pub remove: Vec<Arc<str>>,
}

impl HeaderEdits {
    pub(super) fn apply(&self, fields: &mut Fields) -> Result<(), EditError> {
        for name in &self.remove {
            fields.remove(name.as_bytes());
        }
        for (name, value) in &self.set {
            fields.set(name.as_bytes(), value.as_bytes())?;
        }
        for (name, value) in &self.add {
            fields.add(name.as_bytes(), value.as_bytes())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{after, answered, blank, facts, request, response};
    use super::super::{Filter, Notes, on_response};
    use super::*;

    fn pairs(text: &str) -> Vec<(Arc<str>, Arc<str>)> {
        let pair = |pair: &str| pair.split_once('=').map(|(name, value)| (name.into(), value.into()));
        text.split(';').filter_map(pair).collect()
    }

    fn edits(remove: &str, set: &str, add: &str) -> HeaderEdits {
        let remove = remove.split(';').filter(|name| !name.is_empty()).map(Arc::from).collect();
        HeaderEdits { remove, set: pairs(set), add: pairs(add) }
    }

    #[test]
    fn requests_lose_get_and_gain_fields_in_this_order() {
        for (remove, set, add, expected) in [
            ("", "", "", "A: 1|b: 2|A: 3|"),
            ("a", "", "", "b: 2|"),
            ("none", "", "", "A: 1|b: 2|A: 3|"),
            ("", "a=x", "", "A: x|b: 2|"),
            ("", "c=x", "", "A: 1|b: 2|A: 3|c: x|"),
            ("", "", "a=x;B=y", "A: 1|b: 2|A: 3|a: x|B: y|"),
            ("a", "a=x", "a=y", "b: 2|a: x|a: y|"),
            ("", "b=", "", "A: 1|b: |A: 3|"),
            ("", "b={client}, %20 \"q\"", "", "A: 1|b: {client}, %20 \"q\"|A: 3|"),
        ] {
            let filter = Filter::RequestHeaders(edits(remove, set, add));
            let sent = after(&filter, request("GET", "h", "/", "A: 1\r\nb: 2\r\nA: 3\r\n"), &facts());
            assert_eq!(sent, format!("GET / HTTP/1.1|Host: h|{expected}|"), "-{remove} ={set} +{add}");
        }
    }

    #[test]
    fn responses_have_filters_of_their_own() {
        let (edits, asked) = (edits("server", "x=1", ""), request("GET", "h", "/", ""));
        let filters = [Filter::RequestHeaders(HeaderEdits::default()), Filter::ResponseHeaders(edits)];
        let mut page = response("HTTP/1.1 200 OK\r\nServer: s\r\nContent-Length: 0\r\n\r\n");
        on_response(&filters, &asked, &mut page, &Notes::default()).expect("room");
        assert_eq!(answered(&page), "HTTP/1.1 200 OK|x: 1|Content-Length: 0||");
    }

    #[test]
    fn a_full_head_is_told() {
        let mut page = blank();
        page.begin(200);
        let long = "v".repeat(30_000);
        let edits = edits("", "", &format!("a={long};b={long}"));
        assert_eq!(edits.apply(&mut page.fields), Err(EditError::Full));
    }
}
