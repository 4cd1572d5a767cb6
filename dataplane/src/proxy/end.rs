//! One TCP connection as the network sees it, and how its packets find it.

use hashbrown::HashTable;

use crate::address::Mac;
use crate::config::ids::{LinkId, MemberId, VirtualId};
use crate::flow::key::{FlowKey, HashSeed};
use crate::neighbor::NeighborRef;
use crate::snat::ports::Pair;
use crate::tcp::ConnId;

/// A connection's place in the network.
#[derive(Debug, Clone, Copy)]
pub(crate) struct End {
    pub(crate) conn: ConnId,
    /// The key of the peer's packets.
    pub(crate) key: FlowKey,
    /// The proxy that it is part of.
    pub(crate) slot: u32,
    pub(crate) virtual_id: VirtualId,
    /// [`MemberId::NONE`] for a client's.
    pub(crate) member_id: MemberId,
    pub(crate) is_client: bool,
    pub(crate) way: Way,
    /// The configuration that the way was found under.
    pub(crate) epoch: u32,
    /// The largest packet that the path takes, as far as it has said so.
    pub(crate) path_mtu: u16,
    /// Our port is one of the SNAT ports and must be given back.
    pub(crate) pair: Option<Pair>,
}

/// How its packets go out.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Way {
    /// To where the last packet came from.
    LastHop(LinkId, Mac),
    /// To a next hop.
    By(NeighborRef),
}

/// All ends of one worker, by connection and by key. O(1) each.
#[derive(Debug)]
pub(crate) struct Ends {
    by_conn: Vec<Option<End>>,
    by_key: HashTable<u32>,
    seed: HashSeed,
}

impl Ends {
    /// An empty table for `capacity` ends. Half as many again, so that those removed do not make it grow.
    pub(crate) fn new(capacity: usize, seed: HashSeed) -> Self {
        Self { by_conn: Vec::new(), by_key: HashTable::with_capacity(capacity + capacity / 2), seed }
    }

    /// True when there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    /// The connection that packets with this key belong to.
    pub(crate) fn find(&self, key: &FlowKey) -> Option<u32> {
        let is_it = |&index: &u32| self.at(index).is_some_and(|end| end.key == *key);
        self.by_key.find(self.seed.hash(key), is_it).copied()
    }

    /// The end of a connection's place.
    pub(crate) fn at(&self, index: u32) -> Option<&End> {
        self.by_conn.get(index as usize)?.as_ref()
    }

    /// As [`Ends::at`], to be changed; its key must stay.
    pub(crate) fn at_mut(&mut self, index: u32) -> Option<&mut End> {
        self.by_conn.get_mut(index as usize)?.as_mut()
    }

    /// One more. False when its key belongs to another.
    pub(crate) fn insert(&mut self, end: End) -> bool {
        if self.find(&end.key).is_some() {
            return false;
        }
        let index = end.conn.index;
        if self.by_conn.len() <= index as usize {
            self.by_conn.resize(index as usize + 1, None);
        }
        self.by_conn[index as usize] = Some(end);
        let (by_conn, seed) = (&self.by_conn, self.seed);
        let hash_of = |&index: &u32| by_conn[index as usize].map_or(0, |end| seed.hash(&end.key));
        self.by_key.insert_unique(seed.hash(&end.key), index, hash_of);
        true
    }

    /// One less.
    pub(crate) fn remove(&mut self, index: u32) -> Option<End> {
        let end = self.by_conn.get_mut(index as usize)?.take()?;
        let found = self.by_key.find_entry(self.seed.hash(&end.key), |&other| other == index);
        if let Ok(entry) = found {
            entry.remove();
        }
        Some(end)
    }
}
