//! What befalls the configuration while connections are open.

use std::sync::Arc;

use sluice_dataplane::clock::Instant;
use sluice_dataplane::config::ids::MemberId;
use sluice_dataplane::config::snapshot::{MemberState, Snapshot};

use super::schedule::Change;
use super::{Event, Sim, setup};

impl Sim {
    pub(super) fn change(&mut self, change: Change) {
        match change {
            Change::MemberState(id, state) => {
                let states = [MemberState::Enabled, MemberState::Disabled, MemberState::Offline];
                return self.states.set(MemberId(id), states[usize::from(state)]);
            }
            Change::SwapMember(pool) => {
                self.swaps += 1;
                let id = 80 + u32::from(self.swaps);
                let member = setup::member(id, pool, 20 + self.swaps);
                self.members.joins(pool, (member.address, member.port));
                self.parts.pools[pool].members.pop();
                self.parts.pools[pool].members.push(member);
            }
            Change::ToggleVirtual(place) => {
                let item = self.parts.virtuals.iter_mut().find(|item| item.id.index() == place);
                item.into_iter().for_each(|item| item.enabled = !item.enabled);
            }
            Change::RemoveVirtual(place) => self.parts.virtuals.retain(|item| item.id.index() != place),
            Change::SourcePort(place, choice) => {
                let item = self.parts.virtuals.iter_mut().find(|item| item.id.index() == place);
                item.into_iter().for_each(|item| item.source_port = setup::source_port(choice));
            }
            Change::Nothing => {}
        }
        self.publish();
    }

    /// Every worker takes the new configuration within some milliseconds.
    pub(super) fn publish(&mut self) {
        self.checker.has_changed = true;
        self.checker.keep_limits_of(&self.parts);
        self.clients.on_change(&self.parts);
        self.parts.generation += 1;
        let next = Arc::new(Snapshot::build(self.parts.clone()));
        let before = std::mem::replace(&mut self.snapshot, next);
        self.quotas.set_limits(&self.snapshot);
        self.nodes[0].rules.announce(&before, &self.snapshot, Instant::from_ms(self.now));
        for number in 0..self.nodes.len() {
            let at = self.now + self.random.below(4);
            self.later(at, Event::Apply(number));
        }
    }
}
