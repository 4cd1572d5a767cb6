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

mod entry;

use hashbrown::HashMap;
use sluice_ffi::memory::{Backing, Slab};

use crate::clock::Instant;
use crate::config::ids::PortId;
use crate::frame::Frame;
use crate::packet::fragment::Fragment;
use crate::verdict::DropReason;

use self::entry::{Entry, PacketKey, Place, transport_in};
pub use self::entry::{Transport, Way};

/// An entry's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntryId(u32);

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
            entry.has_hole = 1;
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
    /// [`DropReason::FragmentsFull`] when as many are held for that as may, or one of these found no room before; the
    /// packet is lost.
    pub fn keep_parts(&mut self, id: EntryId) -> Result<(), DropReason> {
        let (count, bytes) = self.waiting_of(id.0);
        let parts = (self.parts.0 + count, self.parts.1 + bytes);
        if exceeds_parts(parts) || self.entries[id.0 as usize].has_hole != 0 {
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

fn exceeds_parts((count, bytes): (usize, usize)) -> bool {
    count > PARTS_MAX.0 || bytes > PARTS_MAX.1
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
const UNKNOWN: u8 = 1;
const KNOWN: u8 = 2;
const RUINED: u8 = 3;
const REFUSED: u8 = 4;
const PARTS: u8 = 5;
const CROWDED_OUT: u8 = 6;

#[cfg(test)]
mod tests;
