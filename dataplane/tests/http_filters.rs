//! Filters one after the other, as a virtual server and a rule have them: what the member gets, what the client gets.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::Arc;

use sluice_dataplane::address::Address;
use sluice_dataplane::clock::Instant;
use sluice_dataplane::config::ids::PoolId;
use sluice_dataplane::config::proxy::{CookieMethod, CookiePersistence};
use sluice_dataplane::filter::{
    Cors, Facts, Filter, FixedResponse, Forwarded, HeaderEdits, Mirror, Notes, Outcome, PathChange, RateKey,
    RateLimit, RateTable, Redirect, UrlRewrite, mirror_of, on_request, on_response,
};
use sluice_dataplane::http::{
    Asked, Event, Fields, HttpLimits, Request, RequestReader, Response, ResponseReader, Scheme, Version,
};
use sluice_dataplane::persist::cookie;

const PAGE: &str =
    "HTTP/1.1 200 OK\r\nServer: inside\r\nAccess-Control-Allow-Origin: *\r\nContent-Length: 2\r\n\r\n";

/// What a proxy does with one exchange: the member's side, and the client's.
struct Exchange {
    /// What the member got; none when a filter answered.
    sent: Option<String>,
    answered: String,
    body: Vec<u8>,
}

struct Proxy {
    filters: Vec<Filter>,
    rates: RateTable,
    now: Instant,
}

impl Proxy {
    fn new(filters: Vec<Filter>) -> Self {
        Self { filters, rates: RateTable::new(100), now: Instant::ZERO }
    }

    fn exchange(&self, asked: &str, page: &str) -> Exchange {
        let limits = HttpLimits::default();
        let (mut request, mut response) = (read(asked), Response::new(&limits));
        let (facts, mut notes) = (self.facts(), Notes::default());
        let outcome =
            on_request(&self.filters, &mut request, &mut response, &facts, &self.rates, &mut notes).unwrap();
        let (sent, body) = match outcome {
            Outcome::Continue => {
                read_page(page, &mut response);
                (Some(lines(|out| request.write(true, out).unwrap())), Vec::new())
            }
            Outcome::Answer(body) => (None, body.to_vec()),
        };
        on_response(&self.filters, &request, &mut response, &notes).unwrap();
        let answered = lines(|out| response.write(Version::Http11, true, out).unwrap());
        Exchange { sent, answered, body }
    }

    fn facts(&self) -> Facts<'static> {
        Facts {
            client: (Address::v4([192, 0, 2, 7]), 40_000),
            destination: (Address::v4([198, 51, 100, 1]), 8080),
            scheme: Scheme::Http,
            matched_prefix: b"/shop",
            now: self.now,
        }
    }
}

fn lines(write: impl FnOnce(&mut [u8]) -> usize) -> String {
    let mut out = vec![0; 100 << 10];
    let len = write(&mut out);
    String::from_utf8_lossy(&out[..len]).replace("\r\n", "|")
}

fn read(text: &str) -> Request {
    let limits = HttpLimits::default();
    let (mut request, mut trailers) = (Request::new(&limits), Fields::for_trailers(&limits));
    let (mut reader, mut input) = (RequestReader::default(), text.as_bytes());
    loop {
        let progress = reader.advance(input, &mut request, &mut trailers).unwrap();
        input = &input[progress.taken..];
        if progress.event == Event::Head {
            return request;
        }
    }
}

fn read_page(text: &str, response: &mut Response) {
    let mut trailers = Fields::for_trailers(&HttpLimits::default());
    let (mut reader, mut input) = (ResponseReader::default(), text.as_bytes());
    reader.ask(Asked::default());
    loop {
        let progress = reader.advance(input, response, &mut trailers).unwrap();
        input = &input[progress.taken..];
        if progress.event == Event::Head {
            return;
        }
    }
}

fn texts(list: &[&str]) -> Vec<Arc<str>> {
    list.iter().copied().map(Arc::from).collect()
}

/// All filters that let requests go on.
fn chain() -> Vec<Filter> {
    let set = |name: &str, value: &str| vec![(name.into(), value.into())];
    vec![
        Filter::RateLimit(RateLimit {
            id: 1,
            by: RateKey::Address { mask_v4: 24, mask_v6: 64 },
            requests: 1,
            period_ms: 2_500,
            burst: 2,
        }),
        Filter::Cors(Cors {
            allow_origins: texts(&["https://*.example"]),
            allow_methods: texts(&["GET", "PUT"]),
            allow_headers: texts(&["*"]),
            max_age_s: 60,
            ..Cors::default()
        }),
        Filter::UrlRewrite(UrlRewrite {
            host: Some("inside".into()),
            path: Some(PathChange::Prefix("/v2".into())),
        }),
        Filter::Forwarded(Forwarded { x_forwarded: true, rfc7239: true, trust_client: false }),
        Filter::RequestHeaders(HeaderEdits { remove: texts(&["Cookie"]), ..HeaderEdits::default() }),
        Filter::Mirror(Mirror { pool: PoolId(7), per_mille: 1_000 }),
        Filter::ResponseHeaders(HeaderEdits {
            set: set("Server", "ours"),
            add: set("X-Content-Type-Options", "nosniff"),
            ..HeaderEdits::default()
        }),
    ]
}

