//! One spelling for each path, made before routing, and the only one that is forwarded.
//!
//! Escapes of unreserved characters are taken off, other escapes get upper-case digits (RFC 3986 section 6.2.2),
//! characters that a URI may not hold are escaped, `//` becomes `/`, and dot segments are removed (section 5.2.4).

use super::fields::Span;
use super::grammar::{hex, hex_digit, is_unreserved, table};
use super::limits::PathRules;
use super::refusal::Fault;

/// Normalises the path that lies in `span` of the buffer, which begins with `/`; where the result lies. A path that
/// is normal already stays where it is, another one is written to the buffer's end. One pass, or three.
///
/// # Errors
///
/// [`Fault::Path`] for an escape that is none, `%00`, a raw `\`, a dot segment with a parameter (`/..;/`), and what
/// the rules forbid; [`Fault::LineTooLong`] when the result is longer than `len_max`.
pub(super) fn normalise(
    bytes: &mut Vec<u8>,
    span: Span,
    rules: PathRules,
    len_max: usize,
) -> Result<Span, Fault> {
    if is_normal(span.of(bytes)) {
        return Ok(span);
    }
    let at = bytes.len();
    unescape(bytes, span, rules, at.saturating_add(len_max))?;
    let written = bytes.get_mut(at..).unwrap_or_default();
    let len = remove_dot_segments(written, rules.merge_slashes)?;
    bytes.truncate(at + len);
    Ok(Span::new(at, len))
}

/// True when nothing is to be done. May be false for a normal path, which then comes out the same.
fn is_normal(path: &[u8]) -> bool {
    let mut after_slash = false;
    path.iter().all(|&byte| {
        let plain = is_path_char(byte) && !(after_slash && matches!(byte, b'/' | b'.'));
        after_slash = byte == b'/';
        plain
    })
}

/// What stands in a path as it is: `pchar` without escapes, and `/` (RFC 3986 section 3.3).
#[inline]
fn is_path_char(byte: u8) -> bool {
    PATH_CHAR[byte as usize]
}

static PATH_CHAR: [bool; 256] = table(b"-._~!$&'()*+,;=:@/");

/// Appends the path with its escapes normalised.
fn unescape(bytes: &mut Vec<u8>, span: Span, rules: PathRules, end: usize) -> Result<(), Fault> {
    let (mut at, last) = (span.at as usize, (span.at + span.len) as usize);
    while at < last {
        if bytes.len() + 3 > end.min(bytes.capacity()) {
            return Err(Fault::LineTooLong);
        }
        let byte = bytes[at];
        at += 1;
        match byte {
            b'%' => {
                let escaped = bytes.get(at..last).and_then(escaped).ok_or(Fault::Path)?;
                push_escaped(bytes, escaped, rules)?;
                at += 2;
            }
            b'\\' => return Err(Fault::Path),
            byte if is_path_char(byte) => bytes.push(byte),
            byte => bytes.extend_from_slice(&[b'%', hex_digit(byte >> 4), hex_digit(byte)]),
        }
    }
    Ok(())
}

/// The byte that the two digits after `%` stand for.
fn escaped(rest: &[u8]) -> Option<u8> {
    let &[high, low] = rest.first_chunk::<2>()?;
    Some(hex(high)? << 4 | hex(low)?)
}

fn push_escaped(bytes: &mut Vec<u8>, byte: u8, rules: PathRules) -> Result<(), Fault> {
    match byte {
        0 => return Err(Fault::Path),
        b'/' | b'\\' if !rules.encoded_slashes => return Err(Fault::Path),
        byte if is_unreserved(byte) => bytes.push(byte),
        byte => bytes.extend_from_slice(&[b'%', hex_digit(byte >> 4), hex_digit(byte)]),
    }
    Ok(())
}

