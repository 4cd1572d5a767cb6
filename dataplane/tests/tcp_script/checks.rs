//! What must hold of everything that the engine sends.

use sluice_dataplane::tcp::{Agreed, Announced, EngineSpec, Sink};

use super::super::packet::{ACK, FIN, RST, SYN, Tcp};
use super::byte;

/// What was sent so far, and what may be.
pub struct Checks {
    /// The largest payload of a segment.
    mss: usize,
    mtu: usize,
    send_buffer: usize,
    pub receive_buffer: u32,
    /// By how much the engine's windows are shifted.
    scale: u8,
    /// The end of what was sent, its FIN included.
    pub sent: u32,
    /// The end of the largest window that the peer may have offered.
    pub edge: u32,
    /// What was acknowledged, and where the engine's window ended.
    told: (u32, u32),
}

impl Checks {
    pub fn new(announced: &Announced, agreed: &Agreed, spec: EngineSpec, is_v4: bool) -> Self {
        let mtu = usize::from(spec.mtu.max(576));
        let ours = mtu - if is_v4 { 40 } else { 60 };
        Self {
            mss: ours.min(agreed.peer_mss.max(64).into()),
            mtu,
            send_buffer: spec.send_buffer,
            receive_buffer: spec.receive_buffer as u32,
            scale: agreed.peer_scale.map_or(0, |_| announced.scale),
            sent: 0,
            edge: 0,
            told: (0, 0),
        }
    }

    /// Where the peer's part of the stream ends that it may send now.
    pub fn window_end(&self) -> u32 {
        self.told.1
    }

    /// Packets of one call are no more than what waits takes, each byte once again and once for the first time.
    pub fn count(&self, packets: usize) {
        let most = 2 * (self.send_buffer / 48 + 1) + 64;
        assert!(packets <= most, "{packets} packets of {}", self.send_buffer);
    }

    pub fn size(&self, packet: &[u8], segment: Option<u16>, largest: usize, tcp: &Tcp) {
        let most = if segment.is_some() { largest } else { self.mtu };
        assert!(packet.len() <= most, "{} bytes are more than {most}", packet.len());
        let each = segment.map_or(tcp.payload.len(), usize::from);
        assert!(each <= self.mss, "{each} bytes in a segment");
        assert!(segment.is_none() || tcp.payload.len() > each, "one segment is not several");
    }

    /// A segment after the handshake; `from` is its offset, `acked` what it acknowledges.
    pub fn segment(&mut self, tcp: &Tcp, from: u32, acked: u32, written: u32) {
        if tcp.has(SYN) || tcp.has(RST) {
            assert!(tcp.payload.is_empty());
            return;
        }
        assert!(tcp.has(ACK), "{:x}", tcp.flags);
        if !tcp.payload.is_empty() || tcp.has(FIN) {
            let to = from + tcp.payload.len() as u32;
            assert!(to <= written, "{to} of {written}");
            assert!(to <= self.edge.max(self.sent), "{to} beyond {}", self.edge);
            assert!(tcp.payload.iter().zip(from..).all(|(got, at)| *got == byte(0, at)), "at {from}");
            assert!(!tcp.has(FIN) || to == written, "a FIN at {to} of {written}");
            self.sent = self.sent.max(to + u32::from(tcp.has(FIN)));
        }
        self.answer(tcp, acked);
    }

    fn answer(&mut self, tcp: &Tcp, acked: u32) {
        let edge = acked + (u32::from(tcp.window) << self.scale);
        assert!(acked >= self.told.0, "{acked} takes {} back", self.told.0);
        assert!(edge + (1 << self.scale) > self.told.1, "{edge} takes {} back", self.told.1);
        self.told = (acked, edge.max(self.told.1));
    }
}

/// A sink that keeps what it gets.
pub struct Packets {
    pub room: usize,
    pub largest: usize,
    pub packets: Vec<(Vec<u8>, Option<u16>)>,
}

impl Sink for Packets {
    fn has_room(&mut self) -> bool {
        self.packets.len() < self.room
    }

    fn largest(&self) -> usize {
        self.largest
    }

    fn packet(&mut self, len: usize, segment: Option<u16>, fill: impl FnOnce(&mut [u8])) {
        assert!(self.has_room());
        let mut packet = vec![0xa5; len];
        fill(&mut packet);
        self.packets.push((packet, segment));
    }
}
