//! Clients and members: TCP endpoints on one link, made of the same engine as the proxy's.
#![allow(dead_code, unreachable_pub, reason = "a harness; each test binary uses its own part")]

use std::collections::HashMap;
use std::net::IpAddr;

use sluice_dataplane::address::{Address, Mac};
use sluice_dataplane::clock::Instant;
use sluice_dataplane::config::ids::{LinkId, PortId, VirtualId};
use sluice_dataplane::flow::key::FlowKey;
use sluice_dataplane::frame::{Checksum, Frame, FramePool};
use sluice_dataplane::packet::build;
use sluice_dataplane::packet::checksum;
use sluice_dataplane::packet::emit::{self, Control};
use sluice_dataplane::packet::parse::{Class, Packet, Parsed, parse, protocol, tcp_flag};
use sluice_dataplane::packet::rewrite::LinkHeader;
use sluice_dataplane::tcp::ConnId;
use sluice_dataplane::tcp::handshake::{Caller, Handshakes, Offer, Syn};
use sluice_dataplane::tcp::{Engine, EngineSpec, Opening, Options, Sink, State, TcpEngine};
use sluice_ffi::memory::Backing;

/// One end of a connection as its application sees it.
pub struct Sock {
    pub id: ConnId,
    /// The key of the packets that come for it.
    pub key: FlowKey,
    /// All that was read.
    pub got: Vec<u8>,
    /// What is still to be written.
    pub to_send: Vec<u8>,
    /// Close when all is written.
    pub closes: bool,
    /// Something was sent.
    pub has_sent: bool,
    /// False: no more than `crumbs` is read, and the window fills.
    pub reads: bool,
    /// Bytes that one who does not read takes all the same.
    pub crumbs: usize,
    /// The peer has closed, and everything before was read.
    pub is_done: bool,
    pub state: State,
    over_at: Option<u64>,
}

/// What is done with a SYN for an address and port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Welcome {
    Accept,
    Refuse,
    Ignore,
}

/// All endpoints on one link, whatever their addresses.
pub struct Host {
    pub port: PortId,
    pub mac: Mac,
    /// Of the worker's port.
    pub gateway: Mac,
    pub socks: Vec<Sock>,
    /// SYNs for what is not named here are refused.
    pub listens: HashMap<(Address, u16), Welcome>,
    /// IPv4 addresses of this link that nobody has.
    pub absent: Vec<[u8; 4]>,
    /// Segments that came, by TCP flags of interest.
    pub resets: usize,
    pub syns: usize,
    /// The largest packet that the path takes; larger ones, their segments each by itself, are kept in `lost`.
    pub path_mtu: Option<usize>,
    pub lost: Vec<Vec<u8>>,
    engine: TcpEngine,
    handshakes: Handshakes,
    by_key: HashMap<FlowKey, usize>,
    frames: FramePool,
    out: Vec<Frame>,
    isn: u32,
}

impl Host {
    pub fn new(port: PortId, mac: Mac, gateway: Mac) -> Self {
        let spec =
            EngineSpec { connections: 4_096, receive_buffer: 16 << 10, send_buffer: 16 << 10, mtu: 1500 };
        Self {
            port,
            mac,
            gateway,
            socks: Vec::new(),
            listens: HashMap::new(),
            absent: Vec::new(),
            resets: 0,
            syns: 0,
            path_mtu: None,
            lost: Vec::new(),
            engine: TcpEngine::new(spec),
            handshakes: Handshakes::new(256, [1, 2], Backing::Ordinary),
            by_key: HashMap::new(),
            frames: FramePool::new(8_192),
            out: Vec::new(),
            isn: 1_000,
        }
    }

    /// Begins a connection; its number.
    pub fn connect(&mut self, from: (Address, u16), to: (Address, u16), now: Instant) -> usize {
        self.isn = self.isn.wrapping_add(0x0100_0001);
        let opening = Opening { local: from, remote: to, isn: self.isn, options: OPTIONS };
        let id = self.engine.connect(&opening, now).expect("room for a connection");
        let key =
            FlowKey { src: to.0, dst: from.0, src_port: to.1, dst_port: from.1, protocol: protocol::TCP };
        self.add(id, key)
    }

    fn add(&mut self, id: ConnId, key: FlowKey) -> usize {
        self.socks.push(Sock {
            id,
            key,
            got: Vec::new(),
            to_send: Vec::new(),
            closes: false,
            has_sent: false,
            reads: true,
            crumbs: 0,
            is_done: false,
            state: State::Connecting,
            over_at: None,
        });
        self.by_key.insert(key, self.socks.len() - 1);
        self.socks.len() - 1
    }

    /// Ends a connection with a RST.
    pub fn abort(&mut self, sock: usize) {
        self.engine.abort(self.socks[sock].id);
    }

