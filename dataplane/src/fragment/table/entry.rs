//! What has come of one packet: a bit for each 8 bytes seen and for each place where a fragment begins.

use bytemuck::Zeroable;

use crate::address::Address;
use crate::packet::fragment::Fragment;
use crate::packet::parse::protocol;

/// What the fragments of one packet have in common (RFC 791 section 3.2). Over IPv6 the next header of a later
/// fragment says nothing (RFC 8200 section 4.5), so that the protocol is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Zeroable)]
#[repr(C)]
pub(super) struct PacketKey {
    src: Address,
    dst: Address,
    id: u32,
    protocol: u8,
}

impl PacketKey {
    pub(super) fn of(fragment: &Fragment) -> Self {
        let key = &fragment.packet.key;
        let protocol = if key.src.is_v4() { key.protocol } else { 0 };
        Self { src: key.src, dst: key.dst, id: fragment.id, protocol }
    }
}

/// What the first fragment tells about its packet and no other does. Over IPv6 that goes for the protocol too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Zeroable)]
#[repr(C)]
pub struct Transport {
    /// The source port, or the identifier of an echo request; 0 where the protocol has none.
    pub src_port: u16,
    /// The destination port, or the identifier of an echo reply.
    pub dst_port: u16,
    /// The protocol.
    pub protocol: u8,
}

/// One packet.
#[derive(Debug, Clone, Copy, Zeroable)]
#[repr(C)]
pub(super) struct Entry {
    pub(super) key: PacketKey,
    pub(super) state: u8,
    pub(super) has_new_id: u8,
    /// 1 when a fragment that is marked as seen is gone, so that the packet cannot be put together any more.
    pub(super) has_hole: u8,
    pub(super) transport: Transport,
    pub(super) new_id: u32,
    /// Where the first fragment went, for a packet without a flow.
    pub(super) way: Way,
    pub(super) last_news_ms: u32,
    /// Ids + 1; 0 is none.
    pub(super) previous: u32,
    pub(super) next: u32,
    /// Length of the whole payload in bytes; 0 until the last fragment has come.
    pub(super) total: u32,
    pub(super) units_seen: u32,
    /// Places + 1 in the list of what waits; 0 is none.
    pub(super) first_waiting: u16,
    pub(super) last_waiting: u16,
    pub(super) waiting: u16,
    pub(super) seen: Bits,
    pub(super) starts: Bits,
}

const _: () = assert!(size_of::<Entry>() == 2_160, "docs/LIMITS.md says so");

/// Where the fragments of a packet without a flow go: all to one member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Zeroable)]
#[repr(C)]
pub struct Way {
    /// The member's address; unspecified when none is known.
    pub address: Address,
    /// The member.
    pub member: u32,
    /// Its port.
    pub port: u16,
}

/// One bit for each 8 bytes of a packet's payload.
type Bits = [u64; 128];

/// What a fragment is to those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    New,
    Duplicate,
    Overlap,
}

impl Entry {
    /// Compares a fragment with those that have come. Parts of it that are exactly a fragment seen before are a
    /// duplicate, which is no fault (RFC 8200 section 4.5); anything else in common is.
    pub(super) fn place(&self, fragment: &Fragment) -> Place {
        let (start, end) = units(fragment);
        let beyond = self.total != 0 && fragment.end() > self.total;
        let ends_elsewhere = !fragment.more && self.total != 0 && fragment.end() != self.total;
        let ends_early = !fragment.more && self.total == 0 && count(&self.seen, end, UNITS) != 0;
        if beyond || ends_elsewhere || ends_early {
            return Place::Overlap;
        }
        match count(&self.seen, start, end) {
            0 => Place::New,
            seen if seen == end - start && self.is_fragment(fragment, start, end) => Place::Duplicate,
            _ => Place::Overlap,
        }
    }

    /// True when one fragment has covered just these units.
    fn is_fragment(&self, fragment: &Fragment, start: u32, end: u32) -> bool {
        let ends_here = count(&self.seen, end, end + 1) == 0 || count(&self.starts, end, end + 1) == 1;
        let same_kind = fragment.more != (self.total == fragment.end());
        count(&self.starts, start, start + 1) == 1
            && count(&self.starts, start, end) == 1
            && ends_here
            && same_kind
    }

    pub(super) fn is_whole(&self) -> bool {
        self.total != 0 && self.units_seen == self.total.div_ceil(8)
    }

    pub(super) fn mark(&mut self, fragment: &Fragment) {
        let (start, end) = units(fragment);
        for (word, mask) in words(start, end) {
            self.seen[word] |= mask;
        }
        for (word, mask) in words(start, start + 1) {
            self.starts[word] |= mask;
        }
        self.units_seen += end - start;
        if !fragment.more {
            self.total = fragment.end();
        }
    }
}

/// What a fragment itself tells: the first one's ports or identifier, and none where the protocol of an IPv4 packet has
/// neither.
pub(super) fn transport_in(fragment: &Fragment) -> Option<Transport> {
    let key = &fragment.packet.key;
    let has_ports = matches!(key.protocol, protocol::TCP | protocol::UDP | protocol::ICMP);
    (fragment.is_first() || (key.src.is_v4() && !has_ports)).then_some(Transport {
        src_port: key.src_port,
        dst_port: key.dst_port,
        protocol: key.protocol,
    })
}

/// Its first 8 bytes of payload and those after its last.
fn units(fragment: &Fragment) -> (u32, u32) {
    (fragment.offset / 8, fragment.end().div_ceil(8))
}

fn count(bits: &Bits, start: u32, end: u32) -> u32 {
    words(start, end.min(UNITS)).map(|(word, mask)| (bits[word] & mask).count_ones()).sum()
}

/// The words that hold the bits from `start` to before `end`, and which bits of them.
fn words(start: u32, end: u32) -> impl Iterator<Item = (usize, u64)> {
    let last = end.div_ceil(64).max(start / 64);
    (start / 64..last).map(move |word| {
        let (low, high) = (start.max(word * 64) - word * 64, end.min(word * 64 + 64) - word * 64);
        (word as usize, (u64::MAX >> (64 - (high - low))) << low)
    })
}

const UNITS: u32 = 8_192;
