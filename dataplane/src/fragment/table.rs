//! What has come of each fragmented packet: which bytes, and the ports once the first fragment has come.
//!
//! ```text
//!   (src, dst, id, protocol) ─▶ entry: ports, the new id, a bit for each 8 bytes seen and each fragment's start
//!                                └▶ fragments that wait for the first, or to be put together, oldest first
//! ```
//!
//! Fixed capacity. The list of entries is in order of their last news, so that the one to end is always in front: an
//! entry ends when all bytes have come, after [`LIFETIME_MS`] without news, or to make room. A packet whose fragments
//! overlap is ruined: everything of it is dropped until its entry ends (RFC 5722; RFC 1858 for IPv4).

use hashbrown::HashMap;
use sluice_ffi::memory::{Backing, Slab};

use crate::address::Address;
use crate::clock::Instant;
use crate::config::ids::PortId;
use crate::frame::Frame;
use crate::packet::fragment::Fragment;
use crate::packet::parse::protocol;
use crate::verdict::DropReason;

/// What the fragments of one packet have in common (RFC 791 section 3.2). Over IPv6 the next header of a later
/// fragment says nothing (RFC 8200 section 4.5), so that the protocol is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, bytemuck::Zeroable)]
#[repr(C)]
struct PacketKey {
    src: Address,
    dst: Address,
    id: u32,
    protocol: u8,
}

impl PacketKey {
    fn of(fragment: &Fragment) -> Self {
        let key = &fragment.packet.key;
        let protocol = if key.src.is_v4() { key.protocol } else { 0 };
        Self { src: key.src, dst: key.dst, id: fragment.id, protocol }
    }
}

/// An entry's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntryId(u32);

/// What the first fragment tells about its packet and no other does. Over IPv6 that goes for the protocol too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, bytemuck::Zeroable)]
#[repr(C)]
pub struct Transport {
    /// The source port, or the identifier of an echo request; 0 where the protocol has none.
    pub src_port: u16,
    /// The destination port, or the identifier of an echo reply.
    pub dst_port: u16,
    /// The protocol.
    pub protocol: u8,
}

/// What is to be done with a fragment that has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// The ports are known: forward it, then what [`FragmentTable::take_waiting`] gives.
    Known(EntryId),
    /// The first fragment has not come: [`FragmentTable::hold`] it.
    Early(EntryId),
    /// The packet is to be put together: [`FragmentTable::hold`] it.
    Part(EntryId),
}

/// Fragments dropped while they waited, by reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lost {
    /// The first fragment did not come in time.
    pub timeout: u64,
    /// Another fragment overlapped.
    pub overlap: u64,
    /// Their entry had to make room.
    pub full: u64,
    /// The first fragment says that the packet does not pass.
    pub refused: u64,
}

/// The table of one worker.
pub struct FragmentTable {
    index: HashMap<PacketKey, u32>,
    entries: Slab<Entry>,
    /// Ids + 1, 0 is none: the entry whose last news are oldest, the newest, and the first free one.
    oldest: u32,
    newest: u32,
    free: u32,
    /// Entries from here on have never been used.
    fresh: usize,
    waiting: Vec<Waiting>,
    waiting_free: u16,
    waiting_bytes: usize,
    /// Of those that wait, fragments of packets that are to be put together, and their bytes.
    parts: (usize, usize),
    lost: Lost,
}

/// A fragment that waits for the first of its packet.
struct Waiting {
    held: Option<(PortId, Frame)>,
    /// Place + 1; 0 is none.
    next: u16,
}

#[derive(Debug, Clone, Copy, bytemuck::Zeroable)]
#[repr(C)]
struct Entry {
    key: PacketKey,
    state: u8,
    has_new_id: u8,
    transport: Transport,
    new_id: u32,
    /// Where the first fragment went, for a packet without a flow.
    way: Way,
    last_news_ms: u32,
    /// Ids + 1; 0 is none.
    previous: u32,
    next: u32,
    /// Length of the whole payload in bytes; 0 until the last fragment has come.
    total: u32,
    units_seen: u32,
    /// Places + 1 in [`FragmentTable::waiting`]; 0 is none.
    first_waiting: u16,
    last_waiting: u16,
    waiting: u16,
    seen: Bits,
    starts: Bits,
}

