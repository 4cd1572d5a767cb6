//! ICMP messages in fragments that we have to read as a whole: pings to us, and errors about our flows.
//!
//! ```text
//!   first ─▶ a ping to us, or an error ─▶ all parts wait ─▶ one frame ─▶ decided about like any other packet
//!                                          128 frames,                     └▶ what is too big for its way out: cut
//!                                          256 KiB, 2 s from the first
//! ```
//!
//! Nothing else is put together. What overlaps is dropped (RFC 5722; RFC 8200 section 4.5), IPv4 too.

use super::table::EntryId;
use crate::config::ids::{PortId, VirtualId};
use crate::flow::key::FlowKey;
use crate::frame::Frame;
use crate::outgoing::Outgoing;
use crate::packet::fragment::{self, Fragment, Whole};
use crate::packet::parse::protocol;
use crate::pipeline::{Fate, Pipeline};
use crate::verdict::DropReason;

impl Pipeline {
    /// Keeps the first fragment of a packet that is to be put together.
    pub(super) fn keep_first_part(&mut self, id: EntryId, port: PortId, frame: Frame, out: &mut Outgoing) {
        match self.fragments.keep_parts(id) {
            Ok(()) => self.keep_part(id, port, frame, out),
            Err(reason) => {
                self.count_lost_fragments();
                self.count_drop(reason, VirtualId::NONE);
            }
        }
    }

    /// Keeps any fragment of such a packet, and decides about the packet if it was the last that missed.
    pub(super) fn keep_part(&mut self, id: EntryId, port: PortId, frame: Frame, out: &mut Outgoing) {
        if let Err(reason) = self.fragments.hold(id, port, frame) {
            self.count_lost_fragments();
            return self.count_drop(reason, VirtualId::NONE);
        }
        let Some(payload) = self.fragments.whole_len(id) else { return };
        let whole = self.put_together(id, payload);
        self.fragments.forget_if_whole(id);
        match whole {
            Some((port, frame)) => self.process_stray(port, frame, out),
            None => self.count_drop(DropReason::NoFrame, VirtualId::NONE),
        }
    }

    /// The packet, and the port that its first fragment came by, whose link header it has.
    fn put_together(&mut self, id: EntryId, payload: u32) -> Option<(PortId, Frame)> {
        let (mut whole, mut came_by) = (Whole::new(payload, &self.frames), None);
        while let Some((port, frame)) = self.fragments.take_waiting(id) {
            let fragment = self.read_fragment(port, &frame).ok();
            came_by = came_by.or(fragment.filter(Fragment::is_first).map(|_| port));
            whole = whole.zip(fragment).and_then(|(mut whole, fragment)| {
                whole.put(&fragment, frame.bytes())?;
                Some(whole)
            });
        }
        came_by.zip(whole?.finish())
    }

    /// What becomes of an ICMP message that is larger than the MTU of the way that `fate` sends it: it is cut, as we are
    /// its source for whoever receives it. `before` is the packet that it was made of. Over IPv6 no piece is larger than
    /// what every link can carry, since nobody learns the path's MTU here (RFC 8200 section 5).
    #[inline]
    pub(crate) fn cut_to_fit(
        &mut self,
        fate: Fate,
        frame: &mut Frame,
        before: &FlowKey,
        out: &mut Outgoing,
    ) -> Fate {
        let Fate::Send(to) = fate else { return fate };
        let mtu = self.ports[usize::from(to.0)].mtu;
        let fits = frame.len() <= fragment::network_start(frame.bytes()) + usize::from(mtu);
        if fits { fate } else { self.send_cut(to, mtu, frame, before, out) }
    }

    #[cold]
    fn send_cut(
        &mut self,
        to: PortId,
        mtu: u16,
        frame: &mut Frame,
        before: &FlowKey,
        out: &mut Outgoing,
    ) -> Fate {
        if before.src.is_v4() {
            self.give_id(frame, before);
            return self.send_in_pieces(frame, to, mtu, VirtualId::NONE, out);
        }
        let Some((src, dst)) = fragment::addresses(frame.bytes()) else {
            return self.dropped(DropReason::Malformed, VirtualId::NONE);
        };
        let id = self.identifications.next(src, dst, protocol::ICMPV6);
        if !fragment::add_header_v6(frame, id) {
            return self.dropped(DropReason::NoFrame, VirtualId::NONE);
        }
        self.send_in_pieces(frame, to, mtu.min(MTU_MIN_V6), VirtualId::NONE, out)
    }
}

const MTU_MIN_V6: u16 = 1_280;
