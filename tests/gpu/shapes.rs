//! Every kernel of the adapter against its twin, on fixed and random shapes.

use hydralora::{Router, WriteMode};
use proptest::prelude::*;

use crate::support::{Case, KERNELS, Ratios, config};

const ROUTERS: [Router; 2] = [Router::Input, Router::Latent];
const WRITES: [WriteMode; 2] = [WriteMode::Overwrite, WriteMode::Accumulate];

fn check(dimensions: [u32; 4], tokens: usize, seed: u64, ratios: &mut Ratios) {
    for router in ROUTERS {
        for write in WRITES {
            let case = Case::random(config(dimensions, router), tokens, seed);
            case.check(&case.run(&KERNELS, write), write, ratios);
        }
    }
}

#[test]
fn ones() {
    let mut ratios = Ratios::default();
    check([1, 1, 1, 1], 1, 1, &mut ratios);
    ratios.report("ones");
}

#[test]
fn typical() {
    let mut ratios = Ratios::default();
    check([256, 320, 8, 4], 70, 2, &mut ratios);
    ratios.report("typical");
}

#[test]
fn around_tile_edges() {
    let mut ratios = Ratios::default();
    for tokens in [2, 3, 4, 5, 8, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 257] {
        check([36, 28, 4, 3], tokens, tokens as u64, &mut ratios);
    }
    ratios.report("around_tile_edges");
}

#[test]
fn long_rows() {
    let mut ratios = Ratios::default();
    check([2052, 12, 2, 3], 5, 3, &mut ratios);
    check([12, 2051, 2, 3], 5, 4, &mut ratios);
    ratios.report("long_rows");
}

#[test]
fn every_remainder_of_a_row_by_four() {
    let mut ratios = Ratios::default();
    for (seed, d_in, d_out) in [(1, 5, 10), (2, 6, 11), (3, 7, 12), (4, 8, 9)] {
        check([d_in, d_out, 3, 2], 6, seed, &mut ratios);
    }
    ratios.report("every_remainder_of_a_row_by_four");
}

#[test]
fn many_experts_and_ranks() {
    let mut ratios = Ratios::default();
    check([40, 44, 64, 8], 19, 5, &mut ratios);
    check([20, 24, 1, 61], 19, 6, &mut ratios);
    check([20, 24, 67, 1], 19, 7, &mut ratios);
    ratios.report("many_experts_and_ranks");
}

#[test]
fn saturated_and_indifferent_routers() {
    let mut ratios = Ratios::default();
    for router in ROUTERS {
        // Logits in the hundreds, whose exponentials overflow, and logits that are all zero.
        for scale in [400.0, 0.0] {
            let mut case = Case::random(config([36, 28, 4, 5], router), 21, 8);
            case.adapter.router.iter_mut().for_each(|weight| *weight *= scale);
            case.check(&case.run(&KERNELS, WriteMode::Overwrite), WriteMode::Overwrite, &mut ratios);
        }
    }
    ratios.report("saturated_and_indifferent_routers");
}

proptest! {
    // Every shape is compiled anew, and a software driver takes half a second for each kernel.
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random(
        dimensions in [1u32..150, 1u32..150, 1u32..20, 1u32..9],
        tokens in 1usize..150,
        router in prop::sample::select(&ROUTERS[..]),
        write in prop::sample::select(&WRITES[..]),
        seed in any::<u64>(),
    ) {
        let case = Case::random(config(dimensions, router), tokens, seed);
        case.check(&case.run(&KERNELS, write), write, &mut Ratios::default());
    }
}
