//! A member for a request: the one that a cookie or the balancing method names, over a connection that waits or a new one.

use std::sync::Arc;

use super::exchange::Exchange;
use super::{Http, Phase, Turn};
use crate::config::snapshot::Virtual;
use crate::http::Asked;
use crate::packet::parse::{Class, Packet};
use crate::pipeline::Pipeline;
use crate::pool::MemberState;
use crate::proxy::{Layer, Peer, Proxy};
use crate::select::Target;
use crate::tcp::{Engine, State};
use crate::verdict::DropReason;

impl Pipeline {
    /// Looks for a member, and takes or opens a connection to it.
    pub(crate) fn find_member(
        &mut self,
        proxy: &mut Proxy,
        http: &mut Http,
        exchange: &mut Exchange,
    ) -> Turn {
        if self.is_client_gone(proxy) {
            exchange.facts.outcome = "client-gone";
            return self.quit(proxy);
        }
        if self.keeps_server(proxy, exchange) {
            return self.begin_passing(proxy, http, exchange);
        }
        self.drop_server(proxy, true);
        match self.reach_or_wait(proxy, http, exchange) {
            Ok(true) => {
                self.leave_line(proxy);
                http.enter(Phase::Connecting, self.now);
                Turn::Again
            }
            Ok(false) => Turn::Wait,
            Err(reason) => {
                self.leave_line(proxy);
                self.count_drop(reason, proxy.virtual_id);
                self.answer_with(http, exchange, 503, reason.name())
            }
        }
    }

    /// True when the connection of the request before is the one for this, too: where connections are not shared, all
    /// requests of a client's connection go to one member, as long as they are for one pool.
    fn keeps_server(&self, proxy: &Proxy, exchange: &Exchange) -> bool {
        let Some((server, member)) = proxy.server.zip(proxy.member) else { return false };
        exchange.tries == 0
            && exchange.pool == Some(member.pool)
            && self.proxies.engine.state(server) == State::Open
            && !self.proxies.engine.is_peer_done(server)
    }

    /// Reaches a member. False while the request waits for one with room. What has been with a member already does not
    /// stand behind those that come first now.
    fn reach_or_wait(
        &mut self,
        proxy: &mut Proxy,
        http: &mut Http,
        exchange: &mut Exchange,
    ) -> Result<bool, DropReason> {
        if !self.may_ask(proxy, exchange.pool, http.since, exchange.tries == 0)? {
            return Ok(false);
        }
        match self.reach_member(proxy, http, exchange) {
            Err(DropReason::MembersFull) => {
                let made_way = self.makes_way(proxy, exchange);
                self.wait_in_line(proxy, exchange.pool, made_way)
            }
            // It asks again soon.
            Err(DropReason::SnatUnsettled) => Ok(false),
            reached => reached.map(|()| true),
        }
    }

    fn reach_member(
        &mut self,
        proxy: &mut Proxy,
        http: &mut Http,
        exchange: &mut Exchange,
    ) -> Result<(), DropReason> {
        let snapshot = Arc::clone(&self.snapshot);
        let item = snapshot.virtual_by_id(proxy.virtual_id).ok_or(DropReason::NoVirtual)?;
        let packet = Packet { key: proxy.origin, class: Class::Tcp, ..Packet::BLANK };
        let fresh = exchange.request.upgrade().is_some() || exchange.tries > 0;
        let target = match self.target_of_request(proxy, item, &packet, exchange) {
            Err(DropReason::MembersFull) if !fresh => return self.reach_by_idle(proxy, http, exchange),
            target => target?,
        };
        let pool = exchange.pool.unwrap_or_default();
        let peer = Peer { id: target.member_id, pool, address: target.address, port: target.port };
        exchange.served_by = Some((peer.id, (peer.address, peer.port)));
        if !fresh && self.reuse(proxy, http, peer) {
            // It has its units of the limits already.
            self.let_go_member(target.member_id);
            return Ok(());
        }
        (http.server_served, http.server_opened_ns) = (0, self.now.as_ns());
        self.connect_to(proxy, item, exchange.pool, &packet, target)
    }

    /// Goes on over a connection to the member that waits. False when there is none.
    fn reuse(&mut self, proxy: &mut Proxy, http: &mut Http, peer: Peer) -> bool {
        let Some(taken) = self.take_idle(proxy, &peer) else { return false };
        self.count_reused(proxy);
        (proxy.server, proxy.member) = (Some(taken.conn), Some(peer));
        (http.server_served, http.server_opened_ns) = (taken.served, taken.opened_ns);
        if let Some(end) = self.proxies.ends.at_mut(taken.conn.index) {
            end.slot = proxy.slot;
        }
        true
    }

    /// All members are at their limits, which connections that wait count towards: one of those is as good as a new one.
    #[cold]
    fn reach_by_idle(
        &mut self,
        proxy: &mut Proxy,
        http: &mut Http,
        exchange: &mut Exchange,
    ) -> Result<(), DropReason> {
        let snapshot = Arc::clone(&self.snapshot);
        let pool = exchange.pool.and_then(|id| snapshot.pool(id)).ok_or(DropReason::NoMember)?;
        for member in &pool.members {
            let port = if member.port == 0 { proxy.origin.dst_port } else { member.port };
            let peer = Peer { id: member.id, pool: pool.id, address: member.address, port };
            let may =
                self.members.of(member.id) == MemberState::Enabled && !proxy.failed.contains(&member.id);
            if may && self.reuse(proxy, http, peer) {
                exchange.served_by = Some((peer.id, (peer.address, peer.port)));
                return Ok(());
            }
        }
        Err(DropReason::MembersFull)
    }

