//! Proxies that wait in the line of their pool, because every member is at a limit.
//!
//! ```text
//!   may_ask ─┬ others came before ─▶ place at the end ─▶ Ok(false)      serve_queue: its turn ─▶ may_ask: Ok(true)
//!            ├ members full ───────▶ wait_in_line ─────▶ Ok(false)
//!            └ time is up, no place left ──────────────▶ refused
//! ```
//!
//! A proxy has a place exactly while it waits: [`Pipeline::keep_place`] looks after every step.

use std::time::Duration;

use super::deadline::RETRY_MS;
use super::{Layer, Proxy, http, stream};
use crate::clock::Instant;
use crate::config::ids::PoolId;
use crate::pipeline::Pipeline;
use crate::queue::Who;
use crate::verdict::DropReason;

impl Pipeline {
    /// Whether the proxy, which looks for a member of `pool` since then, may ask for one now. What `is_new` stands
    /// behind those that wait already. O(1).
    ///
    /// # Errors
    /// [`DropReason::QueueTimeout`] when it has waited long enough, [`DropReason::MembersFull`] when it may not wait.
    pub(crate) fn may_ask(
        &mut self,
        proxy: &mut Proxy,
        pool: Option<PoolId>,
        since: Instant,
        is_new: bool,
    ) -> Result<bool, DropReason> {
        if let Some(place) = proxy.place {
            let is_over = self.wait_of(proxy, since) <= self.now;
            return if is_over { Err(DropReason::QueueTimeout) } else { Ok(self.queue.is_turn_of(place)) };
        }
        let item = self.snapshot.virtual_by_id(proxy.virtual_id);
        if is_new && item.is_some_and(|item| self.must_stand_back(item, pool)) {
            return self.wait_in_line(proxy, pool, false);
        }
        Ok(true)
    }

    /// Has the proxy wait for a member of `pool` with room: always `Ok(false)`. One for which somebody `made_way` waits
    /// whether the pool has a queue or not.
    ///
    /// # Errors
    /// [`DropReason::MembersFull`] when the pool has no queue, or no place in it.
    pub(crate) fn wait_in_line(
        &mut self,
        proxy: &mut Proxy,
        pool: Option<PoolId>,
        made_way: bool,
    ) -> Result<bool, DropReason> {
        let pool = pool.and_then(|id| self.snapshot.pool(id)).ok_or(DropReason::MembersFull)?;
        let stays = proxy.place.is_some_and(|place| self.queue.pool_of(place) == Some(pool.id));
        let may_wait = made_way || if stays { pool.queue.is_some() } else { self.has_place(pool) };
        if !may_wait {
            return Err(DropReason::MembersFull);
        }
        if !stays {
            let id = pool.id;
            self.leave_line(proxy);
            proxy.place = Some(self.queue.join(id, Who::Proxy(proxy.slot), self.now));
        }
        Ok(false)
    }

    /// The proxy waits no more.
    pub(crate) fn leave_line(&mut self, proxy: &mut Proxy) {
        if let Some(place) = proxy.place.take() {
            self.queue.leave(place);
        }
    }

    /// Gives up the place of a proxy that has come to do something else.
    pub(crate) fn keep_place(&mut self, proxy: &mut Proxy) {
        if proxy.place.is_some() && !waits(&proxy.layer) {
            self.leave_line(proxy);
        }
    }

    /// When a proxy that looks for a member since then has waited long enough. Without a place it asks soon.
    pub(crate) fn wait_of(&self, proxy: &Proxy, since: Instant) -> Instant {
        match proxy.place.and_then(|place| self.queue.pool_of(place)) {
            Some(pool) => self.wait_ends(pool, since),
            None => self.now + Duration::from_millis(u64::from(RETRY_MS)),
        }
    }
}

/// True where a proxy looks for a member.
fn waits(layer: &Layer) -> bool {
    match layer {
        Layer::Stream(stream) => stream.phase == stream::Phase::Choosing,
        Layer::Http(http) => http.phase == http::Phase::Waiting,
        Layer::Header | Layer::Idle(_) | Layer::Verify(_) | Layer::Shadow(_) | Layer::Closing(_) => false,
    }
}
