//! Between the links and the hosts: what clients and members hear and send.

use sluice_dataplane::address::{Address, Mac};
use sluice_dataplane::config::ids::PortId;

use super::client::{self, Ends};
use super::member::Answer;
use super::wire::{self, Heard, Packet};
use super::{Event, Sabotage, Sim, setup};
use crate::world::{EXTERNAL, INTERNAL};

impl Sim {
    pub(super) fn client_sends(&mut self, number: usize, packets: Vec<Packet>) {
        for packet in packets {
            self.send(EXTERNAL, &packet.encode());
        }
        if let Some(due) = self.clients.ends[number].wind() {
            self.later(due, Event::ClientTimer(number));
        }
    }

    pub(super) fn member_sends(&mut self, answers: Vec<Answer>) {
        for answer in answers {
            let frame = match answer {
                Answer::Packet(mut packet) => {
                    self.spoil(&mut packet);
                    packet.encode()
                }
                Answer::Frame(frame) => frame,
            };
            self.send(INTERNAL, &frame);
        }
    }

    pub(super) fn spoil(&self, packet: &mut Packet) {
        match self.sabotage {
            Sabotage::SwapPayloads if packet.payload.len() > 1 => packet.payload[1] ^= 1,
            Sabotage::WrongMemberPort => packet.src.1 ^= 1,
            _ => {}
        }
    }

    pub(super) fn wind_member(&mut self, key: Ends) {
        if let Some(due) = self.members.wind(key) {
            self.later(due, Event::MemberTimer(key));
        }
    }

    /// A frame has come to the hosts on a port's link.
    pub(super) fn host_hears(&mut self, port: PortId, bytes: &[u8]) {
        let mac = Mac(bytes[..6].try_into().unwrap());
        match wire::hear(bytes) {
            Heard::Transport(packet) if port == EXTERNAL => self.client_hears(&packet),
            Heard::Transport(packet) => self.member_hears(packet),
            Heard::Asked { mac, sender, target } => self.answer_neighbor(port, mac, sender, target),
            Heard::Error { to, quoted, .. } if port == EXTERNAL => {
                self.checker.check_link(mac, to, port);
                let heard = self.clients.hear_error(quoted);
                heard.unwrap_or_else(|what| self.checker.violated(what));
            }
            Heard::Error { .. } | Heard::Echo { .. } | Heard::News | Heard::Damaged | Heard::Other => {}
        }
    }

    pub(super) fn client_hears(&mut self, packet: &Packet) {
        if !client::is_nobody(packet.dst) {
            self.checker.check_link(packet.macs.1, packet.dst.0, EXTERNAL);
        }
        match self.clients.hear(packet, self.now) {
            Ok(Some((number, packets))) => self.client_sends(number, packets),
            Ok(None) => {}
            Err(what) => self.checker.violated(what),
        }
    }

    pub(super) fn member_hears(&mut self, mut packet: Packet) {
        if client::is_nobody(packet.dst) {
            return;
        }
        self.checker.check_link(packet.macs.1, packet.dst.0, INTERNAL);
        if self.sabotage == Sabotage::WrongSource {
            packet.src.0 = setup::host(120, packet.src.0.is_v4());
        }
        match self.members.hear(&packet, &self.clients, self.now) {
            Ok(answers) => self.member_sends(answers),
            Err(what) => self.checker.violated(what),
        }
        self.wind_member((packet.dst, packet.src, packet.protocol));
    }

    pub(super) fn answer_neighbor(&mut self, port: PortId, mac: Mac, sender: Address, target: Address) {
        if setup::is_inside(target) != (port == INTERNAL) || sender.is_unspecified() {
            return;
        }
        let frame = wire::neighbor_answer((setup::mac_of(target), mac), target, sender);
        self.send(port, &frame);
    }
}
