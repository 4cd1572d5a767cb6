//! Bytes that wait: rings whose memory is leased from a pool while they hold something.
//!
//! ```text
//!   buffer   │ … free … │ start ─▶ len bytes ─▶ │ … free … │      wraps at its end
//! ```

use super::ranges::Ranges;

/// Memory for rings, by size: 2 KiB, four times as much, and so on. What is given back is used first, so that a worker
/// moves bytes through the same few buffers, which its cache holds.
#[derive(Debug)]
pub(super) struct Buffers {
    classes: Vec<Class>,
    lists: Vec<Box<Ranges>>,
    leased: usize,
}

#[derive(Debug)]
struct Class {
    size: usize,
    free: Vec<Box<[u8]>>,
}

impl Buffers {
    /// For rings of up to `largest` bytes.
    pub(super) fn new(largest: usize) -> Self {
        let smaller = (0..).map(|power| SMALLEST << (2 * power)).take_while(|size| *size < largest);
        let sizes = smaller.chain([largest]);
        let classes = sizes.map(|size| Class { size, free: Vec::new() }).collect();
        Self { classes, lists: Vec::new(), leased: 0 }
    }

    /// Bytes that rings have now.
    pub(super) fn leased(&self) -> usize {
        self.leased
    }

    /// The smallest buffer with room for so many bytes, or the largest. Its contents are anybody's.
    fn lease(&mut self, bytes: usize) -> Box<[u8]> {
        let at = self.classes.iter().position(|class| class.size >= bytes).unwrap_or(self.classes.len() - 1);
        let class = &mut self.classes[at];
        self.leased += class.size;
        match class.free.pop() {
            Some(buffer) => buffer,
            None => vec![0; class.size].into(),
        }
    }

    fn give_back(&mut self, buffer: Box<[u8]>) {
        if let Some(class) = self.classes.iter_mut().find(|class| class.size == buffer.len()) {
            self.leased -= class.size;
            class.free.push(buffer);
        }
    }

    /// An empty list.
    pub(super) fn lease_list(&mut self) -> Box<Ranges> {
        self.lists.pop().unwrap_or_else(|| Box::new(Ranges::EMPTY))
    }

    pub(super) fn give_back_list(&mut self, list: &mut Option<Box<Ranges>>) {
        if let Some(mut list) = list.take() {
            list.clear();
            self.lists.push(list);
        }
    }
}

/// Bytes in the order of the stream.
#[derive(Debug, Default)]
pub(super) struct Ring {
    /// Empty while nothing was put in.
    buffer: Box<[u8]>,
    start: usize,
    len: usize,
}

impl Ring {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Makes room for `bytes` in all. Moves what is there when the buffer is too small, which happens at most once a class.
    #[inline]
    pub(super) fn reserve(&mut self, bytes: usize, buffers: &mut Buffers) {
        if bytes <= self.buffer.len() {
            return;
        }
        if self.buffer.is_empty() {
            self.buffer = buffers.lease(bytes);
        } else {
            self.grow(bytes, buffers);
        }
    }

    #[cold]
    fn grow(&mut self, bytes: usize, buffers: &mut Buffers) {
        let mut larger = buffers.lease(bytes);
        let (front, back) = self.buffer.split_at(self.start);
        larger[..back.len()].copy_from_slice(back);
        larger[back.len()..back.len() + front.len()].copy_from_slice(front);
        self.start = 0;
        let old = std::mem::replace(&mut self.buffer, larger);
        buffers.give_back(old);
    }

    /// Gives the buffer back when nothing waits.
    #[inline]
    pub(super) fn rest(&mut self, buffers: &mut Buffers) {
        if self.len == 0 && !self.buffer.is_empty() {
            buffers.give_back(std::mem::take(&mut self.buffer));
            self.start = 0;
        }
    }

    /// Forgets what waits.
    pub(super) fn clear(&mut self, buffers: &mut Buffers) {
        self.len = 0;
        self.rest(buffers);
    }

    /// The longest piece of what waits, from `offset` on.
    pub(super) fn piece(&self, offset: usize) -> &[u8] {
        let at = self.place(offset);
        let end = (at + self.len - offset).min(self.buffer.len());
        &self.buffer[at..end]
    }

