//! Changes host and path of requests (Gateway API: HTTPURLRewriteFilter).

use std::sync::Arc;

use super::{Facts, PathChange};
use crate::http::{EditError, Method, Request};

/// What changes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UrlRewrite {
    /// The host that the member sees.
    pub host: Option<Arc<str>>,
    /// The path that the member sees.
    pub path: Option<PathChange>,
}

impl UrlRewrite {
    /// A request without path, `OPTIONS *` or CONNECT, keeps that; and CONNECT its host, which is its target.
    pub(super) fn apply(&self, request: &mut Request, facts: &Facts) -> Result<(), EditError> {
        if let Some(host) = self.host.as_deref().filter(|_| request.method() != Method::Connect) {
            request.set_authority(host.as_bytes())?;
        }
        let (Some(change), Some(path)) = (&self.path, request.path()) else { return Ok(()) };
        match change.start(path, facts.matched_prefix) {
            Some((len, with)) => request.replace_path_start(len, with),
            None => Ok(()),
        }
    }
}

impl PathChange {
    /// How many first bytes of the path are replaced, and by what, so that the result begins with `/`. `None` when
    /// the path does not begin with the segments of the prefix, as after another change of it.
    pub(super) fn start(&self, path: &[u8], matched: &[u8]) -> Option<(usize, &[u8])> {
        let new = match self {
            PathChange::Full(new) => return Some((path.len(), new.as_bytes())),
            PathChange::Prefix(new) => without_slash(new.as_bytes()),
        };
        let prefix = without_slash(matched);
        match path.strip_prefix(prefix)? {
            [] if new.is_empty() => Some((path.len(), b"/")),
            [] | [b'/', ..] => Some((prefix.len(), new)),
            _ => None,
        }
    }
}

fn without_slash(prefix: &[u8]) -> &[u8] {
    prefix.strip_suffix(b"/").unwrap_or(prefix)
}

#[cfg(test)]
mod tests {
    use super::super::Filter;
    use super::super::testing::{after, facts, request};
    use super::*;

    fn sent(rewrite: UrlRewrite, prefix: &str, method: &str, target: &str) -> String {
        let facts = Facts { matched_prefix: prefix.as_bytes(), ..facts() };
        after(&Filter::UrlRewrite(rewrite), request(method, "h:1", target, ""), &facts)
    }

    #[test]
    fn prefixes_are_replaced_by_whole_segments() {
        for (path, prefix, new, expected) in [
            ("/foo/bar", "/foo", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo", "/xyz/", "/xyz/bar"),
            ("/foo/bar", "/foo/", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo/", "/xyz/", "/xyz/bar"),
            ("/foo", "/foo", "/xyz", "/xyz"),
            ("/foo/", "/foo", "/xyz", "/xyz/"),
            ("/foo/bar", "/foo", "", "/bar"),
            ("/foo/", "/foo", "", "/"),
            ("/foo", "/foo", "", "/"),
            ("/foo/", "/foo", "/", "/"),
            ("/foo", "/foo", "/", "/"),
            ("/foo/bar", "/foo", "/", "/bar"),
            ("/foo?q=/foo", "/foo", "/", "/?q=/foo"),
            ("/a/b", "/", "/xyz", "/xyz/a/b"),
            ("/a/b", "", "/xyz", "/xyz/a/b"),
            ("/", "/", "/xyz", "/xyz/"),
            ("/foo/bar", "/foo", "/a%62/../c", "/c/bar"),
            ("/foobar", "/foo", "/xyz", "/foobar"),
            ("/other", "/foo", "/xyz", "/other"),
        ] {
            let rewrite = UrlRewrite { path: Some(PathChange::Prefix(new.into())), host: None };
            let expected = format!("GET {expected} HTTP/1.1|Host: h:1||");
            assert_eq!(sent(rewrite, prefix, "GET", path), expected, "{path} {prefix} {new}");
        }
    }

    #[test]
    fn the_whole_path_is_replaced_and_the_query_stays() {
        let rewrite = || UrlRewrite { path: Some(PathChange::Full("/x".into())), host: Some("N".into()) };
        assert_eq!(sent(rewrite(), "/a", "GET", "/a/b?c=d"), "GET /x?c=d HTTP/1.1|Host: n||");
        assert_eq!(sent(rewrite(), "", "GET", "/"), "GET /x HTTP/1.1|Host: n||");
    }

    #[test]
    fn a_request_without_a_path_keeps_its_target() {
        let rewrite = || UrlRewrite { path: Some(PathChange::Full("/x".into())), host: Some("n".into()) };
        assert_eq!(sent(rewrite(), "", "OPTIONS", "*"), "OPTIONS * HTTP/1.1|Host: n||");
        assert_eq!(sent(rewrite(), "", "CONNECT", "c:443"), "CONNECT c:443 HTTP/1.1|Host: c:443||");
    }

    #[test]
    fn what_is_no_host_or_path_is_told_and_changes_nothing() {
        let mut asked = request("GET", "h", "/a", "");
        for (host, path) in
            [(Some("a b"), None), (None, Some("no-slash")), (None, Some("/a?b")), (None, Some(""))]
        {
            let path = path.map(|path| PathChange::Full(path.into()));
            let rewrite = UrlRewrite { host: host.map(Arc::from), path };
            assert_eq!(rewrite.apply(&mut asked, &facts()), Err(EditError::Invalid), "{rewrite:?}");
        }
        assert_eq!((asked.authority(), asked.path()), (&b"h"[..], Some(&b"/a"[..])));
    }
}
