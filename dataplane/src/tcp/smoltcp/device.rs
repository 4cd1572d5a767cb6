//! What smoltcp takes for network devices: one that yields the packet at hand and keeps the answer, and one that sends
//! into a [`Sink`].

use ::smoltcp::iface::{Config, Interface};
use ::smoltcp::phy::{self, Device, DeviceCapabilities, Medium};
use ::smoltcp::time::Instant;
use ::smoltcp::wire::HardwareAddress;
use std::num::NonZeroUsize;

use super::segment::{ROOM, Segment, checksums};
use crate::tcp::Sink;

/// An interface with every address. Packets of up to `largest` bytes are made when it is more than the `mtu`. No heap.
///
/// smoltcp drops IPv6 packets that are larger than what it takes for the MTU even if it was told that they will be cut,
/// so it is told that `largest` is the MTU; such an interface must not send a SYN, whose MSS option follows from it.
pub(super) fn interface(mtu: usize, largest: usize, seed: u64) -> Interface {
    let mut config = Config::new(HardwareAddress::Ip);
    config.random_seed = seed;
    let mut interface = Interface::new(config, &mut Capable { mtu, largest }, Instant::ZERO);
    interface.set_any_ip(true);
    interface
}

/// Stands for a device while an interface is made, which asks for its capabilities then and never again.
struct Capable {
    mtu: usize,
    largest: usize,
}

impl Device for Capable {
    type RxToken<'a> = Arrived<'a>;
    type TxToken<'a> = Kept<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Arrived<'_>, Kept<'_>)> {
        None
    }

    fn transmit(&mut self, _: Instant) -> Option<Kept<'_>> {
        None
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = self.mtu.max(self.largest);
        capabilities.checksum = checksums();
        let largest = NonZeroUsize::new(self.largest).filter(|largest| largest.get() > self.mtu);
        capabilities.segmentation.tcpv4 = largest;
        capabilities.segmentation.tcpv6 = largest;
        capabilities
    }
}

/// A packet without payload.
#[derive(Debug, Clone, Copy)]
pub(super) struct Small {
    bytes: [u8; ROOM],
    len: u8,
}

impl Small {
    pub(super) fn new(len: usize) -> Self {
        Self { bytes: [0; ROOM], len: len.min(ROOM) as u8 }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[..usize::from(self.len)]
    }
}

/// Yields one packet, and keeps the newest that is sent.
pub(super) struct Inbound<'p> {
    pub packet: Option<&'p [u8]>,
    pub answer: Option<Small>,
}

impl Device for Inbound<'_> {
    type RxToken<'a>
        = Arrived<'a>
    where
        Self: 'a;
    type TxToken<'a>
        = Kept<'a>
    where
        Self: 'a;

    fn receive(&mut self, _: Instant) -> Option<(Arrived<'_>, Kept<'_>)> {
        Some((Arrived(self.packet.take()?), Kept(&mut self.answer)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Kept<'_>> {
        Some(Kept(&mut self.answer))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        DeviceCapabilities::default()
    }
}

pub(super) struct Arrived<'p>(&'p [u8]);

impl phy::RxToken for Arrived<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, take: F) -> R {
        take(self.0)
    }
}

pub(super) struct Kept<'p>(&'p mut Option<Small>);

impl phy::TxToken for Kept<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, fill: F) -> R {
        fill(self.0.insert(Small::new(len)).bytes_mut())
    }
}

/// What was sent on a connection, as far as smoltcp remembers it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sent {
    /// What we send next: after the last that was ever sent.
    pub next: u32,
    /// What we acknowledged.
    pub ack: u32,
    /// The window that we announced with it, as it stands in the segment.
    pub window: u16,
    /// What the peer has acknowledged: the first that it may be waiting for.
    pub acked: u32,
    /// The peer has closed its window.
    pub is_shut: bool,
    /// With the newest packet all was sent that there is: smoltcp marks that one with PSH, or ends with it.
    pub is_all: bool,
}

impl Sent {
    /// A packet that smoltcp made. It forgets that a probe of a closed window acknowledged and announced something
    /// as well, so this does too.
    pub(super) fn on_packet(&mut self, packet: &[u8]) {
        let Some(segment) = Segment::read(packet) else { return };
        if segment.after().wrapping_sub(self.next) as i32 > 0 {
            self.next = segment.after();
        }
        self.is_all = segment.has(Segment::PSH | Segment::FIN);
        if self.is_shut && segment.payload == 1 {
            return;
        }
        self.window = segment.window;
        if segment.has(Segment::ACK) {
            self.ack = segment.ack;
        }
    }
}

/// Sends into a sink.
pub(super) struct Outbound<'s, S> {
    pub sink: &'s mut S,
    pub sent: &'s mut Sent,
    /// Bytes of IP and TCP header of a segment with payload.
    pub headers: usize,
    /// The most payload of a segment.
    pub mss: u16,
}

impl<S: Sink> Device for Outbound<'_, S> {
    type RxToken<'a>
        = Arrived<'a>
    where
        Self: 'a;
    type TxToken<'a>
        = Leaving<'a, S>
    where
        Self: 'a;

    fn receive(&mut self, _: Instant) -> Option<(Arrived<'_>, Leaving<'_, S>)> {
        None
    }

    fn transmit(&mut self, _: Instant) -> Option<Leaving<'_, S>> {
        let room = self.sink.has_room();
        room.then_some(Leaving { sink: self.sink, sent: self.sent, headers: self.headers, mss: self.mss })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        DeviceCapabilities::default()
    }
}

pub(super) struct Leaving<'s, S> {
    sink: &'s mut S,
    sent: &'s mut Sent,
    headers: usize,
    mss: u16,
}

impl<S: Sink> phy::TxToken for Leaving<'_, S> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, fill: F) -> R {
        let segment = (len > self.headers + usize::from(self.mss)).then_some(self.mss);
        let mut result = None;
        self.sink.packet(len, segment, |packet| {
            result = Some(fill(packet));
            self.sent.on_packet(packet);
        });
        result.expect("a sink fills every packet that it is asked for")
    }
}
