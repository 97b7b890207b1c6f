//! Numbers that look random and are the same on every machine and in every version: SplitMix64
//! (Steele, Lea and Flood, 2014), seeded by whatever tells two streams apart.

/// A stream of numbers.
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Random {
    /// The stream of these numbers, in this order.
    pub(super) fn of(parts: &[u64]) -> Self {
        let mut stream = Self(0);
        for &part in parts {
            stream.0 ^= part;
            stream.0 = stream.next();
        }
        stream
    }

    /// The next number.
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut number = self.0;
        number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        number ^ (number >> 31)
    }

    /// A number below a bound; 0 if that is 0.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        u64::try_from((u128::from(self.next()) * u128::from(bound)) >> 64).unwrap_or_default()
    }

    /// True so many times of a thousand.
    pub(super) fn chance(&mut self, permille: u64) -> bool {
        self.below(1000) < permille
    }

    /// One of these, each as often as its weight says.
    pub(super) fn pick<'a, T>(&mut self, choices: &'a [T], weight: impl Fn(&T) -> u64) -> Option<&'a T> {
        let mut left = self.below(choices.iter().map(&weight).sum());
        choices.iter().find(|choice| {
            let weight = weight(choice);
            let found = left < weight;
            left = left.saturating_sub(weight);
            found
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_what_it_always_was_and_weights_are_kept() {
        let mut stream = Random::of(&[1, 2]);
        let first: Vec<_> = (0..4).map(|_| stream.below(1_000_000)).collect();
        let again: Vec<_> = {
            let mut stream = Random::of(&[1, 2]);
            (0..4).map(|_| stream.below(1_000_000)).collect()
        };
        assert_eq!(first, again);
        assert_ne!(first[0], Random::of(&[2, 1]).below(1_000_000));
        // The reference's first number from state 0.
        assert_eq!(Random(0).next(), 0xe220_a839_7b1d_cdaf);
        let mut counts = [0; 3];
        for _ in 0..6000 {
            counts[*stream.pick(&[0, 1, 2], |&choice| choice as u64).unwrap()] += 1;
        }
        assert_eq!(counts[0], 0);
        assert!((1800..2200).contains(&counts[1]), "{counts:?}");
        assert_eq!(stream.pick(&[0_u64], |&weight| weight), None);
    }
}