    /// A frame of the worker's.
    pub fn receive(&mut self, mut frame: Frame, now: Instant) {
        checksum::finish(&mut frame);
        let bytes = frame.bytes();
        if bytes.get(12..14) == Some(&[8, 6]) {
            return self.answer_arp(bytes);
        }
        let to = Mac(bytes[..6].try_into().expect("six bytes"));
        let Ok(Parsed::Ip(packet)) = parse(bytes, to) else { return };
        if packet.class != Class::Tcp {
            return;
        }
        assert_eq!(to, self.mac, "sent to the right neighbour");
        build::assert_checksums(bytes);
        let bytes = bytes.to_vec();
        let largest = match frame.offload.segmentation {
            Some(cut) => usize::from(cut.payload_bytes) + 40,
            None => packet.ip_len as usize,
        };
        if self.path_mtu.is_some_and(|mtu| largest > mtu) {
            return self.lost.push(bytes[usize::from(packet.l3)..].to_vec());
        }
        self.segment(&packet, &bytes, now);
    }

    fn segment(&mut self, packet: &Packet, bytes: &[u8], now: Instant) {
        let flags = packet.tcp_flags;
        self.resets += usize::from(flags & tcp_flag::RST != 0);
        let is_syn = flags & (tcp_flag::SYN | tcp_flag::ACK | tcp_flag::RST) == tcp_flag::SYN;
        let l3 = usize::from(packet.l3);
        let ip = &bytes[l3..l3 + packet.ip_len as usize];
        let known = self.by_key.get(&packet.key).copied();
        let known = known.filter(|&index| !(is_syn && self.socks[index].state.is_over()));
        match known {
            Some(index) => self.engine.receive(self.socks[index].id, ip, now),
            None if is_syn => self.on_syn(packet, &bytes[usize::from(packet.l4)..], now),
            None => self.on_stranger(packet, bytes, ip, now),
        }
    }

    fn on_syn(&mut self, packet: &Packet, header: &[u8], now: Instant) {
        self.syns += 1;
        let to = (packet.key.dst, packet.key.dst_port);
        match self.listens.get(&to).copied().unwrap_or(Welcome::Refuse) {
            Welcome::Accept => {}
            Welcome::Ignore => return,
            Welcome::Refuse => {
                let seq = word(header, 4).wrapping_add(1);
                return self.control(packet, tcp_flag::RST | tcp_flag::ACK, 0, seq);
            }
        }
        let caller = Caller { virtual_id: VirtualId(0), link: LinkId::new(self.port, 0), mac: self.gateway };
        let mss = if packet.key.src.is_v4() { 1460 } else { 1440 };
        let offer = Offer { announced: self.engine.announced(), mss, timeout_ms: 5_000 };
        let syn = Syn::read(header, packet.key.src.is_v4());
        let answer = self.handshakes.on_syn(&packet.key, &syn, caller, &offer, now);
        self.out.extend(emit::syn_ack(&self.frames, self.link(), &answer));
    }

    /// What completes a handshake, or belongs to nothing and is refused.
    fn on_stranger(&mut self, packet: &Packet, bytes: &[u8], ip: &[u8], now: Instant) {
        if packet.tcp_flags & tcp_flag::RST != 0 {
            return;
        }
        let header = &bytes[usize::from(packet.l4)..];
        let (seq, ack) = (word(header, 4), word(header, 8));
        let is_known = self.handshakes.caller(&packet.key).is_some();
        let Some(complete) = self.handshakes.on_ack(&packet.key, seq, ack, now) else {
            // What is no answer to the SYN-ACK: the answer comes again.
            if is_known {
                return;
            }
            return self.control(packet, tcp_flag::RST, ack, 0);
        };
        let key = packet.key;
        let local = (key.dst, key.dst_port);
        let opening = Opening { local, remote: (key.src, key.src_port), isn: complete.isn, options: OPTIONS };
        let id = self.engine.accept(&opening, &complete.agreed, now).expect("room for a connection");
        self.engine.receive(id, ip, now);
        self.add(id, key);
    }

    fn control(&mut self, packet: &Packet, flags: u8, seq: u32, ack: u32) {
        let control = Control { key: packet.key.reversed(), flags, seq, ack };
        self.out.extend(emit::tcp_control(&self.frames, self.link(), &control));
    }

    fn link(&self) -> LinkHeader {
        LinkHeader { destination: self.gateway, source: self.mac, vlan: 0 }
    }

