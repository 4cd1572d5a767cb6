//! Messages with the chunks of each body put together: what was said, however it was cut.

/// The same bytes with every chunked body as one chunk. What is no message, or not whole, stays as it is.
pub fn canon(bytes: &[u8]) -> Vec<u8> {
    read(bytes, true)
}

/// The heads and what the bodies carry, without the sizes of chunks.
pub fn content(bytes: &[u8]) -> Vec<u8> {
    read(bytes, false)
}

fn read(mut bytes: &[u8], sizes: bool) -> Vec<u8> {
    let mut out = Vec::new();
    while let Some(end) = find(bytes, b"\r\n\r\n") {
        let (head, rest) = bytes.split_at(end + 4);
        out.extend_from_slice(head);
        bytes = rest;
        let lower = head.to_ascii_lowercase();
        if find(&lower, b"\r\ntransfer-encoding: chunked\r\n").is_some() {
            bytes = chunks(bytes, sizes, &mut out);
        } else if let Some(at) = find(&lower, b"\r\ncontent-length: ") {
            let digits = lower[at + 18..].iter().take_while(|byte| byte.is_ascii_digit());
            let len = digits
                .fold(0usize, |len, digit| len.saturating_mul(10).saturating_add(usize::from(digit - b'0')));
            let (body, rest) = bytes.split_at(len.min(bytes.len()));
            out.extend_from_slice(body);
            bytes = rest;
        }
    }
    out.extend_from_slice(bytes);
    out
}

/// Puts chunks together; what is left behind the last of them.
fn chunks<'a>(mut bytes: &'a [u8], sizes: bool, out: &mut Vec<u8>) -> &'a [u8] {
    let mut body = Vec::new();
    let mut is_last = false;
    while let Some((size, rest)) = chunk_size(bytes) {
        if size == 0 {
            is_last = true;
            break;
        }
        let Some(tail) = rest.get(size..).and_then(|tail| tail.strip_prefix(b"\r\n")) else { break };
        body.extend_from_slice(&rest[..size]);
        bytes = tail;
    }
    if !sizes {
        out.extend(body);
    } else if !body.is_empty() {
        out.extend(format!("{:x}\r\n", body.len()).bytes());
        out.extend(body);
        out.extend(b"\r\n");
    }
    let end = find(bytes, b"\r\n\r\n").filter(|_| is_last);
    let (trailers, rest) = bytes.split_at(end.map_or(0, |end| end + 4));
    out.extend_from_slice(trailers);
    rest
}

fn chunk_size(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let end = find(bytes, b"\r\n")?;
    let digits = str::from_utf8(&bytes[..end]).ok()?;
    Some((usize::from_str_radix(digits, 16).ok()?, &bytes[end + 2..]))
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

#[test]
fn chunks_are_put_together_and_nothing_else_changes() {
    let head = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
    let text = |body: &str| String::from_utf8(canon(format!("{head}{body}").as_bytes())).expect("text");
    assert_eq!(text("1\r\na\r\n2\r\nbc\r\n0\r\n\r\nGET"), format!("{head}3\r\nabc\r\n0\r\n\r\nGET"));
    assert_eq!(text("1\r\na\r\n2\r\nb"), format!("{head}1\r\na\r\n2\r\nb"));
    assert_eq!(text("1\r\na\r\n0\r\nX: y\r\n\r\n"), format!("{head}1\r\na\r\n0\r\nX: y\r\n\r\n"));
    assert_eq!(text("HTTP"), format!("{head}HTTP"));
}
