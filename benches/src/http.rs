//! HTTP messages as they are usual: read in one piece and written again.

use std::hint::black_box;

use sluice_dataplane::http::route::{HostMatch, PathMatch, Routes, Rule};
use sluice_dataplane::http::{
    Asked, Encoder, Event, Fields, HttpLimits, Request, RequestReader, Response, ResponseReader, Version,
};

/// What a browser sends: 12 fields, 467 bytes.
const REQUEST: &[u8] = b"GET /articles/2024/index.html?page=2 HTTP/1.1\r\nHost: www.example.com\r\n\
User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n\
Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\nAccept-Language: en-US,en;q=0.5\r\n\
Accept-Encoding: gzip, deflate, br\r\nCookie: session=0123456789abcdef\r\nConnection: keep-alive\r\n\
Upgrade-Insecure-Requests: 1\r\nSec-Fetch-Dest: document\r\nSec-Fetch-Mode: navigate\r\n\
Sec-Fetch-Site: none\r\nPriority: u=1\r\n\r\n";

/// What nginx sends for a file, but for the body.
const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nServer: nginx/1.26.2\r\nDate: Mon, 01 Jan 2024 00:00:00 GMT\r\n\
Content-Type: text/html\r\nContent-Length: 0\r\nLast-Modified: Mon, 01 Jan 2024 00:00:00 GMT\r\n\
Connection: keep-alive\r\nETag: \"65920080-267\"\r\nAccept-Ranges: bytes\r\n\r\n";

/// Reads requests and writes them as a member gets them.
pub fn request() -> impl FnMut() {
    let limits = HttpLimits::default();
    let (mut reader, mut request) = (RequestReader::default(), Request::new(&limits));
    let (mut trailers, mut out) = (Fields::for_trailers(&limits), vec![0; 4096]);
    move || {
        let mut input = black_box(REQUEST);
        loop {
            let progress = reader.advance(input, &mut request, &mut trailers).expect("a request");
            input = &input[progress.taken..];
            match progress.event {
                Event::Head => {
                    black_box(request.write(true, &mut out).expect("room"));
                }
                Event::End => return,
                _ => {}
            }
        }
    }
}

/// Reads responses and writes them as a client gets them.
pub fn response() -> impl FnMut() {
    let limits = HttpLimits::default();
    let (mut reader, mut response) = (ResponseReader::default(), Response::new(&limits));
    let (mut trailers, mut out) = (Fields::for_trailers(&limits), vec![0; 4096]);
    move || {
        let mut input = black_box(RESPONSE);
        reader.ask(Asked::default());
        loop {
            let progress = reader.advance(input, &mut response, &mut trailers).expect("a response");
            input = &input[progress.taken..];
            match progress.event {
                Event::Head => {
                    black_box(response.write(Version::Http11, true, &mut out).expect("room"));
                }
                Event::End => return,
                _ => {}
            }
        }
    }
}

/// Reads a body of sixteen chunks of 4 KiB and writes it in chunks of its own.
pub fn chunks() -> impl FnMut() {
    let head = b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    let chunk = [b"1000\r\n".as_slice(), &[b'x'; 4096], b"\r\n"].concat();
    let input = [head, chunk.repeat(16), b"0\r\n\r\n".to_vec()].concat();
    let limits = HttpLimits::default();
    let (mut reader, mut request) = (RequestReader::default(), Request::new(&limits));
    let (mut trailers, mut out) = (Fields::for_trailers(&limits), vec![0; 8192]);
    move || {
        let mut rest = black_box(input.as_slice());
        loop {
            let progress = reader.advance(rest, &mut request, &mut trailers).expect("a request");
            match progress.event {
                Event::Body(span) => {
                    black_box(Encoder::new(request.framing()).write(&rest[span], &mut out));
                }
                Event::End => return,
                _ => {}
            }
            rest = &rest[progress.taken..];
        }
    }
}

/// Finds the rule of one request among so many hosts with three paths each.
pub fn route(hosts: usize) -> impl FnMut() {
    let paths = ["/", "/articles", "/api/v1"];
    let rule = |host: usize, path: &str| Rule {
        hosts: vec![
            HostMatch::Exact(format!("{host}.example.com")),
            HostMatch::Exact("www.example.com".to_owned()),
        ][usize::from(host == 0)..][..1]
            .to_vec(),
        path: Some(PathMatch::Prefix(path.to_owned())),
        ..Rule::default()
    };
    let rules: Vec<Rule> = (0..hosts).flat_map(|host| paths.map(|path| rule(host, path))).collect();
    let routes = Routes::compile(&rules);
    let limits = HttpLimits::default();
    let (mut request, mut trailers) = (Request::new(&limits), Fields::for_trailers(&limits));
    let (mut reader, mut input) = (RequestReader::default(), REQUEST);
    while !input.is_empty() {
        input = &input[reader.advance(input, &mut request, &mut trailers).expect("a request").taken..];
    }
    move || assert_eq!(black_box(routes.find(black_box(&request))), Some(1))
}
