//! How fast an engine sends over a link that loses, on the virtual clock: `cargo test -p sluice-dataplane --test
//! tcp_engine goodput -- --nocapture` prints a table.

use std::time::Duration;

use sluice_dataplane::tcp::{Engine, EngineSpec};

use super::subject::Kind;
use super::{Bottleneck, SPEC, Weather, World};

/// Bytes of a transfer.
const TOTAL: usize = 20_000_000;
const BITS_PER_SECOND: u64 = 500_000_000;
/// Packets of a million that begin a loss, and how many are lost then.
const LOSSES: [(u64, u64); 6] = [(0, 1), (100, 1), (1000, 1), (10_000, 1), (100, 16), (500, 16)];

/// Megabits a second, and what was sent twice and what was lost, bytes.
struct Result {
    goodput: f64,
    resent: usize,
    lost: usize,
}

/// A transfer from side 0 to side 1 with a round trip of 20 ms; `None` when it stands still and is given up.
fn transfer(kind: Kind, losses: u64, burst: u64) -> Option<Result> {
    let spec = EngineSpec { receive_buffer: 1 << 20, send_buffer: 1 << 20, ..SPEC };
    let mut world = World::new([kind; 2], 1, spec);
    (world.keeps_log, world.weather) = (false, Weather { delay: Duration::from_millis(10), ..Weather::FAIR });
    let [client, server] = world.open(1000);
    world.bottleneck = Some(Bottleneck::new(BITS_PER_SECOND, 512 * 1024, losses, burst));
    let (begin, mut written, mut read) = (world.now, 0, 0);
    while read < TOTAL {
        written += world.engines[0].write(client, |span| {
            let len = span.len().min(TOTAL - written);
            span[..len].iter_mut().zip(written..).for_each(|(to, at)| *to = at as u8);
            len
        });
        world.touch(0, 1000);
        world.step()?;
        while world.engines[1].readable(server) > 0 {
            read += world.engines[1].read(server, |piece| {
                assert!(piece.iter().zip(read..).all(|(got, at)| *got == at as u8), "at {read}");
                piece.len()
            });
        }
        world.touch(1, 1000);
    }
    let seconds = world.now.since(begin).as_secs_f64();
    let link = world.bottleneck.unwrap();
    let resent = link.payload - TOTAL;
    Some(Result { goodput: TOTAL as f64 * 8e-6 / seconds, resent, lost: link.lost })
}

fn only_what_was_lost_is_sent_again(kind: Kind) {
    for (losses, burst) in LOSSES {
        let Result { resent, lost, .. } = transfer(kind, losses, burst).expect("it goes on");
        assert!(resent <= lost * 13 / 10 + 30 * 1460, "{losses} {burst}: {resent} bytes for {lost}");
    }
}

#[test]
fn goodput_of_every_engine() {
    println!("| engine | losses of a million | packets each | Mbit/s | sent again | lost |");
    for kind in Kind::ALL {
        for (losses, burst) in LOSSES {
            let Some(Result { goodput, resent, lost }) = transfer(kind, losses, burst) else {
                println!("| {kind:?} | {losses} | {burst} | stands still | | |");
                assert_eq!(kind, Kind::Smoltcp);
                continue;
            };
            let share = |bytes| bytes as f64 * 100.0 / TOTAL as f64;
            let (resent, lost) = (share(resent), share(lost));
            println!("| {kind:?} | {losses} | {burst} | {goodput:.1} | {resent:.2} % | {lost:.2} % |");
            assert!(goodput > 1.0 && goodput < 500.0);
        }
    }
}

for_kinds! {
    all: [],
    native: [only_what_was_lost_is_sent_again],
}