/// Removes `.`, `..` with the segment before it, and empty segments, in place; the new length. Never goes above `/`.
fn remove_dot_segments(path: &mut [u8], merge_slashes: bool) -> Result<usize, Fault> {
    let (mut read, mut written) = (0, 0);
    while read < path.len() {
        let start = read + 1;
        let len = path[start..].iter().position(|&byte| byte == b'/');
        let end = len.map_or(path.len(), |len| start + len);
        match &path[start..end] {
            b"." => written = close(path, written, end),
            b".." => {
                let parent = path[..written].iter().rposition(|&byte| byte == b'/').unwrap_or(0);
                written = close(path, parent, end);
            }
            b"" if merge_slashes => written = close(path, written, end),
            segment if hides_dots(segment) => return Err(Fault::Path),
            _ => {
                path.copy_within(read..end, written);
                written += end - read;
            }
        }
        read = end;
    }
    Ok(written)
}

/// A segment was left out: when it was the last one, the path ends with `/`.
fn close(path: &mut [u8], written: usize, end: usize) -> usize {
    if end < path.len() {
        return written;
    }
    path[written] = b'/';
    written + 1
}

/// `..;x`: some servers take off the parameter first and see a dot segment.
fn hides_dots(segment: &[u8]) -> bool {
    let plain = segment.split(|&byte| byte == b';').next().unwrap_or_default();
    plain.len() < segment.len() && matches!(plain, b"." | b"..")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normal(path: &str, rules: PathRules) -> Result<String, Fault> {
        let mut bytes = Vec::with_capacity(1024);
        bytes.extend_from_slice(path.as_bytes());
        let span = normalise(&mut bytes, Span::new(0, path.len()), rules, 100)?;
        Ok(String::from_utf8(span.of(&bytes).to_vec()).expect("ASCII"))
    }

    #[test]
    fn every_path_has_one_spelling() {
        for (path, expected) in [
            ("/", "/"),
            ("/a/b.c", "/a/b.c"),
            ("//", "/"),
            ("/a//b///", "/a/b/"),
            ("/a/./b/.", "/a/b/"),
            ("/a/b/../c", "/a/c"),
            ("/a/b/..", "/a/"),
            ("/..", "/"),
            ("/../../a", "/a"),
            ("/a/%2e%2E/b", "/b"),
            ("/a/%2e", "/a/"),
            ("/a//../b", "/b"),
            ("/%41%7e%2d", "/A~-"),
            ("/%c3%a4", "/%C3%A4"),
            ("/a%2fb%5c", "/a%2Fb%5C"),
            ("/%252e%252e/", "/%252e%252e/"),
            ("/a|b\"<>^`{}", "/a%7Cb%22%3C%3E%5E%60%7B%7D"),
            ("/.a/..b/...", "/.a/..b/..."),
            ("/a;v=1/b", "/a;v=1/b"),
        ] {
            assert_eq!(normal(path, PathRules::default()).as_deref(), Ok(expected), "{path}");
            assert_eq!(normal(expected, PathRules::default()).as_deref(), Ok(expected), "again");
        }
    }

    #[test]
    fn what_means_different_things_to_servers_is_refused() {
        for path in ["/%", "/%4", "/%zz", "/%00", "/a%00b", "/a\\b", "/a/..;/b", "/.;x/", "/%2e%2e;a"] {
            assert_eq!(normal(path, PathRules::default()), Err(Fault::Path), "{path}");
        }
    }

    #[test]
    fn rules_change_what_is_merged_and_refused() {
        let strict = PathRules { merge_slashes: false, encoded_slashes: false };
        assert_eq!(normal("/a//b/./", strict).as_deref(), Ok("/a//b/"));
        assert_eq!(normal("/a//../b", strict).as_deref(), Ok("/a/b"));
        assert_eq!(normal("/a%2Fb", strict), Err(Fault::Path));
        assert_eq!(normal("/a%5cb", strict), Err(Fault::Path));
    }

    #[test]
    fn a_path_that_grows_past_the_limit_is_refused() {
        assert_eq!(
            normal(&format!("/{}", "|".repeat(32)), PathRules::default()).map(|path| path.len()),
            Ok(97)
        );
        assert_eq!(normal(&format!("/{}", "|".repeat(34)), PathRules::default()), Err(Fault::LineTooLong));
    }
}
