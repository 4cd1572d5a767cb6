//! A second reader of HTTP/1.1, strict and simple, that shares nothing with the engine: one pass over whole bytes, and
//! `None` for whatever is not beyond doubt. It says what a careful member would read in what the proxy wrote.

/// A message as a member reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) start: Vec<u8>,
    pub(crate) fields: FieldList,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: FieldList,
}

/// All requests in these bytes, which hold nothing else.
pub(crate) fn requests(mut bytes: &[u8]) -> Option<Vec<Message>> {
    let mut messages = Vec::new();
    while !bytes.is_empty() {
        let (message, rest) = request(bytes)?;
        messages.push(message);
        bytes = rest;
    }
    Some(messages)
}

fn request(bytes: &[u8]) -> Option<(Message, &[u8])> {
    let (start, fields, rest) = head(bytes)?;
    let words: Vec<&[u8]> = start.split(|&byte| byte == b' ').collect();
    let [method, target, b"HTTP/1.1"] = words[..] else { return None };
    let visible = target.iter().all(|byte| (0x21..0x7f).contains(byte) && *byte != b'#');
    let host = fields.iter().filter(|(name, _)| name == "host").count();
    if !is_token(method) || target.is_empty() || !visible || host != 1 {
        return None;
    }
    let hop = ["keep-alive", "proxy-connection", "proxy-authorization", "http2-settings"];
    if fields.iter().any(|(name, _)| hop.contains(&name.as_str())) {
        return None;
    }
    body(start, fields, rest, Some(0))
}

/// One response in these bytes, which hold nothing else; `bodiless` for one to HEAD.
pub(crate) fn response(bytes: &[u8], bodiless: bool) -> Option<Vec<Message>> {
    let (start, fields, rest) = head(bytes)?;
    let code = str::from_utf8(start.strip_prefix(b"HTTP/1.1 ")?.get(..3)?).ok()?.parse::<u16>().ok()?;
    if start.get(12) != Some(&b' ') || !(100..600).contains(&code) {
        return None;
    }
    let (message, rest) = match code {
        100..=199 | 204 | 304 => (Message { start, fields, body: vec![], trailers: vec![] }, rest),
        _ if bodiless => (Message { start, fields, body: vec![], trailers: vec![] }, rest),
        _ => body(start, fields, rest, None)?,
    };
    let mut messages = vec![message];
    if code < 200 && code != 101 && !rest.is_empty() {
        messages.extend(response(rest, bodiless)?);
    } else if !rest.is_empty() {
        return None;
    }
    Some(messages)
}

type FieldList = Vec<(String, Vec<u8>)>;

fn head(bytes: &[u8]) -> Option<(Vec<u8>, FieldList, &[u8])> {
    let (start, rest) = line(bytes)?;
    let (fields, rest) = section(rest)?;
    Some((start.to_vec(), fields, rest))
}

fn section(mut bytes: &[u8]) -> Option<(FieldList, &[u8])> {
    let mut fields = Vec::new();
    loop {
        let (text, rest) = line(bytes)?;
        bytes = rest;
        if text.is_empty() {
            return Some((fields, rest));
        }
        let colon = text.iter().position(|&byte| byte == b':')?;
        let (name, value) = (&text[..colon], text[colon + 1..].trim_ascii());
        if !is_token(name) || value.iter().any(|&byte| (byte < 0x20 && byte != b'\t') || byte == 0x7f) {
            return None;
        }
        fields.push((String::from_utf8(name.to_ascii_lowercase()).ok()?, value.to_vec()));
    }
}

/// Up to the first CRLF, with no other CR or LF and no NUL in it.
fn line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.windows(2).position(|two| two == b"\r\n")?;
    let text = &bytes[..end];
    if text.iter().any(|byte| b"\r\n\0".contains(byte)) { None } else { Some((text, &bytes[end + 2..])) }
}

fn body(start: Vec<u8>, fields: FieldList, rest: &[u8], without: Option<usize>) -> Option<(Message, &[u8])> {
    let values = |wanted: &str| {
        fields.iter().filter(|(name, _)| name == wanted).map(|(_, v)| v.clone()).collect::<Vec<_>>()
    };
    let (lengths, codings) = (values("content-length"), values("transfer-encoding"));
    let (body, trailers, rest) = match (&lengths[..], &codings[..]) {
        ([], [coding]) if coding == b"chunked" => chunks(rest)?,
        ([length], []) => {
            let digits =
                str::from_utf8(length).ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()))?;
            let (body, rest) = rest.split_at_checked(digits.parse().ok()?)?;
            (body.to_vec(), vec![], rest)
        }
        ([], []) => {
            let (body, rest) = rest.split_at(without.unwrap_or(rest.len()));
            (body.to_vec(), vec![], rest)
        }
        _ => return None,
    };
    Some((Message { start, fields, body, trailers }, rest))
}

fn chunks(mut bytes: &[u8]) -> Option<(Vec<u8>, FieldList, &[u8])> {
    let mut body = Vec::new();
    loop {
        let (size, rest) = line(bytes)?;
        let digits = str::from_utf8(size).ok().filter(|text| text.bytes().all(|b| b.is_ascii_hexdigit()))?;
        let size = usize::from_str_radix(digits, 16).ok()?;
        if size == 0 {
            let (trailers, rest) = section(rest)?;
            let bad = ["content-length", "transfer-encoding", "host"];
            let moved = trailers.iter().any(|(name, _)| bad.contains(&name.as_str()));
            return if moved { None } else { Some((body, trailers, rest)) };
        }
        let (data, rest) = rest.split_at_checked(size)?;
        body.extend_from_slice(data);
        bytes = rest.strip_prefix(b"\r\n")?;
    }
}

fn is_token(bytes: &[u8]) -> bool {
    let inside = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    !bytes.is_empty() && bytes.iter().all(inside)
}
