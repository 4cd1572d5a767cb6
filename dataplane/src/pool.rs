//! Member states: what the operator (and later a monitor) says of a member, read by every worker at selection, and
//! since when a member has been up.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use crate::clock::Instant;
use crate::config::ids::MemberId;

/// Whether a member takes connections (tmsh `session` and `state`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum MemberState {
    /// Takes new connections.
    #[default]
    Enabled = 0,
    /// Takes only connections that persist to it; open ones go on.
    Disabled = 1,
    /// Takes none; open ones go on.
    Offline = 2,
}

impl MemberState {
    fn from_code(code: u8) -> Self {
        match code {
            1 => MemberState::Disabled,
            2 => MemberState::Offline,
            _ => MemberState::Enabled,
        }
    }
}

/// The state of every member, by id. The control thread writes; a store takes effect at once on every worker.
#[derive(Debug)]
pub struct MemberStates {
    codes: Vec<AtomicU8>,
    /// Milliseconds of the process's clock and one more; 0 for a member that was there at the start.
    up_since: Vec<AtomicU64>,
    version: AtomicU64,
}

impl MemberStates {
    /// All enabled.
    pub fn new(members_max: usize) -> Self {
        Self {
            codes: (0..members_max).map(|_| AtomicU8::new(0)).collect(),
            up_since: (0..members_max).map(|_| AtomicU64::new(0)).collect(),
            version: AtomicU64::new(0),
        }
    }

    /// What `id` is now; enabled when out of range.
    #[inline]
    pub fn of(&self, id: MemberId) -> MemberState {
        self.codes
            .get(id.index())
            .map_or(MemberState::Enabled, |code| MemberState::from_code(code.load(Ordering::Relaxed)))
    }

    /// When `id` last came up; `None` for a member that has been up from the start. To the millisecond.
    #[inline]
    pub fn up_since(&self, id: MemberId) -> Option<Instant> {
        let stored = self.up_since.get(id.index())?.load(Ordering::Relaxed);
        stored.checked_sub(1).map(Instant::from_ms)
    }

    /// Grows with every change: what was worked out from the states holds while this stays the same.
    #[inline]
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// States a member's state at the process's start: it has its full share at once. Only the control thread
    /// calls this.
    pub fn set(&self, id: MemberId, state: MemberState) {
        if self.of(id) != state {
            self.store(id, state);
        }
    }

    /// Changes a member's state; one that becomes enabled has come up `now`. Only the control thread calls this.
    pub fn change(&self, id: MemberId, state: MemberState, now: Instant) {
        if self.of(id) == state {
            return;
        }
        if state == MemberState::Enabled {
            self.come_up(id, now);
        }
        self.store(id, state);
    }

    /// States the state of a member that was added `now` to a pool at work. Only the control thread calls this.
    pub fn add(&self, id: MemberId, state: MemberState, now: Instant) {
        self.come_up(id, now);
        self.store(id, state);
    }

    fn come_up(&self, id: MemberId, now: Instant) {
        if let Some(since) = self.up_since.get(id.index()) {
            since.store(now.as_ns() / 1_000_000 + 1, Ordering::Relaxed);
        }
    }

    /// The version moves last, so that whoever sees it sees the state as well.
    fn store(&self, id: MemberId, state: MemberState) {
        if let Some(code) = self.codes.get(id.index()) {
            code.store(state as u8, Ordering::Relaxed);
            self.version.fetch_add(1, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: MemberId = MemberId(1);

    #[test]
    fn the_version_moves_with_changes_only() {
        let states = MemberStates::new(2);
        let before = states.version();
        states.set(ONE, MemberState::Enabled);
        states.change(ONE, MemberState::Enabled, Instant::from_ms(5));
        states.set(MemberId::NONE, MemberState::Offline);
        assert_eq!(states.version(), before);
        states.set(ONE, MemberState::Offline);
        assert_ne!(states.version(), before);
    }

    #[test]
    fn who_becomes_enabled_or_is_added_has_come_up() {
        let states = MemberStates::new(2);
        states.set(ONE, MemberState::Disabled);
        states.set(ONE, MemberState::Enabled);
        assert_eq!(states.up_since(ONE), None, "as it was at the start");
        states.change(ONE, MemberState::Offline, Instant::from_ms(7));
        assert_eq!(states.up_since(ONE), None);
        states.change(ONE, MemberState::Enabled, Instant::from_ms(8));
        assert_eq!(states.up_since(ONE), Some(Instant::from_ms(8)));
        states.add(MemberId(0), MemberState::Enabled, Instant::ZERO);
        assert_eq!(states.up_since(MemberId(0)), Some(Instant::ZERO));
    }
}
