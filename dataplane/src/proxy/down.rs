//! What becomes of proxied connections when their member goes down (tmsh `service-down-action`).

use super::{Layer, Proxy};
use crate::config::snapshot::ServiceDownAction;
use crate::pipeline::Pipeline;
use crate::pool::MemberState;
use crate::tcp::{Engine, State};

/// A walk over the proxies, a slice a turn.
#[derive(Debug, Default)]
pub(crate) struct Walk {
    /// The version of the member states that it is about.
    version: u64,
    /// Where it goes on; `None` when it is over.
    place: Option<u32>,
}

impl Pipeline {
    /// Looks at a slice of the proxies when a member's state has changed. True while there is more to look at.
    #[inline]
    pub(crate) fn look_for_members_down(&mut self) -> bool {
        let version = self.members.version();
        if version != self.proxies.walk.version {
            self.proxies.walk = Walk { version, place: Some(0) };
        }
        self.proxies.walk.place.is_some() && self.walk_on()
    }

    #[cold]
    fn walk_on(&mut self) -> bool {
        let Some(place) = self.proxies.walk.place else { return false };
        let end = self.proxies.slots.end();
        let last = place.saturating_add(WALKED_A_TURN).min(end);
        for slot in place..last {
            let member = self.proxies.slots.at(slot).and_then(|proxy| proxy.member);
            if member.is_some_and(|member| self.members.of(member.id) == MemberState::Offline)
                && let Some(mut proxy) = self.proxies.slots.take(slot)
            {
                self.on_member_down(&mut proxy);
                self.proxies.slots.put(proxy);
                self.proxies.slots.wake(slot);
            }
        }
        self.proxies.walk.place = (last < end).then_some(last);
        self.proxies.walk.place.is_some()
    }

    /// A connection that waits is of no use any more, whatever the operator says of those in use.
    fn on_member_down(&mut self, proxy: &mut Proxy) {
        let Some(server) = proxy.server else { return };
        if let Layer::Idle(idle) = proxy.layer {
            self.remove_idle(&idle);
            self.proxies.engine.close(server);
            (proxy.layer, proxy.active) = (Layer::Closing(0), self.now);
            return;
        }
        let pool = proxy.member.and_then(|member| self.snapshot.pool_of_member(member.id));
        match pool.map_or(ServiceDownAction::None, |pool| pool.service_down_action) {
            ServiceDownAction::None => {}
            // What waits for an answer asks another member where it may, as when this one had failed.
            ServiceDownAction::Reset | ServiceDownAction::Reselect => self.proxies.engine.abort(server),
            ServiceDownAction::Drop => self.forget_proxy(proxy),
        }
    }

    /// Both connections are forgotten; nobody is told.
    fn forget_proxy(&mut self, proxy: &mut Proxy) {
        for conn in [proxy.client.take(), proxy.server.take()].into_iter().flatten() {
            self.forget_end(conn, State::Aborted);
        }
        (proxy.member, proxy.layer) = (None, Layer::Closing(0));
    }
}

/// Proxies looked at in one turn.
const WALKED_A_TURN: u32 = 64;
