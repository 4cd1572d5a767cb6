//! The way from the control thread to a worker: one atomic load a turn when nothing waits.
//!
//! ```text
//!   control ── replace(state) ─▶ newest   one place: a newer one takes it over, so it is never full
//!           ── post(message) ──▶ messages bounded, in order
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crossbeam::queue::ArrayQueue;

/// Makes a mailbox that holds one state and `depth` messages.
pub fn mailbox<S, M>(depth: usize) -> (Sender<S, M>, Receiver<S, M>) {
    let shared = Arc::new(Shared {
        waiting: AtomicUsize::new(0),
        newest: ArrayQueue::new(1),
        messages: ArrayQueue::new(depth),
        taken: AtomicU64::new(0),
    });
    (Sender { shared: Arc::clone(&shared) }, Receiver { shared })
}

/// What a worker finds in its mailbox.
#[derive(Debug, PartialEq, Eq)]
pub enum Mail<S, M> {
    /// The newest state.
    Newest(S),
    /// A message.
    Message(M),
}

/// The control thread's end.
#[derive(Debug)]
pub struct Sender<S, M> {
    shared: Arc<Shared<S, M>>,
}

/// The worker's end.
#[derive(Debug)]
pub struct Receiver<S, M> {
    shared: Arc<Shared<S, M>>,
}

#[derive(Debug)]
struct Shared<S, M> {
    waiting: AtomicUsize,
    newest: ArrayQueue<S>,
    messages: ArrayQueue<M>,
    taken: AtomicU64,
}

impl<S, M> Sender<S, M> {
    /// Posts a state, in place of one that the worker has not taken yet.
    pub fn replace(&self, state: S) {
        if self.shared.newest.force_push(state).is_none() {
            self.shared.waiting.fetch_add(1, Ordering::Release);
        }
    }

    /// Posts a message.
    ///
    /// # Errors
    /// The message itself when the mailbox is full: the worker is stuck or swamped.
    pub fn post(&self, message: M) -> Result<(), M> {
        self.shared.messages.push(message)?;
        self.shared.waiting.fetch_add(1, Ordering::Release);
        Ok(())
    }

    /// The newest generation that the worker has taken.
    pub fn taken(&self) -> u64 {
        self.shared.taken.load(Ordering::Acquire)
    }
}

impl<S, M> Receiver<S, M> {
    /// The newest state, then the oldest message. One load when there is nothing.
    #[inline(always)]
    pub fn take(&self) -> Option<Mail<S, M>> {
        if self.shared.waiting.load(Ordering::Relaxed) == 0 { None } else { self.pop() }
    }

    /// Says that `generation` is in force on this worker.
    pub fn acknowledge(&self, generation: u64) {
        self.shared.taken.store(generation, Ordering::Release);
    }

    #[cold]
    fn pop(&self) -> Option<Mail<S, M>> {
        let newest = self.shared.newest.pop().map(Mail::Newest);
        let mail = newest.or_else(|| self.shared.messages.pop().map(Mail::Message))?;
        self.shared.waiting.fetch_sub(1, Ordering::Acquire);
        Some(mail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_in_order_and_full_gives_the_message_back() {
        let (sender, receiver) = mailbox::<(), _>(2);
        assert_eq!(receiver.take(), None);
        sender.post(1).unwrap();
        sender.post(2).unwrap();
        assert_eq!(sender.post(3), Err(3));
        let taken = [receiver.take(), receiver.take(), receiver.take()];
        assert_eq!(taken, [Some(Mail::Message(1)), Some(Mail::Message(2)), None]);
    }

    #[test]
    fn a_newer_state_takes_the_place_of_one_that_waits() {
        let (sender, receiver) = mailbox(1);
        sender.post("message").unwrap();
        (1..=3).for_each(|state| sender.replace(state));
        assert_eq!(receiver.take(), Some(Mail::Newest(3)));
        assert_eq!((receiver.take(), receiver.take()), (Some(Mail::Message("message")), None));
        sender.replace(4);
        assert_eq!(receiver.take(), Some(Mail::Newest(4)));
    }

    #[test]
    fn acknowledged_generation_is_seen() {
        let (sender, receiver) = mailbox::<(), ()>(1);
        receiver.acknowledge(7);
        assert_eq!(sender.taken(), 7);
    }
}
