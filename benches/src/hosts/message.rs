//! What client and member say to each other, byte for byte, and whether that is what came.
//!
//! ```text
//!   request   GET /nnnnnnnn HTTP/1.1 …                         n: the request's number in hexadecimal digits, which the
//!   response  HTTP/1.1 200 OK … ⏎⏎ nnnnnnnn pattern …          member repeats: nobody's answer is taken for another's
//! ```

/// A message that differs from others of its kind in its number alone.
#[derive(Debug, Clone)]
pub(super) struct Message {
    bytes: Box<[u8]>,
    number_at: usize,
}

impl Message {
    /// A request for the virtual server; `closes` asks that the connection be closed after it.
    pub(super) fn request(closes: bool) -> Self {
        let close = if closes { "Connection: close\r\n" } else { "" };
        let text = format!("GET /00000000 HTTP/1.1\r\nHost: 10.1.0.100\r\n{close}\r\n");
        Self { bytes: text.into_bytes().into(), number_at: REQUEST_NUMBER_AT }
    }

    /// What nginx sends for a file of so many bytes; at least a number's.
    pub(super) fn response(body_bytes: usize) -> Self {
        let body = body_bytes.max(NUMBER_BYTES);
        let head = format!(
            "HTTP/1.1 200 OK\r\nServer: nginx/1.26.2\r\nDate: Mon, 01 Jan 2024 00:00:00 GMT\r\n\
             Content-Type: application/octet-stream\r\nContent-Length: {body}\r\nConnection: keep-alive\r\n\r\n"
        );
        let number_at = head.len();
        // A piece at the wrong place differs, wherever it is cut.
        let pattern = (0..body as u32).map(|at| (at.wrapping_mul(0x9e37_79b1) >> 24) as u8);
        Self { bytes: head.into_bytes().into_iter().chain(pattern).collect(), number_at }
    }

    /// Its bytes.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Where its number is: in a response, where its body begins.
    pub(super) fn number_at(&self) -> usize {
        self.number_at
    }

    /// Writes the part that begins at `from` and is as long as `out`.
    pub(super) fn write(&self, from: usize, number: u32, out: &mut [u8]) {
        out.copy_from_slice(&self.bytes[from..from + out.len()]);
        let number_at = self.number_at;
        if from < number_at + NUMBER_BYTES && number_at < from + out.len() {
            for (at, digit) in (number_at..).zip(digits(number)) {
                if let Some(byte) = at.checked_sub(from).and_then(|at| out.get_mut(at)) {
                    *byte = digit;
                }
            }
        }
    }

    /// True when `came` is the part of it that begins at `from`.
    pub(super) fn is_part(&self, from: usize, number: u32, came: &[u8]) -> bool {
        let Some(own) = self.bytes.get(from..from + came.len()) else { return false };
        let (start, end) = (self.number_at, self.number_at + NUMBER_BYTES);
        if from >= end || from + came.len() <= start {
            return own == came;
        }
        // Of this part.
        let (start, end) = (start.saturating_sub(from), (end - from).min(came.len()));
        let skipped = (from + start) - self.number_at;
        own[..start] == came[..start]
            && digits(number)[skipped..skipped + end - start] == came[start..end]
            && own[end..] == came[end..]
    }
}

/// The number of a request, however it was passed on; `None` for what is none of ours.
pub(super) fn number_of_request(request: &[u8]) -> Option<u32> {
    let digits = request.strip_prefix(b"GET /")?.first_chunk::<NUMBER_BYTES>()?;
    let value = |digit: &u8| char::from(*digit).to_digit(16);
    digits.iter().try_fold(0, |number, digit| Some(number << 4 | value(digit)?))
}

/// What the head of an answer says, however it was passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    /// Of the whole head.
    pub(super) len: usize,
    /// Nothing comes behind the body.
    pub(super) closes: bool,
}

