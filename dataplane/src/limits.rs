//! Capacities. Every table has one, its memory is taken at start, and full is a counted outcome.

/// The operator's capacities, for the whole process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once.
    pub flows: usize,
    /// Of those, TCP connections whose handshake is not complete.
    pub half_open: usize,
    /// Full-proxy connections at once, each with a client's side and a member's.
    pub proxies: usize,
    /// Bytes that may wait in each direction of a full-proxy connection, over the buffers of both its sides.
    pub proxy_buffer: usize,
    /// Virtual servers.
    pub virtual_servers: usize,
    /// Pool members over all pools, and as many again that were removed while flows still hold them.
    pub members: usize,
    /// Next hops and on-link hosts, for each worker.
    pub neighbors: usize,
    /// Frames of our own memory (AF_PACKET receive, replies, packets that wait), for each worker.
    pub frames: usize,
    /// Sets of SNAT ports, one for each pair of SNAT address and member in use; beyond that pairs share.
    pub snat_port_sets: usize,
    /// Persistence records, shared by all workers.
    pub persistence: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            flows: 262_144,
            half_open: 65_536,
            proxies: 16_384,
            proxy_buffer: 65_536,
            virtual_servers: 16_384,
            members: 131_072,
            neighbors: 4_096,
            frames: 1_024,
            snat_port_sets: 1_024,
            persistence: 65_536,
        }
    }
}

impl Limits {
    /// One worker's share of the process's capacities: all together no more than those, but one each at least.
    pub fn per_worker(&self, workers: usize) -> Self {
        let share = |of: usize| (of / workers.max(1)).max(1);
        Self {
            flows: share(self.flows),
            half_open: share(self.half_open),
            proxies: share(self.proxies),
            snat_port_sets: share(self.snat_port_sets),
            ..*self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_no_more_than_the_whole() {
        let whole = Limits { half_open: 1_024, flows: 2, ..Limits::default() };
        let share = whole.per_worker(3);
        assert_eq!((share.half_open, share.flows, share.neighbors), (341, 1, whole.neighbors));
    }
}
