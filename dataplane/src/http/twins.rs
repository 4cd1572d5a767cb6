//! Field names with `_`, which CGI and its kin cannot tell from those with `-`.

use super::names::Name;

/// True when a `_` comes before the colon of a line. Looks at each line once, and only at those that have one.
pub(super) fn names_have_underscore(mut section: &[u8]) -> bool {
    while let Some(found) = memchr::memchr(b'_', section) {
        let line = memchr::memrchr(b'\n', &section[..found]).map_or(0, |end| end + 1);
        if memchr::memchr(b':', &section[line..found]).is_none() {
            return true;
        }
        let end = memchr::memchr(b'\n', &section[found..]).map_or(section.len(), |len| found + len + 1);
        section = &section[end..];
    }
    false
}

/// True when an origin that takes `_` for `-` would mistake this name for another one of the message, or for one that
/// says who asks or where the message ends.
pub(super) fn has_twin<'a>(name: &[u8], mut others: impl Iterator<Item = &'a [u8]>) -> bool {
    let mut plain = [0; TWIN_MAX];
    let Some(plain) = plain.get_mut(..name.len()) else { return true };
    plain.iter_mut().zip(name).for_each(|(to, &from)| *to = folded(from));
    Name::of(plain) != Name::Other || others.any(|other| is_twin(name, other))
}

/// True when the names differ, but only by `_` for `-` and by case.
fn is_twin(name: &[u8], other: &[u8]) -> bool {
    name.len() == other.len()
        && !name.eq_ignore_ascii_case(other)
        && name.iter().zip(other).all(|(&a, &b)| folded(a) == folded(b))
}

fn folded(byte: u8) -> u8 {
    if byte == b'_' { b'-' } else { byte.to_ascii_lowercase() }
}

/// Longer names with `_` are not compared but left out, so that comparing stays cheap.
const TWIN_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twins_differ_by_underscore_and_case_only() {
        let others = [&b"My-Id"[..], b"my_id"];
        let has_twin = |name: &[u8]| has_twin(name, others.into_iter());
        assert!(has_twin(b"my_id") && has_twin(b"MY_ID"));
        assert!(has_twin(b"X_Forwarded_For") && has_twin(b"content_length"), "whether it is there or not");
        assert!(!has_twin(b"my_ids") && !has_twin(b"free_one"));
        assert!(has_twin(&[b'_'; TWIN_MAX + 1]) && !has_twin(&[b'_'; TWIN_MAX]));
    }

    #[test]
    fn an_underscore_is_looked_for_in_names_only() {
        for (section, expected) in [
            ("", false),
            ("a: b_c_d\r\ne: _\r\n\r\n", false),
            ("a: b_c\r\ne_f: g\r\n\r\n", true),
            ("_: b\r\n\r\n", true),
            ("a:_\r\nb: c\r\nd_:_\r\n\r\n", true),
        ] {
            assert_eq!(names_have_underscore(section.as_bytes()), expected, "{section:?}");
        }
    }
}
