//! Cross-origin resource sharing (Fetch standard, section 3.2; Gateway API: HTTPCORSFilter).

use std::sync::Arc;

use super::short::Short;
use super::{Notes, Outcome};
use crate::http::{EditError, Fields, Framing, Method, Request, Response, list};

/// Who may ask for what. A preflight request is answered here; others go on, and their responses get the fields.
///
/// The operator's word is the only one: what a member says about other origins is taken off its responses.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cors {
    /// `*`, or origins, each exact or with `*.` for its first labels: `https://*.example.com`.
    pub allow_origins: Vec<Arc<str>>,
    /// `*`, or methods.
    pub allow_methods: Vec<Arc<str>>,
    /// `*`, or field names.
    pub allow_headers: Vec<Arc<str>>,
    /// Field names that scripts may read. Browsers know `*` only without credentials.
    pub expose_headers: Vec<Arc<str>>,
    /// Cookies and the like may be sent.
    pub allow_credentials: bool,
    /// How long a preflight's answer holds, seconds.
    pub max_age_s: u32,
}

impl Cors {
    pub(super) fn on_request(
        &self,
        request: &Request,
        response: &mut Response,
        notes: &mut Notes,
    ) -> Result<Outcome, EditError> {
        let origin = self.allowed(request);
        if !is_preflight(request) {
            notes.cors_allowed |= origin.is_some();
            return Ok(Outcome::Continue);
        }
        response.begin(204);
        response.set_framing(Framing::None);
        self.vary(&mut response.fields)?;
        if let Some(origin) = origin {
            self.allow(origin, &mut response.fields)?;
            self.permit(&request.fields, &mut response.fields)?;
        }
        Ok(Outcome::Answer(Arc::default()))
    }

    /// An answer to a preflight is left as [`Cors::on_request`] made it, and one of another filter without fields.
    pub(super) fn on_response(
        &self,
        request: &Request,
        response: &mut Response,
        notes: &Notes,
    ) -> Result<(), EditError> {
        if is_preflight(request) {
            return Ok(());
        }
        ANSWERS.iter().for_each(|name| response.fields.remove(name));
        self.vary(&mut response.fields)?;
        let Some(origin) = self.allowed(request).filter(|_| notes.cors_allowed) else { return Ok(()) };
        self.allow(origin, &mut response.fields)?;
        add_list(EXPOSE_HEADERS, &self.expose_headers, &mut response.fields)
    }

    /// The request's origin, when there is exactly one and it is allowed.
    fn allowed<'a>(&self, request: &'a Request) -> Option<&'a [u8]> {
        let mut origins = request.fields.all(ORIGIN);
        let origin = origins.next().filter(|_| origins.next().is_none())?;
        self.allow_origins.iter().any(|pattern| matches(pattern.as_bytes(), origin)).then_some(origin)
    }

    /// True when responses are the same for every origin.
    fn is_for_all(&self) -> bool {
        !self.allow_credentials && has_star(&self.allow_origins)
    }

    /// A response that names the origin must not be given to another one by a cache, nor one without the fields.
    fn vary(&self, fields: &mut Fields) -> Result<(), EditError> {
        let says = |element: &[u8]| element == b"*" || element.eq_ignore_ascii_case(ORIGIN);
        if self.is_for_all() || fields.all(b"Vary").flat_map(list).any(says) {
            return Ok(());
        }
        fields.append(b"Vary", ORIGIN)
    }

    fn allow(&self, origin: &[u8], fields: &mut Fields) -> Result<(), EditError> {
        fields.add(ALLOW_ORIGIN, if self.is_for_all() { b"*" } else { origin })?;
        if self.allow_credentials {
            fields.add(ALLOW_CREDENTIALS, b"true")?;
        }
        Ok(())
    }

    /// What a preflight asks: methods, fields, and for how long. `*` says what was asked, as browsers take it for a
    /// name when there are credentials.
    fn permit(&self, asked: &Fields, fields: &mut Fields) -> Result<(), EditError> {
        match has_star(&self.allow_methods) {
            true => copy(REQUEST_METHOD, asked, ALLOW_METHODS, fields)?,
            false => add_list(ALLOW_METHODS, &self.allow_methods, fields)?,
        }
        match has_star(&self.allow_headers) {
            true => copy(REQUEST_HEADERS, asked, ALLOW_HEADERS, fields)?,
            false => add_list(ALLOW_HEADERS, &self.allow_headers, fields)?,
        }
        let seconds = Short::<10>::of(format_args!("{}", self.max_age_s))?;
        fields.add(b"Access-Control-Max-Age", seconds.bytes())
    }
}

/// Fetch standard, section 3.2.2.
fn is_preflight(request: &Request) -> bool {
    let has = |name| request.fields.get(name).is_some();
    request.method() == Method::Options && has(ORIGIN) && has(REQUEST_METHOD)
}

fn has_star(list: &[Arc<str>]) -> bool {
    list.iter().any(|one| &**one == "*")
}

