//! Connections to members that wait for another request (tmsh: OneConnect).
//!
//! A member is chosen for every request as for a connection; what waits to it is taken before another is opened. The one
//! that waited last is taken first, so that those too many end by their age.

use hashbrown::HashMap;

use super::{Layer, Peer, Proxy};
use crate::address::{Address, Prefix};
use crate::config::ids::{MemberId, VirtualId};
use crate::config::proxy::Reuse;
use crate::config::snapshot::Pool;
use crate::pipeline::Pipeline;
use crate::tcp::{ConnId, Engine, State};

/// A connection that waits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Idle {
    key: IdleKey,
    /// Where in the list of its key.
    place: u32,
    /// Requests that it has carried.
    pub(crate) served: u32,
    /// When it was opened, in nanoseconds of the worker's clock.
    pub(crate) opened_ns: u64,
}

/// Who may take it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct IdleKey {
    virtual_id: VirtualId,
    member_id: MemberId,
    member: (Address, u16),
    /// The client's address, as far as it counts.
    client: Address,
}

/// All that wait, by who may take them.
#[derive(Debug, Default)]
pub(crate) struct IdleServers {
    lists: HashMap<IdleKey, Vec<u32>>,
    by_virtual: HashMap<VirtualId, u32>,
    /// Memory of lists that are empty, for the next.
    spare: Vec<Vec<u32>>,
}

/// A connection that was taken.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Taken {
    pub(crate) conn: ConnId,
    pub(crate) served: u32,
    pub(crate) opened_ns: u64,
}

impl Pipeline {
    /// A connection to the member of `peer` that this proxy may use.
    pub(crate) fn take_idle(&mut self, proxy: &Proxy, peer: &Peer) -> Option<Taken> {
        if !self.may_share(proxy) {
            return None;
        }
        let reuse = proxy.profile.http.as_ref()?.reuse;
        let key = self.key_of(proxy, peer, &reuse);
        loop {
            let slot = *self.proxies.idle.lists.get(&key)?.last()?;
            let taken = self.unlist(slot)?;
            let (conn, idle) = taken;
            let age_ms = self.now.as_ns().saturating_sub(idle.opened_ns) / 1_000_000;
            let is_good = self.proxies.engine.state(conn) == State::Open
                && !self.proxies.engine.is_peer_done(conn)
                && self.proxies.engine.readable(conn) == 0
                && age_ms < u64::from(reuse.max_age_ms);
            if is_good {
                if let Some(holder) = self.proxies.slots.take(slot) {
                    self.proxies.slots.forget(holder);
                    self.proxies.timers.disarm(crate::flow::table::FlowId(slot));
                }
                return Some(Taken { conn, served: idle.served, opened_ns: idle.opened_ns });
            }
            if let Some(holder) = self.proxies.slots.at_mut(slot) {
                holder.layer = Layer::Closing(0);
            }
            self.proxies.engine.close(conn);
            self.proxies.slots.wake(slot);
        }
    }

    /// Where places for connections become few, one that waits gives way to those that work. Its member sees a RST, with
    /// no request on its way. To be called before a connection is opened or let in; O(1) while there are places.
    pub(crate) fn yield_waiting(&mut self) {
        let (len, capacity) = (self.proxies.engine.len(), self.proxies.engine.capacity());
        if len + RESERVE.min(capacity / 4) < capacity {
            return;
        }
        let first = self.proxies.idle.lists.values().find_map(|list| list.first().copied());
        first.into_iter().for_each(|slot| self.end_waiting(slot));
    }

    /// As [`Pipeline::yield_waiting`], where members are full: one of this virtual server's connections to a member of
    /// `pool` that waits for others than this client. False when none was found among as many as are looked at.
    #[cold]
    pub(crate) fn yield_member(&mut self, virtual_id: VirtualId, pool: &Pool) -> bool {
        let is_of = |key: &IdleKey| {
            key.virtual_id == virtual_id && pool.members.iter().any(|member| member.id == key.member_id)
        };
        let mut lists = self.proxies.idle.lists.iter().take(LOOKED_AT);
        let first = lists.find(|(key, _)| is_of(key)).and_then(|(_, list)| list.first().copied());
        first.into_iter().for_each(|slot| self.end_waiting(slot));
        first.is_some()
    }

    fn end_waiting(&mut self, slot: u32) {
        let Some((conn, _)) = self.unlist(slot) else { return };
        self.proxies.engine.abort(conn);
        if let Some(holder) = self.proxies.slots.at_mut(slot) {
            holder.layer = Layer::Closing(0);
        }
        self.proxies.slots.wake(slot);
    }

    /// Takes a waiting connection off its list.
    fn unlist(&mut self, slot: u32) -> Option<(ConnId, Idle)> {
        let holder = self.proxies.slots.at(slot)?;
        let Layer::Idle(idle) = holder.layer else { return None };
        let conn = holder.server?;
        self.remove_idle(&idle);
        Some((conn, idle))
    }

