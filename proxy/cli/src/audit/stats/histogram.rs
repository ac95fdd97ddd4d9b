//! A histogram of durations, in little memory.

use std::collections::BTreeMap;

/// Buckets between a power of two and the next: results are too high by 1/32 at most.
const BITS: u32 = 5;

/// Counts of values, in buckets that grow with the value. Of 2^64 values there are at most 1,920.
#[derive(Clone, Debug, Default)]
pub(super) struct Histogram {
    buckets: BTreeMap<u16, u64>,
    count: u64,
    pub(super) max: Option<u64>,
}

impl Histogram {
    pub(super) fn take(&mut self, value: u64) {
        *self.buckets.entry(bucket(value)).or_default() += 1;
        self.count += 1;
        self.max = self.max.max(Some(value));
    }

    pub(super) fn add(&mut self, other: &Self) {
        for (bucket, count) in &other.buckets {
            *self.buckets.entry(*bucket).or_default() += count;
        }
        self.count += other.count;
        self.max = self.max.max(other.max);
    }

    /// The value that this percentage does not exceed.
    pub(super) fn percentile(&self, percent: u64) -> Option<u64> {
        let rank = u128::from(self.count) * u128::from(percent);
        let mut below = 0;
        for (bucket, count) in &self.buckets {
            below += u128::from(*count) * 100;
            if below >= rank {
                return self.max.map(|max| max.min(highest(*bucket)));
            }
        }
        self.max
    }
}

fn bucket(value: u64) -> u16 {
    let power = value.max(1).ilog2();
    let steps = power.saturating_sub(BITS);
    let bucket = (u64::from(steps) << BITS) + (value >> steps);
    u16::try_from(bucket).expect("there are 1,920")
}

/// The highest value in a bucket.
fn highest(bucket: u16) -> u64 {
    let steps = (bucket >> BITS).saturating_sub(1);
    let within = u64::from(bucket) - (u64::from(steps) << BITS);
    (within << steps) + ((1 << steps) - 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn small_values_are_exact_and_the_largest_have_a_bucket() {
        (0..64).for_each(|value| assert_eq!(highest(bucket(value)), value));
        assert_eq!((bucket(u64::MAX), highest(bucket(u64::MAX))), (1919, u64::MAX));
        assert_eq!(Histogram::default().percentile(50), None);
    }

    proptest! {
        #[test]
        fn a_percentile_is_the_exact_one_or_a_little_more(
            mut values in prop::collection::vec(0u32..64, 1..200), spread in 1u64..10_000_000, percent in 1u64..=100,
        ) {
            let mut histogram = Histogram::default();
            let of = |value: u32| u64::from(value) * spread;
            values.iter().for_each(|value| histogram.take(of(*value)));
            values.sort_unstable();
            let rank = (values.len() * usize::try_from(percent).unwrap()).div_ceil(100);
            let exact = of(values[rank - 1]);
            let told = histogram.percentile(percent).unwrap();
            prop_assert!(exact <= told && told <= exact + exact / 32, "{} {}", exact, told);
        }
    }
}
