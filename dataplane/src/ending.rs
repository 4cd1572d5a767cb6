//! The end of a drain: what is still open is ended, and both ends of it are told, before the process goes.
//!
//! ```text
//!   drain ─▶ no new connections … ─▶ end ─▶ flows, a slice a turn ─▶ proxies, a slice a turn ─▶ over
//! ```
//!
//! TCP ends with a RST to both sides. A UDP flow is forgotten: its datagrams may find their way without us.

use crate::flow::Flow;
use crate::outgoing::Outgoing;
use crate::packet::parse::protocol;
use crate::pipeline::Pipeline;

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Ending {
    /// Connections may go on.
    #[default]
    NotYet,
    /// The flows from this place on are still to be ended.
    Flows(usize),
    /// The proxies from this place on are still to be ended.
    Proxies(u32),
    /// Nothing is left to be ended; RSTs that found no room still go out.
    Over,
}

impl Pipeline {
    /// Begins to end every connection. Once it has begun it goes on.
    #[cold]
    pub(crate) fn end_all(&mut self) {
        self.drain();
        if self.ending == Ending::NotYet {
            self.ending = Ending::Flows(0);
        }
    }

    /// Ends a slice of what is open. True while there is more to look at.
    #[inline]
    pub(crate) fn end_some(&mut self, out: &mut Outgoing) -> bool {
        match self.ending {
            Ending::NotYet | Ending::Over => return false,
            Ending::Flows(place) => self.ending = self.end_flows(place, out),
            Ending::Proxies(place) => self.ending = self.end_proxies(place),
        }
        true
    }

    #[cold]
    fn end_flows(&mut self, place: usize, out: &mut Outgoing) -> Ending {
        // Nobody is left untold because a driver is slow.
        let count = ENDED_A_TURN.min(out.room() / 2);
        if count == 0 {
            return Ending::Flows(place);
        }
        let (ids, next) = self.flows.page(place, count);
        for id in ids {
            let Some(flow) = self.flows.get(id).copied() else { continue };
            if is_open(&flow) {
                self.reset_both(&flow, out);
            }
            self.close(id);
        }
        next.map_or(Ending::Proxies(0), Ending::Flows)
    }

    #[cold]
    fn end_proxies(&mut self, place: u32) -> Ending {
        let end = self.proxies.slots.end();
        let last = place.saturating_add(ENDED_A_TURN as u32).min(end);
        (place..last).for_each(|slot| self.end_proxy(slot));
        if last < end { Ending::Proxies(last) } else { Ending::Over }
    }
}

/// True when somebody still counts on it.
fn is_open(flow: &Flow) -> bool {
    flow.protocol == protocol::TCP && !flow.tcp_state().is_over()
}

/// Flows or proxies ended in one turn of the loop. A flow has a RST for either side.
const ENDED_A_TURN: usize = 64;
