//! Which queue a device places a packet on: its hash key and its table.
//!
//! ```text
//!   packet ─▶ Toeplitz hash under the key ─▶ low bits ─▶ table ─▶ queue
//! ```

use super::ethdev::{EthDev, text};
use super::sys;

/// How a device is to place packets on its receive queues: by a Toeplitz hash, whose low bits are a bucket, to queue
/// bucket modulo queues.
#[derive(Debug, Clone, Copy)]
pub struct HashPlan<'a> {
    /// The Toeplitz key.
    pub key: &'a [u8; 40],
    /// Low bits of the hash that count, as a number of buckets: a power of two.
    pub buckets: usize,
}

impl HashPlan<'static> {
    /// For a device with one queue, which needs none.
    pub const NONE: Self = Self { key: &[0; 40], buckets: 1 };
}

impl EthDev {
    /// Fills the device's table.
    pub(super) fn place(&self, queues: usize, plan: &HashPlan) -> Result<(), String> {
        if queues == 1 {
            return Err("there is one queue".into());
        }
        let hashed = self.info.flow_type_rss_offloads & sys::SLUICE_RSS_TCP_UDP;
        if hashed != sys::SLUICE_RSS_TCP_UDP {
            let what =
                if hashed == 0 { "neither TCP nor UDP" } else { "not all of TCP and UDP over IPv4 and IPv6" };
            return Err(format!("{} spreads {what} by hash", text(self.info.driver_name)));
        }
        match self.info.hash_key_size {
            40..=KEY_BYTES_MAX => {}
            0 => self.set_key(plan.key)?,
            size => {
                return Err(format!("{} takes hash keys of {size} bytes only", text(self.info.driver_name)));
            }
        }
        let entries = usize::from(self.info.reta_size);
        let mut table = table(entries, queues, plan.buckets)
            .ok_or_else(|| format!("a table of {entries} entries cannot hold {} buckets", plan.buckets))?;
        // SAFETY: the port runs; the table has as many entries as said, and is copied.
        let result =
            unsafe { sys::rte_eth_dev_rss_reta_update(self.handle.port, table.as_mut_ptr(), entries as u16) };
        self.check("fill the hash table of", result).map_err(|error| error.to_string())
    }

    /// Sets the key of a device that does not say how long its keys are. It has been configured without one, for a
    /// device that takes none would not start with it.
    fn set_key(&self, key: &[u8; 40]) -> Result<(), String> {
        let mut key = *key;
        let mut conf = sys::rte_eth_rss_conf {
            rss_key: key.as_mut_ptr(),
            rss_key_len: key.len() as u8,
            rss_hf: self.info.flow_type_rss_offloads & (sys::SLUICE_RSS_TCP_UDP | sys::SLUICE_RSS_IP),
        };
        // SAFETY: the port runs; `conf` and the key outlive the call, which copies them.
        let result = unsafe { sys::rte_eth_dev_rss_hash_update(self.handle.port, &raw mut conf) };
        self.check("set the hash key of", result).map_err(|error| error.to_string())
    }
}

/// A table of `entries` that leads the low bits of a hash to queue `bucket % queues`; `None` when it is too small for
/// that.
fn table(entries: usize, queues: usize, buckets: usize) -> Option<Vec<sys::rte_eth_rss_reta_entry64>> {
    let holds_all = entries > 0 && entries.is_multiple_of(buckets);
    // Fewer entries see fewer bits, which is enough where the queues divide them evenly.
    let holds_enough = buckets.is_multiple_of(entries) && entries.is_multiple_of(queues);
    if !holds_all && !holds_enough {
        return None;
    }
    let mut table = vec![sys::rte_eth_rss_reta_entry64::default(); entries.div_ceil(GROUP)];
    for entry in 0..entries {
        let group = &mut table[entry / GROUP];
        group.mask |= 1 << (entry % GROUP);
        group.reta[entry % GROUP] = (entry % buckets % queues) as u16;
    }
    Some(table)
}

/// The longest hash key that is filled up.
pub(super) const KEY_BYTES_MAX: u8 = 64;

/// Entries in one piece of a hash table, as DPDK takes it.
const GROUP: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_leads_each_hash_to_the_queue_of_its_bucket_or_is_none() {
        for (entries, queues) in [(128, 3), (512, 7), (64, 4), (128, 16)] {
            let table = table(entries, queues, 128).expect("it fits");
            for hash in 0..4_096usize {
                let entry = hash % entries;
                assert_eq!(table[entry / GROUP].mask >> (entry % GROUP) & 1, 1);
                assert_eq!(usize::from(table[entry / GROUP].reta[entry % GROUP]), hash % 128 % queues);
            }
        }
        assert!(
            [(0, 2), (64, 3), (100, 4), (16, 32)]
                .iter()
                .all(|&(entries, queues)| { table(entries, queues, 128).is_none() })
        );
    }
}
