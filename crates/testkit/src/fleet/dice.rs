//! Chance that a seed decides: SplitMix64 (Steele, Lea and Flood 2014), the same everywhere.

/// A source of chance.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// The source of one thing among those of a seed.
    pub fn new(seed: u64, thing: u64) -> Self {
        let mut dice = Self(seed ^ thing.wrapping_mul(0xd134_2543_de82_ef95));
        dice.roll();
        dice
    }

    /// 64 bits, uniform.
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From `from` to below `to`.
    pub fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.roll() % (to - from).max(1)
    }

    /// From `from` to `to`, every order of magnitude as likely as the next.
    pub fn between_orders(&mut self, from: u64, to: u64) -> u64 {
        let share = (self.roll() >> 11) as f64 / (1u64 << 53) as f64;
        (from as f64 * (to as f64 / from as f64).powf(share)) as u64
    }

    /// True so many times in a thousand.
    pub fn in_thousand(&mut self, times: u64) -> bool {
        self.roll() % 1000 < times
    }
}
