//! Frames as the simulated hosts write and read them. Hosts check every checksum, as kernels do.

use sluice_dataplane::address::{Address, Mac};
use sluice_dataplane::packet::checksum::{fold, sum};

pub const FIN: u8 = 0x01;
pub const SYN: u8 = 0x02;
pub const RST: u8 = 0x04;
pub const ACK: u8 = 0x10;
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;

/// The window in every segment of a simulated host; sluice's own segments say 0.
pub const WINDOW: u16 = 0x7ffe;
/// In the unused word of every ICMP error of a simulated host; sluice's own say 0.
pub const ERROR_MARK: u16 = 0xbeef;

/// An address and a port.
pub type End = (Address, u16);

/// A TCP segment or a UDP datagram in its frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    pub macs: (Mac, Mac),
    pub src: End,
    pub dst: End,
    pub protocol: u8,
    pub flags: u8,
    pub seq: u32,
    pub ack: u32,
    pub window: u16,
    pub payload: Vec<u8>,
}

/// What a host makes of a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    Transport(Packet),
    /// Somebody asks for the link address of `target`.
    Asked {
        mac: Mac,
        sender: Address,
        target: Address,
    },
    /// An ICMP error to `to` about the packet with these ends; `own` when sluice itself made it, `whole` when its
    /// mark is as it was sent.
    Error {
        to: Address,
        quoted: (End, End),
        own: bool,
        whole: bool,
    },
    /// Echo replies.
    Echo {
        to: Address,
        from: Address,
    },
    /// Announcements of addresses: their order is nobody's promise.
    News,
    /// A wrong checksum or length.
    Damaged,
    Other,
}

impl Packet {
    pub fn encode(&self) -> Vec<u8> {
        let mut l4 = Vec::with_capacity(20 + self.payload.len());
        l4.extend(self.src.1.to_be_bytes());
        l4.extend(self.dst.1.to_be_bytes());
        if self.protocol == TCP {
            l4.extend(self.seq.to_be_bytes());
            l4.extend(self.ack.to_be_bytes());
            l4.extend([0x50, self.flags]);
            l4.extend(self.window.to_be_bytes());
            l4.extend([0; 4]);
        } else {
            l4.extend((8 + self.payload.len() as u16).to_be_bytes());
            l4.extend([0; 2]);
        }
        l4.extend(&self.payload);
        let at = if self.protocol == TCP { 16 } else { 6 };
        ip_frame(self.macs, self.src.0, self.dst.0, self.protocol, l4, at)
    }
}

/// A frame of any IP packet; the checksum of `l4` goes to its byte `at`.
pub fn ip_frame(
    macs: (Mac, Mac),
    src: Address,
    dst: Address,
    protocol: u8,
    mut l4: Vec<u8>,
    at: usize,
) -> Vec<u8> {
    let value = match !fold(sum(&l4) + pseudo(src, dst, protocol, l4.len())) {
        // "No checksum" (RFC 768), which IPv6 does not allow.
        0 if protocol == UDP => 0xffff,
        value => value,
    };
    l4[at..at + 2].copy_from_slice(&value.to_be_bytes());
    let mut frame = Vec::with_capacity(54 + l4.len());
    frame.extend(macs.1.0);
    frame.extend(macs.0.0);
    if src.is_v4() {
        frame.extend([8, 0]);
        let [high, low] = (20 + l4.len() as u16).to_be_bytes();
        let mut header = vec![0x45, 0, high, low, 0, 7, 0x40, 0, 64, protocol, 0, 0];
        header.extend(src.v4_octets());
        header.extend(dst.v4_octets());
        let value = !fold(sum(&header));
        header[10..12].copy_from_slice(&value.to_be_bytes());
        frame.extend(header);
    } else {
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
        frame.extend((l4.len() as u16).to_be_bytes());
        frame.extend([protocol, if protocol == 58 { 255 } else { 64 }]);
        frame.extend(src.v6_octets());
        frame.extend(dst.v6_octets());
    }
    frame.extend(l4);
    frame
}

fn pseudo(src: Address, dst: Address, protocol: u8, len: usize) -> u64 {
    let addresses = if src.is_v4() {
        sum(&src.v4_octets()) + sum(&dst.v4_octets())
    } else {
        sum(&src.v6_octets()) + sum(&dst.v6_octets())
    };
    if protocol == 1 { 0 } else { addresses + u64::from(protocol) + len as u64 }
}

/// An ARP reply or neighbour advertisement: `target` has `macs.0`, told to `to`.
pub fn neighbor_answer(macs: (Mac, Mac), target: Address, to: Address) -> Vec<u8> {
    if target.is_v4() {
        return arp(macs, 2, target, to);
    }
    let mut message = vec![136, 0, 0, 0, 0x60, 0, 0, 0];
    message.extend(target.v6_octets());
    message.extend([2, 1]);
    message.extend(macs.0.0);
    ip_frame(macs, target, to, 58, message, 2)
}

pub fn arp(macs: (Mac, Mac), operation: u8, sender: Address, target: Address) -> Vec<u8> {
    let mut frame = Vec::with_capacity(42);
    frame.extend(macs.1.0);
    frame.extend(macs.0.0);
    frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, operation]);
    frame.extend(macs.0.0);
    frame.extend(sender.v4_octets());
    frame.extend(if operation == 1 { [0; 6] } else { macs.1.0 });
    frame.extend(target.v4_octets());
    frame
}

