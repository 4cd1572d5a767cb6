//! Character classes and small forms that several parts read (RFC 9110 section 5.6, RFC 3986).

/// True for `tchar` (RFC 9110 section 5.6.2).
#[inline]
pub(crate) const fn is_tchar(byte: u8) -> bool {
    TCHAR[byte as usize]
}

static TCHAR: [bool; 256] = table(b"!#$%&'*+-.^_`|~");

/// Letters, digits and these.
pub(super) const fn table(others: &[u8]) -> [bool; 256] {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 128 {
        table[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let mut at = 0;
    while at < others.len() {
        table[others[at] as usize] = true;
        at += 1;
    }
    table
}

/// True for `token`: one `tchar` or more.
pub(super) fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|&byte| is_tchar(byte))
}

/// True for what a field value may hold: no control character but HTAB, no whitespace at its ends
/// (RFC 9110 section 5.5). Bytes from 0x80 are opaque.
pub(super) fn is_field_value(bytes: &[u8]) -> bool {
    let inside = bytes.iter().all(|&byte| byte == b'\t' || (byte >= b' ' && byte != 0x7f));
    inside && trim(bytes).len() == bytes.len()
}

/// Without optional whitespace (SP, HTAB) at both ends.
pub(crate) fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

/// The elements of a comma-separated list, trimmed; empty ones are left out (RFC 9110 section 5.6.1.2).
pub(crate) fn list(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.split(|&byte| byte == b',').map(trim).filter(|element| !element.is_empty())
}

/// The value of `1*DIGIT` that fits in 63 bits.
pub(super) fn decimal(bytes: &[u8]) -> Option<u64> {
    if bytes.is_empty() || !bytes.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let add = |value: u64, &digit: &u8| value.checked_mul(10)?.checked_add(u64::from(digit - b'0'));
    bytes.iter().try_fold(0, add).filter(|&value| i64::try_from(value).is_ok())
}

/// The value of a hexadecimal digit.
pub(super) fn hex(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

/// The digit of a number below 16, in upper case.
pub(super) fn hex_digit(value: u8) -> u8 {
    b"0123456789ABCDEF"[usize::from(value & 15)]
}

/// True for `unreserved` (RFC 3986 section 2.3): never needs an escape.
pub(super) fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delimiters_are_no_token() {
        assert!(is_token(b"x!#$%&'*+-.^_`|~9Z"));
        for byte in b" \t\"(),/:;<=>?@[\\]{}\x7f\x80\0" {
            assert!(!is_token(&[*byte]), "{byte}");
        }
        assert!(!is_token(b""));
    }

    #[test]
    fn a_length_is_only_digits_and_fits_63_bits() {
        assert_eq!(decimal(b"0"), Some(0));
        assert_eq!(decimal(b"007"), Some(7));
        assert_eq!(decimal(b"9223372036854775807"), Some(i64::MAX as u64));
        for bad in
            [&b"9223372036854775808"[..], b"", b"+1", b"-1", b"1 ", b"0x1", b"1_0", b"99999999999999999999"]
        {
            assert_eq!(decimal(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn lists_lose_whitespace_and_empty_elements() {
        assert_eq!(list(b" a ,,\tb, ").collect::<Vec<_>>(), [b"a", b"b"]);
        assert_eq!(list(b"").count(), 0);
    }

    #[test]
    fn values_hold_no_controls_and_no_outer_whitespace() {
        assert!(is_field_value(b"a\tb \xff"));
        assert!(is_field_value(b""));
        for bad in [&b" a"[..], b"a ", b"a\r", b"a\n", b"a\0b", b"\x7f"] {
            assert!(!is_field_value(bad), "{bad:?}");
        }
    }
}
