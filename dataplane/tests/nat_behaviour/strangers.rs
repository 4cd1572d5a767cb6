//! What a stranger may have sent passes, and changes nothing (RFC 7857 section 2.2, RFC 5961); ports used again.

use sluice_dataplane::packet::parse::tcp_flag::{ACK, FIN, RST, SYN};

use crate::Step::{Client, Is, Member, Next, Pass};
use crate::{after_open, play};

#[test]
fn wrong_numbers_pass_and_change_nothing() {
    after_open(
        "resets",
        &[
            Client(RST, 0x7000_0000, 0, 0),
            Member(RST, 0x7000_0000, 0, 0),
            Member(RST | ACK, 0x3000_0000, 0x7000_0000, 0),
            Is("established"),
            Client(ACK, 1_001, 5_001, 10),
            Is("established"),
            Next(1_011, 5_001),
        ],
    );
    after_open(
        "a reset in the window is answered by a challenge, and the connection lives",
        &[
            Member(ACK, 5_001, 1_001, 1_000),
            Client(RST, 1_000, 0, 0),
            Is("resetting"),
            Member(ACK, 6_001, 1_001, 0),
            Is("resetting"),
            Client(ACK, 1_001, 6_001, 0),
            Is("established"),
            Pass(200_000),
            Client(ACK, 1_001, 6_001, 10),
        ],
    );
    after_open(
        "data and ends out of the window",
        &[
            Client(ACK, 0x6000_0000, 5_001, 100),
            Member(ACK, 0xf000_0000, 1_001, 100),
            Client(ACK, 3_000, 0x7000_0000, 100),
            Client(FIN | ACK, 0x6000_0000, 5_001, 0),
            Member(FIN | ACK, 0x6000_0000, 1_001, 0),
            Is("established"),
            Next(1_001, 5_001),
        ],
    );
    after_open(
        "a SYN in or out of the window, and the challenge it gets",
        &[
            Client(SYN, 1_001, 0, 0),
            Member(ACK, 5_001, 1_001, 0),
            Client(SYN, 0x8000_0000, 0, 0),
            Member(ACK, 5_001, 1_001, 0),
            Is("established"),
            Next(1_001, 5_001),
        ],
    );
    play(
        "a reset of a half-open connection that refuses nothing",
        &[
            Client(SYN, 1_000, 0, 0),
            Member(RST | ACK, 0, 0x7000_0000, 0),
            Member(RST, 0x7000_0000, 0, 0),
            Is("syn-sent"),
            Member(SYN | ACK, 5_000, 1_001, 0),
            Client(ACK, 1_001, 5_001, 0),
            Is("established"),
        ],
    );
}

// A client that uses its port again: RFC 9293 section 3.6.1, RFC 6191, RFC 1122 section 4.2.2.13.

#[test]
fn a_port_used_again_opens_anew_whatever_the_number() {
    // The same number again is a late copy of the first SYN, for which pipeline/time.rs has a test.
    for (name, seq) in [("higher", 9_000), ("lower", 10)] {
        after_open(
            name,
            &[
                Client(FIN | ACK, 1_001, 5_001, 0),
                Member(FIN | ACK, 5_001, 1_002, 0),
                Client(ACK, 1_002, 5_002, 0),
                Is("closing"),
                Client(SYN, seq, 0, 0),
                Is("syn-sent"),
                Member(SYN | ACK, 70_000, seq + 1, 0),
                Client(ACK, seq + 1, 70_001, 0),
                Is("established"),
                Next(seq + 1, 70_001),
            ],
        );
    }
    after_open(
        "after a reset",
        &[Client(RST, 1_001, 0, 0), Is("closing"), Client(SYN, 77, 0, 0), Is("syn-sent")],
    );
    after_open(
        "a client that has forgotten its connection",
        &[
            Client(SYN, 800_000, 0, 0),
            Member(ACK, 5_001, 1_001, 0),
            Client(RST, 1_001, 0, 0),
            Is("closing"),
            Client(SYN, 800_000, 0, 0),
            Is("syn-sent"),
            Member(SYN | ACK, 9_000, 800_001, 0),
            Client(ACK, 800_001, 9_001, 0),
            Is("established"),
        ],
    );
    after_open(
        "a SYN to a half-closed connection goes to the member, which knows",
        &[Client(FIN | ACK, 1_001, 5_001, 0), Client(SYN, 70_000, 0, 0), Is("fin-client")],
    );
}
