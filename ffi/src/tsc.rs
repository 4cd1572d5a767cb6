//! The processor's cycle counter, for benches and for `show workers`; packet time comes from a monotonic clock.

/// Reads the time-stamp counter, in cycles of its own constant rate. About 20 cycles; 0 where there is none.
#[inline(always)]
pub fn cycles() -> u64 {
    #[cfg(target_arch = "x86_64")]
    {
        // SAFETY: RDTSC is available on every x86-64 processor and touches no memory.
        unsafe { std::arch::x86_64::_rdtsc() }
    }
    #[cfg(not(target_arch = "x86_64"))]
    0
}
