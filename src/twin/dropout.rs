//! Twin of `shaders/random/philox.wgsl` and `shaders/dropout/`.

use super::Approx;
use crate::layer::{Config, Dropout, DropoutOf};

/// Philox 4x32-10: four random words from a counter and a key.
///
/// Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC11.
#[must_use]
pub fn philox([a, b, c, d]: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let halves = |a: u32, b: u32| {
        let product = u64::from(a) * u64::from(b);
        ((product >> 32) as u32, product as u32)
    };
    let mut counter = [a, b, c, d];
    for round in 0..10u32 {
        let key = [
            key[0].wrapping_add(round.wrapping_mul(0x9e37_79b9)),
            key[1].wrapping_add(round.wrapping_mul(0xbb67_ae85)),
        ];
        let [a, b, c, d] = counter;
        let ((high0, low0), (high1, low1)) = (halves(a, 0xd251_1f53), halves(c, 0xcd9e_8d57));
        counter = [high1 ^ b ^ key[0], low1, high0 ^ d ^ key[1], low0];
    }
    counter
}

/// What a training step drops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Random {
    /// The seed.
    pub seed: u64,
    /// The training step.
    pub step: u32,
}

impl Random {
    /// Whether a token keeps an element: of its x, or of the `experts * rank` numbers that its experts read of h.
    #[must_use]
    pub fn keeps(&self, dropout: &Dropout, token: u32, element: u32) -> bool {
        let Self { seed, step } = *self;
        let words =
            philox([token / 4, element / 4, step, dropout.stream], [seed as u32, (seed >> 32) as u32]);
        let bits = words[token as usize % 4].rotate_right(8 * (element % 4)) & 0xffff;
        bits >= dropout.threshold()
    }
}

/// The dropout of a layer in a step: none at all, or of one kind.
#[derive(Clone, Copy)]
pub(super) struct Drops<'a> {
    config: &'a Config,
    random: Option<Random>,
}

impl<'a> Drops<'a> {
    pub(super) fn new(config: &'a Config, random: Option<Random>) -> Self {
        Self { config, random }
    }

    /// An element of x as A reads it, without the scale.
    pub(super) fn of_x(&self, token: usize, column: usize, x: Approx) -> Approx {
        if self.keeps(DropoutOf::Input, token, column) { x } else { Approx::exact(0.0) }
    }

    /// What follows from x as A reads it, with the scale.
    pub(super) fn scaled(&self, number: Approx) -> Approx {
        self.scale(DropoutOf::Input).map_or(number, |scale| scale * number)
    }

    /// What an expert reads of h, or gives back to it, with the scale.
    pub(super) fn of_h(&self, token: usize, row: usize, h: Approx) -> Approx {
        if !self.keeps(DropoutOf::Latent, token, row) {
            return Approx::exact(0.0);
        }
        self.scale(DropoutOf::Latent).map_or(h, |scale| scale * h)
    }

    /// Whether elements of x are dropped.
    pub(super) fn drops_x(&self) -> bool {
        self.drops(DropoutOf::Input).is_some()
    }

    fn drops(&self, of: DropoutOf) -> Option<(Dropout, Random)> {
        self.config.drops().filter(|dropout| dropout.of == of).zip(self.random)
    }

    fn keeps(&self, of: DropoutOf, token: usize, element: usize) -> bool {
        self.drops(of).is_none_or(|(dropout, random)| random.keeps(&dropout, token as u32, element as u32))
    }

    fn scale(&self, of: DropoutOf) -> Option<Approx> {
        self.drops(of).map(|(dropout, _)| Approx::exact(f64::from(dropout.keep_scale())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The known answers of the authors' Random123.
    #[test]
    fn known_answers() {
        assert_eq!(philox([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        let ones = philox([u32::MAX; 4], [u32::MAX; 2]);
        assert_eq!(ones, [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        let pi = philox([0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344], [0xa409_3822, 0x299f_31d0]);
        assert_eq!(pi, [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]);
    }

    /// Of all elements, and of neighbours in a row and among tokens together.
    #[test]
    fn elements_are_kept_as_often_as_they_should_be() {
        let (tokens, width) = (512u32, 1024u32);
        let count = f64::from(tokens * width);
        for probability in [0.05f32, 0.3, 0.5, 0.9] {
            let dropout = Dropout::new(probability);
            let random = Random { seed: 7, step: 3 };
            let dropped = |token, column| !random.keeps(&dropout, token % tokens, column % width);
            let all = || (0..tokens).flat_map(|token| (0..width).map(move |column| (token, column)));
            let share = all().filter(|&(token, column)| dropped(token, column)).count() as f64 / count;
            let p = f64::from(dropout.threshold()) / 65536.0;
            assert!((p - f64::from(probability)).abs() <= 1.0 / 131_072.0);
            // Five standard deviations.
            let bound = 5.0 * (p * (1.0 - p) / count).sqrt();
            assert!((share - p).abs() < bound, "{share} is not {p}");
            for (across, along) in [(0, 1), (0, 2), (0, 4), (1, 0), (4, 0)] {
                let both = |&(token, column): &(u32, u32)| {
                    dropped(token, column) && dropped(token + across, column + along)
                };
                let both = all().filter(both).count() as f64 / count;
                let q = p * p;
                // Of neighbours that share eight bits, one in 256 is not independent.
                let shared = if (across, along) == (0, 1) { 1.0 / 256.0 } else { 0.0 };
                let bound = 8.0 * (q * (1.0 - q) / count).sqrt() + shared * p;
                assert!((both - q).abs() < bound, "{across}, {along}: {both} is not {q}");
            }
        }
    }

    #[test]
    fn seeds_steps_streams_and_tokens_differ() {
        let dropout = Dropout::new(0.5);
        let row = |seed, step, stream, token| -> Vec<bool> {
            let dropout = Dropout { stream, ..dropout };
            (0..256).map(|column| Random { seed, step }.keeps(&dropout, token, column)).collect()
        };
        let first = row(1, 1, 0, 0);
        for other in
            [row(2, 1, 0, 0), row(1 << 32 | 1, 1, 0, 0), row(1, 2, 0, 0), row(1, 1, 1, 0), row(1, 1, 0, 1)]
        {
            let same = first.iter().zip(&other).filter(|(a, b)| a == b).count();
            assert!((80..176).contains(&same), "{same} of 256 are the same");
        }
    }
}