    /// True when a connection that waits for others ends now, so that its member will have room.
    #[cold]
    fn makes_way(&mut self, proxy: &Proxy, exchange: &Exchange) -> bool {
        let snapshot = Arc::clone(&self.snapshot);
        let pool = exchange.pool.and_then(|id| snapshot.pool(id));
        pool.is_some_and(|pool| self.yield_member(proxy.virtual_id, pool))
    }

    fn target_of_request(
        &mut self,
        proxy: &Proxy,
        item: &Virtual,
        packet: &Packet,
        exchange: &Exchange,
    ) -> Result<Target, DropReason> {
        if let Some(target) = self.target_of_cookie(proxy, exchange) {
            return Ok(target);
        }
        self.target_in(item, exchange.pool, packet, &proxy.failed)
    }

    /// The member has taken the connection, or not.
    pub(crate) fn await_connection(
        &mut self,
        proxy: &mut Proxy,
        http: &mut Http,
        exchange: &mut Exchange,
    ) -> Turn {
        if self.is_client_gone(proxy) {
            exchange.facts.outcome = "client-gone";
            return self.quit(proxy);
        }
        let state = proxy.server.map_or(State::Reset, |server| self.proxies.engine.state(server));
        match state {
            State::Connecting => Turn::Wait,
            State::Open => {
                if http.server_served == 0 {
                    self.send_header(proxy);
                }
                self.begin_passing(proxy, http, exchange)
            }
            _ if self.may_try_another(proxy) => self.ask_another(proxy, http, exchange),
            State::Aborted | State::TimedOut => {
                self.fail_exchange(proxy, http, exchange, 504, "connect-timeout")
            }
            _ => self.fail_exchange(proxy, http, exchange, 502, "connect-refused"),
        }
    }

    /// The member failed before it said anything: another one gets the request.
    pub(crate) fn ask_another(
        &mut self,
        proxy: &mut Proxy,
        http: &mut Http,
        exchange: &mut Exchange,
    ) -> Turn {
        self.give_up_member(proxy);
        exchange.tries = exchange.tries.saturating_add(1);
        self.count_retry(proxy);
        exchange.facts.head_sent = false;
        self.write_head_again(proxy, exchange);
        http.enter(Phase::Waiting, self.now);
        Turn::Again
    }

    fn write_head_again(&mut self, proxy: &Proxy, exchange: &mut Exchange) {
        self.make_room(exchange.request.limits());
        let reuse =
            self.may_share(proxy) || !proxy.profile.http.as_ref().is_some_and(|http| http.reuse.enabled);
        let Exchange { request, to_server, .. } = &mut *exchange;
        to_server.clear();
        to_server.write(&mut self.proxies.scratch, |out| request.write(reuse, out));
    }

    fn begin_passing(&mut self, proxy: &mut Proxy, http: &mut Http, exchange: &mut Exchange) -> Turn {
        http.responses = crate::http::ResponseReader::default();
        let upgrade = exchange.request.upgrade().is_some();
        http.responses.ask(Asked { method: exchange.request.method(), upgrade });
        http.server_served += 1;
        if let Some(member) = proxy.member {
            exchange.served_by = Some((member.id, (member.address, member.port)));
        }
        exchange.facts.head_sent = true;
        exchange.facts.body_held = exchange.request.expects_continue();
        proxy.active = self.now;
        http.enter(Phase::Passing, self.now);
        Turn::Again
    }

    /// True when nobody waits for an answer any more.
    pub(crate) fn is_client_gone(&self, proxy: &Proxy) -> bool {
        let state = proxy.client.map(|client| self.proxies.engine.state(client));
        state.is_none_or(State::is_over)
    }

    /// A connection to a member that stays with this client between two requests: its end is seen.
    pub(crate) fn look_at_kept_server(&mut self, proxy: &mut Proxy, http: &Http) {
        let Some(server) = proxy.server else { return };
        let engine = &self.proxies.engine;
        let is_good = engine.state(server) == State::Open
            && !engine.is_peer_done(server)
            && engine.readable(server) == 0;
        if !is_good && http.exchange.is_none() {
            self.drop_server(proxy, true);
        }
    }

    /// What becomes of the server's connection after a response. Without a whole request (`is_whole`) nobody knows what
    /// its member would still take for one.
    pub(crate) fn release_server(&mut self, proxy: &mut Proxy, http: &Http, is_whole: bool, keep: bool) {
        let engine = &self.proxies.engine;
        let is_good = proxy.server.is_some_and(|server| {
            engine.state(server) == State::Open
                && !engine.is_peer_done(server)
                && engine.readable(server) == 0
        });
        if !is_whole || !keep || !is_good {
            return self.drop_server(proxy, is_whole);
        }
        if !self.may_share(proxy) {
            return;
        }
        if !self.keep_idle(proxy, http.server_served, http.server_opened_ns) {
            self.drop_server(proxy, true);
        }
    }

    /// Bytes of both sides are passed on as they are from now on.
    pub(crate) fn become_tunnel(&mut self, proxy: &mut Proxy) -> Turn {
        proxy.layer = Layer::Stream(crate::proxy::stream::Stream::new(self.now, true));
        Turn::Left
    }
}
