//! What a head says about its connection, and the fields that end at the next hop (RFC 9110 section 7.6.1).

use super::fields::{Fields, Span};
use super::grammar::{is_tchar, is_token, list};
use super::head::Version;
use super::names::Name;
use super::refusal::Fault;

/// What the Connection field and those around it say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Hop {
    pub(super) close: bool,
    pub(super) keep_alive: bool,
    /// `TE: trailers`: the sender understands trailers (RFC 9110 section 10.1.4).
    pub(super) trailers: bool,
    /// The protocol of an Upgrade that Connection names too.
    pub(super) upgrade: Option<Span>,
}

impl Hop {
    /// Reads what concerns this hop and removes from the head all that must not go to the next: what Connection
    /// names, except fields that say who asks and where the message goes or ends; what always ends at the next hop;
    /// and what the serialiser writes anew.
    pub(super) fn take(fields: &mut Fields) -> Result<Self, Fault> {
        let options = Options::read(fields)?;
        let hop = Self {
            close: options.close,
            keep_alive: options.keep_alive,
            trailers: options.te && accepts_trailers(fields),
            upgrade: upgrade(fields).filter(|_| options.upgrade),
        };
        if options.others {
            remove_named(fields);
        }
        fields.retain(|_, known| !known.is_removed());
        Ok(hop)
    }

    /// True when the sender keeps the connection after this message (RFC 9112 section 9.3).
    pub(super) fn persists(&self, version: Version) -> bool {
        !self.close && (version == Version::Http11 || self.keep_alive)
    }
}

#[derive(Default)]
struct Options {
    close: bool,
    keep_alive: bool,
    upgrade: bool,
    te: bool,
    /// It names other fields.
    others: bool,
}

impl Options {
    fn read(fields: &Fields) -> Result<Self, Fault> {
        let mut options = Self::default();
        for (count, option) in fields.known(Name::Connection).flat_map(list).enumerate() {
            if count == OPTIONS_MAX || !is_token(option) {
                return Err(Fault::Connection);
            }
            options.note(option);
        }
        Ok(options)
    }

    fn note(&mut self, option: &[u8]) {
        let is = |name: &[u8]| option.eq_ignore_ascii_case(name);
        match option.len() {
            2 if is(b"te") => self.te = true,
            5 if is(b"close") => self.close = true,
            7 if is(b"upgrade") => self.upgrade = true,
            10 if is(b"keep-alive") => self.keep_alive = true,
            _ => self.others = true,
        }
    }
}

/// Removes the fields that Connection names.
fn remove_named(fields: &mut Fields) {
    let mut spans = [Span::default(); OPTIONS_MAX];
    let origin = fields.bytes.as_ptr() as usize;
    for (span, option) in spans.iter_mut().zip(fields.known(Name::Connection).flat_map(list)) {
        *span = Span::new((option.as_ptr() as usize).saturating_sub(origin), option.len());
    }
    fields.retain_with(|bytes, name, known| {
        known.outlives_connection() || !spans.iter().any(|span| name.eq_ignore_ascii_case(span.of(bytes)))
    });
}

fn accepts_trailers(fields: &Fields) -> bool {
    fields.known(Name::Te).flat_map(list).any(|coding| coding.eq_ignore_ascii_case(b"trailers"))
}

/// The protocol of the only Upgrade field, when it names exactly one, and none that a proxy would have to speak
/// itself: a member that turned to HTTP/2 or TLS would carry requests that nobody checks.
fn upgrade(fields: &Fields) -> Option<Span> {
    let mut values = fields.known(Name::Upgrade);
    let protocol = values.next().filter(|_| values.next().is_none())?;
    let name = protocol.split(|&byte| byte == b'/').next()?;
    let well_formed = !name.is_empty()
        && protocol.iter().all(|&byte| is_tchar(byte) || byte == b'/')
        && protocol.iter().filter(|&&byte| byte == b'/').count() <= 1;
    let ours = [&b"h2c"[..], b"h2", b"http", b"tls"].iter().any(|ours| name.eq_ignore_ascii_case(ours));
    fields.known_span(Name::Upgrade).filter(|_| well_formed && !ours)
}

