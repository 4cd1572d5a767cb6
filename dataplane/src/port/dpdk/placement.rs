//! [`PlacementCheck`]: whether the device places packets as it was told, seen on the first real ones.

use crate::snat::frame::{bucket_of_frame, has_tuple};
use crate::snat::steer::Owners;
use crate::snat::toeplitz::BUCKETS;

/// Looks at the first TCP and UDP packets of one queue.
pub(super) struct PlacementCheck {
    owners: Owners,
    queue: usize,
    left: u32,
    /// Packets that came to the queue, and with the hash, that we find too.
    pub(super) right: u64,
    /// Packets that did not.
    pub(super) wrong: u64,
}

impl PlacementCheck {
    /// For `queue` of `queues`; looks at nothing unless the device `is_told` how to place packets.
    pub(super) fn new(queue: usize, queues: usize, is_told: bool) -> Self {
        let left = if is_told { LOOKS } else { 0 };
        Self { owners: Owners::new(queues), queue, left, right: 0, wrong: 0 }
    }

    /// True until enough packets were looked at.
    #[inline(always)]
    pub(super) fn is_open(&self) -> bool {
        self.left > 0
    }

    /// Looks at a frame and the hash that the device says it has, if it does.
    pub(super) fn look(&mut self, frame: &[u8], hash: Option<u32>) {
        if !self.is_open() || !has_tuple(frame) {
            return;
        }
        self.left -= 1;
        let bucket = bucket_of_frame(frame);
        let hash_is_ours = hash.is_none_or(|hash| hash as usize % BUCKETS == bucket);
        let is_right = hash_is_ours && self.owners.of_bucket(bucket) == self.queue;
        *if is_right { &mut self.right } else { &mut self.wrong } += 1;
    }
}

/// Packets to look at, a queue. A device that places at random among two would pass with a chance of 2⁻¹⁰⁰⁰.
const LOOKS: u32 = 1_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::build::{self, Tcp};
    use crate::snat::toeplitz::{bucket_of, ports_word};

    fn packet(src_port: u16) -> (Vec<u8>, usize) {
        let tcp = Tcp { src_port, ..Tcp::default() };
        let bucket = bucket_of(build::address(tcp.src), build::address(tcp.dst), ports_word(src_port, 80));
        (build::tcp(&tcp), bucket)
    }

    #[test]
    fn packets_are_right_at_the_queue_of_their_bucket_with_our_hash() {
        let mut check = PlacementCheck::new(1, 2, true);
        for port in 2_000..2_400 {
            let (frame, bucket) = packet(port);
            let before = (check.right, check.wrong);
            check.look(&frame, if port % 2 == 0 { Some(0xff00 | bucket as u32) } else { None });
            let is_right = bucket % 2 == 1;
            assert_eq!(
                (check.right - before.0, check.wrong - before.1),
                (is_right.into(), (!is_right).into())
            );
        }
        let (frame, bucket) = packet(2_000);
        check.look(&frame, Some(bucket as u32 ^ 2));
        check.look(&[0; 60], Some(9));
        assert_eq!(
            check.right + check.wrong,
            401,
            "a hash of another key is wrong, what has no tuple does not count"
        );
    }

    #[test]
    fn it_looks_at_a_bounded_number_of_packets() {
        let mut check = PlacementCheck::new(0, 2, true);
        (0..2_000).for_each(|port| check.look(&packet(1_000 + port).0, None));
        assert_eq!((check.right + check.wrong, check.is_open()), (LOOKS.into(), false));
        assert!(!PlacementCheck::new(0, 2, false).is_open());
    }
}
