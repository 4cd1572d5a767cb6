//! Messages as tests of filters need them: read by the reader, shown as they are written.

use crate::address::Address;
use crate::clock::Instant;
use crate::http::{Asked, Event, Fields, HttpLimits, Request, RequestReader, Response, ResponseReader};
use crate::http::{Scheme, Version};

use super::{Facts, Filter, Notes, Outcome, RateTable};

/// The request that these bytes begin with.
pub(super) fn read(text: &str) -> Request {
    let limits = HttpLimits::default();
    let (mut request, mut trailers) = (Request::new(&limits), Fields::for_trailers(&limits));
    let (mut reader, mut input) = (RequestReader::default(), text.as_bytes());
    loop {
        let progress = reader.advance(input, &mut request, &mut trailers).expect("a request");
        input = &input[progress.taken..];
        if progress.event == Event::Head {
            return request;
        }
    }
}

/// A request of HTTP/1.1; `fields` are lines, each with its CRLF.
pub(super) fn request(method: &str, host: &str, target: &str, fields: &str) -> Request {
    read(&format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n"))
}

/// A member's response to GET.
pub(super) fn response(text: &str) -> Response {
    let limits = HttpLimits::default();
    let (mut response, mut trailers) = (Response::new(&limits), Fields::for_trailers(&limits));
    let (mut reader, mut input) = (ResponseReader::default(), text.as_bytes());
    reader.ask(Asked::default());
    loop {
        let progress = reader.advance(input, &mut response, &mut trailers).expect("a response");
        input = &input[progress.taken..];
        if progress.event == Event::Head {
            return response;
        }
    }
}

/// A response that nothing was written to.
pub(super) fn blank() -> Response {
    Response::new(&HttpLimits::default())
}

/// A client of 192.0.2.7 that came to 198.51.100.1:80 by `http`.
pub(super) fn facts() -> Facts<'static> {
    Facts {
        client: (Address::v4([192, 0, 2, 7]), 40_000),
        destination: (Address::v4([198, 51, 100, 1]), 80),
        scheme: Scheme::Http,
        matched_prefix: b"",
        now: Instant::ZERO,
    }
}

/// The head as the member gets it, lines ended with `|`.
pub(super) fn sent(request: &Request) -> String {
    let mut out = vec![0; 100 << 10];
    let len = request.write(true, &mut out).expect("room");
    lines(&out[..len])
}

/// The head as the client gets it, lines ended with `|`.
pub(super) fn answered(response: &Response) -> String {
    let mut out = vec![0; 100 << 10];
    let len = response.write(Version::Http11, true, &mut out).expect("room");
    lines(&out[..len])
}

fn lines(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).replace("\r\n", "|")
}

/// Runs one filter on a request; what it answered, if it did.
pub(super) fn answer_of(filter: &Filter, request: &mut Request, facts: &Facts) -> Option<(String, Vec<u8>)> {
    let (mut response, mut notes) = (blank(), Notes::default());
    let rates = RateTable::new(8);
    let filters = std::slice::from_ref(filter);
    let outcome = super::on_request(filters, request, &mut response, facts, &rates, &mut notes);
    match outcome.expect("room") {
        Outcome::Continue => None,
        Outcome::Answer(body) => Some((answered(&response), body.to_vec())),
    }
}

/// What the member gets of a request after one filter, which lets it go on.
pub(super) fn after(filter: &Filter, mut request: Request, facts: &Facts) -> String {
    assert_eq!(answer_of(filter, &mut request, facts), None);
    sent(&request)
}
