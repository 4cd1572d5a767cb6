//! The member's side of a proxy: a member is chosen, and a connection to it opened, or one that waits is taken.

use std::sync::Arc;

use super::end::{End, Way};
use super::{Peer, Proxy};
use crate::config::ids::PoolId;
use crate::config::snapshot::Virtual;
use crate::flow::key::FlowKey;
use crate::packet::parse::{Class, Packet, protocol};
use crate::pipeline::Pipeline;
use crate::select::Target;
use crate::snat::ports::Pair;
use crate::tcp::{ConnId, Engine, Opening};
use crate::verdict::DropReason;

impl Pipeline {
    /// Chooses a member of `pool` that has not failed, and begins a connection to it. The proxy has its
    /// server's connection then, which may wait for its handshake.
    ///
    /// # Errors
    /// Why there is none; nothing is taken then.
    pub(crate) fn connect(&mut self, proxy: &mut Proxy, pool: Option<PoolId>) -> Result<(), DropReason> {
        let snapshot = Arc::clone(&self.snapshot);
        let item = snapshot.virtual_by_id(proxy.virtual_id).ok_or(DropReason::NoVirtual)?;
        let packet = Packet { key: proxy.origin, class: Class::Tcp, ..Packet::BLANK };
        let target = self.target_in(item, pool, &packet, &proxy.failed)?;
        self.connect_to(proxy, item, pool, &packet, target)
    }

    /// Begins a connection to `target`, whose limits have been taken from.
    ///
    /// # Errors
    /// Why it cannot be; the limits are given back.
    pub(crate) fn connect_to(
        &mut self,
        proxy: &mut Proxy,
        item: &Virtual,
        pool: Option<PoolId>,
        packet: &Packet,
        target: Target,
    ) -> Result<(), DropReason> {
        let opened = self.open_end(proxy, item, packet, &target);
        let conn = opened.inspect_err(|_| self.let_go_member(target.member_id))?;
        let node = self.snapshot.member(target.member_id).map(|member| member.node);
        self.counters.open_member(target.member_id, node.unwrap_or_default());
        let pool = pool.unwrap_or(PoolId::NONE);
        proxy.server = Some(conn);
        proxy.served_by = Some((target.member_id, (target.address, target.port)));
        proxy.member = Some(Peer { id: target.member_id, pool, address: target.address, port: target.port });
        Ok(())
    }

    fn open_end(
        &mut self,
        proxy: &Proxy,
        item: &Virtual,
        packet: &Packet,
        target: &Target,
    ) -> Result<ConnId, DropReason> {
        let hop = self.snapshot.route(target.address).ok_or(DropReason::NoRoute)?;
        let neighbor = self.neighbors.resolve(hop, self.now)?;
        let (source, has_port) = self.source(item, packet, target, hop)?;
        let pair = has_port.then_some(Pair {
            address: source.0,
            member: target.address,
            member_port: target.port,
            protocol: protocol::TCP,
        });
        let key = FlowKey {
            src: target.address,
            dst: source.0,
            src_port: target.port,
            dst_port: source.1,
            protocol: protocol::TCP,
        };
        let opened = self.open_conn(proxy, &key);
        let conn = opened.inspect_err(|_| self.give_back_pair(pair, source.1))?;
        self.proxies.ends.insert(End {
            conn,
            key,
            slot: proxy.slot,
            virtual_id: proxy.virtual_id,
            member_id: target.member_id,
            is_client: false,
            way: Way::By(neighbor),
            epoch: self.epoch,
            path_mtu: u16::MAX,
            pair,
        });
        Ok(conn)
    }

    fn open_conn(&mut self, proxy: &Proxy, key: &FlowKey) -> Result<ConnId, DropReason> {
        let is_taken =
            self.proxies.ends.find(key).is_some() || self.flows.find(key, self.flows.hash(key)).is_some();
        if is_taken {
            return Err(DropReason::SnatPortTaken);
        }
        self.yield_waiting();
        let opening = Opening {
            local: (key.dst, key.dst_port),
            remote: (key.src, key.src_port),
            isn: self.proxies.isn.of(key, self.now),
            options: proxy.profile.server_tcp.options(),
        };
        self.proxies.engine.connect(&opening, self.now).map_err(|_| DropReason::ProxiesFull)
    }

    /// Gives back a port of the SNAT ports.
    pub(crate) fn give_back_pair(&mut self, pair: Option<Pair>, port: u16) {
        if let Some(pair) = pair {
            self.snat.release(pair, port);
        }
    }
}
