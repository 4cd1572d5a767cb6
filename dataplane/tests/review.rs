//! Where features meet: one-to-one translations over workers, fragments that queue, what a stateless virtual server
//! does with large datagrams.

mod world;

use sluice_dataplane::address::Mac;
use sluice_dataplane::config::ids::PortId;
use sluice_dataplane::config::snapshot::{Ingress, Nat, Parts};
use sluice_dataplane::limits::Limits;
use sluice_dataplane::packet::build::{self, Tcp, address};
use sluice_dataplane::packet::parse::tcp_flag::SYN;
use sluice_dataplane::packet::rewrite::LinkHeader;
use world::*;

/// Sends a frame into one worker's queue and lets every worker take its strays.
fn send_at(worlds: &mut [World], at: usize, port: PortId, bytes: &[u8]) -> Vec<Out> {
    let mut out = worlds[at].send(port, bytes);
    for _ in 0..2 {
        out.extend(worlds.iter_mut().flat_map(|world| world.run(0)));
    }
    out
}

/// An ICMPv4 error of type 3 and this code that quotes `offender`, a frame.
fn unreachable(macs: (Mac, Mac), from: &str, to: &str, code: u8, offender: &[u8]) -> Vec<u8> {
    let link = LinkHeader { source: macs.0, destination: macs.1, vlan: 0 };
    let message = [&[3, code, 0, 0, 0, 0, 5, 0][..], &offender[14..]].concat();
    build::packet(link, from, to, 64, 1, &message, 2)
}

fn with_nat(parts: &mut Parts) {
    parts.nats.push(Nat {
        name: "host".into(),
        origin: address("10.1.0.13"),
        translation: address("192.0.2.60"),
        ingress: Ingress::Any,
    });
}

fn several(workers: usize, parts: &Parts) -> Vec<World> {
    let mut worlds = World::several(workers, Limits { flows: 256, frames: 64, ..Limits::default() }, parts);
    worlds.iter_mut().for_each(World::start);
    worlds
}

#[test]
fn errors_about_one_to_one_translations_reach_their_worker_from_both_sides() {
    let mut parts = usual();
    with_nat(&mut parts);
    let mut worlds = several(4, &parts);
    for port in 2_000..2_016 {
        let entry = usize::from(port) % 4;
        let inward = Tcp {
            src_mac: CLIENT_MAC,
            dst_mac: EXTERNAL_MAC,
            src: CLIENT,
            src_port: port,
            dst: "192.0.2.60",
            dst_port: 22,
            flags: SYN,
            ..Tcp::default()
        };
        let passed = send_at(&mut worlds, entry, EXTERNAL, &build::tcp(&inward));
        let macs = (member_mac(13), INTERNAL_MAC);
        let error = unreachable(macs, "10.1.0.13", CLIENT, 4, &passed[0].bytes);
        assert_eq!(send_at(&mut worlds, 3 - entry, INTERNAL, &error).len(), 1, "to the client of {port}");
        let reply =
            build::tcp(&Tcp { src: "192.0.2.60", src_port: 22, dst: CLIENT, dst_port: port, ..inward });
        let error = unreachable((CLIENT_MAC, EXTERNAL_MAC), "203.0.113.1", "192.0.2.60", 4, &reply);
        assert_eq!(send_at(&mut worlds, 3 - entry, EXTERNAL, &error).len(), 1, "to the host of {port}");
    }
}