/// `*`, an origin, or one with `*` in place of labels of its host.
fn matches(pattern: &[u8], origin: &[u8]) -> bool {
    let Some(star) = pattern.iter().position(|&byte| byte == b'*') else {
        return pattern.eq_ignore_ascii_case(origin);
    };
    let (start, end) = (&pattern[..star], &pattern[star + 1..]);
    let Some((first, rest)) = origin.split_at_checked(start.len()) else { return false };
    let Some((labels, last)) = rest.len().checked_sub(end.len()).map(|len| rest.split_at(len)) else {
        return false;
    };
    let whole = start.is_empty() && end.is_empty();
    whole || first.eq_ignore_ascii_case(start) && last.eq_ignore_ascii_case(end) && are_labels(labels)
}

fn are_labels(bytes: &[u8]) -> bool {
    let inside = |&byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    bytes.split(|&byte| byte == b'.').all(|label| !label.is_empty() && label.iter().all(inside))
}

fn add_list(name: &[u8], list: &[Arc<str>], fields: &mut Fields) -> Result<(), EditError> {
    if list.is_empty() {
        return Ok(());
    }
    let separator = |at| if at == 0 { &b""[..] } else { b", " };
    let parts = list.iter().enumerate().flat_map(|(at, one)| [separator(at), one.as_bytes()]);
    fields.add_parts(name, parts)
}

/// Says in `to` what the request said in its fields `from`.
fn copy(from: &[u8], asked: &Fields, to: &[u8], fields: &mut Fields) -> Result<(), EditError> {
    asked.all(from).filter(|value| !value.is_empty()).try_for_each(|value| fields.append(to, value))
}

const ORIGIN: &[u8] = b"Origin";
const REQUEST_METHOD: &[u8] = b"Access-Control-Request-Method";
const REQUEST_HEADERS: &[u8] = b"Access-Control-Request-Headers";
const ALLOW_ORIGIN: &[u8] = b"Access-Control-Allow-Origin";
const ALLOW_CREDENTIALS: &[u8] = b"Access-Control-Allow-Credentials";
const ALLOW_METHODS: &[u8] = b"Access-Control-Allow-Methods";
const ALLOW_HEADERS: &[u8] = b"Access-Control-Allow-Headers";
const EXPOSE_HEADERS: &[u8] = b"Access-Control-Expose-Headers";
const ANSWERS: &[&[u8]] = &[ALLOW_ORIGIN, ALLOW_CREDENTIALS, ALLOW_METHODS, ALLOW_HEADERS, EXPOSE_HEADERS];

#[cfg(test)]
mod tests {
    use super::super::testing::{answer_of, answered, blank, facts, request, response};
    use super::super::{Filter, RateTable, on_request, on_response};
    use super::*;

    fn texts(list: &str) -> Vec<Arc<str>> {
        list.split(' ').filter(|one| !one.is_empty()).map(Arc::from).collect()
    }

    fn cors(origins: &str, methods: &str, headers: &str, allow_credentials: bool) -> Cors {
        Cors {
            allow_origins: texts(origins),
            allow_methods: texts(methods),
            allow_headers: texts(headers),
            expose_headers: texts("X-One X-Two"),
            allow_credentials,
            max_age_s: 600,
        }
    }

    fn preflight(cors: Cors, origin: &str) -> String {
        let asked = format!(
            "Origin: {origin}\r\nAccess-Control-Request-Method: PUT\r\n\
             Access-Control-Request-Headers: x-a,x-b\r\nAccess-Control-Request-Headers: x-c\r\n"
        );
        let mut asked = request("OPTIONS", "h", "/", &asked);
        let (head, body) = answer_of(&Filter::Cors(cors), &mut asked, &facts()).expect("an answer");
        assert_eq!(body, b"");
        head.replace("Access-Control-", "")
    }

    #[test]
    fn preflights_are_answered() {
        let start = "HTTP/1.1 204 No Content";
        for (cors, expected) in [
            (
                cors("*", "GET PUT", "X-A X-B", false),
                "Allow-Origin: *|Allow-Methods: GET, PUT|Allow-Headers: X-A, X-B|Max-Age: 600||",
            ),
            (
                cors("https://a", "*", "*", false),
                "Vary: Origin|Allow-Origin: https://a|Allow-Methods: PUT|Allow-Headers: x-a,x-b, x-c|Max-Age: 600||",
            ),
            (
                cors("*", "", "", true),
                "Vary: Origin|Allow-Origin: https://a|Allow-Credentials: true|Max-Age: 600||",
            ),
            (cors("https://b", "*", "*", true), "Vary: Origin||"),
            (cors("", "*", "*", true), "Vary: Origin||"),
        ] {
            assert_eq!(preflight(cors.clone(), "https://a"), format!("{start}|{expected}"), "{cors:?}");
        }
    }

