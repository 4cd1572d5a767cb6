//! A reader of requests that shares nothing with the engine: whole bytes, one pass, and a fault for whatever two readers
//! could read in two ways. The end may be missing.

/// What was read.
#[derive(Debug, Default)]
pub(super) struct Read {
    /// Why the bytes are not requests.
    pub(super) fault: Option<&'static str>,
    /// A request asked for another protocol.
    pub(super) may_be_tunnel: bool,
}

/// Where a message goes on, or why it does not.
enum Stop {
    /// The rest has not come.
    Early,
    Fault(&'static str),
}

type Rest<'a> = Result<&'a [u8], Stop>;

/// Reads requests up to the end of the bytes.
pub(super) fn requests(mut bytes: &[u8]) -> Read {
    let mut read = Read::default();
    while !bytes.is_empty() {
        match request(bytes, &mut read) {
            Ok(rest) => bytes = rest,
            Err(Stop::Early) => break,
            Err(Stop::Fault(fault)) => {
                read.fault = Some(fault);
                break;
            }
        }
    }
    read
}

fn request<'a>(bytes: &'a [u8], read: &mut Read) -> Rest<'a> {
    let (start, rest) = line(bytes)?;
    let words: Vec<&[u8]> = start.split(|&byte| byte == b' ').collect();
    let [method, target, version] = words[..] else { return Err(Stop::Fault("not three words")) };
    let visible = |byte: &u8| (0x21..0x7f).contains(byte);
    must(!method.is_empty() && method.iter().all(is_token), "method")?;
    must(!target.is_empty() && target.iter().all(visible) && !target.contains(&b'#'), "target")?;
    must(version == b"HTTP/1.1", "version")?;
    let is_form = match target[0] {
        b'/' => !has_dots(target),
        b'*' => target == b"*" && method == b"OPTIONS",
        _ => method == b"CONNECT",
    };
    must(is_form, "form of the target")?;
    let (fields, rest) = section(rest)?;
    let values = |name: &[u8]| fields.iter().filter(|(n, _)| n == name).map(|(_, v)| *v).collect::<Vec<_>>();
    must(values(b"host").len() == 1, "Host")?;
    for gone in [&b"keep-alive"[..], b"proxy-connection", b"proxy-authorization", b"http2-settings"] {
        must(values(gone).is_empty(), "a field of another hop")?;
    }
    let upgrades = !values(b"upgrade").is_empty();
    must(!upgrades || values(b"connection") == [b"Upgrade"], "Upgrade without Connection")?;
    read.may_be_tunnel |= upgrades || method == b"CONNECT";
    let (lengths, codings) = (values(b"content-length"), values(b"transfer-encoding"));
    match (&lengths[..], &codings[..]) {
        ([], []) => Ok(rest),
        ([length], []) => {
            must(!length.is_empty() && length.iter().all(u8::is_ascii_digit), "Content-Length")?;
            let length = str::from_utf8(length).ok().and_then(|text| text.parse::<u64>().ok());
            let length = length.ok_or(Stop::Fault("Content-Length"))?;
            let length = usize::try_from(length).map_err(|_| Stop::Early)?;
            rest.get(length..).ok_or(Stop::Early)
        }
        ([], [coding]) => {
            must(*coding == b"chunked", "coding")?;
            chunks(rest)
        }
        _ => Err(Stop::Fault("two lengths")),
    }
}

/// A path that a member could still shorten.
fn has_dots(target: &[u8]) -> bool {
    let path = target.split(|&byte| byte == b'?').next().unwrap_or_default();
    path.split(|&byte| byte == b'/').any(|part| part == b"." || part == b"..")
}

fn chunks(mut bytes: &[u8]) -> Rest<'_> {
    loop {
        let (size, rest) = line(bytes)?;
        must((1..=16).contains(&size.len()) && size.iter().all(u8::is_ascii_hexdigit), "chunk size")?;
        let size = str::from_utf8(size).ok().and_then(|text| usize::from_str_radix(text, 16).ok());
        let size = size.ok_or(Stop::Fault("chunk size"))?;
        if size == 0 {
            let (trailers, rest) = section(rest)?;
            for moved in [&b"content-length"[..], b"transfer-encoding", b"host", b"connection", b"upgrade"] {
                must(trailers.iter().all(|(name, _)| name != moved), "a trailer that moves the end")?;
            }
            return Ok(rest);
        }
        let rest = rest.get(size..).ok_or(Stop::Early)?;
        match rest {
            [b'\r', b'\n', rest @ ..] => bytes = rest,
            [] | [b'\r'] => return Err(Stop::Early),
            _ => return Err(Stop::Fault("chunk end")),
        }
    }
}

type Section<'a> = Vec<(Vec<u8>, &'a [u8])>;

fn section(mut bytes: &[u8]) -> Result<(Section<'_>, &[u8]), Stop> {
    let mut fields = Vec::new();
    loop {
        let (text, rest) = line(bytes)?;
        bytes = rest;
        if text.is_empty() {
            return Ok((fields, rest));
        }
        let colon = text.iter().position(|&byte| byte == b':').ok_or(Stop::Fault("no colon"))?;
        let (name, value) = (&text[..colon], text[colon + 1..].trim_ascii());
        must(!name.is_empty() && name.iter().all(is_token), "field name")?;
        must(value.iter().all(|&byte| byte == b'\t' || (byte >= b' ' && byte != 0x7f)), "field value")?;
        fields.push((name.to_ascii_lowercase(), value));
    }
}

/// Up to CRLF, with no other CR or LF in it.
fn line(bytes: &[u8]) -> Result<(&[u8], &[u8]), Stop> {
    let end = bytes.iter().position(|&byte| byte == b'\n').ok_or(Stop::Early)?;
    let text = bytes[..end].strip_suffix(b"\r").ok_or(Stop::Fault("bare LF"))?;
    must(!text.contains(&b'\r'), "bare CR")?;
    Ok((text, &bytes[end + 1..]))
}

fn must(holds: bool, fault: &'static str) -> Result<(), Stop> {
    if holds { Ok(()) } else { Err(Stop::Fault(fault)) }
}

fn is_token(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte)
}

#[test]
fn only_what_is_beyond_doubt_is_read() {
    let fault = |text: &str| requests(text.as_bytes()).fault;
    assert_eq!(fault("GET / HTTP/1.1\r\nHost: h\r\n\r\n"), None);
    assert_eq!(fault("GET / HTTP/1.1\r\nHo"), None);
    assert_eq!(
        fault("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\nGE"),
        None
    );
    assert_eq!(fault("GET / HTTP/1.1\r\nHost: h\r\n\r\nX\r\n"), Some("not three words"));
    assert_eq!(fault("GET / HTTP/1.1\n"), Some("bare LF"));
    assert_eq!(fault("GET / HTTP/1.1\r\n\r\n"), Some("Host"));
    assert_eq!(
        fault("GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n"),
        Some("two lengths")
    );
    assert_eq!(
        fault("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab"),
        Some("chunk end")
    );
}
