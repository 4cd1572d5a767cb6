//! Bytes from one side to the other, as they come.

use super::{LINGER_BYTES, Layer, Proxy};
use crate::clock::Instant;
use crate::pipeline::Pipeline;
use crate::tcp::{Engine, State};
use crate::verdict::DropReason;

/// A connection without a protocol of ours.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stream {
    pub(crate) phase: Phase,
    /// When the phase began.
    pub(crate) since: Instant,
    /// Each side's end has been passed on to the other: from the client, from the member.
    pub(crate) closed: [bool; 2],
    /// It began as HTTP.
    pub(crate) is_tunnel: bool,
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// No member yet.
    Choosing,
    /// The member has not answered yet.
    Connecting,
    /// Both sides are there.
    Passing,
}

impl Stream {
    pub(crate) fn new(now: Instant, is_tunnel: bool) -> Self {
        let phase = if is_tunnel { Phase::Passing } else { Phase::Choosing };
        Self { phase, since: now, closed: [false; 2], is_tunnel }
    }
}

impl Pipeline {
    /// Goes on as far as it can.
    pub(crate) fn stream(&mut self, proxy: &mut Proxy) {
        let Layer::Stream(mut stream) = proxy.layer else { return };
        let Some(client) = proxy.client else { return };
        // One that has ended well may have bytes that the member has still to get.
        if is_broken(self.proxies.engine.state(client)) {
            return self.cut(proxy);
        }
        if stream.phase == Phase::Choosing {
            self.choose_for_stream(proxy, &mut stream);
        }
        if stream.phase == Phase::Connecting {
            self.await_member(proxy, &mut stream);
        }
        if stream.phase == Phase::Passing {
            self.pass_both(proxy, &mut stream);
        }
        if let Layer::Stream(kept) = &mut proxy.layer {
            *kept = stream;
        }
    }

    fn choose_for_stream(&mut self, proxy: &mut Proxy, stream: &mut Stream) {
        let connected = if proxy.server.is_some() { Ok(true) } else { self.reach_for_stream(proxy, stream) };
        match connected {
            Ok(true) => (stream.phase, stream.since) = (Phase::Connecting, self.now),
            Ok(false) => {}
            Err(reason) => {
                self.count_drop(reason, proxy.virtual_id);
                self.cut(proxy);
            }
        }
    }

    /// Begins a connection to a member. False while it waits for one with room.
    fn reach_for_stream(&mut self, proxy: &mut Proxy, stream: &Stream) -> Result<bool, DropReason> {
        let pool = self.snapshot.virtual_by_id(proxy.virtual_id).and_then(|item| item.pool);
        if !self.may_ask(proxy, pool, stream.since, proxy.failed.is_empty())? {
            return Ok(false);
        }
        match self.connect(proxy, pool) {
            Err(DropReason::MembersFull) => self.wait_in_line(proxy, pool, false),
            // It asks again soon.
            Err(DropReason::SnatUnsettled) => Ok(false),
            connected => connected.map(|()| true),
        }
    }

    /// The member answers, or another is asked.
    fn await_member(&mut self, proxy: &mut Proxy, stream: &mut Stream) {
        let Some(server) = proxy.server else { return };
        match self.proxies.engine.state(server) {
            State::Connecting => {}
            State::Open => {
                self.send_header(proxy);
                (stream.phase, stream.since) = (Phase::Passing, self.now);
                proxy.active = self.now;
            }
            _ if self.may_try_another(proxy) => {
                self.give_up_member(proxy);
                (stream.phase, stream.since) = (Phase::Choosing, self.now);
                self.choose_for_stream(proxy, stream);
            }
            _ => self.cut(proxy),
        }
    }

    fn pass_both(&mut self, proxy: &mut Proxy, stream: &mut Stream) {
        let Some((client, server)) = proxy.client.zip(proxy.server) else { return self.cut(proxy) };
        if self.take_acknowledged(proxy) != [0; 2] {
            proxy.active = self.now;
        }
        let (up, down) = (self.proxies.pass(client, server), self.proxies.pass(server, client));
        let engine = &mut self.proxies.engine;
        proxy.bytes[0] += up.taken as u64;
        proxy.bytes[1] += down.written as u64;
        if up.taken + down.taken > 0 {
            proxy.active = self.now;
        }
        for (side, from, to) in [(0, client, server), (1, server, client)] {
            if !stream.closed[side] && engine.is_peer_done(from) {
                engine.close(to);
                stream.closed[side] = true;
                proxy.active = self.now;
            }
        }
        if is_broken(engine.state(client)) || is_broken(engine.state(server)) {
            self.cut(proxy);
        } else if stream.closed == [true; 2] {
            proxy.layer = Layer::Closing(LINGER_BYTES);
        }
    }

    /// How many bytes client and server have acknowledged since the last call: that is progress, too, though it may be
    /// a while until there is room for more.
    pub(crate) fn take_acknowledged(&self, proxy: &mut Proxy) -> [u32; 2] {
        let engine = &self.proxies.engine;
        let now = [proxy.client, proxy.server].map(|conn| conn.map(|conn| (conn, engine.acknowledged(conn))));
        let before = std::mem::replace(&mut proxy.acknowledged, now);
        [0, 1].map(|side| match (before[side], now[side]) {
            (Some((old, from)), Some((conn, to))) if old == conn => to.wrapping_sub(from),
            _ => 0,
        })
    }

    /// Tells both sides that it is over, where a FIN says so.
    pub(crate) fn close_both(&mut self, proxy: &mut Proxy) {
        for conn in [proxy.client, proxy.server].into_iter().flatten() {
            self.proxies.engine.close(conn);
        }
        (proxy.layer, proxy.active) = (Layer::Closing(LINGER_BYTES), self.now);
    }

    /// Ends both sides at once, each with a RST where it is still open (RFC 9293 section 3.5.2).
    pub(crate) fn cut(&mut self, proxy: &mut Proxy) {
        for conn in [proxy.client, proxy.server].into_iter().flatten() {
            if !self.proxies.engine.state(conn).is_over() {
                self.proxies.engine.abort(conn);
            }
        }
        (proxy.layer, proxy.was_cut) = (Layer::Closing(0), true);
    }

    /// True when another member may be asked in place of the one that has not taken the connection.
    pub(crate) fn may_try_another(&self, proxy: &Proxy) -> bool {
        let pool = proxy.member.and_then(|member| self.snapshot.pool(member.pool));
        pool.is_some_and(|pool| proxy.failed.len() < usize::from(pool.reselect_tries))
    }

    /// The member has not taken the connection.
    pub(crate) fn give_up_member(&mut self, proxy: &mut Proxy) {
        if let Some(member) = proxy.member
            && proxy.failed.len() < FAILED_MAX
        {
            proxy.failed.push(member.id);
        }
        self.drop_server(proxy, false);
    }
}

/// True when a connection is over without having been closed from both sides.
fn is_broken(state: State) -> bool {
    matches!(state, State::Reset | State::TimedOut | State::Aborted)
}

/// Members that one connection or request tries at most.
const FAILED_MAX: usize = 16;
