//! The frozen linear layer against its twin.

use hydralora::twin::{self, Approx};
use hydralora::{Linear, LinearDescriptor, LinearDirection, WriteMode};
use proptest::prelude::*;

use crate::support::{GPU, Guarded, KERNELS, Ratios, random};

/// The twin of one direction: from the source, and what the target held.
type Twin<'a> = &'a dyn Fn(&[Approx], Option<&[Approx]>) -> Vec<Approx>;

fn check([d_in, d_out, tokens]: [u32; 3], bias: bool, write: WriteMode, seed: u64, ratios: &mut Ratios) {
    let size = |rows: u32, columns: u32| (rows * columns) as usize;
    let weight_data = random(seed, size(d_out, d_in));
    let bias_data = bias.then(|| random(seed ^ 1, d_out as usize));
    let weight = Guarded::new("weight", &weight_data);
    let bias = bias_data.as_ref().map(|bias| Guarded::new("bias", bias));
    let mut run = |direction, source_width, target_width, expected: Twin<'_>| {
        let source_data = random(seed ^ 2, size(tokens, source_width));
        let before_data = random(seed ^ 3, size(tokens, target_width));
        let source = Guarded::new("source", &source_data);
        let target = Guarded::output("target", &before_data, write);
        let linear = Linear::prepare(
            &KERNELS,
            &LinearDescriptor {
                direction,
                d_in,
                d_out,
                tokens,
                source: source.tensor(),
                weight: weight.tensor(),
                bias: bias.as_ref().filter(|_| direction == LinearDirection::Forward).map(Guarded::tensor),
                target: target.tensor(),
                write,
            },
        )
        .expect("preparing linear");
        GPU.submit(|pass| linear.encode(pass));
        let before = (write == WriteMode::Accumulate).then(|| twin::exact(&before_data));
        let expected = expected(&twin::exact(&source_data), before.as_deref());
        ratios.compare(&format!("{direction:?}"), &target.read(), &expected);
    };
    let dimensions = [d_in as usize, d_out as usize];
    let weight = twin::exact(&weight_data);
    let bias = bias_data.as_deref().map(twin::exact);
    run(LinearDirection::Forward, d_in, d_out, &|x, before| {
        twin::linear(dimensions, &weight, bias.as_deref(), x, before)
    });
    run(LinearDirection::Backward, d_out, d_in, &|g, before| {
        twin::linear_backward(dimensions, &weight, g, before)
    });
}

#[test]
fn around_tile_edges() {
    let mut ratios = Ratios::default();
    for (seed, tokens) in (0..).zip([1, 7, 8, 9, 63, 64, 65, 130]) {
        check([64, 68, tokens], true, WriteMode::Overwrite, seed, &mut ratios);
        check([15, 129, tokens], false, WriteMode::Accumulate, seed, &mut ratios);
    }
    ratios.report("linear::around_tile_edges");
}

#[test]
fn a_nan_in_one_token_stays_there() {
    // 36 is no whole number of tiles along the inner dimension: what a tile reads past a row's end
    // is the next token's.
    let [d_in, d_out, tokens] = [36, 20, 5];
    let weight = Guarded::new("weight", &random(1, 720));
    let mut x = random(2, 180);
    let run = |x: &[f32]| {
        let (source, target) = (Guarded::new("x", x), Guarded::poisoned("y", 100));
        let descriptor = LinearDescriptor {
            direction: LinearDirection::Forward,
            d_in,
            d_out,
            tokens,
            source: source.tensor(),
            weight: weight.tensor(),
            bias: None,
            target: target.tensor(),
            write: WriteMode::Overwrite,
        };
        let linear = Linear::prepare(&KERNELS, &descriptor).expect("preparing linear");
        GPU.submit(|pass| linear.encode(pass));
        target.read()
    };
    let clean = run(&x);
    x[36 * 3..36 * 4].fill(f32::NAN);
    for (token, (clean, poisoned)) in clean.chunks(20).zip(run(&x).chunks(20)).enumerate() {
        assert_eq!(clean == poisoned, token != 3, "y of token {token}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_shapes(
        dimensions in [1u32..200, 1u32..200, 1u32..150],
        bias in any::<bool>(),
        write in prop::sample::select(&[WriteMode::Overwrite, WriteMode::Accumulate][..]),
        seed in any::<u64>(),
    ) {
        check(dimensions, bias, write, seed, &mut Ratios::default());
    }
}
