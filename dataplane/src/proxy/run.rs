//! The turn of the proxies: what is due, then each that something has happened to, then what it has to send.

use std::time::Duration;

use super::{Layer, Proxy};
use crate::clock::Instant;
use crate::flow::table::FlowId;
use crate::frame::BURST_MAX;
use crate::outgoing::Outgoing;
use crate::pipeline::Pipeline;
use crate::tcp::time_wait::Waiting;
use crate::tcp::{ConnId, Engine, State};

impl Pipeline {
    /// No connection is let in any more, and those that wait for another request end.
    #[cold]
    pub(crate) fn drain(&mut self) {
        self.draining = true;
        self.proxies.slots.wake_all();
    }

    /// Ends both connections of the proxy at `slot`, whatever it is about.
    #[cold]
    pub(crate) fn end_proxy(&mut self, slot: u32) {
        let Some(mut proxy) = self.proxies.slots.take(slot) else { return };
        if let Layer::Idle(idle) = proxy.layer {
            self.remove_idle(&idle);
        }
        if let Layer::Verify(_) = proxy.layer {
            self.give_up_verify(&mut proxy);
        }
        self.cut(&mut proxy);
        self.proxies.slots.put(proxy);
        self.proxies.slots.wake(slot);
    }

    /// Lets every proxy with something to do go on. True when there was one.
    #[inline]
    pub(crate) fn run_proxies(&mut self, out: &mut Outgoing) -> bool {
        let has_due = self.wake_due(out) | self.look_for_members_down();
        if !self.proxies.slots.has_ready() {
            return has_due;
        }
        let mut ready = std::mem::take(&mut self.proxies.ready);
        self.proxies.slots.take_ready(&mut ready);
        for slot in ready.drain(..) {
            self.run_one(slot, out);
        }
        self.proxies.ready = ready;
        self.end_proxies_turn(out);
        true
    }

    /// Nobody has a step any more for now.
    pub(crate) fn end_proxies_turn(&mut self, out: &mut Outgoing) {
        self.proxies.frame = None;
        self.send_verdicts(out);
    }

    /// How long nothing of the proxies is due; `None` for as long as no packet comes.
    pub(crate) fn proxies_due_in(&self) -> Option<Duration> {
        if self.proxies.slots.has_ready() {
            return Some(Duration::ZERO);
        }
        let handshakes = !self.proxies.handshakes.is_empty() || !self.proxies.time_wait.is_empty();
        let wheel = (self.proxies.slots.len() > 0).then(|| self.proxies.timers.next_due_ms()).flatten();
        let wheel = wheel.map(|due_ms| Instant::from_ms(due_ms).since(self.now));
        let tables = handshakes.then_some(TABLES_PERIOD);
        wheel.into_iter().chain(tables).min()
    }

    /// Wakes the proxies whose timers have fired, and looks after handshakes and what is over.
    fn wake_due(&mut self, out: &mut Outgoing) -> bool {
        let now_ms = self.now_ms();
        if now_ms == self.proxies.looked_ms || self.is_behind {
            return self.is_behind;
        }
        self.proxies.looked_ms = now_ms;
        for _ in 0..DUE_A_TURN {
            let Some(answer) = self.proxies.handshakes.poll(self.now) else { break };
            self.send_syn_ack(&answer, out);
        }
        for _ in 0..DUE_A_TURN {
            let Some(over) = self.proxies.time_wait.poll(self.now) else { break };
            self.give_back_pair(over.port, over.key.dst_port);
        }
        for _ in 0..WOKEN_A_TURN {
            let Some(id) = self.proxies.timers.poll_due(now_ms) else { return false };
            if let Some(proxy) = self.proxies.slots.at_mut(id.0) {
                proxy.armed = None;
            }
            self.proxies.slots.wake(id.0);
        }
        // More may be due: the next turn comes at once.
        self.proxies.looked_ms = 0;
        true
    }