const _: () = assert!(size_of::<Entry>() == 2_160, "docs/LIMITS.md says so");

/// Where the fragments of a packet without a flow go: all to one member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, bytemuck::Zeroable)]
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
enum Place {
    New,
    Duplicate,
    Overlap,
}

impl FragmentTable {
    /// Takes memory for [`PACKETS_MAX`] packets, zero pages until they are used.
    pub fn new(backing: Backing) -> Self {
        let slot =
            |at: usize| Waiting { held: None, next: if at + 1 < WAITING_MAX { at as u16 + 2 } else { 0 } };
        Self {
            index: HashMap::with_capacity(PACKETS_MAX * 2),
            entries: Slab::new(PACKETS_MAX, backing),
            oldest: 0,
            newest: 0,
            free: 0,
            fresh: 0,
            waiting: (0..WAITING_MAX).map(slot).collect(),
            waiting_free: 1,
            waiting_bytes: 0,
            parts: (0, 0),
            lost: Lost::default(),
        }
    }

    /// Takes note of a fragment. `told` is its packet's where somebody else has seen the first fragment. O(1).
    ///
    /// # Errors
    /// Why it is to be dropped: it overlaps another, has come before, or its packet was refused.
    pub fn arrive(
        &mut self,
        fragment: &Fragment,
        told: Option<Transport>,
        now: Instant,
    ) -> Result<Arrival, DropReason> {
        self.expire(now);
        let key = PacketKey::of(fragment);
        let id = self.index.get(&key).copied().unwrap_or_else(|| self.open(key, now));
        let entry = &mut self.entries[id as usize];
        match entry.state {
            RUINED => return Err(DropReason::FragmentOverlap),
            REFUSED => return Err(DropReason::Fragment),
            CROWDED_OUT => return Err(DropReason::FragmentsFull),
            _ => {}
        }
        match entry.place(fragment) {
            Place::Duplicate => return Err(DropReason::FragmentDuplicate),
            Place::Overlap => {
                self.ruin(id);
                return Err(DropReason::FragmentOverlap);
            }
            Place::New => entry.mark(fragment),
        }
        // News do not prolong it: whoever sends a packet that we have to keep sends it back to back.
        if entry.state == PARTS {
            return Ok(Arrival::Part(EntryId(id)));
        }
        if let Some(transport) = told.or_else(|| transport_in(fragment)) {
            (entry.state, entry.transport) = (KNOWN, transport);
        }
        if entry.state != KNOWN {
            return Ok(Arrival::Early(EntryId(id)));
        }
        entry.last_news_ms = now.as_ms();
        self.unlink(id);
        self.append(id);
        Ok(Arrival::Known(EntryId(id)))
    }

    /// The ports and protocol of a packet whose first fragment has come.
    pub fn transport(&self, id: EntryId) -> Transport {
        self.entries[id.0 as usize].transport
    }

    /// Where the packet's first fragment went; `None` when it has a flow, or went nowhere.
    pub fn way(&self, id: EntryId) -> Option<Way> {
        let way = self.entries[id.0 as usize].way;
        (!way.address.is_unspecified()).then_some(way)
    }

    /// Remembers where the packet's first fragment went.
    pub fn set_way(&mut self, id: EntryId, way: Way) {
        self.entries[id.0 as usize].way = way;
    }

    /// The packet's new identification: the one given before, or what `choose` says.
    pub fn new_id(&mut self, id: EntryId, choose: impl FnOnce() -> u32) -> u32 {
        let entry = &mut self.entries[id.0 as usize];
        if entry.has_new_id == 0 {
            (entry.has_new_id, entry.new_id) = (1, choose());
        }
        entry.new_id
    }

