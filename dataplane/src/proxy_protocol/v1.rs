//! Version 1: a line of text (section 2.1).

use std::io::Write;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::{Endpoint, Header, HeaderError, NoRoom, Origin, Tlvs, Transport, V1_MAX, begins};
use crate::address::Address;

pub(super) fn parse(bytes: &[u8]) -> Result<Option<Header<'_>>, HeaderError> {
    if !begins(bytes, b"PROXY ") {
        return Err(HeaderError::Missing);
    }
    let start = &bytes[..bytes.len().min(V1_MAX)];
    let Some(end) = start.iter().position(|byte| !(b' '..=b'~').contains(byte)) else {
        return if start.len() == V1_MAX { Err(HeaderError::TooLong) } else { Ok(None) };
    };
    match start[end..] {
        [b'\r', b'\n', ..] => {
            let origin = line(&start[..end]).ok_or(HeaderError::Line)?;
            Ok(Some(Header { version: 1, origin, tlvs: Tlvs::default(), len: end + 2 }))
        }
        [b'\r'] if start.len() == V1_MAX => Err(HeaderError::TooLong),
        [b'\r'] => Ok(None),
        _ => Err(HeaderError::Line),
    }
}

fn line(line: &[u8]) -> Option<Origin<'static>> {
    let text = str::from_utf8(line).ok()?.strip_prefix("PROXY ")?;
    let mut words = text.split(' ');
    let read: fn(&str) -> Option<Address> = match words.next()? {
        "TCP4" => |word| word.parse().ok().map(|address: Ipv4Addr| Address::v4(address.octets())),
        "TCP6" => |word| word.parse().ok().map(|address: Ipv6Addr| Address::v6(address.octets())),
        "UNKNOWN" => return Some(Origin::Unknown),
        _ => return None,
    };
    let (source, destination) = (read(words.next()?)?, read(words.next()?)?);
    let (source_port, destination_port) = (port(words.next()?)?, port(words.next()?)?);
    let source = Endpoint { address: source, port: source_port };
    let destination = Endpoint { address: destination, port: destination_port };
    words.next().is_none().then_some(Origin::Ip { transport: Transport::Stream, source, destination })
}

/// Decimal, without sign or leading zeros.
fn port(word: &str) -> Option<u16> {
    let plain = word.bytes().all(|byte| byte.is_ascii_digit()) && (word == "0" || !word.starts_with('0'));
    word.parse().ok().filter(|_| plain)
}

pub(super) fn write(origin: &Origin, mut out: &mut [u8]) -> Result<usize, NoRoom> {
    let room = out.len();
    let written = match *origin {
        Origin::Ip { transport: Transport::Stream, source, destination } => {
            line_of(&mut out, source, destination)
        }
        _ => out.write_all(b"PROXY UNKNOWN\r\n"),
    };
    written.map(|()| room - out.len()).map_err(|_| NoRoom)
}

fn line_of(out: &mut &mut [u8], source: Endpoint, destination: Endpoint) -> std::io::Result<()> {
    let (from, to) = (source.address, destination.address);
    let ports = (source.port, destination.port);
    if from.is_v4() && to.is_v4() {
        let (from, to) = (Ipv4Addr::from(from.v4_octets()), Ipv4Addr::from(to.v4_octets()));
        return write!(out, "PROXY TCP4 {from} {to} {} {}\r\n", ports.0, ports.1);
    }
    let (from, to) = (Ipv6Addr::from(from.v6_octets()), Ipv6Addr::from(to.v6_octets()));
    write!(out, "PROXY TCP6 {from} {to} {} {}\r\n", ports.0, ports.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(line: &str) -> Result<Option<Origin<'_>>, HeaderError> {
        parse(line.as_bytes()).map(|header| header.map(|header| header.origin))
    }

    fn again(line: &str) -> String {
        let header = parse(line.as_bytes()).expect("a header").expect("all of it");
        assert_eq!((header.version, header.len), (1, line.len()));
        let mut out = [0; V1_MAX];
        let len = write(&header.origin, &mut out).expect("room");
        assert_eq!(write(&header.origin, &mut out[..len - 1]), Err(NoRoom));
        String::from_utf8(out[..len].to_vec()).expect("text")
    }

    #[test]
    fn what_is_read_is_written_again() {
        for line in [
            "PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n",
            "PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n",
            "PROXY TCP6 2001:db8::1 ::1 0 65535\r\n",
            "PROXY UNKNOWN\r\n",
        ] {
            assert_eq!(again(line), line);
        }
        assert_eq!(again("PROXY UNKNOWN whatever it says  1\r\n"), "PROXY UNKNOWN\r\n");
        let longest = "PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n";
        assert_eq!((longest.len(), again(longest).as_str()), (V1_MAX, "PROXY UNKNOWN\r\n"));
    }

    #[test]
    fn what_follows_the_line_is_left() {
        let header = parse(b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\nGET / HTTP/1.1\r\n").expect("a header");
        assert_eq!(header.map(|header| header.len), Some(36));
    }

    #[test]
    fn a_line_is_exactly_as_written_down_or_refused() {
        for line in [
            "PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 1 2 3\r\n",
            "PROXY TCP4  192.0.2.1 192.0.2.2 1 2\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 1 2 \r\n",
            "PROXY TCP4 192.0.2.01 192.0.2.2 1 2\r\n",
            "PROXY TCP4 192.0.2 192.0.2.2 1 2\r\n",
            "PROXY TCP4 ::1 192.0.2.2 1 2\r\n",
            "PROXY TCP6 192.0.2.1 ::1 1 2\r\n",
            "PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 01 2\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 +1 2\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 65536 2\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 1 \r\n",
            "PROXY UDP4 192.0.2.1 192.0.2.2 1 2\r\n",
            "PROXY tcp4 192.0.2.1 192.0.2.2 1 2\r\n",
            "PROXY \r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\rx",
            "PROXY TCP4\t192.0.2.1",
        ] {
            assert_eq!(origin(line), Err(HeaderError::Line), "{line:?}");
        }
        assert_eq!(origin("PROXY\r\n"), Err(HeaderError::Missing));
        assert_eq!(origin(&format!("PROXY UNKNOWN {}", "x".repeat(94))), Err(HeaderError::TooLong));
    }

    #[test]
    fn mixed_families_are_written_as_ipv6() {
        let end = |address, port| Endpoint { address, port };
        let source = end(Address::v4([192, 0, 2, 1]), 1);
        let destination = end(Address::v6([1; 16]), 2);
        let mut out = [0; V1_MAX];
        let len = write(&Origin::Ip { transport: Transport::Stream, source, destination }, &mut out);
        let text = str::from_utf8(&out[..len.expect("room")]).expect("text");
        assert_eq!(text, "PROXY TCP6 ::ffff:192.0.2.1 101:101:101:101:101:101:101:101 1 2\r\n");
    }
}
