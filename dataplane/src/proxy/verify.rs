//! The other order: the member is connected before the client's handshake is answered (tmsh: `verified-accept`), so that a
//! service that is down looks down.

use std::sync::Arc;

use super::{Layer, Proxy};
use crate::config::snapshot::Virtual;
use crate::outgoing::Outgoing;
use crate::packet::emit::{self, Control};
use crate::packet::parse::{Packet, tcp_flag};
use crate::packet::rewrite::LinkHeader;
use crate::pipeline::{Fate, Pipeline};
use crate::tcp::handshake::{Caller, Offer, Syn, SynAck};
use crate::tcp::{Engine, State};
use crate::verdict::DropReason;

/// A client that waits for its handshake's answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Verify {
    syn: Syn,
    caller: Caller,
    offer: Offer,
    /// It was answered: the client's turn.
    answered: bool,
}

/// What a client is told once its member has answered.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Verdict {
    /// Come in.
    Accepted(SynAck),
    /// Nobody is there.
    Refused(Caller, Control),
}

impl Pipeline {
    /// The SYN of a client whose member is asked first. A copy of one that waits changes nothing.
    pub(crate) fn ask_first(
        &mut self,
        item: &Virtual,
        packet: &Packet,
        syn: Syn,
        caller: Caller,
        offer: Offer,
    ) -> Result<Fate, DropReason> {
        if self.proxies.verifying.contains_key(&packet.key) {
            return Ok(Fate::Done);
        }
        if self.must_stand_back(item, item.pool) {
            return Err(DropReason::MembersFull);
        }
        let profile = item.proxy.clone().ok_or(DropReason::NoVirtual)?;
        let layer = Layer::Verify(Verify { syn, caller, offer, answered: false });
        let proxy =
            Proxy { origin: packet.key, ..Proxy::new(item.id, Arc::clone(&profile), layer, self.now) };
        let slot = self.proxies.slots.insert(proxy).ok_or(DropReason::ProxiesFull)?;
        let Some(mut proxy) = self.proxies.slots.take(slot) else { return Ok(Fate::Done) };
        if let Err(reason) = self.connect(&mut proxy, item.pool) {
            self.proxies.slots.forget(proxy);
            return Err(reason);
        }
        self.proxies.slots.put(proxy);
        self.proxies.verifying.insert(packet.key, slot);
        self.proxies.slots.wake(slot);
        Ok(Fate::Done)
    }

    /// Waits for the member, then for the client.
    pub(crate) fn verify(&mut self, proxy: &mut Proxy) {
        let (Layer::Verify(verify), Some(server)) = (&mut proxy.layer, proxy.server) else { return };
        match self.proxies.engine.state(server) {
            State::Connecting => {}
            State::Open if self.proxies.engine.is_peer_done(server) => self.refuse_client(proxy),
            State::Open if verify.answered => {}
            State::Open => {
                verify.answered = true;
                let Verify { syn, caller, offer, .. } = *verify;
                let handshakes = &mut self.proxies.handshakes;
                let answer = handshakes.on_syn(&proxy.origin, &syn, caller, &offer, self.now);
                self.proxies.verdicts.push(Verdict::Accepted(answer));
                proxy.active = self.now;
            }
            _ if self.may_try_another(proxy) => {
                self.give_up_member(proxy);
                let pool = self.snapshot.virtual_by_id(proxy.virtual_id).and_then(|item| item.pool);
                if self.connect(proxy, pool).is_err() {
                    self.refuse_client(proxy);
                }
            }
            _ => self.refuse_client(proxy),
        }
    }

    fn refuse_client(&mut self, proxy: &mut Proxy) {
        let Layer::Verify(verify) = proxy.layer else { return };
        let control = Control {
            key: proxy.origin.reversed(),
            flags: tcp_flag::RST | tcp_flag::ACK,
            seq: 0,
            ack: verify.syn.seq.wrapping_add(1),
        };
        self.proxies.verdicts.push(Verdict::Refused(verify.caller, control));
        self.end_verify(proxy);
    }

    /// There is no time left to wait. A client that was answered is refused when it comes back.
    pub(crate) fn give_up_verify(&mut self, proxy: &mut Proxy) {
        match proxy.layer {
            Layer::Verify(Verify { answered: false, .. }) => self.refuse_client(proxy),
            _ => self.end_verify(proxy),
        }
    }

    /// The client has not come back, or is refused.
    pub(crate) fn end_verify(&mut self, proxy: &mut Proxy) {
        self.proxies.verifying.remove(&proxy.origin);
        if let Some(server) = proxy.server {
            self.proxies.engine.abort(server);
        }
        proxy.layer = Layer::Closing(0);
    }

    /// The proxy that was waiting for the client whose handshake is complete now.
    pub(crate) fn take_verified(&mut self, packet: &Packet) -> Option<Box<Proxy>> {
        let slot = self.proxies.verifying.remove(&packet.key)?;
        let proxy = self.proxies.slots.at(slot)?;
        if !matches!(proxy.layer, Layer::Verify(_)) || proxy.origin != packet.key {
            return None;
        }
        self.proxies.slots.take(slot)
    }

    /// Tells clients what became of their members.
    pub(crate) fn send_verdicts(&mut self, out: &mut Outgoing) {
        while let Some(verdict) = self.proxies.verdicts.pop() {
            match verdict {
                Verdict::Accepted(answer) => self.send_syn_ack(&answer, out),
                Verdict::Refused(caller, control) => {
                    let source = self.ports[usize::from(caller.link.port().0)].mac;
                    let header = LinkHeader { destination: caller.mac, source, vlan: caller.link.vlan() };
                    let frame = emit::tcp_control(&self.frames, header, &control);
                    let _ = self.send_own(frame, caller.link.port(), caller.virtual_id, out);
                }
            }
        }
    }
}
