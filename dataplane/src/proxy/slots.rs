//! Where the proxies of one worker are, and which of them have something to do.

use super::{Layer, Proxy};

/// Places for proxies, each in memory that is used again.
pub(crate) struct Slots {
    places: Vec<Option<Box<Proxy>>>,
    free: Vec<u32>,
    ready: Vec<u32>,
    /// Memory of proxies that are gone, for the next: one goes and one comes with every request.
    #[expect(clippy::vec_box, reason = "a place takes the box, not what is in it")]
    spare: Vec<Box<Proxy>>,
    len: usize,
    capacity: usize,
}

/// With room for what usually has something to do in one turn; it grows as far as there are proxies.
pub(crate) fn ready_list(capacity: usize) -> Vec<u32> {
    Vec::with_capacity(capacity.min(READY_USUAL))
}

impl Slots {
    /// For `capacity` proxies.
    pub(crate) fn new(capacity: usize) -> Self {
        let (spare, ready) = (Vec::with_capacity(SPARE_MAX), ready_list(capacity));
        Self { places: Vec::new(), free: Vec::new(), ready, spare, len: 0, capacity }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// How many places have ever been used: all proxies are below.
    pub(crate) fn end(&self) -> u32 {
        self.places.len() as u32
    }

    /// True when there is no room for another.
    pub(crate) fn is_full(&self) -> bool {
        self.len >= self.capacity
    }

    /// A place for `proxy`, whose number is written into it; none when full.
    pub(crate) fn insert(&mut self, mut proxy: Proxy) -> Option<u32> {
        if self.is_full() {
            return None;
        }
        let slot = self.free.pop().unwrap_or_else(|| {
            self.places.push(None);
            self.places.len() as u32 - 1
        });
        proxy.slot = slot;
        self.places[slot as usize] = Some(match self.spare.pop() {
            Some(mut spare) => {
                *spare = proxy;
                spare
            }
            None => Box::new(proxy),
        });
        self.len += 1;
        Some(slot)
    }

    /// The proxy at a place.
    pub(crate) fn at(&self, slot: u32) -> Option<&Proxy> {
        self.places.get(slot as usize)?.as_deref()
    }

    /// The proxy at a place, to be changed.
    pub(crate) fn at_mut(&mut self, slot: u32) -> Option<&mut Proxy> {
        self.places.get_mut(slot as usize)?.as_deref_mut()
    }

    /// Takes a proxy out for its step; [`Slots::put`] or [`Slots::forget`] follows.
    pub(crate) fn take(&mut self, slot: u32) -> Option<Box<Proxy>> {
        self.places.get_mut(slot as usize)?.take()
    }

    /// Puts it back.
    pub(crate) fn put(&mut self, proxy: Box<Proxy>) {
        let slot = proxy.slot as usize;
        self.places[slot] = Some(proxy);
    }

    /// A proxy that was taken out does not come back.
    pub(crate) fn forget(&mut self, mut proxy: Box<Proxy>) {
        self.free.push(proxy.slot);
        self.len -= 1;
        if self.spare.len() < SPARE_MAX {
            (proxy.layer, proxy.tlvs) = (Layer::Closing(0), None);
            self.spare.push(proxy);
        }
    }

    /// Something has happened that every proxy must see. O(places).
    #[cold]
    pub(crate) fn wake_all(&mut self) {
        (0..self.end()).for_each(|slot| self.wake(slot));
    }

    /// Something has happened that the proxy must see.
    pub(crate) fn wake(&mut self, slot: u32) {
        let Some(proxy) = self.places.get_mut(slot as usize).and_then(Option::as_deref_mut) else { return };
        if !std::mem::replace(&mut proxy.is_ready, true) {
            self.ready.push(slot);
        }
    }

    /// The next one with something to do, in the order of waking.
    pub(crate) fn take_ready(&mut self, into: &mut Vec<u32>) {
        std::mem::swap(&mut self.ready, into);
    }

    /// True when some proxy has something to do.
    pub(crate) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }
}

/// Each keeps a profile alive that may be an old one.
const SPARE_MAX: usize = 256;
/// Ready in one turn without an allocation.
const READY_USUAL: usize = 1_024;