    /// Every address on this link is ours, but those that the asker announces and those that are absent.
    fn answer_arp(&mut self, bytes: &[u8]) {
        if bytes[21] != 1
            || bytes[28..32] == bytes[38..42]
            || self.absent.iter().any(|absent| bytes[38..42] == *absent)
        {
            return;
        }
        let text =
            |at: usize| IpAddr::from(<[u8; 4]>::try_from(&bytes[at..at + 4]).expect("four")).to_string();
        let mut answer = super::world::arp(2, self.mac, &text(38), &text(28));
        answer[..6].copy_from_slice(&bytes[6..12]);
        answer[32..38].copy_from_slice(&bytes[6..12]);
        self.out.extend(self.frames.copy_of(&answer));
    }

    /// Lets every connection read, write and send; what leaves is in the result.
    pub fn run(&mut self, now: Instant) -> Vec<Frame> {
        for index in 0..self.socks.len() {
            if self.socks[index].over_at.is_none_or(|at| at != GONE) {
                self.run_one(index, now);
            }
        }
        std::mem::take(&mut self.out)
    }

    fn run_one(&mut self, index: usize, now: Instant) {
        let (engine, sock) = (&mut self.engine, &mut self.socks[index]);
        while (sock.reads || sock.crumbs > 0) && engine.readable(sock.id) > 0 {
            let most = if sock.reads { usize::MAX } else { sock.crumbs };
            let read = engine.read(sock.id, |bytes| {
                let len = bytes.len().min(most);
                sock.got.extend_from_slice(&bytes[..len]);
                len
            });
            sock.crumbs = sock.crumbs.saturating_sub(read);
        }
        sock.is_done |= engine.is_peer_done(sock.id);
        let sent = engine.send(sock.id, &sock.to_send);
        sock.to_send.drain(..sent);
        sock.has_sent |= sent > 0;
        if sock.closes && sock.to_send.is_empty() && engine.state(sock.id) == State::Open {
            engine.close(sock.id);
            sock.closes = false;
        }
        let mut packets = Packets(Vec::new());
        while engine.transmit(sock.id, &mut packets, now) {}
        sock.state = engine.state(sock.id);
        for packet in packets.0 {
            self.out.extend(framed(&self.frames, self.gateway, self.mac, &packet));
        }
        self.part(index, now);
    }

    /// Forgets a connection that is over, in TIME-WAIT after a while.
    fn part(&mut self, index: usize, now: Instant) {
        let sock = &mut self.socks[index];
        if !sock.state.is_over() {
            return;
        }
        let now_ms = now.as_ns() / 1_000_000;
        let since = *sock.over_at.get_or_insert(now_ms);
        if sock.state == State::TimeWait && now_ms < since + TIME_WAIT_MS {
            return;
        }
        sock.over_at = Some(GONE);
        self.engine.release(sock.id);
        let key = sock.key;
        if self.by_key.get(&key) == Some(&index) {
            self.by_key.remove(&key);
        }
    }

    /// When the next connection has something to do by itself, in milliseconds.
    pub fn due_ms(&mut self, now: Instant) -> Option<u64> {
        let engine = &mut self.engine;
        let due = self.socks.iter().filter(|sock| !sock.state.is_over());
        due.filter_map(|sock| engine.due(sock.id, now)).min().map(|due| due.as_ns().div_ceil(1_000_000))
    }
}

/// Takes packets as they are; each is one segment.
struct Packets(Vec<Vec<u8>>);

impl Sink for Packets {
    fn has_room(&mut self) -> bool {
        true
    }

    fn largest(&self) -> usize {
        0
    }

    fn packet(&mut self, len: usize, _: Option<u16>, fill: impl FnOnce(&mut [u8])) {
        let mut packet = vec![0; len];
        fill(&mut packet);
        self.0.push(packet);
    }
}

/// An IP packet with its checksum and link header.
fn framed(frames: &FramePool, to: Mac, from: Mac, packet: &[u8]) -> Option<Frame> {
    let is_v4 = packet[0] >> 4 == 4;
    let ethertype: [u8; 2] = if is_v4 { [8, 0] } else { [0x86, 0xdd] };
    let bytes = [&to.0[..], &from.0, &ethertype, packet].concat();
    let mut frame = frames.copy_of(&bytes)?;
    let header = if is_v4 { 20 } else { 40 };
    let addresses = if is_v4 { &packet[12..20] } else { &packet[8..40] };
    let len = (packet.len() - header) as u64;
    let mut sum = checksum::sum(addresses) + u64::from(protocol::TCP) + len;
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    let at = 14 + header;
    frame.bytes_mut()[at + 16..at + 18].copy_from_slice(&(sum as u16).to_be_bytes());
    frame.offload.checksum = Checksum::Partial { start: at as u16, offset: 16 };
    checksum::finish(&mut frame);
    frame.offload.checksum = Checksum::Unchecked;
    Some(frame)
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

const OPTIONS: Options = Options { nagle: false, keep_alive_ms: 0, ack_delay_ms: 0 };
const TIME_WAIT_MS: u64 = 10_000;
const GONE: u64 = u64::MAX;
