//! What goes to the peer: answers that were kept, segments of the engine's own, and what smoltcp has to send; and when.

use ::smoltcp::iface::{Interface, PollResult};
use ::smoltcp::socket::tcp::State as SocketState;
use ::smoltcp::wire::TcpControl;

use super::{Owed, Place, after, moment};
use crate::clock::Instant;
use crate::tcp::smoltcp::device::{Outbound, Sent};
use crate::tcp::smoltcp::segment::{self, bare};
use crate::tcp::smoltcp::{PROBE_MS, STALLED_MS, UNANSWERED_MS};
use crate::tcp::{Sink, State};

impl Place {
    /// True when all is sent that is to be sent now; false when the sink has no more room.
    pub(in crate::tcp::smoltcp) fn transmit(
        &mut self,
        interface: &mut Interface,
        sink: &mut impl Sink,
        now: Instant,
    ) -> bool {
        self.on_time(now);
        if !self.send_own(sink) {
            return false;
        }
        if self.over.is_some() {
            return true;
        }
        let headers = self.ends.ip_header() + TCP_HEADER;
        self.sent.is_all = false;
        while sink.has_room() {
            let (sent, mss) = (&mut self.sent, self.mss);
            let mut wire = Outbound { sink: &mut *sink, sent, headers, mss };
            let polled = interface.poll_egress(moment(now), &mut wire, &mut self.set);
            if polled == PollResult::None || self.sent.is_all {
                break;
            }
        }
        self.settle(State::Closed, now);
        self.on_sent(interface, now);
        self.send_own(sink) && (sink.has_room() || self.over.is_some())
    }

    /// What time alone leads to: the peer is asked for a sign of life, or given up.
    fn on_time(&mut self, now: Instant) {
        if self.over.is_some() {
            return;
        }
        if self.asked_at.is_some_and(|at| now >= after(at, UNANSWERED_MS)) {
            self.owed.reset = !self.is_connecting();
            return self.end(State::TimedOut);
        }
        self.ask_when_due(false, now);
    }

    /// smoltcp has sent what it had to send: what waits now is asked for when nothing else will move it. Finding that out
    /// is spared as long as the peer has time to answer.
    fn on_sent(&mut self, interface: &mut Interface, now: Instant) {
        let is_late = self.asked_at.is_some_and(|at| now >= after(at, STALLED_MS));
        if is_late && self.over.is_none() && interface.poll_at(moment(now), &self.set).is_none() {
            self.ask_when_due(true, now);
        }
    }

    fn ask_when_due(&mut self, is_idle: bool, now: Instant) {
        if self.probe_at(is_idle).is_some_and(|at| now >= at) {
            self.owed.probe = true;
            self.probed_at = Some(now);
            self.asked_at.get_or_insert(now);
        }
    }

    /// When to ask for a sign of life next; `is_idle` when smoltcp waits for no time to come.
    fn probe_at(&self, is_idle: bool) -> Option<Instant> {
        if self.is_stalled(is_idle) {
            return self.probed_at.or(self.asked_at).map(|at| after(at, STALLED_MS));
        }
        let interval = u64::from(self.options.keep_alive_ms);
        let is_silent = !self.is_waiting() && self.socket().state() != SocketState::TimeWait;
        (interval > 0 && is_silent).then(|| match self.probed_at {
            Some(at) => after(at, PROBE_MS.min(interval)),
            None => after(self.heard_at, interval),
        })
    }

    /// True when nothing of what waits moves. smoltcp probes a closed window (RFC 9293 section 3.8.6.1), but not one that
    /// it hears of while its retransmission timer runs, and it forgets that timer while it probes. Of the answers it takes
    /// the window, or the third that says the same for a loss; in LAST-ACK it takes neither, and asking would only
    /// keep it from being given up. Where its FIN is all that waits, the third such answer stops that timer and sends
    /// nothing: the FIN that comes again is the engine's own.
    fn is_stalled(&self, is_idle: bool) -> bool {
        let is_open = !self.is_connecting() && self.socket().state() != SocketState::LastAck;
        let waits = is_open && self.socket().send_queue() > 0;
        waits && (self.sent.is_shut || is_idle) || is_idle && self.is_fin_left()
    }

    /// True when all that we sent is acknowledged but the FIN.
    fn is_fin_left(&self) -> bool {
        use SocketState::{Closing, FinWait1, LastAck};
        let socket = self.socket();
        matches!(socket.state(), FinWait1 | Closing | LastAck)
            && socket.send_queue() == 0
            && self.sent.next == self.sent.acked.wrapping_add(1)
    }

    /// Sends answers that were kept and segments that are the engine's own.
    fn send_own(&mut self, sink: &mut impl Sink) -> bool {
        if self.answer.is_none() && self.owed == Owed::default() {
            return true;
        }
        while let Some(answer) = self.answer.filter(|_| self.answers > 0) {
            if !sink.has_room() {
                return false;
            }
            sink.packet(answer.bytes().len(), None, |packet| packet.copy_from_slice(answer.bytes()));
            self.answers -= 1;
        }
        self.answer = None;
        let Sent { next, acked, .. } = self.sent;
        let Owed { ack, probe, reset } = self.owed;
        // What it has had already, so that it must answer; or the FIN, which it must answer too.
        let (asking, asked) = match self.is_fin_left() {
            true => (TcpControl::Fin, acked),
            false => (TcpControl::None, acked.wrapping_sub(1)),
        };
        for (is_owed, control, seq) in [
            (ack && !reset, TcpControl::None, next),
            (probe && !reset, asking, asked),
            (reset, TcpControl::Rst, next),
        ] {
            if is_owed && !self.send_made(sink, control, seq) {
                return false;
            }
        }
        self.owed = Owed::default();
        true
    }

    fn send_made(&mut self, sink: &mut impl Sink, control: TcpControl, seq: u32) -> bool {
        let room = sink.has_room();
        if room {
            let repr = bare(&self.ends, control, seq, Some(self.expects()), self.window());
            sink.packet(segment::len(&self.ends, &repr), None, |packet| {
                segment::emit(&self.ends, &repr, packet);
            });
        }
        room
    }

    pub(in crate::tcp::smoltcp) fn due(
        &mut self,
        interface: &mut Interface,
        now: Instant,
    ) -> Option<Instant> {
        let Owed { ack, probe, reset } = self.owed;
        if self.answer.is_some() || ack || probe || reset {
            return Some(now);
        }
        if self.over.is_some() {
            return None;
        }
        let engine = interface.poll_at(moment(now), &self.set);
        let engine = engine.map(|at| Instant::from_ns(at.total_micros().max(0) as u64 * 1000));
        let given_up = self.asked_at.map(|at| after(at, UNANSWERED_MS));
        [engine, given_up, self.probe_at(engine.is_none())].into_iter().flatten().min().map(|at| at.max(now))
    }
}

const TCP_HEADER: usize = 20;
