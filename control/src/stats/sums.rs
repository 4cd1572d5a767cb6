//! Counters summed over workers.

use serde::{Serialize, Serializer};
use sluice_dataplane::config::ids::{MemberId, NodeId, VirtualId};
use sluice_dataplane::counters::{Connections, HttpCounters, Traffic};
use sluice_dataplane::runtime::WorkerHandle;
use sluice_dataplane::verdict::DropReason;

/// Packets and bytes, seen from sluice.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "named as the output and the documents name them")]
pub struct TrafficSum {
    pub packets_in: u64,
    pub bytes_in: u64,
    pub packets_out: u64,
    pub bytes_out: u64,
}

impl TrafficSum {
    pub(super) fn add(&mut self, traffic: &Traffic) {
        self.packets_in += traffic.packets_in.load();
        self.bytes_in += traffic.bytes_in.load();
        self.packets_out += traffic.packets_out.load();
        self.bytes_out += traffic.bytes_out.load();
    }

    pub(super) fn plus(&mut self, other: &TrafficSum) {
        self.packets_in += other.packets_in;
        self.bytes_in += other.bytes_in;
        self.packets_out += other.packets_out;
        self.bytes_out += other.bytes_out;
    }

    pub(super) fn minus(self, base: &TrafficSum) -> TrafficSum {
        TrafficSum {
            packets_in: self.packets_in.saturating_sub(base.packets_in),
            bytes_in: self.bytes_in.saturating_sub(base.bytes_in),
            packets_out: self.packets_out.saturating_sub(base.packets_out),
            bytes_out: self.bytes_out.saturating_sub(base.bytes_out),
        }
    }
}

/// Connections.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct ConnectionsSum {
    /// Open now.
    pub current: u64,
    /// Opened since start.
    pub total: u64,
    /// The sum of every worker's peak, which is at least the most that were open at once.
    pub peak: u64,
}

impl ConnectionsSum {
    pub(super) fn add(&mut self, connections: &Connections) {
        // A flow may be counted by one worker and end on another: only the sum is a count.
        self.current = self.current.wrapping_add(connections.current.load());
        self.total += connections.total.load();
        self.peak += connections.peak.load();
    }

    pub(super) fn plus(&mut self, other: &ConnectionsSum) {
        self.current += other.current;
        self.total += other.total;
        self.peak += other.peak;
    }

    pub(super) fn minus(self, base: &ConnectionsSum) -> ConnectionsSum {
        let total = self.total.saturating_sub(base.total);
        let peak = if self.peak > base.peak { self.peak } else { self.current };
        ConnectionsSum { current: self.current, total, peak: peak.min(total.max(self.current)) }
    }
}

/// What a virtual server with HTTP did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct HttpSum {
    /// Requests whose head was read.
    pub requests: u64,
    /// Responses by class, as [`STATUS_CLASSES`] has them; our own, too.
    #[serde(serialize_with = "by_class")]
    pub responses: [u64; 5],
    /// Requests that were none and refused.
    pub refused: u64,
    /// Requests that went to another member or over another connection because the first had failed.
    pub retries: u64,
    /// Requests that went over a connection that had waited for them.
    pub reused: u64,
}

/// The classes of status codes (RFC 9110 section 15), by their first digit.
pub const STATUS_CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

fn by_class<S: Serializer>(responses: &[u64; 5], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(STATUS_CLASSES.iter().zip(responses))
}

impl HttpSum {
    fn add(&mut self, http: &HttpCounters) {
        self.requests += http.requests.load();
        self.responses.iter_mut().zip(&http.responses).for_each(|(sum, count)| *sum += count.load());
        self.refused += http.refused.load();
        self.retries += http.retries.load();
        self.reused += http.reused.load();
    }

    fn minus(self, base: &HttpSum) -> HttpSum {
        HttpSum {
            requests: self.requests.saturating_sub(base.requests),
            responses: std::array::from_fn(|class| {
                self.responses[class].saturating_sub(base.responses[class])
            }),
            refused: self.refused.saturating_sub(base.refused),
            retries: self.retries.saturating_sub(base.retries),
            reused: self.reused.saturating_sub(base.reused),
        }
    }
}

/// A virtual server's counters over all workers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VirtualSums {
    /// Between clients and sluice.
    pub clientside: TrafficSum,
    /// Between sluice and members.
    pub serverside: TrafficSum,
    /// Through it.
    pub connections: ConnectionsSum,
    /// By the number of the reason.
    pub drops: Vec<u64>,
    /// Where it speaks HTTP.
    pub http: HttpSum,
}

impl VirtualSums {
    /// All that was counted for `id`.
    pub fn of(workers: &[WorkerHandle], id: VirtualId) -> Self {
        let mut sums = Self { drops: vec![0; DropReason::COUNT], ..Self::default() };
        for counters in workers.iter().filter_map(|worker| worker.counters().of_virtual(id)) {
            sums.clientside.add(&counters.clientside);
            sums.serverside.add(&counters.serverside);
            sums.connections.add(&counters.connections);
            sums.http.add(&counters.http);
            sums.drops.iter_mut().zip(&counters.drops).for_each(|(sum, count)| *sum += count.load());
        }
        sums
    }

    pub(super) fn minus(self, base: &VirtualSums) -> VirtualSums {
        let less = |(count, base): (&u64, &u64)| count.saturating_sub(*base);
        VirtualSums {
            clientside: self.clientside.minus(&base.clientside),
            serverside: self.serverside.minus(&base.serverside),
            connections: self.connections.minus(&base.connections),
            drops: self.drops.iter().zip(&base.drops).map(less).collect(),
            http: self.http.minus(&base.http),
        }
    }
}

/// A member's counters over all workers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MemberSums {
    /// Between sluice and the member.
    pub serverside: TrafficSum,
    /// To it.
    pub connections: ConnectionsSum,
}

impl MemberSums {
    /// All that was counted for `id`.
    pub fn of(workers: &[WorkerHandle], id: MemberId) -> Self {
        let mut sums = Self::default();
        for counters in workers.iter().filter_map(|worker| worker.counters().of_member(id)) {
            sums.serverside.add(&counters.serverside);
            sums.connections.add(&counters.connections);
        }
        sums
    }

    pub(super) fn minus(self, base: &MemberSums) -> MemberSums {
        MemberSums {
            serverside: self.serverside.minus(&base.serverside),
            connections: self.connections.minus(&base.connections),
        }
    }
}

/// All connections that were counted for node `id`.
pub fn node_sum(workers: &[WorkerHandle], id: NodeId) -> ConnectionsSum {
    let mut sum = ConnectionsSum::default();
    let counters = workers.iter().filter_map(|worker| worker.counters().of_node(id));
    counters.for_each(|counters| sum.add(&counters.connections));
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_changed_its_object_counts_anew() {
        let base = ConnectionsSum { current: 0, total: 90, peak: 12 };
        let now = ConnectionsSum { current: 3, total: 95, peak: 12 };
        assert_eq!(now.minus(&base), ConnectionsSum { current: 3, total: 5, peak: 3 });
        let base = HttpSum { requests: 9, responses: [0, 7, 0, 1, 1], refused: 1, retries: 2, reused: 3 };
        let now = HttpSum { requests: 11, responses: [1, 8, 0, 1, 1], refused: 2, retries: 2, reused: 4 };
        let since = HttpSum { requests: 2, responses: [1, 1, 0, 0, 0], refused: 1, retries: 0, reused: 1 };
        assert_eq!(now.minus(&base), since);
    }
}
