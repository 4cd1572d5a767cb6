//! How soon members answer, for pools balanced by the fastest methods: from the first packet of a flow to its
//! member's first.

use hashbrown::HashMap;

use crate::clock::Instant;
use crate::config::snapshot::Method;
use crate::flow::table::FlowId;
use crate::flow::{Flow, flow_flag};
use crate::pipeline::Pipeline;

/// When the flows of one worker that wait for their member's first packet were opened.
#[derive(Default)]
pub(crate) struct Asked {
    since: HashMap<FlowId, Instant>,
}

impl Pipeline {
    /// Flow `id` has just been opened: looks at the clock, when its pool goes by latency and there is room.
    pub(crate) fn begin_to_wait(&mut self, id: FlowId) {
        let member_id = self.flows.at_mut(id).member_id;
        let method = self.snapshot.pool_of_member(member_id).map(|pool| pool.method);
        let goes_by_latency = matches!(method, Some(Method::FastestNode | Method::FastestAppResponse));
        if !goes_by_latency || self.asked.since.len() >= ASKED_MAX {
            return;
        }
        let node = self.snapshot.member(member_id).map(|member| member.node).unwrap_or_default();
        self.latencies.ask(member_id, node);
        self.asked.since.insert(id, self.now);
        self.flows.at_mut(id).set(flow_flag::ASKED);
    }

    /// The member has answered, or the flow has ended without that: what was waited counts either way.
    #[cold]
    pub(crate) fn end_of_wait(&mut self, id: FlowId, flow: &Flow) {
        if let Some(since) = self.asked.since.remove(&id) {
            let waited = self.now.since(since).as_nanos() as u64;
            self.latencies.observe(flow.member_id, waited, self.now);
        }
    }
}

/// Flows watched at once; the others count as if they had not been.
const ASKED_MAX: usize = 4_096;
