//! The messages of one connection, one after the other, whatever the pieces in which their bytes come.
//!
//! ```text
//!   advance(input) ─▶ More   all was taken, more is needed; or some was taken, call again with the rest
//!                     Head   the head is in the caller's Request or Response
//!                     Body   this span of the input is body
//!                     End    the message is complete; trailers are in the caller's Fields
//! ```

use std::ops::Range;

use super::body::Body;
use super::fields::Fields;
use super::refusal::Fault;
use super::section::{Lines, Section, SectionLimits};

/// What input led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Nothing yet. When no byte was taken of input that is there, the reader waits for its caller.
    More,
    /// The head is complete.
    Head,
    /// This part of the input is body; never empty.
    Body(Range<usize>),
    /// The message is complete.
    End,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of the input that are done with.
    pub taken: usize,
    /// What they led to.
    pub event: Event,
}

impl Progress {
    pub(super) fn new(taken: usize, event: Event) -> Self {
        Self { taken, event }
    }

    /// Nothing was taken.
    pub(super) const WAIT: Progress = Progress { taken: 0, event: Event::More };
}

/// Where in a message the next byte is.
#[derive(Debug, Clone, Copy)]
pub(super) enum Stage {
    /// Before a message.
    Idle,
    Line(Lines),
    Fields(Section),
    Body(Body),
    /// A request to change the protocol was read; what follows belongs to the answer.
    Held,
}

impl Stage {
    /// The connection ended here.
    pub(super) fn end(&self) -> Result<(), Fault> {
        match self {
            Stage::Idle | Stage::Held => Ok(()),
            Stage::Line(_) | Stage::Fields(_) => Err(Fault::Truncated),
            Stage::Body(body) => body.end(),
        }
    }
}

/// A step of a section; whether it is complete.
pub(super) fn read_section(
    section: &mut Section,
    input: &[u8],
    fields: &mut Fields,
    limits: SectionLimits,
) -> Result<(Progress, bool), Fault> {
    let (taken, complete) = section.read(input, fields, limits)?;
    let event = if complete { Event::Head } else { Event::More };
    Ok((Progress::new(taken, event), complete))
}

/// A step of a body; whether its message has ended, which is a step of its own after the last data.
pub(super) fn read_body(
    body: &mut Body,
    input: &[u8],
    trailers: &mut Fields,
) -> Result<(Progress, bool), Fault> {
    let step = body.decode(input, trailers)?;
    let ended = step.done && step.body.is_empty();
    let event = match ended {
        true => Event::End,
        false if step.body.is_empty() => Event::More,
        false => Event::Body(step.body),
    };
    Ok((Progress::new(step.taken, event), ended))
}

/// Bytes of a line's end.
pub(super) const CRLF: usize = 2;