    #[test]
    fn origins_match_exactly_or_by_first_labels() {
        for (pattern, origin, expected) in [
            ("https://a.example", "https://a.example", true),
            ("https://a.example", "HTTPS://A.example", true),
            ("https://a.example", "http://a.example", false),
            ("https://a.example", "https://a.example:8443", false),
            ("https://a.example", "https://a.example.evil", false),
            ("https://*.example", "https://a.example", true),
            ("https://*.example", "https://a.b.example", true),
            ("https://*.example", "https://.example", false),
            ("https://*.example", "https://example", false),
            ("https://*.example", "https://evilexample", false),
            ("https://*.example", "https://evil/.example", false),
            ("https://*.example", "https://evil:1.example", false),
            ("https://*.example", "https://evil@a.example", false),
            ("https://*.example", "https://a..example", false),
            ("https://*.example", "https://a.example:8443", false),
            ("https://*.example:8443", "https://a.example:8443", true),
            ("https://*.example", "", false),
            ("https://a.example", "null", false),
            ("*", "null", true),
            ("*", "anything", true),
        ] {
            assert_eq!(matches(pattern.as_bytes(), origin.as_bytes()), expected, "{pattern} {origin}");
        }
    }

    const MEMBERS: &str = "HTTP/1.1 200 OK\r\naccess-control-allow-origin: *\r\nAccess-Control-Allow-Credentials: true\r\n\
                           Access-Control-Expose-Headers: Y\r\nVary: Accept\r\nContent-Length: 0\r\n\r\n";

    fn passed(cors: Cors, fields: &str) -> String {
        let (filters, mut asked) = ([Filter::Cors(cors)], request("GET", "h", "/", fields));
        let (mut page, mut notes) = (response(MEMBERS), Notes::default());
        let rates = RateTable::new(8);
        let outcome = on_request(&filters, &mut asked, &mut blank(), &facts(), &rates, &mut notes);
        assert_eq!(outcome, Ok(Outcome::Continue));
        on_response(&filters, &asked, &mut page, &notes).expect("room");
        let head = answered(&page).replace("Access-Control-", "");
        let fields =
            head.strip_prefix("HTTP/1.1 200 OK|").and_then(|head| head.strip_suffix("Content-Length: 0||"));
        fields.expect("the head").to_owned()
    }

    #[test]
    fn responses_say_what_the_operator_said_and_not_the_member() {
        let some = |credentials| cors("https://a", "", "", credentials);
        let all = |credentials| cors("*", "", "", credentials);
        for (cors, fields, expected) in [
            (
                some(false),
                "Origin: https://a\r\n",
                "Vary: Accept, Origin|Allow-Origin: https://a|Expose-Headers: X-One, X-Two|",
            ),
            (
                some(true),
                "Origin: https://a\r\n",
                "Vary: Accept, Origin|Allow-Origin: https://a|Allow-Credentials: true|Expose-Headers: X-One, X-Two|",
            ),
            (
                all(false),
                "Origin: https://a\r\n",
                "Vary: Accept|Allow-Origin: *|Expose-Headers: X-One, X-Two|",
            ),
            (
                all(true),
                "Origin: https://b\r\n",
                "Vary: Accept, Origin|Allow-Origin: https://b|Allow-Credentials: true|Expose-Headers: X-One, X-Two|",
            ),
            (some(false), "Origin: https://b\r\n", "Vary: Accept, Origin|"),
            (some(false), "", "Vary: Accept, Origin|"),
            (all(false), "", "Vary: Accept|"),
            (some(true), "Origin: https://a\r\nOrigin: https://a\r\n", "Vary: Accept, Origin|"),
        ] {
            assert_eq!(passed(cors, fields), expected, "{fields}");
        }
    }

    #[test]
    fn what_varies_by_origin_already_is_left_so() {
        for value in ["*", "Accept, ORIGIN"] {
            let mut page = blank();
            page.begin(200);
            page.fields.add(b"vary", value.as_bytes()).expect("room");
            cors("https://a", "", "", false).vary(&mut page.fields).expect("room");
            assert_eq!(page.fields.get(b"Vary"), Some(value.as_bytes()));
        }
    }

    #[test]
    fn options_that_is_no_preflight_goes_on() {
        let mut asked = request("OPTIONS", "h", "/", "Origin: https://a\r\n");
        assert_eq!(answer_of(&Filter::Cors(cors("*", "*", "*", false)), &mut asked, &facts()), None);
    }

    #[test]
    fn an_answer_to_a_preflight_is_not_changed_afterwards() {
        let fields = "Origin: https://a\r\nAccess-Control-Request-Method: PUT\r\n";
        let (filters, mut asked) =
            ([Filter::Cors(cors("*", "*", "*", true))], request("OPTIONS", "h", "/", fields));
        let (mut answer, mut notes) = (blank(), Notes::default());
        on_request(&filters, &mut asked, &mut answer, &facts(), &RateTable::new(8), &mut notes)
            .expect("room");
        let before = answered(&answer);
        on_response(&filters, &asked, &mut answer, &notes).expect("room");
        assert_eq!(answered(&answer), before);
    }
}
