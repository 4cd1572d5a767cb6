//! The PROXY protocol from outside: a table of version 2 headers, and what holds for any bytes.

use sluice_dataplane::address::Address;
use sluice_dataplane::proxy_protocol::{
    CRC_TLV, Endpoint, HeaderError, NOOP_TLV, NoRoom, Origin, Tlvs, Transport, V2_MAX, parse, write_v1,
    write_v2,
};

const SIGNATURE: &[u8] = b"\x0d\x0a\x0d\x0a\x00\x0d\x0a\x51\x55\x49\x54\x0a";

fn header(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let len = u16::try_from(rest.len()).expect("a length").to_be_bytes();
    [SIGNATURE, &[command, family], &len, rest].concat()
}

fn ip(transport: Transport, v6: bool) -> Origin<'static> {
    let address = |low| if v6 { Address::v6([low; 16]) } else { Address::v4([192, 0, 2, low]) };
    let end = |low, port| Endpoint { address: address(low), port };
    Origin::Ip { transport, source: end(1, 56324), destination: end(2, 443) }
}

const V4: &[u8] = b"\xc0\x00\x02\x01\xc0\x00\x02\x02\xdc\x04\x01\xbb";

fn v6() -> Vec<u8> {
    [&[1; 16][..], &[2; 16], b"\xdc\x04\x01\xbb"].concat()
}

#[test]
fn headers_are_read_as_the_table_says() {
    let paths = [[b'a'; 108], [b'b'; 108]];
    let unix = Origin::Unix { transport: Transport::Stream, source: &paths[0], destination: &paths[1] };
    let table: Vec<(&str, Vec<u8>, Result<Origin, HeaderError>)> = vec![
        ("tcp4", header(0x21, 0x11, V4), Ok(ip(Transport::Stream, false))),
        ("udp4", header(0x21, 0x12, V4), Ok(ip(Transport::Datagram, false))),
        ("tcp6", header(0x21, 0x21, &v6()), Ok(ip(Transport::Stream, true))),
        ("udp6", header(0x21, 0x22, &v6()), Ok(ip(Transport::Datagram, true))),
        ("unix", header(0x21, 0x31, &paths.concat()), Ok(unix)),
        ("local", header(0x20, 0, b""), Ok(Origin::Local)),
        ("local with what is not looked at", header(0x20, 0x11, b"abc"), Ok(Origin::Local)),
        ("local of an unknown family", header(0x20, 0xff, b""), Ok(Origin::Local)),
        ("unspecified", header(0x21, 0, b"skip"), Ok(Origin::Unknown)),
        ("unspecified transport", header(0x21, 0x10, V4), Ok(Origin::Unknown)),
        ("version 1 in the binary form", header(0x11, 0x11, V4), Err(HeaderError::Kind)),
        ("version 3", header(0x31, 0x11, V4), Err(HeaderError::Kind)),
        ("command 2", header(0x22, 0x11, V4), Err(HeaderError::Kind)),
        ("family 4", header(0x21, 0x41, V4), Err(HeaderError::Kind)),
        ("transport 3", header(0x21, 0x13, V4), Err(HeaderError::Kind)),
        ("short tcp4", header(0x21, 0x11, &V4[..11]), Err(HeaderError::Address)),
        ("short tcp6", header(0x21, 0x21, &v6()[..35]), Err(HeaderError::Address)),
        ("short unix", header(0x21, 0x31, &paths.concat()[..215]), Err(HeaderError::Address)),
        ("no address", header(0x21, 0x11, b""), Err(HeaderError::Address)),
        ("half a field", header(0x21, 0x11, &[V4, &[1, 0]].concat()), Err(HeaderError::Tlv)),
        ("a field cut off", header(0x21, 0x11, &[V4, &[1, 0, 2, 0]].concat()), Err(HeaderError::Tlv)),
        ("a short checksum", header(0x21, 0x11, &[V4, &[3, 0, 2, 0, 0]].concat()), Err(HeaderError::Tlv)),
        (
            "a wrong checksum",
            header(0x21, 0x11, &[V4, &[3, 0, 4, 0, 0, 0, 0]].concat()),
            Err(HeaderError::Checksum),
        ),
        ("too long", header(0x21, 0x11, &[0; V2_MAX - 15]), Err(HeaderError::TooLong)),
        ("a wrong signature", b"\r\n\r\n\0\r\nQUIT\r".to_vec(), Err(HeaderError::Missing)),
    ];
    for (name, bytes, expected) in table {
        let followed = [bytes.as_slice(), b"GET /"].concat();
        let read = parse(&followed).map(|header| header.map(|header| (header.origin, header.len)));
        assert_eq!(read, expected.map(|origin| Some((origin, bytes.len()))), "{name}");
        check_prefixes(&bytes);
    }
}

