//! ICMP errors about packets of ours: a smaller path, or a member that cannot be reached.

use crate::frame::Frame;
use crate::packet::icmp::Quoted;
use crate::packet::parse::Packet;
use crate::pipeline::{Fate, Pipeline};
use crate::tcp::{Engine, State};
use crate::verdict::DropReason;

/// What an error says, as far as TCP acts on it.
enum News {
    /// The path takes packets of this size at most (RFC 1191, RFC 8201).
    Mtu(u16),
    /// Nobody is there (RFC 9293 section 3.9.2.2).
    Unreachable,
    /// Nothing to act on.
    Other,
}

impl Pipeline {
    /// An error about a packet of a proxied connection. Who knows no sequence number that is under way is not believed
    /// (RFC 5927 section 4.1).
    #[cold]
    pub(crate) fn proxy_error(
        &mut self,
        index: u32,
        frame: &Frame,
        packet: &Packet,
        quoted: &Quoted,
    ) -> Fate {
        let Some(end) = self.proxies.ends.at(index).copied() else { return Fate::Done };
        let Some(seq) = quoted.sequence(frame.bytes()) else {
            return self.dropped(DropReason::IcmpUnmatched, end.virtual_id);
        };
        let engine = &mut self.proxies.engine;
        let state = engine.state(end.conn);
        let behind = engine.numbers(end.conn).0.wrapping_sub(seq) as usize;
        if behind > engine.unacknowledged(end.conn) + 1 {
            return self.dropped(DropReason::IcmpUnmatched, end.virtual_id);
        }
        match news_of(frame, packet) {
            News::Mtu(mtu) => {
                if let Some(end) = self.proxies.ends.at_mut(index) {
                    end.path_mtu = end.path_mtu.min(mtu);
                }
            }
            News::Unreachable if state == State::Connecting => {
                engine.abort(end.conn);
                self.proxies.slots.wake(end.slot);
            }
            News::Unreachable | News::Other => {}
        }
        self.counters.icmp_errors.add(1);
        Fate::Done
    }
}

fn news_of(frame: &Frame, packet: &Packet) -> News {
    let message = frame.bytes().get(usize::from(packet.l4)..).and_then(|bytes| bytes.first_chunk::<8>());
    let Some(&[kind, code, _, _, a, b, c, d]) = message else { return News::Other };
    match (packet.key.src.is_v4(), kind, code) {
        (true, 3, 4) => News::Mtu(u16::from_be_bytes([c, d]).max(MTU_MIN_V4)),
        (false, 2, _) => {
            let mtu = u32::from_be_bytes([a, b, c, d]).clamp(u32::from(MTU_MIN_V6), u32::from(u16::MAX));
            News::Mtu(mtu as u16)
        }
        (true, 3, _) | (false, 1, _) => News::Unreachable,
        _ => News::Other,
    }
}

/// Below this nobody is believed: smaller packets cost more than they are worth (RFC 1191 section 3).
const MTU_MIN_V4: u16 = 552;
/// RFC 8200 section 5.
const MTU_MIN_V6: u16 = 1280;