    /// Lets one proxy go on, and sends what it has to send.
    pub(crate) fn run_one(&mut self, slot: u32, out: &mut Outgoing) {
        let Some(mut proxy) = self.proxies.slots.take(slot) else { return };
        proxy.is_ready = false;
        self.step(&mut proxy);
        self.keep_place(&mut proxy);
        let conns = [proxy.client, proxy.server];
        let mut more = false;
        for conn in conns.into_iter().flatten() {
            more |= self.depart(conn, out);
        }
        // What found no room, a RST perhaps, goes out next turn.
        if !more {
            self.settle(&mut proxy);
        }
        if proxy.client.is_none() && proxy.server.is_none() {
            return self.end(proxy);
        }
        self.arm(&mut proxy);
        self.proxies.slots.put(proxy);
        if more || std::mem::take(&mut self.proxies.again) {
            self.proxies.slots.wake(slot);
        }
    }

    fn step(&mut self, proxy: &mut Proxy) {
        // When it is we who are late, what came in time counts, which is what may be there to be read.
        if self.overdue_by(proxy).is_some_and(|late| late > OURS) {
            self.advance(proxy);
        }
        if self.overdue_by(proxy).is_some() {
            self.on_deadline(proxy);
            self.keep_place(proxy);
        }
        self.advance(proxy);
    }

    fn advance(&mut self, proxy: &mut Proxy) {
        loop {
            let before = std::mem::discriminant(&proxy.layer);
            match &proxy.layer {
                Layer::Header => self.read_header(proxy),
                Layer::Stream(_) => self.stream(proxy),
                Layer::Http(_) => self.http(proxy),
                Layer::Idle(_) => self.idle(proxy),
                Layer::Verify(_) => self.verify(proxy),
                Layer::Shadow(_) => self.shadow(proxy),
                Layer::Closing(_) => return self.closing(proxy),
            }
            if std::mem::discriminant(&proxy.layer) == before {
                return;
            }
            proxy.active = self.now;
        }
    }

    /// A connection that waits for a request: any sign of life ends it.
    fn idle(&mut self, proxy: &mut Proxy) {
        let (Layer::Idle(idle), Some(conn)) = (&proxy.layer, proxy.server) else { return };
        let idle = *idle;
        let engine = &mut self.proxies.engine;
        let state = engine.state(conn);
        let is_quiet = state == State::Open && !engine.is_peer_done(conn) && engine.readable(conn) == 0;
        if is_quiet && !self.draining {
            return;
        }
        match engine.readable(conn) {
            0 => engine.close(conn),
            _ => engine.abort(conn),
        }
        self.remove_idle(&idle);
        proxy.layer = Layer::Closing(0);
    }

    /// Both sides are told all there is: what still comes is thrown away until both are over. A peer that goes on and on
    /// finds its window closed in the end: a RST could overtake what we said last (RFC 9112 section 9.6).
    fn closing(&mut self, proxy: &mut Proxy) {
        self.renew_closing(proxy);
        let Layer::Closing(left) = &mut proxy.layer else { return };
        let engine = &mut self.proxies.engine;
        for conn in [proxy.client, proxy.server].into_iter().flatten() {
            // Aborting twice would take back the RST that is still to be sent.
            if *left == 0 && engine.readable(conn) > 0 && !engine.state(conn).is_over() {
                engine.abort(conn);
            }
            while *left > 1 && engine.readable(conn) > 0 {
                let most = *left - 1;
                *left -= engine.read(conn, |bytes| bytes.len().min(most));
            }
        }
    }

    /// As long as the peers take what was said last it is not over, however long that is; with HTTP, where they take it
    /// no slower than a body may be taken.
    fn renew_closing(&self, proxy: &mut Proxy) {
        let before = proxy.acknowledged;
        let taken: u64 = self.take_acknowledged(proxy).map(u64::from).iter().sum();
        let rate = proxy.profile.http.as_ref().map_or(0, |http| http.timeouts.body_rate_min);
        let is_slow = taken * 1_000 < u64::from(rate) * self.now.since(proxy.active).as_millis() as u64;
        match taken {
            0 => {}
            // It adds up.
            _ if is_slow => proxy.acknowledged = before,
            _ => proxy.active = self.now,
        }
    }

