//! Medians and rows.

use std::collections::BTreeMap;

/// The middle of `values`; 0 without any.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        len if len % 2 == 1 => sorted[len / 2],
        len => f64::midpoint(sorted[len / 2 - 1], sorted[len / 2]),
    }
}

/// The value that a share `part` of `values` does not exceed; 0 without any. Sorts them.
pub fn percentile(values: &mut [u64], part: f64) -> u64 {
    values.sort_unstable();
    let place = (values.len() as f64 * part) as usize;
    values.get(place.min(values.len().saturating_sub(1))).copied().unwrap_or_default()
}

/// What was counted between two looks at the same counters, without those that stood still, in words.
pub fn grown(before: &BTreeMap<String, u64>, after: &BTreeMap<String, u64>) -> String {
    let growth = after.iter().map(|(name, count)| (name, count - before.get(name).copied().unwrap_or(0)));
    let words: Vec<String> =
        growth.filter(|(_, count)| *count > 0).map(|(name, count)| format!("{name} {count}")).collect();
    if words.is_empty() { "none".into() } else { words.join(", ") }
}

/// The smallest and the largest.
pub fn range(values: &[f64]) -> (f64, f64) {
    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
    let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    (low, high)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_one_of_the_values() {
        let mut values = [5, 1, 4, 2, 3];
        let found = [0.0, 0.5, 0.99, 1.0].map(|part| percentile(&mut values, part));
        assert_eq!((found, percentile(&mut [], 0.5)), ([1, 3, 5, 5], 0));
    }

    #[test]
    fn only_what_has_grown_is_said() {
        let counts =
            |list: &[(&str, u64)]| list.iter().map(|(name, count)| ((*name).into(), *count)).collect();
        let (before, after) = (counts(&[("a", 1), ("b", 2)]), counts(&[("a", 1), ("b", 5), ("c", 1)]));
        assert_eq!((grown(&before, &after), grown(&after, &after)), ("b 3, c 1".into(), "none".into()));
    }

    #[test]
    fn the_middle_is_in_the_middle() {
        assert_eq!((median(&[3.0, 1.0, 2.0]), median(&[4.0, 1.0]), median(&[])), (2.0, 2.5, 0.0));
        assert_eq!(range(&[3.0, 1.0, 2.0]), (1.0, 3.0));
    }
}
