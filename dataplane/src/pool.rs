//! Member states: what the operator (and later a monitor) says of a member, read by every worker at selection.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

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
    version: AtomicU64,
}

impl MemberStates {
    /// All enabled.
    pub fn new(members_max: usize) -> Self {
        Self { codes: (0..members_max).map(|_| AtomicU8::new(0)).collect(), version: AtomicU64::new(0) }
    }

    /// What `id` is now; enabled when out of range.
    #[inline]
    pub fn of(&self, id: MemberId) -> MemberState {
        self.codes
            .get(id.index())
            .map_or(MemberState::Enabled, |code| MemberState::from_code(code.load(Ordering::Relaxed)))
    }

    /// Changes a member's state. Only the control thread calls this.
    pub fn set(&self, id: MemberId, state: MemberState) {
        if let Some(code) = self.codes.get(id.index()) {
            let before = code.swap(state as u8, Ordering::Relaxed);
            self.version.fetch_add(u64::from(before != state as u8), Ordering::Release);
        }
    }

    /// Another number after every change.
    #[inline]
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }
}
