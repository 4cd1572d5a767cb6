//! Packets as they are on the wire: read, checked, made and cut.

use sluice_dataplane::address::Address;

pub const FIN: u8 = 1;
pub const SYN: u8 = 2;
pub const RST: u8 = 4;
pub const PSH: u8 = 8;
pub const ACK: u8 = 16;

/// What a packet says. Reading it checks everything that an engine promises of what it sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tcp {
    pub from: (Address, u16),
    pub to: (Address, u16),
    pub seq: u32,
    pub ack: u32,
    pub flags: u8,
    pub window: u16,
    pub mss: Option<u16>,
    pub scale: Option<u8>,
    pub sack: bool,
    /// Selective acknowledgements (RFC 2018 section 3).
    pub blocks: Vec<(u32, u32)>,
    pub payload: Vec<u8>,
}

impl Tcp {
    /// A segment of one end to the other; everything else is to be set.
    pub fn new(from: (Address, u16), to: (Address, u16), flags: u8, seq: u32, ack: u32) -> Self {
        let (window, blocks, payload) = (8192, Vec::new(), Vec::new());
        Self { from, to, seq, ack, flags, window, mss: None, scale: None, sack: false, blocks, payload }
    }

    pub fn read(packet: &[u8]) -> Self {
        let header = ip_header(packet);
        let (from, to) = match header {
            20 => (Address::v4(at(packet, 12)), Address::v4(at(packet, 16))),
            _ => (Address::v6(at(packet, 8)), Address::v6(at(packet, 24))),
        };
        let tcp = &packet[header..];
        let data = usize::from(tcp[12] >> 4) * 4;
        let mut read =
            Self::new((from, be16(tcp, 0)), (to, be16(tcp, 2)), tcp[13], be32(tcp, 4), be32(tcp, 8));
        read.window = be16(tcp, 14);
        read.payload = tcp[data..].to_vec();
        read.read_options(&tcp[20..data]);
        assert_eq!(be16(tcp, 16), 0, "the TCP checksum is the sink's");
        read
    }

    fn read_options(&mut self, mut options: &[u8]) {
        while let [kind, rest @ ..] = options {
            match kind {
                0 => return,
                1 => options = rest,
                _ => {
                    let (option, after) = options.split_at(usize::from(options[1]));
                    match kind {
                        2 => self.mss = Some(be16(option, 2)),
                        3 => self.scale = Some(option[2]),
                        4 => self.sack = true,
                        5 => {
                            let edges = |pair| (be32(pair, 0), be32(pair, 4));
                            self.blocks = option[2..].chunks(8).map(edges).collect();
                        }
                        _ => {}
                    }
                    options = after;
                }
            }
        }
    }

    pub fn write(&self) -> Vec<u8> {
        let mut options = Vec::new();
        self.mss.iter().for_each(|mss| options.extend([2, 4, (mss >> 8) as u8, *mss as u8]));
        self.scale.iter().for_each(|scale| options.extend([1, 3, 3, *scale]));
        if self.sack {
            options.extend([1, 1, 4, 2]);
        }
        if !self.blocks.is_empty() {
            options.extend([1, 1, 5, 2 + 8 * self.blocks.len() as u8]);
        }
        for (from, to) in &self.blocks {
            options.extend(from.to_be_bytes().into_iter().chain(to.to_be_bytes()));
        }
        let mut tcp = [self.from.1.to_be_bytes(), self.to.1.to_be_bytes()].concat();
        tcp.extend(self.seq.to_be_bytes());
        tcp.extend(self.ack.to_be_bytes());
        tcp.extend([(5 + options.len() as u8 / 4) << 4, self.flags]);
        tcp.extend(self.window.to_be_bytes());
        tcp.extend([0; 4]);
        tcp.extend(options);
        tcp.extend(&self.payload);
        [ip(self.from.0, self.to.0, tcp.len()), tcp].concat()
    }

    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    pub fn after(&self) -> u32 {
        let control = u32::from(self.has(SYN)) + u32::from(self.has(FIN));
        self.seq.wrapping_add(self.payload.len() as u32 + control)
    }
}

fn ip(from: Address, to: Address, len: usize) -> Vec<u8> {
    let mut header = if from.is_v4() {
        let mut header = [0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 6, 0, 0].to_vec();
        header[2..4].copy_from_slice(&(20 + len as u16).to_be_bytes());
        header.extend(from.v4_octets().into_iter().chain(to.v4_octets()));
        header
    } else {
        let mut header = [0x60, 0, 0, 0, 0, 0, 6, 64].to_vec();
        header[4..6].copy_from_slice(&(len as u16).to_be_bytes());
        header.extend(from.v6_octets().into_iter().chain(to.v6_octets()));
        header
    };
    finish(&mut header);
    header
}

/// Makes the header checksum of an IPv4 packet right.
fn finish(packet: &mut [u8]) {
    if packet[0] >> 4 == 4 {
        packet[10..12].fill(0);
        let sum = !sum(&packet[..20]);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
    }
}

fn sum(bytes: &[u8]) -> u16 {
    let mut sum = bytes.chunks(2).map(|pair| u32::from(be16(pair, 0))).sum::<u32>();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// The length of the IP header; the packet's length and the header's checksum are right.
fn ip_header(packet: &[u8]) -> usize {
    match packet[0] {
        0x45 => {
            assert_eq!(usize::from(be16(packet, 2)), packet.len());
            assert_eq!(sum(&packet[..20]), 0xffff);
            assert_eq!(packet[9], 6);
            20
        }
        0x60 => {
            assert_eq!(usize::from(be16(packet, 4)) + 40, packet.len());
            assert_eq!(packet[6], 6);
            40
        }
        other => panic!("no IP packet: {other:#x}"),
    }
}

/// What a network card makes of a packet that is larger than a segment.
pub fn cut(packet: &[u8], segment: usize) -> Vec<Vec<u8>> {
    let whole = Tcp::read(packet);
    let pieces = whole.payload.chunks(segment).count();
    let piece = |(number, payload): (usize, &[u8])| {
        let mut piece = Tcp { payload: payload.to_vec(), ..whole.clone() };
        piece.seq = whole.seq.wrapping_add((number * segment) as u32);
        if number + 1 < pieces {
            piece.flags &= !(PSH | FIN);
        }
        piece.write()
    };
    whole.payload.chunks(segment).enumerate().map(piece).collect()
}

fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn be32(bytes: &[u8], from: usize) -> u32 {
    u32::from_be_bytes(at(bytes, from))
}

fn at<const N: usize>(bytes: &[u8], from: usize) -> [u8; N] {
    bytes[from..from + N].try_into().unwrap()
}