const ASKED: &str = "GET /shop/a?b HTTP/1.1\r\nHost: Shop.example:8080\r\nX-Forwarded-For: 1.2.3.4\r\n\
                     Origin: https://www.example\r\nCookie: a=b\r\n\r\n";

#[test]
fn a_request_goes_through_all_and_so_does_its_response() {
    let proxy = Proxy::new(chain());
    let done = proxy.exchange(ASKED, PAGE);
    assert_eq!(
        done.sent.unwrap(),
        "GET /v2/a?b HTTP/1.1|Host: inside|Origin: https://www.example|\
         Forwarded: for=192.0.2.7;host=\"shop.example:8080\";proto=http|X-Forwarded-For: 192.0.2.7|\
         X-Forwarded-Proto: http|X-Forwarded-Host: shop.example:8080|X-Forwarded-Port: 8080||"
    );
    assert_eq!(
        done.answered,
        "HTTP/1.1 200 OK|Server: ours|Vary: Origin|Access-Control-Allow-Origin: https://www.example|\
         X-Content-Type-Options: nosniff|Content-Length: 2||"
    );
    assert_eq!(
        mirror_of(&proxy.filters).map(|mirror| (mirror.pool, mirror.takes(0))),
        Some((PoolId(7), true))
    );
}

#[test]
fn the_first_filter_that_answers_ends_the_chain_and_responses_filters_still_run() {
    let mut proxy = Proxy::new(chain());
    assert!((0..2).all(|_| proxy.exchange(ASKED, PAGE).sent.is_some()));
    let refused = proxy.exchange(ASKED, PAGE);
    assert!(refused.sent.is_none() && refused.body.is_empty());
    assert_eq!(
        refused.answered,
        "HTTP/1.1 429 Too Many Requests|Retry-After: 3|Sluice-Reason: rate-limited|Vary: Origin|Server: ours|\
         X-Content-Type-Options: nosniff|Content-Length: 0||"
    );
    proxy.now = Instant::from_ms(2_500);
    assert!(proxy.exchange(ASKED, PAGE).sent.is_some());
}

#[test]
fn a_preflight_is_answered_before_the_request_is_changed() {
    let asked = "OPTIONS /shop HTTP/1.1\r\nHost: h\r\nOrigin: https://a.b.example\r\n\
                 Access-Control-Request-Method: PUT\r\nAccess-Control-Request-Headers: x-a\r\n\r\n";
    let done = Proxy::new(chain()).exchange(asked, PAGE);
    assert!(done.sent.is_none());
    assert_eq!(
        done.answered,
        "HTTP/1.1 204 No Content|Vary: Origin|Access-Control-Allow-Origin: https://a.b.example|\
         Access-Control-Allow-Methods: GET, PUT|Access-Control-Allow-Headers: x-a|\
         Access-Control-Max-Age: 60|Server: ours|X-Content-Type-Options: nosniff||"
    );
}

#[test]
fn answers_of_the_operators_go_through_the_responses_filters() {
    let edits = HeaderEdits { add: vec![("X".into(), "y".into())], ..HeaderEdits::default() };
    let redirect = Redirect {
        scheme: Some(Scheme::Https),
        host: None,
        port: None,
        path: Some(PathChange::Prefix("/".into())),
        status: 301,
    };
    let fixed =
        FixedResponse { status: 200, content_type: "text/plain".into(), body: b"hi".as_slice().into() };
    for (filter, head, body) in [
        (
            Filter::Redirect(redirect),
            "301 Moved Permanently|Location: https://shop.example/a?b|X: y|Content-Length: 0||",
            &b""[..],
        ),
        (Filter::FixedResponse(fixed), "200 OK|Content-Type: text/plain|X: y|Content-Length: 2||", b"hi"),
    ] {
        let done = Proxy::new(vec![filter, Filter::ResponseHeaders(edits.clone())]).exchange(ASKED, PAGE);
        assert_eq!((done.sent, done.answered, done.body), (None, format!("HTTP/1.1 {head}"), body.to_vec()));
    }
}

#[test]
fn a_clients_cookie_leads_back_to_its_member() {
    let settings = CookiePersistence {
        method: CookieMethod::Insert,
        name: Arc::from(""),
        max_age_s: 0,
        path: Arc::from("/"),
        http_only: true,
        secure: false,
        always_send: false,
    };
    let (member, mut response) =
        ((Address::v4([10, 1, 1, 100]), 8080), Response::new(&HttpLimits::default()));
    read_page(PAGE, &mut response);
    cookie::set_cookie(&mut response, &settings, "web", member).unwrap();
    let set = String::from_utf8_lossy(response.fields.get(b"Set-Cookie").unwrap()).into_owned();
    let kept = set.split(';').next().unwrap();
    let request = read(&format!("GET / HTTP/1.1\r\nHost: h\r\nCookie: x=y; {kept}\r\n\r\n"));
    let value = cookie::value_for(&request, &settings, "web").unwrap();
    assert_eq!(cookie::decode(value), Some(member));
    assert_eq!(cookie::value_of(&request, b"BIGipServerweb"), Some(value));
}
