//! The segment size that the ends announce.

use sluice_dataplane::packet::build::{self, Tcp};
use sluice_dataplane::packet::parse::tcp_flag::{ACK, SYN};

use crate::world::*;
use crate::{client, member};

#[test]
fn syns_of_both_sides_are_clamped_where_asked() {
    let mss = |value: u16| [&[1, 1, 2, 4][..], &value.to_be_bytes(), &[0, 0]].concat();
    let announced = |out: &[Out]| {
        only(out);
        u16::from_be_bytes([out[0].bytes[58], out[0].bytes[59]])
    };
    for (clamp, sent, expected) in
        [(Some(1_360), 1_460, 1_360), (Some(1_360), 536, 536), (None, 1_460, 1_460)]
    {
        let mut world = World::started(|parts| parts.virtuals[0].mss_clamp = clamp);
        let syn = Tcp { flags: SYN, seq: 1_000, ..client() };
        let out = world.send(EXTERNAL, &build::tcp_with_options(&syn, &mss(sent)));
        assert_eq!(announced(&out), expected);
        let reply = Tcp { flags: SYN | ACK, seq: 5_000, ack: 1_001, ..member() };
        for _ in 0..2 {
            let out = world.send(INTERNAL, &build::tcp_with_options(&reply, &mss(sent)));
            assert_eq!(announced(&out), expected, "also when sent again");
        }
        let ack = Tcp { flags: ACK, seq: 1_001, ack: 5_001, ..client() };
        let out = world.send(EXTERNAL, &build::tcp_with_options(&ack, &mss(sent)));
        assert_eq!(announced(&out), sent, "no SYN, no option");
    }
}
