//! Every valid sequence of segments (RFC 5382 REQ-2).

use sluice_dataplane::packet::parse::tcp_flag::{ACK, FIN, RST, SYN};

use crate::Step::{Client, Is, Member, Next, Pass};
use crate::{OPEN, after_open, play};

#[test]
fn connections_open_in_every_valid_way() {
    play("three ways", &OPEN);
    play(
        "both at once",
        &[
            Client(SYN, 1_000, 0, 0),
            Member(SYN, 5_000, 0, 0),
            Is("syn-received"),
            Client(SYN | ACK, 1_000, 5_001, 0),
            Member(SYN | ACK, 5_000, 1_001, 0),
            Is("established"),
            Pass(200_000),
            Member(ACK, 5_001, 1_001, 10),
        ],
    );
    play(
        "the SYN again",
        &[
            Client(SYN, 1_000, 0, 0),
            Pass(1_000),
            Client(SYN, 1_000, 0, 0),
            Pass(2_000),
            Client(SYN, 1_000, 0, 0),
            Member(SYN | ACK, 5_000, 1_001, 0),
            Client(SYN, 1_000, 0, 0),
            Is("syn-received"),
            Member(SYN | ACK, 5_000, 1_001, 0),
            Client(ACK, 1_001, 5_001, 0),
            Is("established"),
            Client(SYN, 1_000, 0, 0),
            Is("established"),
            Next(1_001, 5_001),
        ],
    );
    play(
        "the SYN,ACK again, also after the ACK was lost behind us",
        &[
            Client(SYN, 1_000, 0, 0),
            Member(SYN | ACK, 5_000, 1_001, 0),
            Pass(1_000),
            Member(SYN | ACK, 5_000, 1_001, 0),
            Client(ACK, 1_001, 5_001, 0),
            Member(SYN | ACK, 5_000, 1_001, 0),
            Client(ACK, 1_001, 5_001, 0),
            Is("established"),
            Next(1_001, 5_001),
        ],
    );
    play(
        "data with the SYN (RFC 7413)",
        &[
            Client(SYN, 1_000, 0, 100),
            Member(SYN | ACK, 5_000, 1_101, 0),
            Member(ACK, 5_001, 1_101, 500),
            Client(ACK, 1_101, 5_501, 0),
            Is("established"),
            Next(1_101, 5_501),
        ],
    );
    play(
        "a new number before the old SYN was answered",
        &[
            Client(SYN, 1_000, 0, 0),
            Client(SYN, 90_000, 0, 0),
            Member(SYN | ACK, 5_000, 90_001, 0),
            Client(ACK, 90_001, 5_001, 0),
            Next(90_001, 5_001),
        ],
    );
}

#[test]
fn connections_close_in_every_valid_way() {
    after_open(
        "one after the other",
        &[
            Client(FIN | ACK, 1_001, 5_001, 0),
            Is("fin-client"),
            Member(ACK, 5_001, 1_002, 0),
            Member(FIN | ACK, 5_001, 1_002, 0),
            Is("closing"),
            Client(ACK, 1_002, 5_002, 0),
            Pass(5_200),
            Is("gone"),
        ],
    );
    after_open(
        "both at once",
        &[
            Client(FIN | ACK, 1_001, 5_001, 0),
            Member(FIN | ACK, 5_001, 1_001, 0),
            Is("last-ack"),
            Client(ACK, 1_002, 5_002, 0),
            Member(ACK, 5_002, 1_002, 0),
            Is("closing"),
            Pass(5_200),
            Is("gone"),
        ],
    );
    after_open(
        "half-closed for long, with data",
        &[
            Client(FIN | ACK, 1_001, 5_001, 0),
            Pass(290_000),
            Member(ACK, 5_001, 1_002, 1_000),
            Pass(290_000),
            Client(ACK, 1_002, 6_001, 0),
            Is("fin-client"),
            Member(FIN | ACK, 6_001, 1_002, 0),
            Is("closing"),
        ],
    );
    after_open(
        "the FIN again after the end",
        &[
            Client(FIN | ACK, 1_001, 5_001, 0),
            Member(FIN | ACK, 5_001, 1_002, 0),
            Pass(3_000),
            Member(FIN | ACK, 5_001, 1_002, 0),
            Client(ACK, 1_002, 5_002, 0),
            Pass(3_000),
            Is("closing"),
            Member(FIN | ACK, 5_001, 1_002, 0),
            Client(RST, 1_002, 0, 0),
            Is("closing"),
            Pass(5_200),
            Is("gone"),
        ],
    );
    after_open("a reset", &[Member(RST, 5_001, 0, 0), Is("closing"), Pass(5_200), Is("gone")]);
    play(
        "a refusal",
        &[Client(SYN, 1_000, 0, 0), Member(RST | ACK, 0, 1_001, 0), Is("closing"), Pass(5_200), Is("gone")],
    );
}
