//! What must hold of whatever was written: the second reader sees the same messages, and the engine writes the same when
//! it comes in again.

use sluice_dataplane::http::Method;

use super::reference::{self, Message};
use super::run::{self, Outcome, Told};

/// Of requests.
pub(crate) fn requests(outcome: &Outcome) -> Result<(), String> {
    check_bodies(outcome, reference::requests(&outcome.output))?;
    if outcome.hostless {
        return Ok(());
    }
    let again = run::requests([outcome.output.as_slice()]);
    if again.refusal.is_none() && again.output == outcome.output {
        Ok(())
    } else {
        Err(format!("again: {again:?}"))
    }
}

/// Of responses. A tunnel's bytes are no messages.
pub(crate) fn responses(outcome: &Outcome, told: Told) -> Result<(), String> {
    if outcome.output.is_empty() || outcome.state == "tunnel" {
        return Ok(());
    }
    check_bodies(outcome, reference::response(&outcome.output, told.asked.method == Method::Head))?;
    // A body for HTTP/1.0 ends with the connection.
    let again = run::responses([outcome.output.as_slice()], Told { eof: true, ..told });
    let clean = again.refusal.is_none() || outcome.bodies.is_empty();
    if clean && again.output == outcome.output { Ok(()) } else { Err(format!("again: {again:?}")) }
}

/// Interim responses are messages without a body of their own.
fn check_bodies(outcome: &Outcome, read: Option<Vec<Message>>) -> Result<(), String> {
    let Some(messages) = read else { return Err(format!("not clear: {}", outcome.output.escape_ascii())) };
    let interim = messages.len().saturating_sub(outcome.bodies.len());
    let bodies = messages.iter().skip(interim).map(|message| &message.body);
    if bodies.eq(&outcome.bodies) { Ok(()) } else { Err(format!("read as {messages:?}")) }
}