impl Head {
    /// Reads the head at the start of `bytes`. `Ok(None)`: it is not all here.
    ///
    /// # Errors
    /// That it is not the head of an answer with a body of `body_bytes`.
    pub(super) fn read(bytes: &[u8], body_bytes: usize) -> Result<Option<Self>, NotAnAnswer> {
        let Some(len) = end_of_head(bytes) else {
            return if bytes.len() < HEAD_MAX { Ok(None) } else { Err(NotAnAnswer) };
        };
        let text = std::str::from_utf8(&bytes[..len]).map_err(|_| NotAnAnswer)?;
        let field = |name: &str| {
            let mut fields = text.lines().skip(1).filter_map(|line| line.split_once(':'));
            fields.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
        };
        let is_whole = field("content-length").and_then(|value| value.parse().ok()) == Some(body_bytes);
        if !text.starts_with("HTTP/1.1 200 ") || !is_whole {
            return Err(NotAnAnswer);
        }
        let closes = field("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        Ok(Some(Self { len, closes }))
    }
}

/// Something else came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NotAnAnswer;

/// Bytes up to and with the empty line.
pub(super) fn end_of_head(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4)
}

fn digits(number: u32) -> [u8; NUMBER_BYTES] {
    std::array::from_fn(|place| b"0123456789abcdef"[(number >> (28 - 4 * place) & 15) as usize])
}

/// Of a number in a message.
pub(super) const NUMBER_BYTES: usize = 8;
/// Far more than anybody adds to a head.
pub(super) const HEAD_MAX: usize = 4_096;
const REQUEST_NUMBER_AT: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_a_message_is_known_again_and_no_other_is_taken_for_it() {
        let message = Message::response(128);
        let mut whole = vec![0; message.len()];
        message.write(0, 0x0123_abcd, &mut whole);
        for from in 0..message.len() {
            for to in [from, from + 1, from + 5, from + 9, from + 40, message.len()] {
                let to = to.min(message.len());
                let mut part = vec![0; to - from];
                message.write(from, 0x0123_abcd, &mut part);
                assert_eq!(part, whole[from..to]);
                assert!(message.is_part(from, 0x0123_abcd, &part), "{from}..{to}");
                for place in 0..part.len() {
                    part[place] ^= 1;
                    assert!(!message.is_part(from, 0x0123_abcd, &part), "{from}..{to} without {place}");
                    part[place] ^= 1;
                }
            }
        }
        assert!(!message.is_part(0, 0x0123_abce, &whole), "another's");
        assert!(!message.is_part(1, 0x0123_abcd, &whole), "one byte more than there are");
    }

    #[test]
    fn a_request_says_its_number() {
        for closes in [false, true] {
            let message = Message::request(closes);
            let mut request = vec![0; message.len()];
            message.write(0, 0xdead_0007, &mut request);
            assert_eq!(number_of_request(&request), Some(0xdead_0007));
            assert_eq!(end_of_head(&request), Some(request.len()));
        }
        for other in [&b""[..], b"GET /1234567", b"PUT /00000000 HTTP/1.1", b"GET /0000000g HTTP/1.1"] {
            assert_eq!(number_of_request(other), None);
        }
    }

    #[test]
    fn heads_are_read_however_they_are_written() {
        let message = Message::response(128);
        let head = &message.bytes[..message.number_at()];
        assert_eq!(Head::read(&message.bytes, 128), Ok(Some(Head { len: head.len(), closes: false })));
        let other = b"HTTP/1.1 200 fine\r\ncontent-length:128\r\nconnection: Close\r\n\r\n";
        assert_eq!(Head::read(other, 128), Ok(Some(Head { len: other.len(), closes: true })));
        for len in 0..head.len() {
            assert_eq!(Head::read(&head[..len], 128), Ok(None), "{len} bytes");
        }
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        let other_status = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 128\r\n\r\n";
        let other_len = b"HTTP/1.1 200 OK\r\nContent-Length: 129\r\n\r\n";
        let no_len = b"HTTP/1.1 200 OK\r\n\r\n";
        let no_text = b"HTTP/1.1 200 \xff\r\nContent-Length: 128\r\n\r\n";
        for bytes in [&other_status[..], other_len, no_len, no_text, &[b'x'; HEAD_MAX]] {
            assert_eq!(Head::read(bytes, 128), Err(NotAnAnswer));
        }
    }
}