/// Options that Connection may list: few name more than three, and each is compared with every field.
const OPTIONS_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::limits::HttpLimits;

    fn take(section: &str) -> (Result<Hop, Fault>, String) {
        let mut fields = Fields::for_head(&HttpLimits::default());
        fields.store(&[section.as_bytes(), b"\r\n"]).expect("room");
        fields.index(0, section.lines().count(), 10_000).expect("fields");
        let hop = Hop::take(&mut fields);
        (hop, fields.iter().map(|(name, _)| format!("{} ", name.escape_ascii())).collect())
    }

    #[test]
    fn what_connection_names_goes_but_never_who_asks() {
        let (hop, left) = take(
            "X-One: 1\r\nConnection: x-one, cookie, host\r\nCookie: a\r\nX-Forwarded-For: b\r\n\
             Connection: X-Forwarded-For, authorization, nothing\r\nAuthorization: c\r\nX-Two: 2\r\n",
        );
        assert_eq!(hop, Ok(Hop::default()));
        assert_eq!(left, "Cookie X-Forwarded-For Authorization X-Two ");
    }

    #[test]
    fn fields_of_one_hop_go_without_being_named() {
        let (_, left) = take(
            "Keep-Alive: 1\r\nProxy-Connection: 1\r\nTE: gzip\r\nUpgrade: x\r\nProxy-Authorization: x\r\n\
             Proxy-Authenticate: x\r\nHTTP2-Settings: x\r\nTransfer-Encoding: x\r\nA: b\r\n",
        );
        assert_eq!(left, "A ");
    }

    #[test]
    fn close_wins_and_http10_must_ask_to_stay() {
        let persists = |section, version| take(section).0.expect("a hop").persists(version);
        assert!(persists("", Version::Http11));
        assert!(!persists("", Version::Http10));
        assert!(persists("Connection: Keep-Alive\r\n", Version::Http10));
        assert!(!persists("Connection: keep-alive, CLOSE\r\n", Version::Http10));
        assert!(!persists("Connection: close\r\n", Version::Http11));
    }

    #[test]
    fn an_upgrade_counts_when_connection_names_it_and_it_is_one_foreign_protocol() {
        let upgrades = |section| take(section).0.expect("a hop").upgrade.is_some();
        assert!(upgrades("Upgrade: websocket\r\nConnection: Upgrade\r\n"));
        assert!(upgrades("Upgrade: IRC/6.9\r\nConnection: keep-alive, upgrade\r\n"));
        for other in [
            "Upgrade: websocket\r\n",
            "Upgrade: h2c\r\nConnection: upgrade, http2-settings\r\n",
            "Upgrade: HTTP/2.0\r\nConnection: upgrade\r\n",
            "Upgrade: TLS/1.2\r\nConnection: upgrade\r\n",
            "Upgrade: websocket, h2c\r\nConnection: upgrade\r\n",
            "Upgrade: websocket\r\nUpgrade: h2c\r\nConnection: upgrade\r\n",
            "Upgrade: a/b/c\r\nConnection: upgrade\r\n",
            "Upgrade: /1\r\nConnection: upgrade\r\n",
            "Upgrade:\r\nConnection: upgrade\r\n",
        ] {
            assert!(!upgrades(other), "{other}");
        }
    }

    #[test]
    fn trailers_are_wanted_when_te_says_so_and_connection_names_te() {
        assert!(take("TE: gzip, trailers\r\nConnection: TE\r\n").0.expect("a hop").trailers);
        assert!(!take("TE: trailers\r\n").0.expect("a hop").trailers);
    }

    #[test]
    fn a_connection_field_that_is_no_list_of_tokens_is_refused() {
        assert_eq!(take("Connection: a b\r\n").0, Err(Fault::Connection));
        let many = "x, ".repeat(OPTIONS_MAX + 1);
        assert_eq!(take(&format!("Connection: {many}\r\n")).0, Err(Fault::Connection));
    }
}
