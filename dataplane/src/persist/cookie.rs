//! Cookies that name a member, in BIG-IP's format, so that clients keep theirs when one takes the other's place.
//!
//! ```text
//!   10.1.1.100:8080    1677787402.36895.0000          address and port with their bytes reversed, as decimals
//!   [2001:db8::30]:80  vi20010db8000000000000000000000030.20480
//!   in route domain 5  rd5o00000000000000000000ffffc0000201o80    the port as it is; read, not written
//! ```
//!
//! A cookie is a hint from outside: what it names is used only if it is a member of the pool.

use std::io::{Cursor, Write};

use crate::address::Address;
use crate::config::proxy::CookiePersistence;
use crate::http::{EditError, Request, Response, is_tchar, trim};

/// Bytes that a value takes at most.
pub const VALUE_MAX: usize = 40;

/// Writes the value that names `member`; its bytes, or `None` when `out` is too small.
pub fn encode(member: (Address, u16), out: &mut [u8]) -> Option<usize> {
    let (address, port) = (member.0, member.1.swap_bytes());
    let mut out = Cursor::new(out);
    let written = if address.is_v4() {
        write!(out, "{}.{port}.0000", u32::from_le_bytes(address.v4_octets()))
    } else {
        write!(out, "vi{:016x}{:016x}.{port}", address.high, address.low)
    };
    written.ok().map(|()| out.position() as usize)
}

/// The member that a value names, in any of the four forms; route domains are read over.
pub fn decode(value: &[u8]) -> Option<(Address, u16)> {
    match value {
        [b'v', b'i', rest @ ..] => {
            let (address, port) = split(rest, b'.')?;
            Some((read_hex(address)?, decimal::<u16>(port)?.swap_bytes()))
        }
        [b'r', b'd', rest @ ..] => {
            let (domain, rest) = split(rest, b'o')?;
            let (address, port) = split(rest, b'o')?;
            decimal::<u16>(domain)?;
            Some((read_hex(address)?, decimal(port)?))
        }
        _ => {
            let (address, port) = split(value.strip_suffix(b".0000")?, b'.')?;
            let octets = decimal::<u32>(address)?.to_le_bytes();
            Some((Address::v4(octets), decimal::<u16>(port)?.swap_bytes()))
        }
    }
}

/// The value of the first cookie of this name, in all Cookie fields (RFC 6265 section 5.4), without quotes around it.
/// Names are case-sensitive. O(bytes of the cookies).
pub fn value_of<'a>(request: &'a Request, name: &[u8]) -> Option<&'a [u8]> {
    cookies(request).find(|(found, _)| *found == name).map(|(_, value)| value)
}

/// The value of the cookie that [`set_cookie`] with the same settings sets.
pub fn value_for<'a>(
    request: &'a Request,
    settings: &CookiePersistence,
    pool_name: &str,
) -> Option<&'a [u8]> {
    let is_rest = |rest: &'a [u8], part: &[u8]| rest.strip_prefix(part);
    let is_ours = |found| name(settings, pool_name).try_fold(found, is_rest).is_some_and(<[u8]>::is_empty);
    cookies(request).find(|(found, _)| is_ours(*found)).map(|(_, value)| value)
}

/// Adds the cookie that names `member`: with Max-Age where the settings say how long, otherwise until the browser ends.
///
/// # Errors
/// As [`EditError`] says: the head is full, or the settings hold what no field may.
pub fn set_cookie(
    response: &mut Response,
    settings: &CookiePersistence,
    pool_name: &str,
    member: (Address, u16),
) -> Result<(), EditError> {
    let (mut value, mut age) = ([0; VALUE_MAX], Cursor::new([0; AGE_MAX]));
    let value_len = encode(member, &mut value).ok_or(EditError::Full)?;
    if settings.max_age_s > 0 {
        write!(age, "; Max-Age={}", settings.max_age_s).map_err(|_| EditError::Full)?;
    }
    let path = if settings.path.is_empty() { "/" } else { &settings.path };
    let rest = [
        &b"="[..],
        value.get(..value_len).unwrap_or_default(),
        age.get_ref().get(..age.position() as usize).unwrap_or_default(),
        b"; Path=",
        path.as_bytes(),
        attribute(settings.http_only, b"; HttpOnly"),
        attribute(settings.secure, b"; Secure"),
    ];
    response.fields.add_parts(b"Set-Cookie", name(settings, pool_name).chain(rest))
}

