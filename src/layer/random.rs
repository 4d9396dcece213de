//! Random numbers, the same on every machine.

/// Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
pub(crate) struct SplitMix64(pub(crate) u64);

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in -1..1. 24 random bits make it exact in f32.
    pub(crate) fn uniform(&mut self) -> f32 {
        let unit = (self.next() >> 40) as f32 / (1u32 << 24) as f32;
        2.0 * unit - 1.0
    }

    /// A rows x `fan_in` matrix, uniform in +-1/sqrt(`fan_in`).
    pub(super) fn kaiming_uniform(&mut self, rows: usize, fan_in: usize) -> Vec<f32> {
        let bound = (fan_in as f32).sqrt().recip();
        (0..rows * fan_in).map(|_| self.uniform() * bound).collect()
    }
}
