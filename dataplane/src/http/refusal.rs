//! Why a message was not taken: one fault, one word for logs and counters, one status.

/// A message that was not taken. The connection it came on ends: after the answer towards a client, at once towards
/// a member, because where the next message begins is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{status} {}", fault.word())]
pub struct Refusal {
    /// What to answer the client: the fault's own status for a request, 502 for a response.
    pub status: u16,
    /// What was wrong.
    pub fault: Fault,
}

impl Refusal {
    /// A request with this fault.
    pub const fn request(fault: Fault) -> Self {
        Self { status: fault.status(), fault }
    }

    /// A response with this fault: the member is to blame, so the client is told 502.
    pub const fn response(fault: Fault) -> Self {
        Self { status: 502, fault }
    }
}

macro_rules! faults {
    ($($(#[$doc:meta])+ $fault:ident $status:literal $word:literal,)+) => {
        /// What was wrong with a message.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Fault {
            $($(#[$doc])+ $fault,)+
        }

        impl Fault {
            /// All of them, for counters.
            pub const ALL: &[Fault] = &[$(Fault::$fault),+];

            /// The status that answers a request with this fault.
            pub const fn status(self) -> u16 {
                match self { $(Fault::$fault => $status,)+ }
            }

            /// A short word for logs and counters.
            pub const fn word(self) -> &'static str {
                match self { $(Fault::$fault => $word,)+ }
            }
        }
    };
}

faults! {
    /// A line that does not end with CRLF (RFC 9112 section 2.2).
    LineEnd 400 "line-end",
    /// An empty line where a message should begin; one is let pass before a request (RFC 9112 section 2.2).
    EmptyLine 400 "empty-line",
    /// Not a request line (RFC 9112 section 3).
    RequestLine 400 "request-line",
    /// The first line is longer than the limit.
    LineTooLong 414 "line-too-long",
    /// An HTTP version that is neither 1.0 nor 1.1 (RFC 9110 section 2.5).
    Version 505 "version",
    /// A target that is no URI, or has a fragment, user information or another scheme (RFC 9112 section 3.2).
    Target 400 "target",
    /// A form of target that does not go with the method (RFC 9112 sections 3.2.3 and 3.2.4).
    TargetForm 400 "target-form",
    /// A path with a broken or forbidden escape.
    Path 400 "path",
    /// A Host that is no host and port (RFC 9112 section 3.2).
    Host 400 "host",
    /// HTTP/1.1 without Host.
    HostMissing 400 "host-missing",
    /// More than one Host.
    HostTwice 400 "host-twice",
    /// A field name that is no token, or whitespace around it (RFC 9112 section 5.1).
    FieldName 400 "field-name",
    /// A control character in a field value (RFC 9110 section 5.5).
    FieldValue 400 "field-value",
    /// A folded line (RFC 9112 section 5.2).
    Folded 400 "obs-fold",
    /// More bytes of fields than the limit (RFC 6585 section 5).
    HeadTooLarge 431 "head-too-large",
    /// More fields than the limit.
    TooManyFields 431 "too-many-fields",
    /// A Content-Length that is no number (RFC 9110 section 8.6).
    ContentLength 400 "content-length",
    /// More than one Content-Length, in fields or in a list.
    ContentLengthTwice 400 "content-length-twice",
    /// Content-Length and Transfer-Encoding in one message (RFC 9112 section 6.1).
    BothLengths 400 "both-lengths",
    /// A transfer coding that is not exactly `chunked` (RFC 9112 section 6.1).
    TransferEncoding 501 "transfer-encoding",
    /// Transfer-Encoding where the version or the status has none (RFC 9112 section 6.1).
    TransferEncodingMisplaced 400 "transfer-encoding-misplaced",
    /// A Connection field that is no list of tokens, or too long a one (RFC 9110 section 7.6.1).
    Connection 400 "connection",
    /// An expectation other than `100-continue` (RFC 9110 section 10.1.1).
    Expectation 417 "expectation",
    /// A body with CONNECT, TRACE or Upgrade.
    BodyNotAllowed 400 "body-not-allowed",
    /// A body longer than the limit.
    BodyTooLarge 413 "body-too-large",
    /// A chunk size that is not 1 to 16 hexadecimal digits, or not followed by `;` or CRLF (RFC 9112 section 7.1).
    ChunkSize 400 "chunk-size",
    /// A chunk extension that is none, or is longer than 256 bytes (RFC 9112 section 7.1.1).
    ChunkExtension 400 "chunk-extension",
    /// Chunk data that is not followed by CRLF.
    ChunkEnd 400 "chunk-end",
    /// A trailer field that says where a message goes or ends (RFC 9110 section 6.5.1).
    Trailer 400 "trailer",
    /// Not a status line (RFC 9112 section 4).
    StatusLine 502 "status-line",
    /// More interim responses than a request can have use for (RFC 9110 section 15.2).
    TooManyInterims 502 "too-many-interims",
    /// 101 that nobody asked for, or without Upgrade (RFC 9110 section 15.2.2).
    SwitchUnasked 502 "switch-unasked",
    /// Bytes from a member that no request asked for (RFC 9112 section 9.2).
    Unasked 502 "unasked-bytes",
    /// The connection ended within a message (RFC 9112 section 8).
    Truncated 400 "truncated",
    /// The head or body did not arrive in time; for the caller, who has the clock.
    Timeout 408 "timeout",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_has_a_word_of_its_own() {
        let mut words: Vec<_> = Fault::ALL.iter().map(|fault| fault.word()).collect();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), Fault::ALL.len());
    }

    #[test]
    fn only_a_request_is_the_clients_fault() {
        assert_eq!(Refusal::request(Fault::HeadTooLarge).status, 431);
        assert_eq!(Refusal::response(Fault::HeadTooLarge).status, 502);
        assert_eq!(Refusal::request(Fault::Version).to_string(), "505 version");
    }
}