fn attribute(said: bool, text: &[u8]) -> &[u8] {
    if said { text } else { b"" }
}

/// The cookie's name in parts. What a cookie's name may not hold is `~` in the one that comes from a pool, as `/` of
/// a path.
fn name<'a>(settings: &'a CookiePersistence, pool_name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    let (start, pool) = match settings.name.as_bytes() {
        b"" => (PREFIX, pool_name.as_bytes()),
        name => (name, &b""[..]),
    };
    let parts = pool.split(|&byte| !is_tchar(byte)).enumerate();
    let joined = parts.flat_map(|(at, part)| [if at == 0 { &b""[..] } else { b"~" }, part]);
    std::iter::once(start).chain(joined)
}

/// Names and values; a part without `=` is none.
fn cookies(request: &Request) -> impl Iterator<Item = (&[u8], &[u8])> {
    let pairs = request.fields.all(b"Cookie").flat_map(|line| line.split(|&byte| byte == b';'));
    pairs.filter_map(|pair| split(pair, b'=')).map(|(name, value)| (trim(name), unquoted(trim(value))))
}

fn unquoted(value: &[u8]) -> &[u8] {
    value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value)
}

/// What is before the first `at`, and what after it.
fn split(bytes: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let index = bytes.iter().position(|&byte| byte == at)?;
    Some((bytes.get(..index)?, bytes.get(index + 1..)?))
}

/// Digits only, as few as the number needs, and a number that fits.
fn decimal<T: std::str::FromStr>(digits: &[u8]) -> Option<T> {
    let plain = digits.iter().all(u8::is_ascii_digit) && (digits.len() == 1 || !digits.starts_with(b"0"));
    str::from_utf8(digits).ok().filter(|_| plain)?.parse().ok()
}

/// 32 hexadecimal digits; IPv4 as `::ffff:a.b.c.d`, which is how an [`Address`] holds it.
fn read_hex(digits: &[u8]) -> Option<Address> {
    let is_whole = digits.len() == 32 && digits.iter().all(u8::is_ascii_hexdigit);
    let text = str::from_utf8(digits).ok().filter(|_| is_whole)?;
    u128::from_str_radix(text, 16).ok().map(|value| Address::v6(value.to_be_bytes()))
}