    /// Keeps a fragment that has come before the first of its packet, or that its packet is to be put together from.
    ///
    /// # Errors
    /// [`DropReason::FragmentsFull`] when as many wait as may; the frame is gone, and what was to be put together is lost.
    pub fn hold(&mut self, id: EntryId, port: PortId, frame: Frame) -> Result<(), DropReason> {
        let entry = &mut self.entries[id.0 as usize];
        let (is_part, bytes) = (entry.state == PARTS, self.waiting_bytes + frame.len());
        let parts = (self.parts.0 + 1, self.parts.1 + frame.len());
        let place = self.waiting_free;
        let is_full = place == 0 || entry.waiting >= WAITING_EACH_MAX || bytes > WAITING_BYTES_MAX;
        if is_full || (is_part && exceeds_parts(parts)) {
            if is_part {
                self.crowd_out(id.0);
            }
            return Err(DropReason::FragmentsFull);
        }
        if is_part {
            self.parts = parts;
        }
        let slot = &mut self.waiting[usize::from(place) - 1];
        self.waiting_free = slot.next;
        *slot = Waiting { held: Some((port, frame)), next: 0 };
        self.waiting_bytes = bytes;
        match entry.last_waiting {
            0 => entry.first_waiting = place,
            last => self.waiting[usize::from(last) - 1].next = place,
        }
        entry.last_waiting = place;
        entry.waiting += 1;
        Ok(())
    }

    /// The first fragment has come and says that the packet is to be put together: all of it is held from now on, for
    /// [`LIFETIME_MS`] at most.
    ///
    /// # Errors
    /// [`DropReason::FragmentsFull`] when as many are held for that as may; the packet is lost.
    pub fn keep_parts(&mut self, id: EntryId) -> Result<(), DropReason> {
        let (count, bytes) = self.waiting_of(id.0);
        let parts = (self.parts.0 + count, self.parts.1 + bytes);
        if exceeds_parts(parts) {
            self.crowd_out(id.0);
            return Err(DropReason::FragmentsFull);
        }
        self.parts = parts;
        self.entries[id.0 as usize].state = PARTS;
        Ok(())
    }

    /// The length of a packet's payload when all of it has come.
    pub fn whole_len(&self, id: EntryId) -> Option<u32> {
        let entry = &self.entries[id.0 as usize];
        entry.is_whole().then_some(entry.total)
    }

    /// The fragment of this packet that has waited longest, with the port it came from.
    pub fn take_waiting(&mut self, id: EntryId) -> Option<(PortId, Frame)> {
        self.take_first_waiting(id.0)
    }

    /// The first fragment has come, and the packet does not pass: what waits for it is lost, and so is what is still to
    /// come.
    pub fn refuse(&mut self, id: EntryId) {
        self.lost.refused += self.drop_waiting(id.0);
        self.entries[id.0 as usize].state = REFUSED;
    }

    /// Ends the entry when all bytes have come.
    pub fn forget_if_whole(&mut self, id: EntryId) {
        let entry = &self.entries[id.0 as usize];
        if entry.is_whole() && entry.waiting == 0 {
            self.close(id.0);
        }
    }

    /// Ends what has had no news for [`LIFETIME_MS`], at most [`EXPIRED_AT_ONCE`] entries.
    pub fn expire(&mut self, now: Instant) {
        for _ in 0..EXPIRED_AT_ONCE {
            let Some(id) = self.oldest.checked_sub(1) else { return };
            if now.as_ms().wrapping_sub(self.entries[id as usize].last_news_ms) < LIFETIME_MS {
                return;
            }
            self.lost.timeout += self.drop_waiting(id);
            self.close(id);
        }
    }

    /// What was dropped while it waited, since the last call.
    pub fn take_lost(&mut self) -> Lost {
        std::mem::take(&mut self.lost)
    }

    /// Packets in the table.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Bytes taken.
    pub fn bytes(&self) -> usize {
        self.entries.bytes() + self.waiting.len() * size_of::<Waiting>()
    }

    /// A new entry; the one with the oldest news makes room. Whoever sends bare fragments can end others' entries
    /// this way, but those that come back to back are through before.
    fn open(&mut self, key: PacketKey, now: Instant) -> u32 {
        if self.free == 0 && self.fresh == PACKETS_MAX && self.oldest != 0 {
            let oldest = self.oldest - 1;
            self.lost.full += self.drop_waiting(oldest);
            self.close(oldest);
        }
        let id = match self.free.checked_sub(1) {
            Some(id) => {
                self.free = self.entries[id as usize].next;
                id
            }
            None => {
                self.fresh += 1;
                self.fresh as u32 - 1
            }
        };
        let entry = &mut self.entries[id as usize];
        *entry = bytemuck::Zeroable::zeroed();
        (entry.key, entry.state, entry.last_news_ms) = (key, UNKNOWN, now.as_ms());
        self.index.insert(key, id);
        self.append(id);
        id
    }

