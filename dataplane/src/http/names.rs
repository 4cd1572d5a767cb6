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
    /// Says what the content is: not for trailers.
    Content,
    Other,
}

impl Name {
    /// Which field this is; upper and lower case are the same (RFC 9110 section 5.1).
    pub(super) fn of(name: &[u8]) -> Self {
        let known = candidates(name.len()).iter().find(|(known, _)| name.eq_ignore_ascii_case(known));
        known.map_or_else(|| if is_forwarded(name) { Identity } else { Other }, |&(_, found)| found)
    }

    /// Ends at the next hop: never kept in a parsed head (RFC 9110 section 7.6.1), nor are the fields that we write
    /// ourselves.
    pub(super) fn is_removed(self) -> bool {
        !matches!(self, Other | Identity | Content | Expect | Trailer)
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

    /// Is left out of a trailer section (RFC 9110 section 6.5.1).
    pub(super) fn is_dropped_from_trailer(self) -> bool {
        self != Other
    }
}

/// `X-Forwarded-…`, all of them.
fn is_forwarded(name: &[u8]) -> bool {
    name.split_at_checked(12).is_some_and(|(start, _)| start.eq_ignore_ascii_case(b"x-forwarded-"))
}

/// The known names of this length.
fn candidates(len: usize) -> &'static [(&'static [u8], Name)] {
    match len {
        2 => &[(b"te", Te)],
        3 => &[(b"age", Content)],
        4 => &[(b"host", Host), (b"date", Content), (b"vary", Content)],
        5 => &[(b"range", Content)],
        6 => &[(b"cookie", Identity), (b"expect", Expect), (b"pragma", Content)],
        7 => &[(b"upgrade", Upgrade), (b"trailer", Trailer), (b"expires", Content)],
        8 => &[(b"if-match", Content), (b"if-range", Content), (b"location", Content)],
        9 => &[(b"forwarded", Identity), (b"x-real-ip", Identity)],
        10 => &[(b"connection", Connection), (b"keep-alive", KeepAlive), (b"set-cookie", Identity)],
        11 => &[(b"retry-after", Content)],
        12 => &[(b"content-type", Content), (b"max-forwards", Content)],
        13 => &[(b"authorization", Identity), (b"cache-control", Content), (b"content-range", Content)],
        14 => &[(b"content-length", ContentLength), (b"http2-settings", Http2Settings)],
        16 => &[(b"proxy-connection", ProxyConnection), (b"content-encoding", Content)],
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
}