/// "Port unreachable" from the receiver of `offender`, quoting all of it.
pub fn port_unreachable(offender: &Packet) -> Vec<u8> {
    let quoted = offender.encode();
    let is_v4 = offender.src.0.is_v4();
    let mut message = if is_v4 { vec![3, 3] } else { vec![1, 4] };
    message.extend([0, 0]);
    message.extend(u32::from(ERROR_MARK).to_be_bytes());
    message.extend(&quoted[14..]);
    let macs = (offender.macs.1, offender.macs.0);
    ip_frame(macs, offender.dst.0, offender.src.0, if is_v4 { 1 } else { 58 }, message, 2)
}

/// Reads a frame.
pub fn hear(bytes: &[u8]) -> Heard {
    let mac = |at: usize| Mac(bytes[at..at + 6].try_into().unwrap());
    match bytes.get(12..14) {
        Some([8, 6]) if bytes.len() >= 42 => {
            let address = |at: usize| Address::v4(bytes[at..at + 4].try_into().unwrap());
            let (sender, target) = (address(28), address(38));
            match bytes[21] {
                1 if sender == target => Heard::News,
                1 => Heard::Asked { mac: mac(22), sender, target },
                _ => Heard::Other,
            }
        }
        Some([8, 0]) => hear_v4(bytes).unwrap_or(Heard::Damaged),
        Some([0x86, 0xdd]) => hear_v6(bytes).unwrap_or(Heard::Damaged),
        _ => Heard::Other,
    }
}

fn hear_v4(bytes: &[u8]) -> Option<Heard> {
    let header = bytes.get(14..34)?;
    let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
    let l4 = bytes.get(34..14 + total)?;
    let address = |at: usize| Address::v4(header[at..at + 4].try_into().unwrap());
    if header[0] != 0x45 || fold(sum(header)) != 0xffff {
        return None;
    }
    hear_transport(bytes, (address(12), address(16)), header[9], l4)
}

fn hear_v6(bytes: &[u8]) -> Option<Heard> {
    let header = bytes.get(14..54)?;
    let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
    let l4 = bytes.get(54..54 + length)?;
    // Behind hop-by-hop options, a multicast listener report.
    if header[6] == 0 && l4.get(8) == Some(&143) {
        return Some(Heard::News);
    }
    let address = |at: usize| Address::v6(header[at..at + 16].try_into().unwrap());
    hear_transport(bytes, (address(8), address(24)), header[6], l4)
}

fn hear_transport(bytes: &[u8], ends: (Address, Address), protocol: u8, l4: &[u8]) -> Option<Heard> {
    if fold(sum(l4) + pseudo(ends.0, ends.1, protocol, l4.len())) != 0xffff {
        return None;
    }
    match protocol {
        1 => hear_icmp(ends, l4),
        58 => hear_icmp6(bytes, ends, l4),
        _ => packet(bytes, ends, protocol, l4).map(Heard::Transport),
    }
}

fn packet(bytes: &[u8], (src, dst): (Address, Address), protocol: u8, l4: &[u8]) -> Option<Packet> {
    let short = |at: usize| l4.get(at..at + 2).map(|b| u16::from_be_bytes(b.try_into().unwrap()));
    let long = |at: usize| l4.get(at..at + 4).map(|b| u32::from_be_bytes(b.try_into().unwrap()));
    let mac = |at: usize| Mac(bytes[at..at + 6].try_into().unwrap());
    let macs = (mac(6), mac(0));
    let (src, dst) = ((src, short(0)?), (dst, short(2)?));
    let blank = Packet { macs, src, dst, protocol, flags: 0, seq: 0, ack: 0, window: 0, payload: Vec::new() };
    if protocol == UDP {
        return Some(Packet { payload: l4.get(8..)?.to_vec(), ..blank });
    }
    let start = usize::from(l4.get(12)? >> 4) * 4;
    let payload = l4.get(start..)?.to_vec();
    Some(Packet { flags: l4[13], seq: long(4)?, ack: long(8)?, window: short(14)?, payload, ..blank })
}

fn hear_icmp((src, dst): (Address, Address), l4: &[u8]) -> Option<Heard> {
    match l4.first()? {
        0 => Some(Heard::Echo { to: dst, from: src }),
        3 | 11 | 12 => {
            let inner = l4.get(8..36)?;
            let address = |at: usize| Address::v4(inner[at..at + 4].try_into().unwrap());
            Some(error(dst, l4, (address(12), address(16)), &inner[20..]))
        }
        _ => Some(Heard::Other),
    }
}

fn hear_icmp6(bytes: &[u8], (src, dst): (Address, Address), l4: &[u8]) -> Option<Heard> {
    let address = |at: usize| Some(Address::v6(l4.get(at..at + 16)?.try_into().unwrap()));
    match l4.first()? {
        129 => Some(Heard::Echo { to: dst, from: src }),
        135 => {
            let mac = Mac(bytes[6..12].try_into().unwrap());
            Some(Heard::Asked { mac, sender: src, target: address(8)? })
        }
        136 => Some(Heard::News),
        0..=127 => Some(error(dst, l4, (address(16)?, address(32)?), l4.get(48..)?)),
        _ => Some(Heard::Other),
    }
}

fn error(to: Address, l4: &[u8], (src, dst): (Address, Address), ports: &[u8]) -> Heard {
    let port = |at: usize| ports.get(at..at + 2).map_or(0, |b| u16::from_be_bytes(b.try_into().unwrap()));
    // A link may have damaged one bit of it.
    let mark = u16::from_be_bytes([l4[6], l4[7]]);
    let own = (mark ^ ERROR_MARK).count_ones() > 1;
    Heard::Error { to, quoted: ((src, port(0)), (dst, port(2))), own, whole: own || mark == ERROR_MARK }
}