    fn close(&mut self, id: u32) {
        self.unlink(id);
        let key = self.entries[id as usize].key;
        self.index.remove(&key);
        self.entries[id as usize].next = self.free;
        self.free = id + 1;
    }

    /// RFC 5722: the packet is lost, with what waits and what is still to come.
    fn ruin(&mut self, id: u32) {
        self.lost.overlap += self.drop_waiting(id);
        self.entries[id as usize].state = RUINED;
    }

    /// There is no room to put the packet together: it is lost like a ruined one.
    fn crowd_out(&mut self, id: u32) {
        self.lost.full += self.drop_waiting(id);
        self.entries[id as usize].state = CROWDED_OUT;
    }

    /// How many fragments of this packet wait, and their bytes.
    fn waiting_of(&self, id: u32) -> (usize, usize) {
        let slot = |place: u16| usize::from(place).checked_sub(1).and_then(|at| self.waiting.get(at));
        let first = slot(self.entries[id as usize].first_waiting);
        let all = std::iter::successors(first, |held| slot(held.next));
        let frames = all.filter_map(|waiting| waiting.held.as_ref());
        frames.fold((0, 0), |(count, bytes), (_, frame)| (count + 1, bytes + frame.len()))
    }

    fn drop_waiting(&mut self, id: u32) -> u64 {
        let mut dropped = 0;
        while self.take_first_waiting(id).is_some() {
            dropped += 1;
        }
        dropped
    }

    fn take_first_waiting(&mut self, id: u32) -> Option<(PortId, Frame)> {
        let entry = &mut self.entries[id as usize];
        let place = entry.first_waiting;
        let slot = self.waiting.get_mut(usize::from(place).checked_sub(1)?)?;
        let (port, frame) = slot.held.take()?;
        entry.first_waiting = slot.next;
        if slot.next == 0 {
            entry.last_waiting = 0;
        }
        entry.waiting -= 1;
        slot.next = self.waiting_free;
        self.waiting_free = place;
        self.waiting_bytes -= frame.len();
        if entry.state == PARTS {
            self.parts = (self.parts.0 - 1, self.parts.1 - frame.len());
        }
        Some((port, frame))
    }

    fn append(&mut self, id: u32) {
        let newest = self.newest;
        let entry = &mut self.entries[id as usize];
        (entry.previous, entry.next) = (newest, 0);
        match newest.checked_sub(1) {
            None => self.oldest = id + 1,
            Some(newest) => self.entries[newest as usize].next = id + 1,
        }
        self.newest = id + 1;
    }

    fn unlink(&mut self, id: u32) {
        let Entry { previous, next, .. } = self.entries[id as usize];
        match previous.checked_sub(1) {
            None => self.oldest = next,
            Some(previous) => self.entries[previous as usize].next = next,
        }
        match next.checked_sub(1) {
            None => self.newest = previous,
            Some(next) => self.entries[next as usize].previous = previous,
        }
    }
}

