//! Golden tests: packet in; packet out, drop reasons and counters moved, for every branch of the path.

mod applies;
mod bursts;
mod capacity;
mod icmp;
mod malformed;
mod neighbors;
mod refusals;
mod selection;
mod time;
mod way;
#[path = "../world/mod.rs"]
mod world;

use sluice_dataplane::config::ids::PortId;
use sluice_dataplane::packet::build::{self, Tcp};
use sluice_dataplane::packet::parse::tcp_flag::{ACK, SYN};
use sluice_dataplane::packet::rewrite::LinkHeader;
use world::*;

fn syn() -> Tcp<'static> {
    Tcp { src_mac: CLIENT_MAC, dst_mac: EXTERNAL_MAC, flags: SYN, seq: 1_000, ..Tcp::default() }
}

/// From the member's side: 10.1.0.11:8080 to our self IP.
fn from_member(flags: u8, seq: u32, ack: u32) -> Tcp<'static> {
    Tcp {
        src_mac: member_mac(11),
        dst_mac: INTERNAL_MAC,
        src: "10.1.0.11",
        dst: SELF_IN,
        src_port: 8080,
        dst_port: 40_000,
        flags,
        seq,
        ack,
        ..Tcp::default()
    }
}

fn send(world: &mut World, port: PortId, tcp: &Tcp) -> Vec<Out> {
    world.send(port, &build::tcp(tcp))
}

/// SYN, SYN-ACK, ACK between the client and 10.1.0.11.
fn establish(world: &mut World) {
    assert_eq!(only(&send(world, EXTERNAL, &syn())).dst.0, "10.1.0.11");
    assert_eq!(send(world, INTERNAL, &from_member(SYN | ACK, 5_000, 1_001)).len(), 1);
    assert_eq!(send(world, EXTERNAL, &Tcp { flags: ACK, seq: 1_001, ack: 5_001, ..syn() }).len(), 1);
    assert_eq!(world.flows()[0].state, "established");
}

fn echo(src: &str, dst: &str, kind: u8) -> Vec<u8> {
    let link = LinkHeader { destination: EXTERNAL_MAC, source: CLIENT_MAC, vlan: 0 };
    build::packet(
        link,
        src,
        dst,
        9,
        if src.contains(':') { 58 } else { 1 },
        &[kind, 0, 0, 0, 0, 1, 0, 2, 9, 9],
        2,
    )
}