    /// A waiting connection waits no more.
    pub(crate) fn remove_idle(&mut self, idle: &Idle) {
        let idles = &mut self.proxies.idle;
        let Some(list) = idles.lists.get_mut(&idle.key) else { return };
        let place = idle.place as usize;
        if place < list.len() {
            list.swap_remove(place);
        }
        let moved = list.get(place).copied();
        if list.is_empty()
            && let Some(list) = idles.lists.remove(&idle.key)
            && idles.spare.len() < SPARE_LISTS_MAX
        {
            idles.spare.push(list);
        }
        if let Some(count) = idles.by_virtual.get_mut(&idle.key.virtual_id) {
            *count = count.saturating_sub(1);
        }
        if let Some(Layer::Idle(moved)) =
            moved.and_then(|slot| self.proxies.slots.at_mut(slot)).map(|proxy| &mut proxy.layer)
        {
            moved.place = idle.place;
        }
    }

    /// Lets the server's connection of `proxy` wait for another request. False when it may not: the caller closes it.
    pub(crate) fn keep_idle(&mut self, proxy: &mut Proxy, served: u32, opened_ns: u64) -> bool {
        let Some((conn, peer)) = proxy.server.zip(proxy.member) else { return false };
        let Some(reuse) = proxy.profile.http.as_ref().map(|http| http.reuse) else { return false };
        let waiting = self.proxies.idle.by_virtual.get(&proxy.virtual_id).copied().unwrap_or(0);
        let age_ms = self.now.as_ns().saturating_sub(opened_ns) / 1_000_000;
        let may = self.may_share(proxy)
            && waiting < reuse.max_size
            && served < reuse.max_reuse
            && age_ms < u64::from(reuse.max_age_ms)
            && !self.draining
            && self.proxies.engine.state(conn) == State::Open
            && !self.proxies.engine.is_peer_done(conn)
            && self.proxies.engine.readable(conn) == 0;
        if !may {
            return false;
        }
        let key = self.key_of(proxy, &peer, &reuse);
        let place = self.proxies.idle.lists.get(&key).map_or(0, |list| list.len() as u32);
        let idle = Idle { key, place, served, opened_ns };
        let Some(slot) = self.detach(proxy, Layer::Idle(idle)) else { return false };
        let idles = &mut self.proxies.idle;
        idles.lists.entry(key).or_insert_with(|| idles.spare.pop().unwrap_or_default()).push(slot);
        *idles.by_virtual.entry(proxy.virtual_id).or_default() += 1;
        self.queue.poke();
        // An acknowledgement that it owes may go with the next request.
        if let Some(mut holder) = self.proxies.slots.take(slot) {
            self.arm(&mut holder);
            self.proxies.slots.put(holder);
        }
        true
    }

    /// Gives the server's connection of `proxy` to a proxy of its own, without a client.
    pub(crate) fn detach(&mut self, proxy: &mut Proxy, layer: Layer) -> Option<u32> {
        let conn = proxy.server?;
        let holder = Proxy {
            server: Some(conn),
            member: proxy.member,
            origin: proxy.origin,
            ..Proxy::new(proxy.virtual_id, std::sync::Arc::clone(&proxy.profile), layer, self.now)
        };
        let slot = self.proxies.slots.insert(holder)?;
        if let Some(end) = self.proxies.ends.at_mut(conn.index) {
            end.slot = slot;
        }
        (proxy.server, proxy.member) = (None, None);
        Some(slot)
    }

    /// True when other requests may go over connections that this proxy's went over. A PROXY header names one client.
    pub(crate) fn may_share(&self, proxy: &Proxy) -> bool {
        let http = proxy.profile.http.as_ref();
        http.is_some_and(|http| http.reuse.enabled) && proxy.profile.send_proxy.is_none()
    }

    /// Where members see clients' own addresses only the same client may take a connection.
    fn key_of(&self, proxy: &Proxy, peer: &Peer, reuse: &Reuse) -> IdleKey {
        let client = proxy.origin.src;
        let item = self.snapshot.virtual_by_id(proxy.virtual_id);
        let hides = item.is_some_and(|item| self.snapshot.hides(item, client));
        let bits = if client.is_v4() { reuse.source_mask_v4 } else { reuse.source_mask_v6 };
        let client = if hides { Prefix::new(client, bits).address } else { client };
        IdleKey {
            virtual_id: proxy.virtual_id,
            member_id: peer.id,
            member: (peer.address, peer.port),
            client,
        }
    }
}

const SPARE_LISTS_MAX: usize = 64;

/// Places that connections which wait leave to others: as many as may come in one turn.
const RESERVE: usize = 64;
/// Lists that are looked at for a connection to a full member.
const LOOKED_AT: usize = 256;
