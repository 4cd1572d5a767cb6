//! Field names that mean something to a proxy, and what each may do.

use Name::*;

/// A field name that is known here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Name {
    Connection,
    ContentLength,
    Expect,
    Host,
    Http2Settings,
    KeepAlive,
    ProxyAuthenticate,
    ProxyAuthenticationInfo,
    ProxyAuthorization,
    ProxyConnection,
    Te,
    Trailer,
    TransferEncoding,
    Upgrade,
    /// Says who asks: what a client must not remove or add behind the member's back.
    Identity,
    Other,
}

impl Name {
    /// Which field this is; upper and lower case are the same (RFC 9110 section 5.1).
    pub(super) fn of(name: &[u8]) -> Self {
        let begins = |known: &[u8]| name.first().map(|byte| byte | 0x20) == known.first().copied();
        let same = |known: &[u8]| begins(known) && name.eq_ignore_ascii_case(known);
        let known = candidates(name.len()).iter().find(|(known, _)| same(known));
        known.map_or_else(|| if is_forwarded(name) { Identity } else { Other }, |&(_, found)| found)
    }

    /// A bit of its own.
    pub(super) fn bit(self) -> u32 {
        1 << self as u32
    }

    /// Ends at the next hop: never kept in a parsed head (RFC 9110 section 7.6.1), nor are the fields that we write
    /// ourselves.
    pub(super) fn is_removed(self) -> bool {
        !matches!(self, Other | Identity | Expect | Trailer)
    }

    /// May not be set by a filter, because the serialiser writes it.
    pub(super) fn is_reserved(self) -> bool {
        self.is_removed() || self == Trailer
    }

    /// Stays when Connection names it.
    pub(super) fn outlives_connection(self) -> bool {
        matches!(self, Host | ContentLength | TransferEncoding | Identity)
    }

    /// Is refused in a trailer section: it would change where the message goes or ends.
    pub(super) fn is_refused_in_trailer(self) -> bool {
        matches!(self, Host | ContentLength | TransferEncoding | Connection | Upgrade | Te)
    }
}

/// True when a trailer section may have it: not who asks, what the content is, or what to do with it, which receivers
/// may already have acted on (RFC 9110 section 6.5.1).
pub(super) fn is_for_trailers(name: &[u8], known: Name) -> bool {
    known == Other && !CONTENT.iter().any(|content| name.eq_ignore_ascii_case(content))
}

const CONTENT: &[&[u8]] = &[
    b"age",
    b"cache-control",
    b"content-encoding",
    b"content-range",
    b"content-type",
    b"date",
    b"expires",
    b"if-match",
    b"if-range",
    b"location",
    b"max-forwards",
    b"pragma",
    b"range",
    b"retry-after",
    b"vary",
];

/// `X-Forwarded-…`, all of them.
fn is_forwarded(name: &[u8]) -> bool {
    matches!(name, [b'x' | b'X', b'-', ..])
        && name.split_at_checked(12).is_some_and(|(start, _)| start.eq_ignore_ascii_case(b"x-forwarded-"))
}

/// The known names of this length.
fn candidates(len: usize) -> &'static [(&'static [u8], Name)] {
    match len {
        2 => &[(b"te", Te)],
        4 => &[(b"host", Host)],
        6 => &[(b"cookie", Identity), (b"expect", Expect)],
        7 => &[(b"upgrade", Upgrade), (b"trailer", Trailer)],
        9 => &[(b"forwarded", Identity), (b"x-real-ip", Identity)],
        10 => &[(b"connection", Connection), (b"keep-alive", KeepAlive), (b"set-cookie", Identity)],
        13 => &[(b"authorization", Identity)],
        14 => &[(b"content-length", ContentLength), (b"http2-settings", Http2Settings)],
        16 => &[(b"proxy-connection", ProxyConnection)],
        17 => &[(b"transfer-encoding", TransferEncoding)],
        18 => &[(b"proxy-authenticate", ProxyAuthenticate)],
        19 => &[(b"proxy-authorization", ProxyAuthorization)],
        25 => &[(b"proxy-authentication-info", ProxyAuthenticationInfo)],
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_known_name_is_found_in_any_case() {
        for len in 0..40 {
            for (name, known) in candidates(len) {
                assert_eq!(name.len(), len);
                assert_eq!(Name::of(name), *known);
                assert_eq!(Name::of(&name.to_ascii_uppercase()), *known);
            }
        }
    }

    #[test]
    fn everything_x_forwarded_says_who_asks() {
        assert_eq!(Name::of(b"X-Forwarded-For"), Identity);
        assert_eq!(Name::of(b"x-forwarded-anything"), Identity);
        assert_eq!(Name::of(b"x-forwarded"), Other);
    }

    #[test]
    fn what_connection_names_may_not_hide_the_framing() {
        assert!(Name::of(b"Host").outlives_connection());
        assert!(Name::of(b"Cookie").outlives_connection());
        assert!(!Name::of(b"X-Anything").outlives_connection());
    }

    #[test]
    fn trailers_say_nothing_that_was_to_be_known_before() {
        let may_trail = |name: &[u8]| is_for_trailers(name, Name::of(name));
        assert!(may_trail(b"ETag") && may_trail(b"X-Checksum"));
        assert!(!may_trail(b"Content-Type") && !may_trail(b"cookie") && !may_trail(b"Expect"));
    }
}
