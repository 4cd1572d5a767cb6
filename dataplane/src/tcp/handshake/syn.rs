//! What a SYN says, out of its TCP header.

/// What a SYN says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Syn {
    /// The client's initial sequence number.
    pub seq: u32,
    /// The largest segment it takes; 536 (IPv4) or 1220 (IPv6) where it does not say (RFC 9293 section 3.7.1).
    pub mss: u16,
    /// Its window scale, where it offers one; more than 14 counts as 14 (RFC 7323 section 2.3).
    pub scale: Option<u8>,
    /// It permits selective acknowledgements.
    pub sack: bool,
}

impl Syn {
    /// Reads a SYN's TCP header with its options; options that make no sense are passed over. What follows a length
    /// that cannot be is not read. An MSS below 64 counts as 64: less would make a segment of every few bytes.
    pub fn read(header: &[u8], is_v4: bool) -> Self {
        let seq =
            header.get(4..8).and_then(|bytes| bytes.first_chunk()).map_or(0, |b| u32::from_be_bytes(*b));
        let mut syn = Self { seq, mss: if is_v4 { 536 } else { 1220 }, scale: None, sack: false };
        let end = header.get(12).map_or(0, |byte| usize::from(byte >> 4) * 4).min(header.len());
        let mut options = header.get(20..end).unwrap_or_default();
        while let Some((option, rest)) = next_option(options) {
            syn.hear(option);
            options = rest;
        }
        syn
    }

    fn hear(&mut self, option: &[u8]) {
        match *option {
            [KIND_MSS, 4, high, low] => self.mss = u16::from_be_bytes([high, low]).max(MSS_MIN),
            [KIND_SCALE, 3, scale] => self.scale = Some(scale.min(SCALE_MAX)),
            [KIND_SACK, 2] => self.sack = true,
            _ => {}
        }
    }
}

/// The first option, and what follows it; `None` at the end or where a length cannot be (RFC 9293 section 3.1: kinds 0 and
/// 1 have no length).
pub(in crate::tcp) fn next_option(options: &[u8]) -> Option<(&[u8], &[u8])> {
    match *options.first()? {
        KIND_END => None,
        KIND_NOTHING => Some(options.split_at(1)),
        _ => {
            let len = usize::from(*options.get(1)?);
            (len >= 2).then(|| options.split_at_checked(len)).flatten()
        }
    }
}

const MSS_MIN: u16 = 64;
const SCALE_MAX: u8 = 14;
const KIND_END: u8 = 0;
const KIND_NOTHING: u8 = 1;
const KIND_MSS: u8 = 2;
const KIND_SCALE: u8 = 3;
const KIND_SACK: u8 = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snat::random::Random;

    const BARE: Syn = Syn { seq: 0x0102_0304, mss: 536, scale: None, sack: false };

    fn header(options: &[u8]) -> Vec<u8> {
        let mut header = vec![0x9c, 0x40, 0, 80, 1, 2, 3, 4, 0, 0, 0, 0, 0, 2, 0xff, 0xff, 0, 0, 0, 0];
        header.extend(options);
        header.resize(header.len().next_multiple_of(4), 0);
        header[12] = (header.len() as u8 / 4) << 4;
        header
    }

    fn read(options: &[u8]) -> Syn {
        Syn::read(&header(options), true)
    }

    #[test]
    fn without_options_the_defaults_of_the_family_hold() {
        assert_eq!(read(&[]), BARE);
        assert_eq!(Syn::read(&header(&[]), false), Syn { mss: 1220, ..BARE });
    }

    #[test]
    fn options_are_read_in_any_order_and_unknown_ones_skipped() {
        let all = Syn { mss: 1460, scale: Some(7), sack: true, ..BARE };
        assert_eq!(read(&[2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7]), all);
        assert_eq!(read(&[254, 6, 2, 4, 0, 1, 3, 3, 7, 1, 1, 4, 2, 2, 4, 5, 0xb4]), all);
    }

    #[test]
    fn values_out_of_range_are_brought_into_it() {
        for small in [0u16, 1, 63, 64] {
            let [high, low] = small.to_be_bytes();
            assert_eq!(read(&[2, 4, high, low]).mss, 64);
        }
        assert_eq!(read(&[2, 4, 0xff, 0xff]).mss, 65_535);
        assert_eq!(read(&[3, 3, 15]).scale, Some(14));
    }

    #[test]
    fn an_option_of_a_wrong_length_says_nothing() {
        let options = [2, 3, 9, 3, 4, 7, 7, 4, 3, 0, 1, 1, 3, 3, 2];
        assert_eq!(read(&options), Syn { scale: Some(2), ..BARE });
    }

    #[test]
    fn nothing_is_read_behind_an_end_or_a_length_that_cannot_be() {
        for end in
            [&[0, 4, 2, 1][..], &[8, 0, 4, 2], &[8, 1, 4, 2], &[8, 9, 4, 2], &[2, 5, 4, 2], &[1, 1, 1, 2]]
        {
            assert_eq!(read(end), BARE, "{end:?}");
        }
        assert_eq!(read(&[4, 2, 1, 1, 1, 1, 2, 4]), Syn { sack: true, ..BARE }, "what came before it holds");
        let mut data = header(&[]);
        data.extend([4, 2, 1, 1]);
        assert_eq!(Syn::read(&data, true), BARE, "data is no option");
    }

    #[test]
    fn headers_cut_anywhere_and_random_bytes_are_read_without_a_panic() {
        let whole = header(&[2, 4, 5, 0xb4, 4, 2, 1, 3, 3, 7]);
        for len in 0..whole.len() {
            assert!(Syn::read(&whole[..len], true).mss >= 64);
        }
        for seed in 1..2_000 {
            let mut random = Random::new(seed);
            let bytes: Vec<u8> = (0..random.next() % 70).map(|_| random.next() as u8).collect();
            let syn = Syn::read(&bytes, false);
            assert!(syn.mss >= 64 && syn.scale.is_none_or(|scale| scale <= 14), "seed {seed}");
        }
    }
}
