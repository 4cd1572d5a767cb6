//! Answers with a response of the operator's.

use std::sync::Arc;

use super::Outcome;
use crate::http::{EditError, Framing, Response};

/// The response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FixedResponse {
    /// 200 to 599.
    pub status: u16,
    /// Content-Type; none when empty.
    pub content_type: Arc<str>,
    /// The body. Not sent with 204, 205 and 304, which have none.
    pub body: Arc<[u8]>,
}

impl FixedResponse {
    pub(super) fn answer(&self, response: &mut Response) -> Result<Outcome, EditError> {
        response.begin(self.status);
        if !self.content_type.is_empty() {
            response.fields.add(b"Content-Type", self.content_type.as_bytes())?;
        }
        // RFC 9110 sections 15.3.5, 15.3.6 and 15.4.5.
        if matches!(self.status, 204 | 304) {
            response.set_framing(Framing::None);
            return Ok(Outcome::Answer(Arc::default()));
        }
        let body = if self.status == 205 { Arc::default() } else { Arc::clone(&self.body) };
        response.set_framing(Framing::Length(body.len() as u64));
        Ok(Outcome::Answer(body))
    }
}

#[cfg(test)]
mod tests {
    use super::super::Filter;
    use super::super::testing::{answer_of, facts, request};
    use super::*;

    #[test]
    fn every_status_says_what_body_it_has() {
        for (status, content_type, body, head, sent) in [
            (200, "text/plain", "hello", "200 OK|Content-Type: text/plain|Content-Length: 5||", "hello"),
            (503, "", "", "503 Service Unavailable|Content-Length: 0||", ""),
            (599, "", "x", "599 |Content-Length: 1||", "x"),
            (204, "", "x", "204 No Content||", ""),
            (205, "", "x", "205 Reset Content|Content-Length: 0||", ""),
            (304, "a/b", "x", "304 Not Modified|Content-Type: a/b||", ""),
        ] {
            let fixed =
                FixedResponse { status, content_type: content_type.into(), body: body.as_bytes().into() };
            for method in ["GET", "HEAD", "POST"] {
                let mut asked = request(method, "h", "/", "");
                let answer = answer_of(&Filter::FixedResponse(fixed.clone()), &mut asked, &facts());
                assert_eq!(answer, Some((format!("HTTP/1.1 {head}"), sent.as_bytes().to_vec())), "{status}");
            }
        }
    }
}
