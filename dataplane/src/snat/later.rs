//! First packets that wait until every worker gives ports by the same rule: a matter of milliseconds after an apply.
//!
//! ```text
//!   no port, and some worker still goes by the rule before ─▶ waits, 256 of them ─▶ decided about again
//! ```
//!
//! Who finds no room, and the first fragment of a packet, is dropped and not refused: a client's SYN comes again.

use std::collections::VecDeque;

use crate::config::ids::PortId;
use crate::frame::Frame;
use crate::outgoing::Outgoing;
use crate::pipeline::Pipeline;

/// The packets of one worker that wait.
pub(crate) struct Later {
    frames: VecDeque<(PortId, Frame)>,
}

impl Default for Later {
    fn default() -> Self {
        Self { frames: VecDeque::with_capacity(FRAMES_MAX) }
    }
}

impl Later {
    /// Has a packet wait. False when there is no room.
    pub(crate) fn put(&mut self, port: PortId, frame: Frame) -> bool {
        let has_room = self.frames.len() < FRAMES_MAX;
        if has_room {
            self.frames.push_back((port, frame));
        }
        has_room
    }

    fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }
}

impl Pipeline {
    /// Goes on with giving ports other owners, and with the packets that wait for that. True while there is more.
    #[inline(always)]
    pub(crate) fn settle_owners(&mut self, out: &mut Outgoing) -> bool {
        if !self.snat.is_changing() && self.later.is_empty() {
            return false;
        }
        self.go_on_settling(out)
    }

    #[cold]
    fn go_on_settling(&mut self, out: &mut Outgoing) -> bool {
        let more = self.snat.is_changing() && self.snat.go_on_changing();
        if !more && !self.later.is_empty() && self.snat.is_settled() {
            for _ in 0..FRAMES_A_TURN.min(self.later.frames.len()) {
                let Some((port, frame)) = self.later.frames.pop_front() else { break };
                self.process_stray(port, frame, out);
            }
            self.handoff.wake_others();
        }
        more || !self.later.is_empty()
    }
}

/// Packets that wait at most.
const FRAMES_MAX: usize = 256;
/// Decided about in a turn.
const FRAMES_A_TURN: usize = 32;
