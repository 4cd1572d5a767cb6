//! Runs messages through the engine as a proxy would, in any pieces, and says what came of them.

use sluice_dataplane::http::{
    Asked, Encoder, Event, Fields, Framing, HttpLimits, Method, Progress, Refusal, Request, RequestReader,
    Response, ResponseReader, Version,
};

/// What came of an input.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// The complete messages as they are written to the other side; of a tunnel only the head.
    pub(crate) output: Vec<u8>,
    /// `status word` of what was refused.
    pub(crate) refusal: Option<String>,
    /// The last complete head keeps its connection.
    pub(crate) keeps: bool,
    /// `more`, `held`, `tunnel` or nothing between messages.
    pub(crate) state: &'static str,
    /// The bodies of the complete messages, and of tunnels.
    pub(crate) bodies: Vec<Vec<u8>>,
    /// A request had no host (HTTP/1.0), which cannot be sent again as it is written.
    pub(crate) hostless: bool,
}

/// What a response is read with.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Told {
    pub(crate) asked: Asked,
    pub(crate) client: Version,
    pub(crate) close: bool,
    pub(crate) eof: bool,
}

impl Told {
    pub(crate) fn read(words: &[String]) -> Self {
        let has = |word: &str| words.iter().any(|one| one == word);
        let method = match () {
            () if has("head") => Method::Head,
            () if has("connect") => Method::Connect,
            () => Method::Get,
        };
        let client = if has("http10") { Version::Http10 } else { Version::Http11 };
        let asked = Asked { method, upgrade: has("upgrade") };
        Self { asked, client, close: has("close"), eof: has("eof") }
    }
}

/// The message that is being collected.
#[derive(Default)]
struct Message {
    head: Vec<u8>,
    body: Vec<u8>,
    framing: Framing,
}

impl Message {
    /// The whole message, its body in one chunk where chunks are spoken.
    fn finish(&mut self, trailers: &Fields, outcome: &mut Outcome) {
        let Message { head, body, framing } = std::mem::take(self);
        let mut encoder = Encoder::new(framing);
        let mut out = vec![0; body.len() + 40_000];
        let written = encoder.write(&body, &mut out);
        assert_eq!(written.taken, body.len());
        assert_eq!(encoder.is_complete(), Ok(()));
        let end = encoder.finish(Some(trailers), &mut out[written.written..]).expect("room");
        outcome.output.extend(head);
        outcome.output.extend(&out[..written.written + end]);
        outcome.bodies.push(body);
    }
}

/// What both readers are to this driver.
trait Side {
    fn advance(&mut self, input: &[u8]) -> Result<Progress, Refusal>;
    /// The head as it is written, the framing of its body, and whether the message is whole already.
    fn head(&mut self, outcome: &mut Outcome) -> (Vec<u8>, Framing, bool);
    fn trailers(&self) -> &Fields;
    fn end(&mut self) -> Result<Event, Refusal>;
    fn state(&self) -> &'static str;
}

struct Client(RequestReader, Request, Fields);
struct Member(ResponseReader, Response, Fields, Told);

impl Side for Client {
    fn advance(&mut self, input: &[u8]) -> Result<Progress, Refusal> {
        self.0.advance(input, &mut self.1, &mut self.2)
    }

    fn head(&mut self, outcome: &mut Outcome) -> (Vec<u8>, Framing, bool) {
        outcome.keeps = self.1.keeps_alive();
        outcome.hostless |= self.1.authority().is_empty();
        let mut out = vec![0; 64 << 10];
        let len = self.1.write(true, &mut out).expect("room");
        (out[..len].to_vec(), self.1.framing(), false)
    }

    fn trailers(&self) -> &Fields {
        &self.2
    }

    fn end(&mut self) -> Result<Event, Refusal> {
        self.0.end().map(|()| Event::More)
    }

    fn state(&self) -> &'static str {
        match () {
            () if self.0.is_idle() => "",
            () if self.0.is_held() => "held",
            () => "more",
        }
    }
}

impl Side for Member {
    fn advance(&mut self, input: &[u8]) -> Result<Progress, Refusal> {
        self.0.advance(input, &mut self.1, &mut self.2)
    }

    fn head(&mut self, outcome: &mut Outcome) -> (Vec<u8>, Framing, bool) {
        outcome.keeps = self.1.keeps_alive();
        let framing = self.1.framing_for(self.3.client);
        if framing == Framing::Tunnel {
            outcome.state = "tunnel";
        }
        let mut out = vec![0; 64 << 10];
        let len = self.1.write(self.3.client, !self.3.close, &mut out).expect("room");
        (out[..len].to_vec(), framing, self.1.is_interim() || framing == Framing::Tunnel)
    }

    fn trailers(&self) -> &Fields {
        &self.2
    }

    fn end(&mut self) -> Result<Event, Refusal> {
        self.0.end()
    }

    fn state(&self) -> &'static str {
        if self.0.is_idle() { "" } else { "more" }
    }
}

/// Requests, in these pieces.
pub(crate) fn requests<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Outcome {
    let limits = HttpLimits::default();
    let fields = Fields::for_trailers(&limits);
    run(&mut Client(RequestReader::default(), Request::new(&limits), fields), pieces, false)
}

/// Responses, in these pieces.
pub(crate) fn responses<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, told: Told) -> Outcome {
    let limits = HttpLimits::default();
    let fields = Fields::for_trailers(&limits);
    let mut member = Member(ResponseReader::default(), Response::new(&limits), fields, told);
    member.0.ask(told.asked);
    run(&mut member, pieces, told.eof)
}

/// The pieces go into a buffer like a socket's: what is not taken waits for more.
fn run<'a>(side: &mut impl Side, pieces: impl IntoIterator<Item = &'a [u8]>, eof: bool) -> Outcome {
    let (mut outcome, mut message, mut waiting) = (Outcome::default(), Message::default(), Vec::new());
    for piece in pieces {
        waiting.extend_from_slice(piece);
        let taken = match drain(side, &waiting, &mut message, &mut outcome) {
            Ok(taken) => taken,
            Err(refusal) => return refused(outcome, refusal),
        };
        waiting.drain(..taken);
    }
    if eof {
        match side.end() {
            Ok(Event::End) => message.finish(side.trailers(), &mut outcome),
            Ok(_) => {}
            Err(refusal) => return refused(outcome, refusal),
        }
    }
    if outcome.state.is_empty() {
        outcome.state = side.state();
    }
    outcome
}

fn refused(outcome: Outcome, refusal: Refusal) -> Outcome {
    let refusal = Some(format!("{} {}", refusal.status, refusal.fault.word()));
    Outcome { refusal, state: "", keeps: false, ..outcome }
}

fn drain(
    side: &mut impl Side,
    input: &[u8],
    message: &mut Message,
    outcome: &mut Outcome,
) -> Result<usize, Refusal> {
    let mut used = 0;
    loop {
        let Progress { taken, event } = side.advance(&input[used..])?;
        assert!(taken <= input.len() - used);
        match event {
            Event::More if taken == 0 => return Ok(used),
            Event::More => {}
            Event::Head => {
                let (head, framing, whole) = side.head(outcome);
                if whole {
                    outcome.output.extend(head);
                } else {
                    *message = Message { head, framing, ..Message::default() };
                }
            }
            Event::Body(span) => message.body.extend_from_slice(&input[used..][span]),
            Event::End => message.finish(side.trailers(), outcome),
        }
        used += taken;
    }
}