const PREFIX: &[u8] = b"BIGipServer";
/// `; Max-Age=4294967295`
const AGE_MAX: usize = 20;

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::sync::Arc;

    use super::*;
    use crate::config::proxy::CookieMethod;
    use crate::http::{Event, Fields, HttpLimits, RequestReader, Version};

    fn member(address: &str, port: u16) -> (Address, u16) {
        (address.parse::<IpAddr>().expect("an address").into(), port)
    }

    fn request(fields: &str) -> Request {
        let limits = HttpLimits::default();
        let (mut request, mut trailers) = (Request::new(&limits), Fields::for_trailers(&limits));
        let text = format!("GET / HTTP/1.1\r\nHost: h\r\n{fields}\r\n");
        let (mut reader, mut input) = (RequestReader::default(), text.as_bytes());
        loop {
            let progress = reader.advance(input, &mut request, &mut trailers).expect("a request");
            input = &input[progress.taken..];
            if progress.event == Event::Head {
                return request;
            }
        }
    }

    fn settings() -> CookiePersistence {
        CookiePersistence {
            method: CookieMethod::Insert,
            name: Arc::from(""),
            max_age_s: 0,
            path: Arc::from("/"),
            http_only: false,
            secure: false,
            always_send: false,
        }
    }

    #[test]
    fn values_are_as_documented_and_read_back() {
        for (address, port, expected) in [
            ("10.1.1.100", 8080, "1677787402.36895.0000"),
            ("255.255.255.255", 65_535, "4294967295.65535.0000"),
            ("0.0.0.0", 0, "0.0.0000"),
            ("2001:112::30", 80, "vi20010112000000000000000000000030.20480"),
            ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 65_535, "viffffffffffffffffffffffffffffffff.65535"),
        ] {
            let mut out = [0; VALUE_MAX];
            let len = encode(member(address, port), &mut out).expect("room");
            assert_eq!(str::from_utf8(&out[..len]), Ok(expected));
            assert_eq!(decode(expected.as_bytes()), Some(member(address, port)), "{expected}");
            assert!((0..len).all(|room| encode(member(address, port), &mut out[..room]).is_none()));
        }
    }

    #[test]
    fn route_domains_are_read_over() {
        for (value, address, port) in [
            ("rd5o00000000000000000000ffffc0000201o80", "192.0.2.1", 80),
            ("rd3o20010112000000000000000000000030o80", "2001:112::30", 80),
            ("rd0o20010112000000000000000000000030o65535", "2001:112::30", 65_535),
        ] {
            assert_eq!(decode(value.as_bytes()), Some(member(address, port)), "{value}");
        }
    }

    #[test]
    fn what_names_no_member_is_nothing() {
        for value in [
            "",
            ".",
            "..0000",
            "1677787402.36895",
            "1677787402.36895.0001",
            "1677787402.36895.00000",
            "1677787402.36895.0000 ",
            "4294967296.36895.0000",
            "1677787402.65536.0000",
            "+1.36895.0000",
            "01.36895.0000",
            "-1.36895.0000",
            "1.2.3.0000",
            "vi",
            "vi2001011200000000000000000000003.20480",
            "vi200101120000000000000000000000300.20480",
            "vi+0010112000000000000000000000030.20480",
            "vi20010112000000000000000000000030.",
            "vi20010112000000000000000000000030.20480.0000",
            "rd5o00000000000000000000ffffc0000201",
            "rd5o00000000000000000000ffffc0000201.80",
            "rdo00000000000000000000ffffc0000201o80",
            "rdxo00000000000000000000ffffc0000201o80",
            "rd5o00000000000000000000ffffc0000201o80o",
            "!g3Vx==",
        ] {
            assert_eq!(decode(value.as_bytes()), None, "{value}");
        }
        assert_eq!(decode(&[0xff; 50]), None);
    }

    #[test]
    fn any_bytes_are_read_or_refused_and_any_member_reads_back() {
        use std::hash::{BuildHasher, RandomState};
        let seed = std::env::var("SLUICE_SEED").ok().and_then(|text| text.parse().ok());
        let seed: u64 = seed.unwrap_or_else(|| RandomState::new().hash_one(1));
        let mut state = seed | 1;
        // Xorshift (Marsaglia, 2003).
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        for turn in 0..20_000 {
            let v4 = Address::v4((next() as u32).to_be_bytes());
            let named =
                (if turn % 2 == 0 { v4 } else { Address { high: next(), low: next() } }, next() as u16);
            let mut value = [0; VALUE_MAX];
            let len = encode(named, &mut value).expect("room");
            assert_eq!(decode(&value[..len]), Some(named), "seed {seed}");
            value[next() as usize % len] = next() as u8;
            if let Some(other) = decode(&value[..len]) {
                let mut again = [0; VALUE_MAX];
                let written = encode(other, &mut again).expect("room");
                assert!(again[..written].eq_ignore_ascii_case(&value[..len]), "seed {seed}");
            }
        }
    }

    #[test]
    fn a_cookie_is_found_wherever_it_is() {
        for (fields, expected) in [
            ("Cookie: n=v\r\n", Some("v")),
            ("Cookie: a=b; n=v; c=d\r\n", Some("v")),
            ("Cookie: a=b\r\ncookie: n=v\r\n", Some("v")),
            ("Cookie: a=b;n=v\r\n", Some("v")),
            ("Cookie: ;; n = v ;\r\n", Some("v")),
            ("Cookie: n=\"v\"\r\n", Some("v")),
            ("Cookie: n=\"v\r\n", Some("\"v")),
            ("Cookie: n=\"\r\n", Some("\"")),
            ("Cookie: n=\r\n", Some("")),
            ("Cookie: n=v=w\r\n", Some("v=w")),
            ("Cookie: n=first; n=second\r\n", Some("first")),
            ("Cookie: N=v\r\n", None),
            ("Cookie: nn=v; xn=v\r\n", None),
            ("Cookie: n\r\n", None),
            ("Cookie: a=n=v\r\n", None),
            ("Cookie:\r\n", None),
            ("X: n=v\r\n", None),
        ] {
            assert_eq!(value_of(&request(fields), b"n"), expected.map(str::as_bytes), "{fields}");
        }
    }

    #[test]
    fn the_cookie_that_is_set_is_the_one_that_is_found() {
        for (name, pool, cookie) in [
            ("", "web", "BIGipServerweb"),
            ("", "/Common/web pool", "BIGipServer~Common~web~pool"),
            ("own", "web", "own"),
        ] {
            let settings = CookiePersistence { name: Arc::from(name), ..settings() };
            let mut response = Response::new(&HttpLimits::default());
            response.begin(200);
            set_cookie(&mut response, &settings, pool, member("10.1.1.100", 8080)).expect("room");
            let set = response.fields.get(b"Set-Cookie").expect("a cookie").to_vec();
            let expected = format!("{cookie}=1677787402.36895.0000; Path=/");
            assert_eq!(String::from_utf8_lossy(&set), expected);
            let asked = |name: &str| request(&format!("Cookie: a=1; {name}=2\r\n"));
            assert_eq!(value_for(&asked(cookie), &settings, pool), Some(&b"2"[..]));
            assert_eq!(value_for(&asked(&format!("{cookie}x")), &settings, pool), None);
            assert_eq!(value_for(&asked(&cookie[1..]), &settings, pool), None);
        }
    }

    #[test]
    fn attributes_are_the_operators() {
        let all = CookiePersistence {
            max_age_s: u32::MAX,
            path: Arc::from("/app"),
            http_only: true,
            secure: true,
            ..settings()
        };
        let mut response = Response::new(&HttpLimits::default());
        response.begin(204);
        response.fields.add(b"Set-Cookie", b"of=member").expect("room");
        set_cookie(&mut response, &all, "web", member("2001:112::30", 80)).expect("room");
        let bare = CookiePersistence { path: Arc::from(""), ..settings() };
        set_cookie(&mut response, &bare, "b", member("10.1.1.100", 8080)).expect("room");
        let mut out = [0; 500];
        let len = response.write(Version::Http11, true, &mut out).expect("room");
        assert_eq!(
            String::from_utf8_lossy(&out[..len]).replace("\r\n", "|"),
            "HTTP/1.1 204 No Content|Set-Cookie: of=member|Set-Cookie: \
             BIGipServerweb=vi20010112000000000000000000000030.20480; Max-Age=4294967295; Path=/app; HttpOnly; \
             Secure|Set-Cookie: BIGipServerb=1677787402.36895.0000; Path=/||"
        );
    }

    #[test]
    fn settings_that_are_no_field_are_told() {
        let mut response = Response::new(&HttpLimits::default());
        let broken = CookiePersistence { path: Arc::from("/\r\nX: y"), ..settings() };
        let set = set_cookie(&mut response, &broken, "web", member("10.1.1.100", 8080));
        assert_eq!((set, response.fields.len()), (Err(EditError::Invalid), 0));
    }
}