impl Entry {
    /// Compares a fragment with those that have come. Parts of it that are exactly a fragment seen before are a
    /// duplicate, which is no fault (RFC 8200 section 4.5); anything else in common is.
    fn place(&self, fragment: &Fragment) -> Place {
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

    fn is_whole(&self) -> bool {
        self.total != 0 && self.units_seen == self.total.div_ceil(8)
    }

    fn mark(&mut self, fragment: &Fragment) {
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
fn transport_in(fragment: &Fragment) -> Option<Transport> {
    let key = &fragment.packet.key;
    let has_ports = matches!(key.protocol, protocol::TCP | protocol::UDP | protocol::ICMP);
    (fragment.is_first() || (key.src.is_v4() && !has_ports)).then_some(Transport {
        src_port: key.src_port,
        dst_port: key.dst_port,
        protocol: key.protocol,
    })
}

fn exceeds_parts((count, bytes): (usize, usize)) -> bool {
    count > PARTS_MAX.0 || bytes > PARTS_MAX.1
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

/// Packets in the table at once.
pub const PACKETS_MAX: usize = 1_024;
/// Fragments that wait, of all packets.
pub const WAITING_MAX: usize = 256;
/// Fragments that wait, of one packet: a packet of 64 KiB in fragments of 1,280 bytes whose first comes last.
pub const WAITING_EACH_MAX: u16 = 64;
/// Bytes of frames that wait.
pub const WAITING_BYTES_MAX: usize = 512 * 1024;
/// Fragments that wait to be put together, of all packets, and their bytes: half of the above, so that whoever sends
/// such packets leaves room for those that only pass through.
pub const PARTS_MAX: (usize, usize) = (WAITING_MAX / 2, WAITING_BYTES_MAX / 2);
/// How long an entry lives without news. Fragments leave their sender back to back, so what is not there after two
/// seconds was lost; a receiver may wait for 15 s (RFC 791) or 60 s (RFC 8200) because it loses the packet otherwise,
/// but whoever only forwards would lend its memory to anybody who sends half a packet.
pub const LIFETIME_MS: u32 = 2_000;

const EXPIRED_AT_ONCE: usize = 16;
const UNITS: u32 = 8_192;
const UNKNOWN: u8 = 1;
const KNOWN: u8 = 2;
const RUINED: u8 = 3;
const REFUSED: u8 = 4;
const PARTS: u8 = 5;
const CROWDED_OUT: u8 = 6;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::FramePool;
    use crate::packet::build::address;
    use crate::packet::parse::{Class, Packet};

    fn table() -> FragmentTable {
        FragmentTable::new(Backing::Ordinary)
    }

    /// A UDP fragment of packet `id`, with ports when it is the first.
    fn piece(id: u32, offset: u32, len: u32, more: bool) -> Fragment {
        let mut packet = Packet { class: Class::Fragment, ..Packet::BLANK };
        packet.key.src = address("198.51.100.7");
        packet.key.dst = address("192.0.2.100");
        packet.key.protocol = protocol::UDP;
        if offset == 0 {
            (packet.class, packet.key.src_port, packet.key.dst_port) = (Class::Udp, 4_000, 53);
        }
        Fragment { packet, id, offset, len, more }
    }

    fn transport(src_port: u16, dst_port: u16) -> Transport {
        Transport { src_port, dst_port, protocol: protocol::UDP }
    }

    fn at(ms: u64) -> Instant {
        Instant::from_ms(ms)
    }

    fn known(arrival: Result<Arrival, DropReason>) -> EntryId {
        match arrival {
            Ok(Arrival::Known(id)) => id,
            other => panic!("{other:?}"),
        }
    }

    fn early(arrival: Result<Arrival, DropReason>) -> EntryId {
        match arrival {
            Ok(Arrival::Early(id)) => id,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn later_fragments_have_the_ports_of_the_first_and_a_whole_packet_is_forgotten() {
        let mut table = table();
        for (offset, more) in [(0, true), (1_480, true), (2_960, false)] {
            let id = known(table.arrive(&piece(1, offset, 1_480, more), None, at(0)));
            assert_eq!(table.transport(id), transport(4_000, 53));
            assert_eq!(table.new_id(id, || 77), 77);
            assert_eq!(table.new_id(id, || 78), 77, "one id for the whole packet");
            table.forget_if_whole(id);
        }
        assert!(table.is_empty());
    }

    #[test]
    fn fragments_before_the_first_wait_in_order() {
        let (mut table, pool) = (table(), FramePool::new(4));
        for (order, offset) in [2_960, 1_480].into_iter().enumerate() {
            let id = early(table.arrive(&piece(1, offset, 1_480, offset == 1_480), None, at(0)));
            table.hold(id, PortId(order as u8), pool.copy_of(&[0; 60]).unwrap()).unwrap();
        }
        let id = known(table.arrive(&piece(1, 0, 1_480, true), None, at(5)));
        table.forget_if_whole(id);
        let ports: Vec<_> = std::iter::from_fn(|| table.take_waiting(id)).map(|(port, _)| port.0).collect();
        assert_eq!((ports, pool.in_use()), (vec![0, 1], 0));
        table.forget_if_whole(id);
        assert!(table.is_empty());
    }

    #[test]
    fn ports_may_be_told_by_who_has_seen_the_first() {
        let id = known(table().arrive(&piece(1, 1_480, 1_480, true), Some(transport(1, 2)), at(0)));
        assert_eq!(id, EntryId(0));
    }

    #[test]
    fn any_overlap_ruins_the_packet_until_it_is_forgotten() {
        type Pieces = &'static [(u32, u32, bool)];
        let cases: &[(&str, Pieces)] = &[
            ("teardrop: the second within the first", &[(0, 48, true), (24, 8, true)]),
            ("the tail of the first again", &[(0, 48, true), (40, 16, true)]),
            ("two in one", &[(0, 16, true), (16, 16, true), (0, 32, true)]),
            ("half of one", &[(0, 32, true), (0, 16, true)]),
            ("the second half of one", &[(0, 32, true), (16, 16, true)]),
            ("beyond the end", &[(0, 16, true), (16, 13, false), (32, 8, true)]),
            ("a second end", &[(0, 16, true), (16, 13, false), (32, 8, false)]),
            ("an end before what has come", &[(0, 16, true), (64, 16, true), (16, 8, false)]),
            ("another length of the last", &[(0, 16, true), (16, 13, false), (16, 12, false)]),
            ("the last goes on", &[(0, 16, true), (16, 16, false), (16, 16, true)]),
        ];
        for (name, pieces) in cases {
            let mut table = table();
            let (last, before) = pieces.split_last().unwrap();
            for &(offset, len, more) in before {
                assert!(table.arrive(&piece(1, offset, len, more), None, at(0)).is_ok(), "{name}");
            }
            let overlap = Err(DropReason::FragmentOverlap);
            assert_eq!(table.arrive(&piece(1, last.0, last.1, last.2), None, at(0)), overlap, "{name}");
            assert_eq!(table.arrive(&piece(1, 4_000, 8, true), None, at(1)), overlap, "{name}: all of it");
            assert!(table.arrive(&piece(2, 0, 8, true), None, at(1)).is_ok(), "{name}: no other");
            assert!(table.arrive(&piece(1, 0, 8, true), None, at(2_100)).is_ok(), "{name}: it is forgotten");
        }
    }

    #[test]
    fn an_overlap_drops_what_waits() {
        let (mut table, pool) = (table(), FramePool::new(4));
        for offset in [80, 160] {
            let id = early(table.arrive(&piece(1, offset, 80, true), None, at(0)));
            table.hold(id, PortId(0), pool.copy_of(&[0; 60]).unwrap()).unwrap();
        }
        assert_eq!(table.arrive(&piece(1, 72, 16, true), None, at(0)), Err(DropReason::FragmentOverlap));
        assert_eq!(table.take_lost(), Lost { overlap: 2, ..Lost::default() });
        assert_eq!((pool.in_use(), table.take_lost()), (0, Lost::default()));
    }

    #[test]
    fn exact_duplicates_are_told_apart_from_overlaps() {
        let mut table = table();
        let all = [(0, 16, true), (16, 16, true), (32, 13, false)];
        for (offset, len, more) in all {
            assert!(table.arrive(&piece(1, offset, len, more), None, at(0)).is_ok());
        }
        for (offset, len, more) in all {
            let again = table.arrive(&piece(1, offset, len, more), None, at(0));
            assert_eq!(again, Err(DropReason::FragmentDuplicate), "{offset}");
        }
    }

    #[test]
    fn without_a_first_fragment_they_are_dropped_in_time() {
        let (mut table, pool) = (table(), FramePool::new(4));
        let id = early(table.arrive(&piece(1, 80, 80, true), None, at(1_000)));
        table.hold(id, PortId(0), pool.copy_of(&[0; 60]).unwrap()).unwrap();
        early(table.arrive(&piece(1, 160, 80, true), None, at(2_500)));
        table.expire(at(2_999));
        assert_eq!(table.take_lost().timeout, 0);
        table.expire(at(3_000));
        assert_eq!(
            (table.take_lost().timeout, pool.in_use(), table.len()),
            (1, 0, 0),
            "news do not prolong it"
        );
    }

    #[test]
    fn a_known_packet_lives_from_its_last_fragment() {
        let mut table = table();
        known(table.arrive(&piece(1, 0, 80, true), None, at(0)));
        known(table.arrive(&piece(1, 80, 80, true), None, at(1_900)));
        early(table.arrive(&piece(2, 80, 80, true), None, at(1_950)));
        known(table.arrive(&piece(1, 160, 80, true), None, at(3_800)));
        table.expire(at(4_000));
        assert_eq!(table.len(), 1, "the other was older");
    }

    #[test]
    fn what_waits_is_bounded_for_each_packet_and_in_all() {
        let (mut table, pool) = (table(), FramePool::new(1_024));
        let wait = |table: &mut FragmentTable, id: u32, offset: u32, bytes: usize| {
            let entry = early(table.arrive(&piece(id, offset, 8, true), None, at(0)));
            table.hold(entry, PortId(0), pool.copy_of(&vec![0; bytes]).unwrap())
        };
        for place in 1..=u32::from(WAITING_EACH_MAX) {
            wait(&mut table, 1, place * 8, 60).unwrap();
        }
        assert_eq!(wait(&mut table, 1, 8_000, 60), Err(DropReason::FragmentsFull));
        let left = WAITING_MAX as u32 - u32::from(WAITING_EACH_MAX);
        for id in 0..left {
            wait(&mut table, 100 + id, 8, 60).unwrap();
        }
        assert_eq!(wait(&mut table, 2, 8, 60), Err(DropReason::FragmentsFull));
        table.expire(at(9_000));
        (0..40).for_each(|_| table.expire(at(9_000)));
        assert_eq!((table.take_lost().timeout, pool.in_use()), (WAITING_MAX as u64, 0));
        for id in 0..8 {
            wait(&mut table, 500 + id, 8, 64_000).unwrap();
        }
        assert_eq!(wait(&mut table, 600, 8, 64_000), Err(DropReason::FragmentsFull), "bytes");
    }

    #[test]
    fn a_packet_to_be_put_together_waits_for_all_of_it() {
        let (mut table, pool) = (table(), FramePool::new(8));
        let hold = |table: &mut FragmentTable, id: EntryId| {
            table.hold(id, PortId(0), pool.copy_of(&[0; 60]).unwrap()).unwrap();
        };
        let id = early(table.arrive(&piece(1, 160, 13, false), None, at(0)));
        hold(&mut table, id);
        assert_eq!(known(table.arrive(&piece(1, 0, 80, true), None, at(1_000))), id);
        table.keep_parts(id).unwrap();
        hold(&mut table, id);
        assert_eq!((table.parts, table.whole_len(id)), ((2, 120), None));
        assert_eq!(table.arrive(&piece(1, 80, 80, true), None, at(2_900)), Ok(Arrival::Part(id)));
        hold(&mut table, id);
        assert_eq!(table.whole_len(id), Some(173));
        assert_eq!(std::iter::from_fn(|| table.take_waiting(id)).count(), 3);
        table.forget_if_whole(id);
        assert_eq!((table.len(), table.parts, pool.in_use()), (0, (0, 0), 0));
    }

    #[test]
    fn what_is_to_be_put_together_ends_with_an_overlap_or_with_its_time_whatever_comes() {
        for overlaps in [true, false] {
            let (mut table, pool) = (table(), FramePool::new(8));
            let id = known(table.arrive(&piece(1, 0, 80, true), None, at(0)));
            table.keep_parts(id).unwrap();
            for offset in [80, 160] {
                assert_eq!(table.arrive(&piece(1, offset, 80, true), None, at(1_900)), Ok(Arrival::Part(id)));
                table.hold(id, PortId(0), pool.copy_of(&[0; 60]).unwrap()).unwrap();
            }
            if overlaps {
                let overlap = table.arrive(&piece(1, 152, 16, true), None, at(1_950));
                assert_eq!(overlap, Err(DropReason::FragmentOverlap));
            }
            table.expire(at(2_000));
            let lost = table.take_lost();
            assert_eq!((lost.overlap, lost.timeout), if overlaps { (2, 0) } else { (0, 2) });
            assert_eq!((table.len(), table.parts, pool.in_use()), (0, (0, 0), 0));
        }
    }

    #[test]
    fn packets_to_be_put_together_leave_room_for_others() {
        let (mut table, pool) = (table(), FramePool::new(512));
        let put = |table: &mut FragmentTable, id: u32, offset: u32, bytes: usize| {
            let entry = match table.arrive(&piece(id, offset, 8, true), None, at(0))? {
                Arrival::Known(entry) => table.keep_parts(entry).map(|()| entry)?,
                Arrival::Early(entry) | Arrival::Part(entry) => entry,
            };
            table.hold(entry, PortId(0), pool.copy_of(&vec![0; bytes]).unwrap())
        };
        for id in 0..PARTS_MAX.0 as u32 {
            put(&mut table, id, 0, 60).unwrap();
        }
        let full = Err(DropReason::FragmentsFull);
        assert_eq!(put(&mut table, 1, 8, 60), full);
        assert_eq!(put(&mut table, 1, 16, 60), full, "the rest of it");
        assert_eq!(table.take_lost().full, 1, "what it had kept");
        for place in 1..=60 {
            put(&mut table, 1_000, place * 8, 60).unwrap();
        }
        assert_eq!(put(&mut table, 1_000, 0, 60), full, "what has waited would be too much");
        assert_eq!(table.take_lost().full, 60);
        table.expire(at(9_000));
        (0..40).for_each(|_| table.expire(at(9_000)));
        assert_eq!((table.len(), table.parts, pool.in_use()), (0, (0, 0), 0));
        for id in 0..4 {
            put(&mut table, id, 0, 60_000).unwrap();
        }
        assert_eq!(put(&mut table, 4, 0, 60_000), full, "bytes");
    }

    #[test]
    fn a_full_table_forgets_the_packet_with_the_oldest_news() {
        let (mut table, pool) = (table(), FramePool::new(4));
        let waits = early(table.arrive(&piece(9_999, 80, 80, true), None, at(0)));
        table.hold(waits, PortId(0), pool.copy_of(&[0; 60]).unwrap()).unwrap();
        known(table.arrive(&piece(0, 0, 80, true), None, at(0)));
        for id in 1..PACKETS_MAX as u32 {
            known(table.arrive(&piece(id, 0, 80, true), None, at(1)));
        }
        assert_eq!((table.len(), table.take_lost().full, pool.in_use()), (PACKETS_MAX, 1, 0));
        known(table.arrive(&piece(0, 80, 80, true), None, at(2)));
        known(table.arrive(&piece(7_000, 0, 80, true), None, at(3)));
        known(table.arrive(&piece(0, 160, 80, true), None, at(4)));
        early(table.arrive(&piece(1, 80, 80, true), None, at(5)));
    }

    #[test]
    fn protocols_and_families_keep_their_ids_apart() {
        let mut table = table();
        known(table.arrive(&piece(1, 0, 80, true), None, at(0)));
        let mut other = piece(1, 80, 80, true);
        other.packet.key.protocol = protocol::TCP;
        early(table.arrive(&other, None, at(0)));
        let mut portless = piece(2, 80, 80, true);
        portless.packet.key.protocol = 47;
        let id = known(table.arrive(&portless, None, at(0)));
        assert_eq!(table.transport(id), Transport { protocol: 47, ..transport(0, 0) });
    }

    #[test]
    fn any_order_of_any_cut_is_whole_exactly_at_the_end() {
        for seed in 0..200u64 {
            let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
            let mut next = |below: u64| {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                random % below
            };
            let total = 64 + next(60_000) as u32;
            let mut pieces = Vec::new();
            let mut offset = 0;
            while offset < total {
                let len = (8 + next(2_000) as u32 / 8 * 8).min(total - offset);
                pieces.push(piece(seed as u32, offset, len, offset + len < total));
                offset += len;
            }
            for at in (1..pieces.len()).rev() {
                pieces.swap(at, next(at as u64 + 1) as usize);
            }
            let mut table = table();
            for (place, fragment) in pieces.iter().enumerate() {
                let id = known(table.arrive(fragment, Some(transport(1, 2)), at(0)));
                table.forget_if_whole(id);
                assert_eq!(table.is_empty(), place + 1 == pieces.len(), "seed {seed}");
            }
        }
    }
}
