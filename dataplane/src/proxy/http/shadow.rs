//! Copies of requests for another pool (Gateway API: HTTPRequestMirrorFilter). Nobody waits for them: what a copy's member does
//! not take in time is lost, and its response is thrown away.

use std::sync::Arc;

use super::exchange::{Exchange, Pending};
use crate::clock::Instant;
use crate::config::ids::{PoolId, VirtualId};
use crate::filter::{self, Filter};
use crate::pipeline::Pipeline;
use crate::proxy::{Layer, Proxy};
use crate::tcp::{Engine, State};

/// A copy under way.
#[derive(Debug, Default)]
pub(crate) struct Shadow {
    pending: Pending,
}

impl Pipeline {
    /// Begins a copy of the request where a filter asks for one.
    pub(crate) fn begin_shadow(&mut self, proxy: &Proxy, lists: [&[Filter]; 2], exchange: &mut Exchange) {
        let Some(mirror) = lists.into_iter().find_map(filter::mirror_of) else { return };
        self.proxies.turn = self.proxies.turn.wrapping_add(1);
        if !mirror.takes(self.proxies.turn) {
            return;
        }
        let mut shadow = Shadow::default();
        let Exchange { request, .. } = &*exchange;
        if shadow.pending.write(&mut self.proxies.scratch, |out| request.write(false, out)) {
            exchange.shadow = self.cast(proxy, mirror.pool, shadow);
        }
    }

    /// Gives the copy a proxy of its own, and a connection to a member of `pool`.
    fn cast(&mut self, proxy: &Proxy, pool: PoolId, shadow: Shadow) -> Option<u32> {
        let holder = Proxy {
            origin: proxy.origin,
            ..Proxy::new(proxy.virtual_id, Arc::clone(&proxy.profile), Layer::Shadow(shadow), self.now)
        };
        let slot = self.proxies.slots.insert(holder)?;
        let mut holder = self.proxies.slots.take(slot)?;
        if self.connect(&mut holder, Some(pool)).is_err() {
            self.proxies.slots.forget(holder);
            return None;
        }
        self.proxies.slots.put(holder);
        self.proxies.slots.wake(slot);
        Some(slot)
    }

    /// Adds a piece of the body, which lies in the scratch. A copy that has fallen behind ends.
    pub(crate) fn shade(&mut self, exchange: &mut Exchange, written: std::ops::Range<usize>) {
        let Some(slot) = exchange.shadow else { return };
        let (slots, scratch) = (&mut self.proxies.slots, &self.proxies.scratch);
        let piece = scratch.get(written).unwrap_or_default();
        let Some(holder) = slots.at_mut(slot) else { return exchange.shadow = None };
        match &mut holder.layer {
            Layer::Shadow(shadow) if shadow.pending.rest().len() + piece.len() <= BEHIND_MAX => {
                shadow.pending.bytes.extend_from_slice(piece);
            }
            Layer::Shadow(_) => {
                let server = holder.server;
                server.into_iter().for_each(|conn| self.proxies.engine.abort(conn));
                exchange.shadow = None;
            }
            _ => exchange.shadow = None,
        }
        self.proxies.slots.wake(slot);
    }

    /// Adds the end of a chunked body, which waits for the member.
    pub(crate) fn shade_end(&mut self, exchange: &mut Exchange) {
        let holder = exchange.shadow.take().and_then(|slot| self.proxies.slots.at_mut(slot));
        let Some(holder) = holder else { return };
        if let Layer::Shadow(shadow) = &mut holder.layer {
            shadow.pending.bytes.extend_from_slice(exchange.to_server.rest());
        }
        let slot = holder.slot;
        self.proxies.slots.wake(slot);
    }

    /// A copy goes on as far as it can.
    pub(crate) fn shadow(&mut self, proxy: &mut Proxy) {
        let (Layer::Shadow(shadow), Some(server)) = (&mut proxy.layer, proxy.server) else { return };
        let engine = &mut self.proxies.engine;
        match engine.state(server) {
            State::Connecting => {}
            State::Open => {
                let sent = engine.send(server, shadow.pending.rest());
                shadow.pending.advance(sent);
                while engine.readable(server) > 0 {
                    engine.read(server, <[u8]>::len);
                }
                if engine.is_peer_done(server) {
                    engine.close(server);
                    proxy.layer = Layer::Closing(0);
                }
            }
            _ => proxy.layer = Layer::Closing(0),
        }
    }
}

impl Proxy {
    /// One without connections.
    pub(crate) fn new(
        virtual_id: VirtualId,
        profile: Arc<crate::config::proxy::ProxyProfile>,
        layer: Layer,
        now: Instant,
    ) -> Self {
        Self {
            slot: 0,
            virtual_id,
            profile,
            client: None,
            server: None,
            member: None,
            origin: crate::flow::key::FlowKey::default(),
            layer,
            failed: Vec::new(),
            began: now,
            active: now,
            armed: None,
            is_ready: false,
            is_counted: false,
            tlvs: None,
            bytes: [0; 2],
            served_by: None,
            acknowledged: [None; 2],
            was_cut: false,
            place: None,
        }
    }
}

/// Bytes that a copy may be behind its request.
const BEHIND_MAX: usize = 256 << 10;
