//! The only crate of sluice that contains `unsafe`: what the kernel and DPDK offer, behind safe owners.
//!
//! | module | owns |
//! |---|---|
//! | [`memory`] | zeroed table memory, on hugepages where the machine has them |
//! | [`append`] | filling a vector in place |
//! | [`hint`] | cache prefetch |
//! | [`tsc`] | the cycle counter |
//! | [`wait`] | sleeping on descriptors, and the event that ends a sleep |
//! | [`interface`] | what the kernel knows of a network interface |
//! | [`bpf`] | programs for the kernel |
//! | [`kernel_bypass`] | keeping the kernel's own stack off an interface |
//! | [`packet_socket`] | all frames of one interface, in batches |
//! | [`netns`] | network namespaces |
//! | `netlink` | requests to the kernel's routing socket |
//! | `counting` (feature `count-allocations`) | an allocator that counts, for tests |
//! | `dpdk` (feature) | EAL, mempools, mbufs, ethdev queues |
//!
//! Nothing here decides anything about packets; that is `sluice-dataplane`'s job.

pub mod append;
pub mod bpf;
#[cfg(feature = "count-allocations")]
pub mod counting;
#[cfg(feature = "dpdk")]
pub mod dpdk;
pub mod hint;
pub mod interface;
pub mod kernel_bypass;
pub mod memory;
mod netlink;
pub mod netns;
pub mod packet_socket;
pub mod tsc;
pub mod wait;
