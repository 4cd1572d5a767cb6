//! [`Appender`]: pushing to a vector with its room taken once, each item built where it will lie.
//!
//! `Vec::push` may have to grow, so the compiler builds the item elsewhere first and copies it: for a frame, more
//! cycles than everything else that receiving one takes.

use std::mem::MaybeUninit;

/// Adds items to the end of a vector; they are its own when the appender goes.
pub struct Appender<'a, T> {
    items: &'a mut Vec<T>,
    /// items.len() <= len <= items.capacity(), and everything below `len` is initialised.
    len: usize,
}

/// Room for one item. Nothing is added when it is not filled.
pub struct Slot<'a, T> {
    place: &'a mut MaybeUninit<T>,
    len: &'a mut usize,
}

impl<'a, T> Appender<'a, T> {
    /// Makes room for `count` more items. No allocation when there is.
    #[inline(always)]
    pub fn new(items: &'a mut Vec<T>, count: usize) -> Self {
        items.reserve(count);
        let len = items.len();
        Self { items, len }
    }

    /// The next place; `None` when the room is used up.
    #[inline(always)]
    pub fn slot(&mut self) -> Option<Slot<'_, T>> {
        let index = self.len - self.items.len();
        let place = self.items.spare_capacity_mut().get_mut(index)?;
        Some(Slot { place, len: &mut self.len })
    }
}

impl<T> Slot<'_, T> {
    /// Puts `item` there.
    #[inline(always)]
    pub fn fill(self, item: T) {
        self.place.write(item);
        *self.len += 1;
    }
}

impl<T> Drop for Appender<'_, T> {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: `len` grows by one with each item written behind the others, within the capacity.
        unsafe { self.items.set_len(self.len) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_the_vectors_and_dropped_once() {
        let item = std::rc::Rc::new(());
        let mut items = vec![std::rc::Rc::clone(&item)];
        let mut appender = Appender::new(&mut items, 2);
        appender.slot().expect("room").fill(std::rc::Rc::clone(&item));
        assert!(appender.slot().is_some(), "a slot that is not filled adds nothing");
        appender.slot().expect("room").fill(std::rc::Rc::clone(&item));
        drop(appender);
        assert_eq!((items.len(), std::rc::Rc::strong_count(&item)), (3, 4));
        drop(items);
        assert_eq!(std::rc::Rc::strong_count(&item), 1);
    }

    #[test]
    fn the_room_ends() {
        let mut items = Vec::with_capacity(4);
        let mut appender = Appender::new(&mut items, 1);
        let filled = std::iter::from_fn(|| appender.slot().map(|slot| slot.fill(7u8))).count();
        drop(appender);
        assert_eq!((filled, items), (4, vec![7; 4]));
    }
}
