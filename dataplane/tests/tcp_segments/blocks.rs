//! Selective acknowledgements that the engine sends (RFC 2018 section 4).

use super::arrival::Random;
use super::{Peer, Setup};
use crate::tcp_world::packet::{ACK, FIN};
use crate::tcp_world::subject::Kind;

/// The blocks of the answer to a segment, which is there at once.
fn answer(peer: &mut Peer, from: u32, to: u32) -> Vec<(u32, u32)> {
    peer.says_data(from, to - from);
    let said = peer.said();
    assert_eq!(said.len(), 1, "{from}..{to}: {said:?}");
    said.into_iter().next().unwrap().blocks
}

fn first_block_is_of_the_newest_segment(kind: Kind) {
    let mut peer = Setup::new(kind).open();
    for (from, to) in [(1000, 2000), (9000, 9100), (5000, 6000), (12_000, 12_001)] {
        assert_eq!(answer(&mut peer, from, to)[0], (from, to));
    }
}

fn blocks_are_told_newest_first(kind: Kind) {
    let mut peer = Setup::new(kind).open();
    let pieces = [(1000, 2000), (9000, 9100), (5000, 6000), (12_000, 12_001), (3000, 4000), (15_000, 15_010)];
    for (count, (from, to)) in pieces.into_iter().enumerate() {
        let blocks = answer(&mut peer, from, to);
        let newest = pieces[..=count].iter().rev().copied().collect::<Vec<_>>();
        assert!(blocks.len() >= newest.len().min(3) && blocks.len() <= peer.facts().blocks_max, "{blocks:?}");
        assert_eq!(blocks, newest[..blocks.len()]);
    }
    // What came again is the newest again.
    assert_eq!(answer(&mut peer, 9000, 9100)[..2], [(9000, 9100), (15_000, 15_010)]);
}

fn blocks_grow_together_and_go_when_the_hole_is_filled(kind: Kind) {
    let mut peer = Setup::new(kind).open();
    answer(&mut peer, 1000, 2000);
    answer(&mut peer, 3000, 4000);
    assert_eq!(answer(&mut peer, 2000, 3000), [(1000, 4000)]);
    assert_eq!(answer(&mut peer, 3500, 4500), [(1000, 4500)]);
    assert_eq!(answer(&mut peer, 900, 1100), [(900, 4500)]);
    peer.says_data(0, 900);
    peer.waits(100);
    let last = peer.said().pop().unwrap();
    assert_eq!((last.acked, last.blocks), (4500, vec![]));
}

fn blocks_go_with_data_and_with_later_acknowledgements(kind: Kind) {
    let mut peer = Setup::new(kind).open();
    answer(&mut peer, 1000, 2000);
    peer.says_data(0, 500);
    peer.waits(100);
    let last = peer.said().pop().unwrap();
    assert_eq!((last.acked, last.blocks), (500, vec![(1000, 2000)]));
    peer.writes(5000);
    let said = peer.said();
    assert_eq!(said.iter().map(super::Said::len).sum::<u32>(), 5000);
    // Options take room in a segment, not beside it.
    assert!(said.iter().all(|said| said.blocks.is_empty() || said.len() + 12 <= super::MSS), "{said:?}");
}

fn peer_that_did_not_permit_gets_none(kind: Kind) {
    let mut peer = Setup::without_sack(kind).open();
    for from in [1000, 3000, 5000] {
        assert_eq!(answer(&mut peer, from, from + 1000), []);
    }
}

/// No block says more than what has come, nor anything that is acknowledged.
fn blocks_tell_the_truth(kind: Kind) {
    for seed in 1..50 {
        println!("seed {seed}");
        let (mut random, mut came) = (Random(seed), vec![false; 60_000]);
        let mut setup = Setup::new(kind);
        setup.agreed.peer_isn = random.below(40_000).wrapping_neg();
        let mut peer = setup.open();
        for _ in 0..200 {
            let from = 1 + random.below(58_000);
            let to = from + 1 + random.below(1460);
            came[from as usize..to as usize].fill(true);
            let mut data = peer.data(from, to - from, 0);
            data.flags |= if random.below(9) == 0 { crate::tcp_world::packet::PSH } else { ACK };
            peer.says(&data);
            for said in peer.said() {
                let is_true = |(from, to): &(u32, u32)| {
                    said.acked < *from
                        && from < to
                        && came[*from as usize..*to as usize].iter().all(|has| *has)
                };
                assert!(said.blocks.iter().all(is_true), "{said:?}");
                let mut sorted = said.blocks.clone();
                sorted.sort_unstable();
                assert!(sorted.windows(2).all(|pair| pair[0].1 < pair[1].0), "{said:?}");
            }
        }
        came[0] = true;
        let mut last = peer.data(0, 1, 0);
        last.flags &= !FIN;
        peer.says(&last);
        peer.waits(100);
        let acked = peer.said().pop().unwrap().acked as usize;
        assert!(came[..acked].iter().all(|has| *has));
    }
}

for_kinds! {
    all: [
        first_block_is_of_the_newest_segment,
        peer_that_did_not_permit_gets_none,
        blocks_tell_the_truth,
    ],
    native: [
        blocks_are_told_newest_first,
        blocks_grow_together_and_go_when_the_hole_is_filled,
        blocks_go_with_data_and_with_later_acknowledgements,
    ],
}