/// However much has come, more can only complete it, and a fault stays one.
fn check_prefixes(bytes: &[u8]) {
    let whole = parse(bytes);
    for len in 0..bytes.len() {
        match parse(&bytes[..len]) {
            Ok(None) => {}
            Err(fault) => assert_eq!(whole, Err(fault), "{len} of {}", bytes.escape_ascii()),
            early => assert_eq!(early, whole, "{len} of {}", bytes.escape_ascii()),
        }
    }
}

#[test]
fn what_is_written_is_read_again_with_its_fields() {
    let fields = [1, 0, 2, b'h', b'2', NOOP_TLV, 0, 1, 9, 2, 0, 1, b'x', CRC_TLV, 0, 4, 1, 2, 3, 4];
    let paths = [[7; 108]; 2];
    let unix = Origin::Unix { transport: Transport::Datagram, source: &paths[0], destination: &paths[1] };
    for origin in [ip(Transport::Stream, false), ip(Transport::Datagram, true), unix] {
        let mut out = [0; 512];
        let tlvs = Tlvs::read(&fields).expect("fields");
        let len = write_v2(&origin, tlvs, true, &mut out).expect("room");
        let header = parse(&out[..len]).expect("a header").expect("all of it");
        assert_eq!((header.origin, header.len, header.version), (origin, len, 2));
        let kept: Vec<_> = header.tlvs.filter(|(kind, _)| *kind != CRC_TLV).collect();
        assert_eq!(kept, [(1, &b"h2"[..]), (2, b"x")], "padding and the old checksum are left out");
        for room in 0..len {
            assert_eq!(write_v2(&origin, tlvs, true, &mut out[..room]), Err(NoRoom));
        }
    }
}

#[test]
fn a_checksum_notices_every_changed_bit() {
    let mut out = [0; 64];
    let len = write_v2(&ip(Transport::Stream, false), Tlvs::default(), true, &mut out).expect("room");
    for bit in 16 * 8..len * 8 {
        let mut changed = out;
        changed[bit / 8] ^= 1 << (bit % 8);
        assert_ne!(parse(&changed[..len]), parse(&out[..len]), "bit {bit}");
        let survives = parse(&changed[..len]).is_ok();
        assert!(
            !survives || changed[len - 7] != CRC_TLV,
            "bit {bit}: only a field that is no checksum any more"
        );
    }
}

#[test]
fn local_and_unknown_say_nothing_more() {
    for (origin, command) in [(Origin::Local, 0x20), (Origin::Unknown, 0x21)] {
        let mut out = [0; 64];
        let len = write_v2(&origin, Tlvs::read(&[1, 0, 0]).expect("a field"), true, &mut out).expect("room");
        assert_eq!(&out[..len], header(command, 0, b""));
        let len = write_v1(&origin, &mut out).expect("room");
        assert_eq!(&out[..len], b"PROXY UNKNOWN\r\n");
    }
}

#[test]
fn prefixes_of_version_1_lines_wait_for_more() {
    check_prefixes(b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n");
    check_prefixes(b"PROXY UNKNOWN\r\n");
    check_prefixes(b"PROXY TCP5 x\r\n");
    check_prefixes(b"PROXY TCP4 192.0.2.1\n");
}
