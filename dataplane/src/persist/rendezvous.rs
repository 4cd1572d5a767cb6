//! Rendezvous hashing: the member that scores highest for a client takes it (Thaler and Ravishankar, 1998).
//!
//! The score is a pure function of the client's address and the member's address and port, so every worker and every
//! replica picks the same member, and when a member comes or goes only the connections move that it gains or had.
//! Weighted as by Schindelhauer and Schomaker, 2005: ratio / -ln(uniform), whose shares are in proportion to the ratios.
//! So a member whose share of its ratio grows, in its slow ramp, gains clients and moves no others.

use crate::address::Prefix;
use crate::config::snapshot::Member;

/// The member among `members`, each with the part of its ratio that counts (1 for all of it), for the client `client`.
/// O(members).
pub(crate) fn pick<'p>(
    members: impl Iterator<Item = (&'p Member, f64)>,
    client: Prefix,
) -> Option<&'p Member> {
    let seed = mix(mix(client.address.high ^ u64::from(client.bits)) ^ client.address.low);
    let scored = members.map(|(member, share)| (score(seed, member, share), member));
    scored.max_by(|(a, _), (b, _)| a.total_cmp(b)).map(|(_, member)| member)
}

fn score(seed: u64, member: &Member, share: f64) -> f64 {
    let place = mix(mix(mix(seed ^ member.address.high) ^ member.address.low) ^ u64::from(member.port));
    // 53 bits, never 0 and never 1.
    let uniform = ((place >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
    f64::from(member.ratio.max(1)) * share / -uniform.ln()
}

/// The finalizer of SplitMix64 (Steele, Lea and Flood, 2014): every bit of the input changes half of the output.
fn mix(word: u64) -> u64 {
    let word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::Address;
    use crate::config::ids::MemberId;
    use crate::packet::build::address;

    fn members(ratios: &[u16]) -> Vec<Member> {
        let member = |(place, &ratio): (usize, &u16)| Member {
            id: MemberId(place as u32),
            address: Address::v4([10, 1, 0, 11 + place as u8]),
            port: 8080,
            ratio,
            ..Member::default()
        };
        ratios.iter().enumerate().map(member).collect()
    }

    fn picks(members: &[Member], clients: u32) -> Vec<u32> {
        let client = |number: u32| Prefix::host(Address::v4((0xc633_0000 + number).to_be_bytes()));
        let all = || members.iter().map(|member| (member, 1.0));
        let pick = |number| pick(all(), client(number)).map(|member| member.id.0);
        (0..clients).filter_map(pick).collect()
    }

    fn share(picks: &[u32], member: u32) -> f64 {
        picks.iter().filter(|pick| **pick == member).count() as f64 / picks.len() as f64
    }

    #[test]
    fn shares_follow_the_ratios() {
        let picks = picks(&members(&[1, 2, 5]), 40_000);
        for (member, expected) in [(0, 0.125), (1, 0.25), (2, 0.625)] {
            let found = share(&picks, member);
            // Five standard deviations of a share of 40,000 are below 0.0125.
            assert!((found - expected).abs() < 0.0125, "member {member}: {found}, not {expected}");
        }
    }

    #[test]
    fn a_member_that_leaves_moves_only_its_own_clients() {
        let all = members(&[1, 1, 2, 1]);
        let before = picks(&all, 5_000);
        let without: Vec<_> = all.iter().filter(|member| member.id.0 != 2).cloned().collect();
        let after = picks(&without, 5_000);
        for (before, after) in before.iter().zip(&after) {
            assert!(before == after || *before == 2, "a client of member {before} went to {after}");
        }
    }

    #[test]
    fn the_order_of_members_and_their_numbers_do_not_matter() {
        let all = members(&[1, 1, 3, 1]);
        let mut turned: Vec<_> = all.iter().rev().cloned().collect();
        for (number, member) in turned.iter_mut().enumerate() {
            member.id = MemberId(100 + number as u32);
        }
        let addresses = |members: &[Member], base: u32, picks: Vec<u32>| -> Vec<Address> {
            picks.iter().map(|id| members[(id - base) as usize].address).collect()
        };
        assert_eq!(addresses(&all, 0, picks(&all, 1_000)), addresses(&turned, 100, picks(&turned, 1_000)));
    }

    #[test]
    fn the_same_on_any_replica() {
        let client = Prefix::host(address("198.51.100.7"));
        let all = members(&[1, 1, 1, 1, 1]);
        let picked = pick(all.iter().map(|member| (member, 1.0)), client).map(|member| member.id.0);
        assert_eq!(picked, Some(PICKED), "no part of the hash may change between versions");
        assert_eq!(pick(std::iter::empty(), client), None);
    }

    /// What the first version picked.
    const PICKED: u32 = 2;
}