    /// Copies what waits from `offset` on.
    pub(super) fn copy_to(&self, offset: usize, bytes: &mut [u8]) {
        let at = self.place(offset);
        let first = bytes.len().min(self.buffer.len() - at);
        let (head, tail) = bytes.split_at_mut(first);
        head.copy_from_slice(&self.buffer[at..at + first]);
        tail.copy_from_slice(&self.buffer[..tail.len()]);
    }

    /// Writes `offset` after the start; there is room. Counts only once [`Ring::extend`] says so.
    pub(super) fn put(&mut self, offset: usize, bytes: &[u8]) {
        let at = self.place(offset);
        let (head, tail) = bytes.split_at(bytes.len().min(self.buffer.len() - at));
        self.buffer[at..at + head.len()].copy_from_slice(head);
        self.buffer[..tail.len()].copy_from_slice(tail);
    }

    /// The longest free span behind what waits, so that no more than `most` wait in all.
    pub(super) fn span(&mut self, most: usize) -> &mut [u8] {
        let at = self.place(self.len);
        let room = most.min(self.buffer.len()) - self.len;
        let end = (at + room).min(self.buffer.len());
        &mut self.buffer[at..end]
    }

    /// So many bytes more wait.
    pub(super) fn extend(&mut self, bytes: usize) {
        self.len += bytes;
    }

    /// So many bytes are done with.
    pub(super) fn consume(&mut self, bytes: usize) {
        self.start = self.place(bytes);
        self.len -= bytes;
    }

    fn place(&self, offset: usize) -> usize {
        let at = self.start + offset;
        if at >= self.buffer.len() { at - self.buffer.len() } else { at }
    }
}

const SMALLEST: usize = 2 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snat::random::Random;
    use std::collections::VecDeque;

    #[test]
    fn what_is_given_back_is_leased_next_and_counted() {
        let mut buffers = Buffers::new(20_000);
        let sizes = [1, 2048, 2049, 9000, 20_000].map(|bytes| {
            let buffer = buffers.lease(bytes);
            let len = buffer.len();
            buffers.give_back(buffer);
            len
        });
        assert_eq!((sizes, buffers.leased()), ([2048, 2048, 8192, 20_000, 20_000], 0));
        assert_eq!(buffers.classes.iter().map(|class| class.free.len()).collect::<Vec<_>>(), [1, 1, 1]);
    }

    #[test]
    fn a_random_history_is_that_of_a_queue() {
        for seed in 1..100 {
            let mut random = Random::new(seed);
            let mut below = |end: usize| (random.next() >> 33) as usize % end;
            let most = 1 + below(40_000);
            let mut buffers = Buffers::new(most);
            let (mut ring, mut queue, mut next) = (Ring::default(), VecDeque::new(), 0u8);
            for _ in 0..300 {
                let count = below(most + 1).min(most - ring.len());
                let bytes: Vec<u8> = (0..count).map(|at| next.wrapping_add(at as u8)).collect();
                next = next.wrapping_add(count as u8);
                ring.reserve(ring.len() + count, &mut buffers);
                if below(2) == 0 {
                    ring.put(ring.len(), &bytes);
                    ring.extend(count);
                } else {
                    let mut left = bytes.as_slice();
                    while !left.is_empty() {
                        let span = ring.span(most);
                        let len = span.len().min(left.len());
                        span[..len].copy_from_slice(&left[..len]);
                        ring.extend(len);
                        left = &left[len..];
                    }
                }
                queue.extend(bytes);
                let mut copy = vec![0; ring.len()];
                ring.copy_to(0, &mut copy);
                assert_eq!(queue, copy, "seed {seed}");
                let gone = below(ring.len() + 1);
                assert!(queue.iter().take(ring.piece(0).len()).eq(ring.piece(0)), "seed {seed}");
                ring.consume(gone);
                queue.drain(..gone);
                ring.rest(&mut buffers);
                assert_eq!(buffers.leased() == 0, queue.is_empty(), "seed {seed}");
            }
        }
    }
}