    /// Takes leave of connections that are over.
    pub(crate) fn settle(&mut self, proxy: &mut Proxy) {
        for is_client in [true, false] {
            let conn = if is_client { proxy.client } else { proxy.server };
            let Some(conn) = conn else { continue };
            let state = self.proxies.engine.state(conn);
            let is_seen = matches!(proxy.layer, Layer::Closing(_));
            if !state.is_over() || !is_seen {
                continue;
            }
            self.forget_end(conn, state);
            match is_client {
                true => proxy.client = None,
                false => (proxy.server, proxy.member) = (None, None),
            }
        }
    }

    /// The server's connection of `proxy` is of no use any more, whatever becomes of the client's.
    pub(crate) fn drop_server(&mut self, proxy: &mut Proxy, gently: bool) {
        let Some(conn) = proxy.server else { return };
        let state = self.proxies.engine.state(conn);
        match state {
            State::Closed | State::Reset | State::TimeWait => {
                self.forget_end(conn, state);
                (proxy.server, proxy.member) = (None, None);
                return;
            }
            // Its RST is still to be sent.
            State::Aborted | State::TimedOut => {}
            State::Connecting | State::Open if gently => self.proxies.engine.close(conn),
            State::Connecting | State::Open => self.proxies.engine.abort(conn),
        }
        if let Some(slot) = self.detach(proxy, Layer::Closing(0)) {
            return self.proxies.slots.wake(slot);
        }
        self.proxies.engine.abort(conn);
        self.forget_end(conn, State::Aborted);
        (proxy.server, proxy.member) = (None, None);
    }

    /// Forgets a connection; what is left of it is in TIME-WAIT.
    pub(crate) fn forget_end(&mut self, conn: ConnId, state: State) {
        let numbers = self.proxies.engine.numbers(conn);
        self.proxies.engine.release(conn);
        let Some(end) = self.proxies.ends.remove(conn.index) else { return };
        if !end.is_client {
            self.let_go_member(end.member_id);
            self.counters.close_member(end.member_id);
            self.queue.poke();
        }
        if state != State::TimeWait {
            return self.give_back_pair(end.pair, end.key.dst_port);
        }
        let waiting = Waiting { key: end.key, seq: numbers.0, ack: numbers.1, port: end.pair };
        if let Some(over) = self.proxies.time_wait.insert(waiting, self.now) {
            self.give_back_pair(over.port, over.key.dst_port);
        }
    }

    /// The end of a proxy that has no connection left.
    fn end(&mut self, proxy: Box<Proxy>) {
        self.log_connection(&proxy);
        if proxy.is_counted {
            self.uncount(&proxy);
        }
        if proxy.armed.is_some() {
            self.proxies.timers.disarm(FlowId(proxy.slot));
        }
        self.proxies.slots.forget(proxy);
    }

    fn uncount(&mut self, proxy: &Proxy) {
        self.quota.give_back(crate::quota::Limited::Virtual(proxy.virtual_id));
        if let Some(counters) = self.counters.of_virtual(proxy.virtual_id) {
            counters.connections.close();
        }
    }

    /// Arms the timer for what is due first. One that is armed for earlier fires in vain, which costs less than moving it
    /// with every packet.
    pub(crate) fn arm(&mut self, proxy: &mut Proxy) {
        // What is due sooner than that is sent already: the timer that fires next looks at everything again.
        if proxy.armed.is_some_and(|armed| armed <= self.now + SOON) {
            return;
        }
        let mut due = self.deadline_of(proxy);
        for conn in [proxy.client, proxy.server].into_iter().flatten() {
            due = [due, self.proxies.engine.due(conn, self.now)].into_iter().flatten().min();
        }
        let Some(due) = due else { return };
        if proxy.armed.is_none_or(|armed| due < armed) {
            proxy.armed = Some(due);
            self.proxies.timers.arm(FlowId(proxy.slot), due.as_ns() / 1_000_000);
        }
    }
}

/// Timers are not so late but after a pause of the worker.
const OURS: Duration = Duration::from_millis(250);
/// As long as an acknowledgement waits by default.
const SOON: Duration = Duration::from_millis(10);
/// Bounds the work of one turn.
const DUE_A_TURN: usize = 64;
/// More than the packets of a burst can arm.
const WOKEN_A_TURN: usize = 2 * BURST_MAX;
/// How often handshakes and TIME-WAIT are looked at.
const TABLES_PERIOD: Duration = Duration::from_millis(100);
