//! Why a packet is thrown away. A drop is a value with a reason, and every reason is a counter.

use std::fmt;

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $word:literal,)*) => {
        /// Why a packet was dropped. One reason, one counter, one test.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum DropReason {
            $($(#[$doc])* $name,)*
        }

        impl DropReason {
            /// Every reason, in the order of its number.
            pub const ALL: &'static [DropReason] = &[$(DropReason::$name,)*];
            /// How many reasons there are.
            pub const COUNT: usize = Self::ALL.len();

            /// The reason's name in `show drops` and in metrics.
            pub const fn name(self) -> &'static str {
                match self { $(DropReason::$name => $word,)* }
            }
        }
    };
}

reasons! {
    /// Shorter than its headers say, or than an Ethernet frame.
    Truncated = "truncated",
    /// A header field contradicts another or the RFC: version, lengths, checksum of the IPv4 header.
    Malformed = "malformed",
    /// The ethertype is not one that sluice speaks.
    UnknownEthertype = "unknown-ethertype",
    /// The frame is addressed to somebody else's link address.
    NotForUs = "not-for-us",
    /// Tagged for a VLAN that nothing is configured on, or tagged twice.
    UnknownVlan = "unknown-vlan",
    /// A source address that no packet may carry: multicast, broadcast, loopback, unspecified, IPv4-mapped, our own on its
    /// link; a group's link address; beyond its link, a link-local one of IPv6.
    MartianSource = "martian-source",
    /// A destination that is never forwarded: loopback, unspecified, link-local, foreign multicast.
    MartianDestination = "martian-destination",
    /// IPv4 options or source routing, IPv6 routing headers.
    IpOptions = "ip-options",
    /// A fragment of an ICMP message that is neither echo nor an error.
    Fragment = "fragment",
    /// A fragment whose length or offset makes no sense, or that ends beyond 64 KiB.
    FragmentMalformed = "fragment-malformed",
    /// A fragment that hides the transport header from us (RFC 1858, RFC 3128, RFC 7112).
    FragmentTiny = "fragment-tiny",
    /// A fragment of a packet whose fragments overlap (RFC 5722): all that come after and all that wait.
    FragmentOverlap = "fragment-overlap",
    /// A fragment that had come already.
    FragmentDuplicate = "fragment-duplicate",
    /// The first fragment of its packet, which has the ports, did not come in time.
    FragmentTimeout = "fragment-timeout",
    /// Too many fragments wait for the first of their packet.
    FragmentsFull = "fragments-full",
    /// A later fragment of a packet whose first opened no flow.
    FragmentNoFlow = "fragment-no-flow",
    /// A TCP header whose flags or lengths make no sense.
    MalformedTcp = "malformed-tcp",
    /// A UDP header whose length makes no sense, or an IPv6 UDP datagram without checksum.
    MalformedUdp = "malformed-udp",
    /// A TCP segment to us whose checksum is wrong.
    BadChecksum = "bad-checksum",
    /// As many proxied connections as there may be.
    ProxiesFull = "proxies-full",
    /// A connection that must begin with a PROXY header, and does not, or with a malformed one.
    ProxyHeader = "proxy-header",
    /// An ICMP message that is neither an echo request to us nor about one of our flows.
    UnwantedIcmp = "unwanted-icmp",
    /// ARP or neighbour discovery that breaks its RFC.
    MalformedNeighbor = "malformed-neighbor",
    /// Somebody else claims one of our addresses.
    AddressConflict = "address-conflict",
    /// ARP or neighbour discovery that asks for somebody else.
    NeighborNotOurs = "neighbor-not-ours",
    /// An upper-layer protocol that no virtual server takes.
    UnknownProtocol = "unknown-protocol",
    /// TTL or hop limit used up.
    TtlExpired = "ttl-expired",
    /// Larger than the MTU of the way out.
    TooBig = "too-big",
    /// No virtual server matches; or the one of the packet's connection takes none from where it came.
    NoVirtual = "no-virtual",
    /// The virtual server is of type reject.
    Rejected = "rejected",
    /// The virtual server is disabled.
    VirtualDisabled = "virtual-disabled",
    /// The virtual server is at its connection limit; or a connection goes on that was over, and its places are taken.
    ConnectionLimit = "connection-limit",
    /// More new connections a second than the virtual server takes.
    ConnectionRate = "connection-rate",
    /// Every member of the pool that is up is at a limit of its own or of its node.
    MembersFull = "members-full",
    /// The first packet, come again, of a connection that waits in a queue.
    QueuedAlready = "queued-already",
    /// Waited in the queue of its pool until the time was up.
    QueueTimeout = "queue-timeout",
    /// A member's refusal that the client does not see: another member is tried.
    Reselected = "reselected",
    /// The pool has no member that takes a new connection.
    NoMember = "no-member",
    /// A TCP segment that is not a SYN and belongs to no flow, or to one that was reset before it was open.
    NoFlow = "no-flow",
    /// The flow table is full.
    FlowTableFull = "flow-table-full",
    /// Too many half-open flows.
    HalfOpenFull = "half-open-full",
    /// No source address is configured that the server's side could answer to.
    NoSnatAddress = "no-snat-address",
    /// Every port of the source address towards this member is taken.
    SnatExhausted = "snat-exhausted",
    /// The client's own port is taken, and the virtual server allows no other.
    SnatPortTaken = "snat-port-taken",
    /// Ports of the source address are about to have other owners, and too many packets wait for that.
    SnatUnsettled = "snat-unsettled",
    /// No route to the destination.
    NoRoute = "no-route",
    /// The next hop does not answer ARP or neighbour discovery.
    NeighborUnresolved = "neighbor-unresolved",
    /// Too many packets wait for this next hop already.
    NeighborQueueFull = "neighbor-queue-full",
    /// The neighbour table is full.
    NeighborTableFull = "neighbor-table-full",
    /// No frame memory.
    NoFrame = "no-frame",
    /// The port's send queue is full.
    TxFull = "tx-full",
    /// The link is down.
    LinkDown = "link-down",
    /// No new connections while the process is ending.
    Draining = "draining",
    /// Belongs to another worker's flow, and the ring to that worker is full.
    HandoffFull = "handoff-full",
    /// An ICMP error about a flow that does not exist.
    IcmpUnmatched = "icmp-unmatched",
    /// A reply that was due but over the rate limit.
    RateLimited = "rate-limited",
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_numbered_in_order_and_named_once() {
        let mut names: Vec<_> = DropReason::ALL.iter().map(|reason| reason.name()).collect();
        for (number, reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, number);
        }
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), DropReason::COUNT);
    }
}
