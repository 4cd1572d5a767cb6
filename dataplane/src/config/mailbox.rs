//! The way from the control thread to a worker: one atomic load a turn when nothing waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crossbeam::queue::ArrayQueue;

/// Makes a mailbox that holds `depth` messages.
pub fn mailbox<M>(depth: usize) -> (Sender<M>, Receiver<M>) {
    let shared = Arc::new(Shared {
        waiting: AtomicUsize::new(0),
        messages: ArrayQueue::new(depth),
        taken: AtomicU64::new(0),
    });
    (Sender { shared: Arc::clone(&shared) }, Receiver { shared })
}

/// The control thread's end.
#[derive(Debug)]
pub struct Sender<M> {
    shared: Arc<Shared<M>>,
}

/// The worker's end.
#[derive(Debug)]
pub struct Receiver<M> {
    shared: Arc<Shared<M>>,
}

#[derive(Debug)]
struct Shared<M> {
    waiting: AtomicUsize,
    messages: ArrayQueue<M>,
    taken: AtomicU64,
}

impl<M> Sender<M> {
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

impl<M> Receiver<M> {
    /// The oldest message. One load when there is none.
    #[inline(always)]
    pub fn take(&self) -> Option<M> {
        if self.shared.waiting.load(Ordering::Relaxed) == 0 { None } else { self.pop() }
    }

    /// Says that `generation` is in force on this worker.
    pub fn acknowledge(&self, generation: u64) {
        self.shared.taken.store(generation, Ordering::Release);
    }

    #[cold]
    fn pop(&self) -> Option<M> {
        let message = self.shared.messages.pop()?;
        self.shared.waiting.fetch_sub(1, Ordering::Acquire);
        Some(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_in_order_and_full_gives_the_message_back() {
        let (sender, receiver) = mailbox(2);
        assert_eq!(receiver.take(), None);
        sender.post(1).unwrap();
        sender.post(2).unwrap();
        assert_eq!(sender.post(3), Err(3));
        assert_eq!((receiver.take(), receiver.take(), receiver.take()), (Some(1), Some(2), None));
    }

    #[test]
    fn acknowledged_generation_is_seen() {
        let (sender, receiver) = mailbox::<()>(1);
        receiver.acknowledge(7);
        assert_eq!(sender.taken(), 7);
    }
}
