//! The suite's cases.

use hydralora::{
    DeviceProfile, DropoutOf, Element, FusedChoice, GateGradient, GateRows, LinearChoice, LinearDirection,
    LinearWay, OuterChoice, Planner, Router, Sharing, Weighting, wgpu,
};
use proptest::prelude::*;

use crate::case::{Case, Operation, Planning, Shape};
use crate::inputs::Inputs;
use crate::job::Placement;
use crate::op::Elements;

const ROUTERS: [Router; 2] = [Router::Input, Router::Latent];

/// Token counts around the edge of every tile.
const TOKENS: [u32; 24] =
    [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 255, 256, 257, 100];

/// The adapter's operations.
fn adapter(router: Router) -> [Operation; 6] {
    [
        Operation::Forward(router),
        Operation::Inference(router),
        Operation::BackwardInput(router),
        Operation::BackwardState(router),
        Operation::BackwardParams(router),
        Operation::Step(router),
    ]
}

/// The frozen layer's.
const LINEAR: [Operation; 3] = [
    Operation::Linear { direction: LinearDirection::Forward, bias: true },
    Operation::Linear { direction: LinearDirection::Forward, bias: false },
    Operation::Linear { direction: LinearDirection::Backward, bias: false },
];

/// Every fixed case.
pub fn all() -> Vec<Case> {
    let mut cases = Vec::new();
    typical(&mut cases);
    token_counts(&mut cases);
    long_loops(&mut cases);
    row_lengths(&mut cases);
    ranks_and_experts(&mut cases);
    numbers(&mut cases);
    plans_and_placement(&mut cases);
    room(&mut cases);
    gaps(&mut cases);
    choices(&mut cases);
    separate_a(&mut cases);
    given_weights(&mut cases);
    top_k(&mut cases);
    other_gates(&mut cases);
    dropout(&mut cases);
    mask(&mut cases);
    gate_losses(&mut cases);
    linear_choices(&mut cases);
    linear_matrices(&mut cases);
    linear_plans(&mut cases);
    half_precision(&mut cases);
    optimiser(&mut cases);
    cases
}

fn typical(cases: &mut Vec<Case>) {
    for shape in
        [Shape::new(1, [1, 1], [1, 1]), Shape::new(70, [256, 320], [8, 4]), Shape::new(33, [101, 67], [7, 3])]
    {
        for router in ROUTERS {
            for operation in adapter(router) {
                let case = Case::new(operation, shape);
                cases.extend([case.clone(), case.accumulating()]);
            }
        }
        for operation in LINEAR {
            let case = Case::new(operation, shape);
            cases.extend([case.clone(), case.accumulating()]);
        }
    }
}

fn token_counts(cases: &mut Vec<Case>) {
    for tokens in TOKENS {
        let shape = Shape::new(tokens, [36, 28], [4, 3]);
        for operation in [Operation::Forward, Operation::BackwardInput, Operation::BackwardParams] {
            cases.push(Case::new(operation(Router::Input), shape));
            cases.push(Case::new(operation(Router::Latent), shape).accumulating());
        }
        cases.push(Case::new(LINEAR[0], Shape::new(tokens, [64, 68], [1, 1])));
        cases.push(Case::new(LINEAR[1], Shape::new(tokens, [15, 129], [1, 1])).accumulating());
        cases.push(Case::new(LINEAR[2], Shape::new(tokens, [15, 129], [1, 1])).accumulating());
    }
}

/// Loops about as long as some drivers let all loops of a thread together be (65,535 iterations), and longer,
/// as planned and as chosen.
fn long_loops(cases: &mut Vec<Case>) {
    let params = |tokens, widths| {
        Case::new(Operation::BackwardParams(Router::Input), Shape::new(tokens, widths, [1, 2]))
    };
    cases.extend([params(70_000, [4, 5]), params(39_000, [4, 4])]);
    for (rows, tokens, ranks) in [(4, 56_000, [1, 2]), (16, 47_500, [14, 2])] {
        let choice = OuterChoice { rows, separate: true, ..OuterChoice::default() };
        let case = Case::new(Operation::BackwardParams(Router::Input), Shape::new(tokens, [4, 4], ranks));
        cases.push(case.planned_for(Planning::Chosen(None, Some(choice))));
    }
    let choice = FusedChoice { quads: 4, expand_quads: 4, summed_columns: 4, ..FusedChoice::default() };
    let case = Case::new(Operation::Forward(Router::Latent), Shape::new(40, [8, 8], [200, 226]));
    let case = case.planned_for(Planning::Chosen(Some(choice), None));
    cases.push(Case { beyond_defaults: true, ..case });
    // Rank and experts that make the expand, and backward's shrink, long.
    let shapes = [(40, [384, 152], [265, 192]), (228, [8, 8], [265, 192]), (70, [8, 8], [96, 100])];
    for (tokens, widths, ranks) in shapes {
        let case = Case::new(Operation::Inference(Router::Input), Shape::new(tokens, widths, ranks));
        cases.push(Case { beyond_defaults: true, ..case });
    }
    let case = Case::new(Operation::BackwardInput(Router::Input), Shape::new(70, [8, 8], [96, 100]));
    cases.push(Case { beyond_defaults: true, ..case });
    for (tokens, width) in [(3, 80_000), (64, 84_000), (64, 73_000), (64, 75_000), (20, 90_000)] {
        cases.push(Case::new(LINEAR[1], Shape::new(tokens, [width, 4], [1, 1])));
        cases.push(Case::new(LINEAR[2], Shape::new(tokens, [4, width], [1, 1])));
    }
}

fn row_lengths(cases: &mut Vec<Case>) {
    // Every remainder by four on either side, then rows longer than a workgroup's stride.
    let shapes = [[5, 10], [6, 11], [7, 12], [8, 9]].map(|widths| Shape::new(6, widths, [3, 2]));
    let long = [[2052, 12], [12, 2051]].map(|widths| Shape::new(5, widths, [3, 2]));
    for shape in shapes.into_iter().chain(long) {
        cases.extend([
            Case::new(Operation::Step(Router::Input), shape),
            Case::new(LINEAR[0], shape),
            Case::new(LINEAR[2], shape),
        ]);
    }
}

fn ranks_and_experts(cases: &mut Vec<Case>) {
    for [rank, experts] in [[64, 8], [1, 61], [67, 1]] {
        for router in ROUTERS {
            cases.push(Case::new(Operation::Step(router), Shape::new(19, [40, 44], [rank, experts])));
        }
    }
    // More columns than are complete at a time, in tiles so long that subgroups of eight hold their lanes.
    cases.push(Case::new(Operation::BackwardInput(Router::Input), Shape::new(101, [40, 44], [64, 8])));
    // Beyond the workgroup memory that WebGPU guarantees; some devices have more. h and w of four
    // tokens take 16 bytes for each of rank + experts, in backward twice that.
    for experts in [350, 700, 1400] {
        for operation in [Operation::Forward, Operation::BackwardInput] {
            let case = Case::new(operation(Router::Input), Shape::new(3, [8, 8], [1, experts]));
            cases.push(Case { beyond_defaults: experts > 350, ..case });
        }
    }
}

fn numbers(cases: &mut Vec<Case>) {
    let shape = Shape::new(21, [36, 28], [4, 3]);
    for inputs in Inputs::FINITE.into_iter().filter(|&inputs| inputs != Inputs::Noise) {
        for router in ROUTERS {
            for operation in
                [Operation::Forward, Operation::BackwardInput, Operation::BackwardParams, Operation::Step]
            {
                cases.push(Case::new(operation(router), shape).with_inputs(inputs));
            }
        }
        cases.push(Case::new(LINEAR[0], shape).with_inputs(inputs));
        cases.push(Case::new(LINEAR[2], shape).with_inputs(inputs));
    }
    // 37 and 27: what lies past a row's end is the next token's.
    for shape in [shape, Shape::new(11, [37, 27], [3, 4])] {
        for inputs in [Inputs::Nan, Inputs::Infinity] {
            for router in ROUTERS {
                cases.push(Case::new(Operation::Forward(router), shape).with_inputs(inputs));
                cases.push(Case::new(Operation::BackwardInput(router), shape).with_inputs(inputs));
            }
            cases.push(Case::new(LINEAR[0], shape).with_inputs(inputs));
            cases.push(Case::new(LINEAR[2], shape).with_inputs(inputs));
        }
    }
}

fn plans_and_placement(cases: &mut Vec<Case>) {
    for (shape, router) in [
        (Shape::new(3, [600, 700], [6, 3]), Router::Input),
        (Shape::new(333, [600, 700], [6, 3]), Router::Latent),
        (Shape::new(257, [31, 9], [2, 5]), Router::Latent),
    ] {
        let case = Case::new(Operation::Step(router), shape).planned_for(Planning::Wide);
        cases.extend([case.clone(), case.accumulating()]);
    }
    // GPUs add to four rows of gradients at a time, here also to the last three of seven.
    let case = Case::new(Operation::BackwardParams(Router::Input), Shape::new(21, [36, 28], [4, 3]));
    cases.push(case.accumulating().planned_for(Planning::Wide));
    for (shape, router) in [
        (Shape::new(3, [36, 28], [4, 3]), Router::Input),
        (Shape::new(333, [37, 29], [8, 4]), Router::Latent),
        (Shape::new(45, [36, 44], [64, 3]), Router::Input),
        // Few tokens: shrinks apart.
        (Shape::new(5, [2052, 1027], [8, 4]), Router::Latent),
    ] {
        cases.push(Case::new(Operation::Step(router), shape).planned_for(Planning::Software));
    }
    // More columns than are complete at a time: a shrink apart.
    cases.push(
        Case::new(Operation::BackwardInput(Router::Latent), Shape::new(35, [516, 520], [64, 8]))
            .planned_for(Planning::Software),
    );
    cases.push(
        Case::new(Operation::Step(Router::Input), Shape::new(700, [8, 12], [2, 2]))
            .planned_for(Planning::Narrow),
    );
    cases.push(Case::new(LINEAR[0], Shape::new(700, [8, 12], [2, 2])).planned_for(Planning::Narrow));
    cases.push(
        // The norm has more workgroups, and cannot fold them.
        Case::new(Operation::AdamW { clip: false }, Shape::new(1, [300, 400], [4, 3]))
            .planned_for(Planning::Narrow),
    );
    divided(cases);
    let shape = Shape::new(21, [36, 28], [4, 3]);
    for operation in [Operation::Step(Router::Input), Operation::Step(Router::Latent), LINEAR[0]] {
        for placement in [Placement::OneAllocation, Placement::Pool] {
            cases.push(Case { placement, ..Case::new(operation, shape) });
        }
    }
    // Pools of several dispatches: split tokens, and a shrink of its own.
    for shape in [Shape::new(333, [600, 700], [6, 3]), Shape::new(3, [1036, 1028], [4, 3])] {
        let case = Case::new(Operation::Step(Router::Input), shape).planned_for(Planning::Wide);
        cases.push(Case { placement: Placement::Pool, ..case });
    }
    cases.push(Case { placement: Placement::Pool, ..Case::new(Operation::AdamW { clip: true }, shape) });
}

/// More work than a dispatch may do: by tiles of tokens, and by blocks of gradients. Also with a shrink apart,
/// splits of the inner dimension, and a batch that leaves the last dispatches empty.
fn divided(cases: &mut Vec<Case>) {
    for (shape, router) in [
        (Shape::new(70, [132, 68], [8, 4]), Router::Input),
        (Shape::new(333, [37, 29], [5, 3]), Router::Latent),
        (Shape::new(9, [2052, 1028], [8, 4]), Router::Input),
        // A shrink apart, of several tiles, whatever the device's subgroups are.
        (Shape::new(35, [516, 520], [64, 8]), Router::Input),
    ] {
        let case = Case::new(Operation::Step(router), shape).planned_for(Planning::Divided);
        cases.extend([case.clone().accumulating(), Case { room: 200, ..case }]);
    }
    for (shape, room) in [
        (Shape::new(150, [132, 68], [2, 2]), 0),
        (Shape::new(20, [516, 36], [2, 2]), 0),
        (Shape::new(20, [132, 68], [2, 2]), 130),
    ] {
        for linear in LINEAR {
            let case = Case::new(linear, shape).planned_for(Planning::Divided).accumulating();
            cases.push(Case { room, ..case });
        }
    }
}

/// Rows that start further apart than they are long: some columns of a wider matrix.
fn gaps(cases: &mut Vec<Case>) {
    for (shape, gap) in [
        (Shape::new(21, [36, 28], [4, 3]), 4),
        (Shape::new(70, [256, 320], [8, 4]), 512),
        (Shape::new(11, [37, 27], [3, 4]), 8),
        (Shape::new(5, [2052, 12], [3, 2]), 4),
    ] {
        for operation in ROUTERS.map(Operation::Step).into_iter().chain([LINEAR[0], LINEAR[2]]) {
            let case = Case::new(operation, shape);
            cases.extend([Case { gap, ..case.clone() }, Case { gap, room: 9, ..case.accumulating() }]);
        }
    }
    let shape = Shape::new(33, [520, 516], [8, 2]);
    for planning in [Planning::Wide, Planning::Software] {
        let case = Case::new(Operation::Step(Router::Input), shape).planned_for(planning);
        cases.push(Case { gap: 12, ..case });
    }
    for element in [Element::F16, Element::Bf16] {
        let case = Case::new(Operation::Step(Router::Latent), shape).in_half(element);
        cases.push(Case { gap: 4, ..case });
    }
}

/// Batches of fewer tokens than their operations are prepared for: with one plan for all of them, and with
/// several.
fn room(cases: &mut Vec<Case>) {
    for (tokens, room) in [(1, 1), (1, 700), (8, 5), (9, 300), (64, 1), (65, 448), (300, 213), (17, 4079)] {
        let shape = Shape::new(tokens, [36, 28], [4, 3]);
        for router in ROUTERS {
            let case = Case::new(Operation::Step(router), shape);
            let case = if room % 2 == 0 { case.accumulating() } else { case };
            cases.push(Case { room, ..case });
        }
        cases.push(Case { room, ..Case::new(LINEAR[0], shape) });
        cases.push(Case { room, ..Case::new(LINEAR[2], shape) });
    }
    // Tokens that a wide device would split, of which whole splits are empty, and folded grids.
    for planning in [Planning::Wide, Planning::Software, Planning::Narrow] {
        for (tokens, room) in [(3, 400), (70, 430)] {
            let case = Case::new(Operation::Step(Router::Input), Shape::new(tokens, [600, 700], [6, 3]));
            cases.push(Case { room, ..case.planned_for(planning) });
        }
    }
    let case = Case::new(Operation::Step(Router::Latent), Shape::new(33, [52, 68], [5, 3]));
    cases.push(Case { room: 95, ..case.in_half(Element::F16) });
}

/// What no device may choose by itself, but a tuner may: every value of every knob.
fn choices(cases: &mut Vec<Case>) {
    let fused = |[quads, expand_quads, summed_columns, slices, shrink_splits]: [u32; 5]| {
        let choice = FusedChoice::default();
        Some(FusedChoice { quads, expand_quads, summed_columns, slices, shrink_splits, ..choice })
    };
    let outer = |[rows, splits]: [u32; 2], separate| {
        Some(OuterChoice { rows, splits, separate, ..OuterChoice::default() })
    };
    // Rows of 129 and 130 groups: three slices or splits. Where tiles are long, the last has one token.
    let wide = Shape::new(33, [520, 516], [8, 2]);
    for (tile, block) in [
        ([1, 1, 1, 3, 0], [4, 1]),
        ([2, 1, 4, 2, 0], [16, 1]),
        ([4, 2, 2, 3, 3], [16, 1]),
        ([8, 1, 8, 1, 0], [8, 1]),
        ([8, 4, 1, 2, 1], [8, 1]),
        ([4, 1, 8, 2, 2], [8, 1]),
        // The shrink's own grid is folded.
        ([1, 1, 4, 2, 1], [8, 1]),
    ] {
        let planning = Planning::Chosen(fused(tile), outer(block, false));
        cases.push(Case::new(Operation::Step(Router::Latent), wide).planned_for(planning));
    }
    for (router, ranks, block, separate) in [
        (Router::Input, [4, 3], [4, 5], false),
        (Router::Input, [4, 3], [8, 2], true),
        (Router::Latent, [4, 3], [12, 3], true),
        (Router::Latent, [8, 4], [32, 1], false),
        (Router::Latent, [8, 4], [16, 1], true),
    ] {
        let case = Case::new(Operation::BackwardParams(router), Shape::new(333, [36, 28], ranks));
        cases.push(case.accumulating().planned_for(Planning::Chosen(None, outer(block, separate))));
    }
    // Larger workgroups, fewer columns at a time, and groups of lanes that sum columns side by side: 27 columns
    // of backward's shrink, and 12 of forward's, are no whole rounds.
    for (threads, columns, [quads, expand_quads, summed_columns, slices, shrink_splits]) in [
        (128, 16, [4, 2, 2, 2, 0]),
        (256, 8, [2, 1, 1, 2, 0]),
        (256, 8, [8, 4, 1, 1, 2]),
        (64, 2, [2, 1, 1, 2, 0]),
    ] {
        let choice = FusedChoice { threads, columns, ..FusedChoice::default() };
        let choice = FusedChoice { quads, expand_quads, summed_columns, slices, shrink_splits, ..choice };
        for operation in [Operation::Forward(Router::Input), Operation::BackwardInput(Router::Input)] {
            let case = Case::new(operation, Shape::new(33, [1540, 1100], [9, 3]));
            cases.push(case.accumulating().planned_for(Planning::Chosen(Some(choice), None)));
        }
    }
    for threads in [128, 256] {
        let outer = OuterChoice { threads, rows: 12, splits: 2, ..OuterChoice::default() };
        let case = Case::new(Operation::BackwardParams(Router::Input), Shape::new(133, [516, 260], [9, 3]));
        cases.push(case.planned_for(Planning::Chosen(None, Some(outer))));
    }
    // And 11 of forward's, whose last group has a column less: nothing may be written for it.
    let choice = FusedChoice { threads: 64, quads: 2, columns: 16, groups: 2, ..FusedChoice::default() };
    let choice = FusedChoice { summed_columns: 12, ..choice };
    let case = Case::new(Operation::Forward(Router::Input), Shape::new(33, [1540, 1100], [8, 3]));
    cases.push(case.planned_for(Planning::Shuffled(choice)));
    for (threads, quads, columns, groups, rounds) in [
        (64, 2, 16, 2, 1),
        (64, 8, 8, 4, 1),
        (128, 1, 8, 2, 2),
        (256, 4, 16, 2, 1),
        (256, 4, 8, 4, 1),
        (128, 2, 4, 4, 2),
        (256, 2, 8, 2, 1),
        (256, 1, 16, 4, 1),
        (64, 2, 2, 4, 2),
    ] {
        for (operation, columns_of_all) in
            [(Operation::Forward(Router::Input), 12u32), (Operation::BackwardInput(Router::Input), 27)]
        {
            let pass_columns = columns_of_all.div_ceil(groups * columns_of_all.div_ceil(groups * columns));
            let round = groups * pass_columns;
            let summed_columns = round * columns_of_all.div_ceil(round).min(rounds);
            let choice =
                FusedChoice { threads, quads, columns, groups, summed_columns, ..FusedChoice::default() };
            let case = Case::new(operation, Shape::new(33, [1540, 1100], [9, 3]));
            cases.push(case.planned_for(Planning::Shuffled(choice)));
        }
    }
    // 192 coefficients a token in chunks of 8, of 48, and of 128 but for the last; and a prime number.
    for (router, ranks, tile) in [
        (Router::Input, [64, 3], [8, 2, 1, 1, 0]),
        (Router::Input, [64, 3], [8, 4, 7, 1, 0]),
        (Router::Latent, [64, 3], [4, 1, 8, 1, 0]),
        (Router::Latent, [61, 1], [8, 4, 2, 1, 1]),
    ] {
        let case = Case::new(Operation::Forward(router), Shape::new(45, [36, 44], ranks));
        cases.push(case.accumulating().planned_for(Planning::Chosen(fused(tile), None)));
    }
}

/// The frozen layer in every way: tiles and none, one lane and several, splits, tokens in several arrays.
fn linear_choices(cases: &mut Vec<Case>) {
    let choice = |[threads, thread_tokens, thread_quads, splits]: [u32; 4], way| {
        Planning::Linear(LinearChoice { threads, thread_tokens, thread_quads, splits, way })
    };
    let tiled = |sizes, depth| choice(sizes, LinearWay::Tiled { depth });
    let direct = |sizes, [lanes, step]: [u32; 2], broadcast| {
        choice(sizes, LinearWay::Direct { lanes, step, broadcast })
    };
    // Rows of 130 and 17 groups in the inner dimension and in the target, or the other way round, and rows that
    // are no groups. 33 tokens are one more than the longest tile of a thread.
    let long = Shape::new(33, [520, 68], [1, 1]);
    let odd = Shape::new(33, [519, 67], [1, 1]);
    for planning in [
        tiled([64, 8, 2, 1], 4),
        tiled([64, 4, 1, 3], 4),
        tiled([128, 2, 2, 1], 2),
        tiled([128, 1, 1, 2], 1),
        tiled([256, 2, 1, 1], 4),
        tiled([256, 8, 2, 5], 2),
        tiled([64, 1, 2, 2], 8),
        direct([64, 32, 2, 1], [1, 1], false),
        direct([64, 32, 1, 1], [1, 1], false),
        direct([64, 16, 2, 4], [1, 1], false),
        direct([64, 8, 2, 2], [1, 1], false),
        direct([128, 4, 1, 2], [1, 4], false),
        direct([256, 2, 2, 1], [1, 4], false),
        direct([64, 1, 1, 1], [1, 8], false),
        direct([64, 4, 2, 2], [8, 2], false),
        direct([64, 16, 1, 1], [8, 1], false),
        direct([128, 2, 1, 1], [16, 2], false),
        direct([64, 8, 1, 1], [64, 1], false),
    ] {
        for Shape { tokens, d_in, d_out, .. } in [long, odd] {
            let around = Shape::new(tokens, [d_out, d_in], [1, 1]);
            cases.push(Case::new(LINEAR[0], Shape::new(tokens, [d_in, d_out], [1, 1])).planned_for(planning));
            cases.push(Case::new(LINEAR[2], around).accumulating().planned_for(planning));
        }
    }
    // Splits and lanes with everything else that a case can have.
    for planning in
        [tiled([64, 4, 1, 3], 4), direct([64, 8, 2, 2], [1, 1], false), direct([64, 4, 2, 2], [8, 2], false)]
    {
        for operation in [LINEAR[0], LINEAR[2]] {
            let widths = if operation == LINEAR[0] { [520, 68] } else { [68, 520] };
            let case =
                |tokens| Case::new(operation, Shape::new(tokens, widths, [1, 1])).planned_for(planning);
            for element in [Element::F16, Element::Bf16] {
                cases.push(case(33).accumulating().in_half(element));
            }
            cases.push(Case { gap: 12, ..case(33).accumulating() });
            cases.push(Case { room: 45, ..case(9) });
            cases.push(Case { placement: Placement::Pool, ..case(9) });
            cases.push(case(9).with_inputs(Inputs::Nan));
            cases.push(case(9).with_inputs(Inputs::Infinity));
        }
    }
}

/// The frozen layer with cooperative matrices, where there are some of this size: all of a tile, one matrix and
/// less of it, tokens and columns that end in the middle of a tile, splits, and batches that are shorter than a
/// matrix.
fn linear_matrices(cases: &mut Vec<Case>) {
    let divided = Case::new(LINEAR[0], Shape::new(150, [144, 80], [1, 1])).in_half(Element::F16);
    cases.push(divided.planned_for(Planning::Divided));
    for size in [8, 16] {
        for (shape, splits) in [
            (Shape::new(64, [64, 128], [1, 1]), 1),
            (Shape::new(16, [16, 16], [1, 1]), 1),
            (Shape::new(77, [48, 80], [1, 1]), 1),
            (Shape::new(33, [528, 48], [1, 1]), 4),
        ] {
            let way = LinearWay::Matrices { size };
            let choice = LinearChoice { threads: 64, thread_tokens: 1, thread_quads: 1, splits, way };
            for operation in LINEAR {
                // The inner dimension is the first or the second width.
                let Shape { tokens, d_in, d_out, .. } = shape;
                let widths = if operation == LINEAR[2] { [d_out, d_in] } else { [d_in, d_out] };
                let case = Case::new(operation, Shape::new(tokens, widths, [1, 1]));
                let case = case.planned_for(Planning::Linear(choice)).in_half(Element::F16);
                let wide = Elements { targets: Element::F32, ..case.elements };
                cases.extend([case.clone(), case.clone().accumulating().stored_as(wide)]);
                if splits == 4 {
                    cases.push(Case { gap: 8, ..case.clone() });
                    cases.push(Case { room: 31, ..case.clone().accumulating() });
                    cases.push(case.with_inputs(Inputs::Nan));
                }
            }
            let short = Case::new(LINEAR[0], Shape { tokens: 5, ..shape }).in_half(Element::F16);
            cases.push(Case { room: shape.tokens - 5, ..short.planned_for(Planning::Linear(choice)) });
        }
    }
}

/// A layer with an option: in a step that adds, and in the plans of wide devices and of software; in every operation by
/// itself if it is the option's first layer.
fn with_option(cases: &mut Vec<Case>, shape: Shape, router: Router, is_first: bool) {
    if is_first {
        cases.extend(adapter(router).map(|operation| Case::new(operation, shape)));
    }
    let step = Case::new(Operation::Step(router), shape);
    cases.extend([Planning::Wide, Planning::Software].map(|planning| step.clone().planned_for(planning)));
    cases.push(step.accumulating());
}

/// An A for each expert: in every operation, with odd widths, one rank (a router over ranks), one expert, many
/// columns, half precision, and the plans of wide devices.
fn separate_a(cases: &mut Vec<Case>) {
    for shape in [
        Shape::new(33, [64, 48], [4, 3]),
        Shape::new(13, [37, 29], [3, 5]),
        Shape::new(70, [256, 320], [1, 16]),
        Shape::new(9, [20, 24], [5, 1]),
        Shape::new(21, [132, 68], [16, 6]),
    ] {
        with_option(cases, shape.separate(), Router::Input, shape.tokens == 33);
    }
    let step = Case::new(Operation::Step(Router::Input), Shape::new(45, [64, 48], [4, 3]).separate());
    cases.extend([step.clone().in_half(Element::F16), step.clone().in_half(Element::Bf16)]);
    for inputs in [Inputs::Saturated, Inputs::OneHot] {
        cases.push(step.clone().with_inputs(inputs));
    }
    for operation in [Operation::Forward(Router::Input), Operation::BackwardInput(Router::Input)] {
        for inputs in [Inputs::Nan, Inputs::Infinity] {
            cases.push(Case { operation, ..step.clone().with_inputs(inputs) });
        }
    }
    cases.push(Case { room: 300, ..step });
}

/// Weights that the caller gives: with one A and with several, for one expert and many, with odd widths, in half
/// precision, and in the plans of wide devices.
fn given_weights(cases: &mut Vec<Case>) {
    let [shared, odd, one] =
        [Shape::new(33, [64, 48], [4, 3]), Shape::new(13, [37, 29], [3, 5]), Shape::new(9, [20, 24], [5, 1])];
    for shape in [shared, odd.separate(), one, Shape::new(70, [256, 320], [2, 40])] {
        with_option(cases, shape, Router::GivenWeights, shape.tokens == 33);
    }
    let step = Case::new(Operation::Step(Router::GivenWeights), shared);
    cases.extend([step.clone().in_half(Element::F16), step.clone().in_half(Element::Bf16)]);
    cases.push(Case { placement: Placement::Pool, ..step.clone() });
    cases.push(Case { room: 300, ..step });
    for operation in
        [Operation::Forward(Router::GivenWeights), Operation::BackwardInput(Router::GivenWeights)]
    {
        cases.push(Case::new(operation, shared).with_inputs(Inputs::Nan));
    }
}

/// The weights of the best experts alone: of one, some and all, renormalised or not, equal weights, with one A and with
/// several, both routers, half precision, and the plans of wide devices.
fn top_k(cases: &mut Vec<Case>) {
    let [few, odd, many] = [
        Shape::new(33, [64, 48], [4, 5]),
        Shape::new(13, [37, 29], [3, 4]),
        Shape::new(70, [128, 64], [2, 40]),
    ];
    for (shape, router) in [
        (few.top(2, true), Router::Input),
        (few.top(2, false), Router::Input),
        (odd.top(1, true), Router::Latent),
        (odd.top(3, false), Router::Latent),
        (odd.separate().top(4, true), Router::Input),
        (many.top(7, false), Router::Input),
    ] {
        with_option(cases, shape, router, shape.tokens == 33);
    }
    for renormalise in [true, false] {
        let step = Case::new(Operation::Step(Router::Input), few.top(2, renormalise));
        for inputs in [Inputs::Indifferent, Inputs::Saturated, Inputs::OneHot] {
            cases.push(step.clone().with_inputs(inputs));
        }
        cases.extend([step.clone().in_half(Element::F16), Case { room: 300, ..step }]);
        for operation in [Operation::Forward(Router::Input), Operation::BackwardInput(Router::Input)] {
            cases.push(Case::new(operation, few.top(2, renormalise)).with_inputs(Inputs::Nan));
        }
    }
}

/// Sigmoids, biases, temperatures, given logits, rows of gates for several tokens, and gradients that the caller adds:
/// each in every operation, then with each other and with what else a case can have.
fn other_gates(cases: &mut Vec<Case>) {
    let [few, odd, one] =
        [Shape::new(33, [64, 48], [4, 5]), Shape::new(13, [37, 29], [3, 4]), Shape::new(9, [20, 24], [5, 1])];
    let [sigmoid, normalised] = [Weighting::Sigmoid, Weighting::NormalisedSigmoid];
    for (shape, router) in [
        (few.weighted(sigmoid), Router::Input),
        (few.weighted(normalised), Router::Input),
        (one.weighted(sigmoid), Router::Latent),
        (few.biased(), Router::Input),
        (odd.biased().at(37), Router::Latent),
        (odd, Router::GivenLogits),
    ] {
        cases.extend(adapter(router).map(|operation| Case::new(operation, shape)));
    }
    for (shape, router) in [
        (odd.separate().weighted(normalised).biased(), Router::Input),
        (odd.weighted(sigmoid).at(250), Router::Latent),
        (few.top(2, false).biased().at(50), Router::Input),
        (one.weighted(sigmoid).biased(), Router::Input),
        (few.top(2, true), Router::GivenLogits),
        (few.weighted(normalised).at(300), Router::GivenLogits),
    ] {
        let step = Case::new(Operation::Step(router), shape);
        cases.extend([step.clone().accumulating(), step.clone().planned_for(Planning::Wide)]);
        cases.push(Case { room: 150, ..step.planned_for(Planning::Software) });
    }
    for weighting in [sigmoid, normalised] {
        let shape = few.weighted(weighting);
        for inputs in [Inputs::Saturated, Inputs::Indifferent, Inputs::Huge] {
            cases.push(Case::new(Operation::Step(Router::Input), shape).with_inputs(inputs));
        }
        for operation in [Operation::Forward(Router::Input), Operation::BackwardInput(Router::Input)] {
            cases.push(Case::new(operation, shape).with_inputs(Inputs::Nan));
        }
    }
    // A NaN or an infinity among what is given stays in its token.
    for inputs in [Inputs::Nan, Inputs::Infinity] {
        for router in [Router::GivenWeights, Router::GivenLogits, Router::Input] {
            cases.push(Case::new(Operation::Forward(router), few).with_inputs(inputs));
            let given = router == Router::GivenWeights;
            let added = if given { GateGradient::Weights } else { GateGradient::Logits };
            let case = Case::new(Operation::BackwardInput(router), few).with_inputs(inputs);
            cases.push(Case { gate_gradient: Some(added(GateRows::Token)), ..case });
        }
    }
    cases.push(Case::new(Operation::Step(Router::Latent), few.biased()).in_half(Element::F16));
    let rows = [GateRows::Token, GateRows::Sequence(5), GateRows::Batch];
    for gates in rows {
        for router in [Router::GivenWeights, Router::GivenLogits] {
            let step = Case::new(Operation::Step(router), few);
            cases.extend([Case { gates, ..step.clone() }, Case { gates, room: 20, ..step }]);
            let sums = Case::new(Operation::GateGradients(router), few);
            cases.extend([Case { gates, ..sums.clone() }, Case { gates, room: 20, ..sums.clone() }]);
            let many = Shape { tokens: 300, ..odd };
            cases.push(Case { gates, ..Case::new(Operation::GateGradients(router), many) });
            cases.push(Case { gates, ..sums.planned_for(Planning::Narrow) });
        }
        for gate_gradient in [GateGradient::Weights(gates), GateGradient::Logits(gates)].map(Some) {
            let step = Case::new(Operation::Step(Router::Input), few.at(80));
            cases.extend([Case { gate_gradient, ..step.clone() }, Case { gate_gradient, room: 20, ..step }]);
            let without_dx = Case::new(Operation::BackwardState(Router::Latent), odd.top(2, true));
            cases.push(Case { gate_gradient, ..without_dx });
        }
        let gate_gradient = Some(GateGradient::Weights(gates));
        cases.push(Case { gates, gate_gradient, ..Case::new(Operation::Step(Router::GivenWeights), odd) });
    }
}

/// Dropout of x and of h: in every operation, with ranks that are whole fours and those that are not, both routers, other
/// gates, little and much, with one and with three tokens after the last four, and in every plan that treats rows, splits
/// and tiles in a way of its own.
fn dropout(cases: &mut Vec<Case>) {
    let [few, odd, one] =
        [Shape::new(39, [64, 48], [4, 5]), Shape::new(13, [37, 29], [3, 4]), Shape::new(9, [20, 24], [5, 1])];
    let (x, h) = (DropoutOf::Input, DropoutOf::Latent);
    for (shape, router) in [
        (few.dropping(30, x), Router::Input),
        (odd.dropping(50, x), Router::Latent),
        (one.dropping(5, x), Router::Input),
        (few.dropping(30, h), Router::Input),
        (odd.dropping(50, h), Router::Latent),
    ] {
        cases.extend(adapter(router).map(|operation| Case::new(operation, shape)));
        cases.push(Case::new(Operation::Step(router), shape).accumulating());
    }
    for (shape, router) in [
        (odd.separate().dropping(30, x), Router::Input),
        (odd.separate().dropping(30, h), Router::Input),
        (few.top(2, true).dropping(99, x), Router::Input),
        (Shape::new(300, [260, 132], [6, 3]).dropping(20, x), Router::Input),
        (Shape::new(5, [1036, 516], [8, 4]).dropping(20, x), Router::Input),
    ] {
        let step = Case::new(Operation::Step(router), shape);
        for planning in [Planning::Wide, Planning::Software, Planning::Divided] {
            cases.push(step.clone().accumulating().planned_for(planning));
        }
        cases.push(Case { room: 83, ..step.planned_for(Planning::Wide) });
    }
    for of in [x, h] {
        let step = Case::new(Operation::Step(Router::Input), few.dropping(30, of));
        cases.extend([step.clone().in_half(Element::F16).accumulating(), Case { gap: 12, ..step }]);
    }
}

/// Tokens that take no adapter, whose numbers are NaN: in every operation, with dropout, given weights and gradients
/// that are added, in half precision, and in every kind of plan.
fn mask(cases: &mut Vec<Case>) {
    let [few, odd, one] =
        [Shape::new(33, [64, 48], [4, 5]), Shape::new(13, [37, 29], [3, 4]), Shape::new(9, [20, 24], [5, 1])];
    let masked = |case: Case| Case { mask: true, ..case };
    for (shape, router) in
        [(few, Router::Input), (odd, Router::Latent), (one, Router::Input), (few, Router::GivenWeights)]
    {
        for operation in adapter(router) {
            let case = masked(Case::new(operation, shape));
            cases.extend([case.clone(), case.accumulating()]);
        }
    }
    for shape in [
        few.weighted(Weighting::NormalisedSigmoid).biased().dropping(30, DropoutOf::Input),
        Shape::new(300, [260, 132], [6, 3]),
        Shape::new(5, [1036, 516], [8, 4]),
    ] {
        let step = masked(Case::new(Operation::Step(Router::Input), shape));
        for planning in [Planning::Wide, Planning::Software, Planning::Divided] {
            cases.push(step.clone().accumulating().planned_for(planning));
        }
        let gate_gradient = Some(GateGradient::Logits(GateRows::Token));
        cases.push(Case { gate_gradient, room: 31, ..step });
    }
    let step = masked(Case::new(Operation::Step(Router::Input), few));
    cases.extend([step.clone().in_half(Element::F16).accumulating(), step.clone().in_half(Element::Bf16)]);
    cases.push(Case { placement: Placement::Pool, gap: 12, ..step });
}

/// The losses of a router: alone and in a step, with every kind of weights, for few tokens and many, few experts and
/// many, with a mask and without.
fn gate_losses(cases: &mut Vec<Case>) {
    let few = Shape::new(33, [64, 48], [4, 5]);
    for (shape, router) in [
        (few, Router::Input),
        (Shape::new(1, [8, 8], [2, 2]), Router::Latent),
        (Shape::new(300, [8, 8], [2, 40]), Router::Input),
        (few.top(2, true), Router::Input),
        (few.top(2, false), Router::Latent),
        (few.weighted(Weighting::Sigmoid), Router::Input),
        (few.weighted(Weighting::NormalisedSigmoid).separate(), Router::Input),
        (few, Router::GivenWeights),
    ] {
        for mask in [false, true] {
            cases.push(Case { mask, ..Case::new(Operation::GateLosses(router), shape) });
        }
    }
    for inputs in [Inputs::Indifferent, Inputs::Saturated] {
        cases.push(Case::new(Operation::GateLosses(Router::Input), few).with_inputs(inputs));
    }
    let shape = few.with_logsumexp();
    for mask in [false, true] {
        cases.push(Case { mask, ..Case::new(Operation::GateLosses(Router::Input), shape) });
    }
    let gate_gradient = Some(GateGradient::Losses);
    for shape in [shape.at(250), shape.top(2, false), shape.top(2, true), few, few.top(2, true)] {
        let case = Case { gate_gradient, ..Case::new(Operation::BackwardInput(Router::Latent), shape) };
        cases.extend([Case { mask: true, ..case.clone() }, case]);
    }
    for (shape, router) in [
        (few.weighted(Weighting::Sigmoid), Router::Input),
        (few.weighted(Weighting::NormalisedSigmoid).separate(), Router::Input),
        (few, Router::GivenWeights),
    ] {
        let case = Case::new(Operation::BackwardInput(router), shape);
        cases.push(Case { gate_gradient, mask: true, ..case });
    }
    cases.push(Case::new(Operation::Forward(Router::Input), shape.at(30)));
    // Nothing is added to the router's own gradient.
    for shape in [shape.separate(), shape.top(2, false)] {
        cases.push(Case::new(Operation::Step(Router::Input), shape));
    }
    cases.push(Case { room: 50, ..Case::new(Operation::GateLosses(Router::Input), few) });
    // A token that is not finite does not count.
    for inputs in [Inputs::Nan, Inputs::Infinity] {
        for shape in [few, few.top(2, true), few.weighted(Weighting::NormalisedSigmoid), few.with_logsumexp()]
        {
            cases.push(Case::new(Operation::GateLosses(Router::Input), shape).with_inputs(inputs));
        }
    }
    for (shape, router) in [
        (few, Router::Input),
        (few.separate(), Router::Input),
        (few.weighted(Weighting::Sigmoid), Router::Latent),
        (few.with_logsumexp().at(60), Router::Input),
        (few.with_logsumexp().biased(), Router::Latent),
        (few.with_logsumexp(), Router::GivenLogits),
        (few.top(2, false), Router::Latent),
        (few.top(1, true), Router::Input),
        (few.top(2, true).with_logsumexp().separate().at(80), Router::Input),
        (few.top(5, true), Router::Latent),
        (few.weighted(Weighting::NormalisedSigmoid), Router::Input),
        (few, Router::GivenWeights),
    ] {
        let step = Case::new(Operation::StepWithLosses(router), shape);
        cases.extend([step.clone(), Case { mask: true, room: 20, ..step.planned_for(Planning::Wide) }]);
    }
}

/// Few tokens on a wide device, which splits, and any number in software, with subgroups where there are some.
fn linear_plans(cases: &mut Vec<Case>) {
    for tokens in [1, 2, 4, 7, 8, 15, 33] {
        for planning in [Planning::Wide, Planning::Software] {
            for (operation, widths) in
                [(LINEAR[0], [1036, 132]), (LINEAR[2], [132, 1036]), (LINEAR[2], [35, 515])]
            {
                cases.push(Case::new(operation, Shape::new(tokens, widths, [1, 1])).planned_for(planning));
            }
        }
    }
}

/// Numbers that half precision can hold.
const IN_HALF: [Inputs; 4] = [Inputs::Noise, Inputs::Gentle, Inputs::OneHot, Inputs::Saturated];

fn half_precision(cases: &mut Vec<Case>) {
    for element in [Element::F16, Element::Bf16] {
        for operation in ROUTERS.into_iter().flat_map(adapter).chain(LINEAR) {
            let case = Case::new(operation, Shape::new(70, [256, 320], [8, 4])).in_half(element);
            cases.extend([case.clone(), case.accumulating()]);
        }
        for tokens in [1, 5, 17, 129, 257] {
            let shape = Shape::new(tokens, [36, 28], [4, 3]);
            for operation in
                [Operation::Step(Router::Input), Operation::Inference(Router::Latent), LINEAR[0], LINEAR[2]]
            {
                cases.push(Case::new(operation, shape).in_half(element));
            }
        }
        let case = |operation| Case::new(operation, Shape::new(21, [36, 28], [4, 3])).in_half(element);
        for inputs in IN_HALF.into_iter().skip(1) {
            cases.push(case(Operation::Step(Router::Input)).with_inputs(inputs));
        }
        for inputs in [Inputs::Nan, Inputs::Infinity] {
            let operations = [Operation::Forward(Router::Input), Operation::BackwardInput(Router::Latent)];
            cases.extend(
                operations.into_iter().chain(LINEAR).map(|operation| case(operation).with_inputs(inputs)),
            );
        }
        let wide = Case::new(Operation::Step(Router::Input), Shape::new(333, [600, 700], [6, 3]));
        cases.push(wide.in_half(element).planned_for(Planning::Wide));
        let placement = Placement::OneAllocation;
        cases.push(Case { placement, ..case(Operation::Step(Router::Latent)) });
    }
    // Each tensor by itself.
    let (f32, f16, bf16) = (Element::F32, Element::F16, Element::Bf16);
    for [sources, parameters, targets] in
        [[f16, f32, f32], [f32, f32, bf16], [f32, f16, f32], [bf16, f16, f32]]
    {
        let elements = Elements { sources, parameters, targets };
        let shape = Shape::new(33, [52, 68], [5, 3]);
        let mut operations = vec![Operation::Inference(Router::Latent), LINEAR[0], LINEAR[2]];
        if parameters == f32 {
            operations.push(Operation::Step(Router::Input));
        }
        cases.extend(operations.into_iter().map(|operation| Case::new(operation, shape).stored_as(elements)));
    }
    // What activations in half precision are too coarse or too narrow for, bf16's range is not.
    for inputs in [Inputs::Huge, Inputs::Tiny] {
        let case = Case::new(Operation::Step(Router::Input), Shape::new(21, [36, 28], [4, 3]));
        cases.push(case.in_half(Element::Bf16).with_inputs(inputs));
    }
}

fn optimiser(cases: &mut Vec<Case>) {
    for clip in [false, true] {
        let operation = Operation::AdamW { clip };
        for shape in [Shape::new(1, [1, 1], [1, 1]), Shape::new(1, [36, 28], [4, 3])] {
            cases.push(Case::new(operation, shape));
        }
        for inputs in [Inputs::Zeros, Inputs::OneHot, Inputs::Huge, Inputs::Tiny, Inputs::Denormal] {
            cases.push(Case::new(operation, Shape::new(1, [36, 28], [4, 3])).with_inputs(inputs));
        }
    }
    // The last one is more than one round of the norm's four loads.
    for shape in
        [Shape::new(1, [1, 1], [1, 1]), Shape::new(1, [37, 27], [3, 4]), Shape::new(1, [1500, 1200], [8, 4])]
    {
        cases.push(Case::new(Operation::AdamWNorms, shape));
    }
    cases.push(Case::new(Operation::AdamW { clip: true }, Shape::new(1, [700, 900], [8, 4])));
    for shape in [Shape::new(1, [36, 28], [4, 3]), Shape::new(1, [700, 900], [8, 4])] {
        cases.push(Case::new(Operation::AdamWBuffers, shape));
        cases.extend([false, true].map(|clip| Case::new(Operation::AdamWGroups { clip }, shape)));
    }
}

/// The most experts that a device's workgroup memory holds at a rank, for each kernel that has such a
/// limit.
pub fn largest(device: &DeviceProfile) -> Vec<Case> {
    let planner = &Planner::new(device.clone());
    let mut cases = Vec::new();
    for router in ROUTERS {
        for operation in [Operation::Forward(router), Operation::BackwardInput(router)] {
            for rank in [1, 64] {
                let case = |experts| Case::new(operation, Shape::new(3, [8, 8], [rank, experts]));
                let fits = |&experts: &u32| case(experts).job().ops.iter().all(|op| op.plan(planner).is_ok());
                // Experts that fit come before those that do not; powers of two bracket the last.
                let Some(most) = (0..16).map(|power| 1 << power).take_while(fits).last() else { continue };
                let (mut least, mut beyond) = (most, 2 * most);
                while beyond - least > 1 {
                    let middle = u32::midpoint(least, beyond);
                    if fits(&middle) { least = middle } else { beyond = middle }
                }
                cases.push(case(least));
            }
        }
    }
    cases
}

/// Options of a layer and of an operation on it, which may not go together.
fn options() -> impl Strategy<Value = (Router, Shape, bool, GateRows, Option<GateGradient>)> {
    let rows = || prop::sample::select(&[GateRows::Token, GateRows::Sequence(5), GateRows::Batch][..]);
    let weighting = prop_oneof![
        3 => Just(Weighting::Softmax),
        3 => (1u32..5, any::<bool>()).prop_map(|(k, renormalise)| Weighting::TopK { k, renormalise }),
        1 => Just(Weighting::Sigmoid),
        1 => Just(Weighting::NormalisedSigmoid),
    ];
    let dropout = prop::option::of((
        prop::sample::select(&[5, 50, 90][..]),
        prop::sample::select(&[DropoutOf::Input, DropoutOf::Latent][..]),
    ));
    let added = prop_oneof![
        3 => Just(None),
        1 => rows().prop_map(|rows| Some(GateGradient::Weights(rows))),
        1 => rows().prop_map(|rows| Some(GateGradient::Logits(rows))),
        1 => Just(Some(GateGradient::Losses)),
    ];
    (
        prop::sample::select(&[Router::Input, Router::Latent, Router::GivenWeights, Router::GivenLogits][..]),
        weighting,
        (any::<bool>(), any::<bool>(), any::<bool>()),
        prop::sample::select(&[100, 100, 40, 250][..]),
        dropout,
        any::<bool>(),
        rows(),
        added,
    )
        .prop_map(
            |(
                router,
                weighting,
                (separate, router_bias, logsumexp),
                temperature,
                dropout,
                mask,
                rows,
                added,
            )| {
                let a = if separate { Sharing::Separate } else { Sharing::Shared };
                let plain = Shape::new(1, [1, 1], [1, 1]);
                let shape = Shape { a, weighting, router_bias, temperature, logsumexp, dropout, ..plain };
                (router, shape, mask, rows, added)
            },
        )
}

impl Case {
    /// The same with options, as far as the layer and its operations take them together.
    fn with_options(
        self,
        (router, of, mask, gates, gate_gradient): (Router, Shape, bool, GateRows, Option<GateGradient>),
    ) -> Self {
        let operation = match self.operation {
            Operation::Inference(_) => Operation::Inference(router),
            Operation::Forward(_) => Operation::Forward(router),
            Operation::BackwardInput(_) => Operation::BackwardInput(router),
            Operation::BackwardParams(_) => Operation::BackwardParams(router),
            Operation::Step(_) if gate_gradient == Some(GateGradient::Losses) => {
                Operation::StepWithLosses(router)
            }
            Operation::Step(_) => Operation::Step(router),
            _ => return self,
        };
        let Shape { tokens, d_in, d_out, rank, experts, .. } = self.shape;
        let shape = Shape { tokens, d_in, d_out, rank, experts, ..of };
        let is_given = matches!(router, Router::GivenWeights | Router::GivenLogits);
        let gates = if is_given { gates } else { GateRows::Token };
        let takes_gradient = matches!(operation, Operation::BackwardInput(_) | Operation::Step(_));
        let gate_gradient = gate_gradient.filter(|_| takes_gradient && operation != self.operation);
        if shape.config(router).layout().is_err() {
            return self;
        }
        let case = Self { operation, shape, gates, gate_gradient, mask, ..self.clone() };
        let planner = Planner::new(DeviceProfile::new(wgpu::Limits::default(), 256));
        if case.job().ops.iter().all(|op| op.plan(&planner).is_ok()) { case } else { self }
    }
}

/// Random cases: any operation on any small shape, half of them with options.
pub fn random() -> impl Strategy<Value = Case> {
    let operations: Vec<Operation> = ROUTERS.into_iter().flat_map(adapter).chain(LINEAR).collect();
    (
        prop::sample::select(operations),
        (1u32..150, [1u32..150, 1u32..150], [1u32..20, 1u32..9]),
        any::<bool>(),
        prop::sample::select(&Inputs::FINITE[..]),
        any::<bool>(),
        prop_oneof![
            1 => Just(Planning::Device),
            1 => Just(Planning::Wide),
            1 => Just(Planning::Software),
            1 => Just(Planning::Divided),
            2 => any::<u32>().prop_map(Planning::Candidate)
        ],
        prop::sample::select(&[Element::F32, Element::F16, Element::Bf16][..]),
        any::<u64>(),
        prop::option::of(options()),
    )
        .prop_map(
            |(
                operation,
                (tokens, widths, ranks),
                accumulate,
                inputs,
                one_allocation,
                planning,
                element,
                seed,
                options,
            )| {
                let half = element != Element::F32;
                let widths = if half { widths.map(|width| width.next_multiple_of(4)) } else { widths };
                let inputs = if half && !IN_HALF.contains(&inputs) { Inputs::Noise } else { inputs };
                let case = Case::new(operation, Shape::new(tokens, widths, ranks));
                let case = if accumulate { case.accumulating() } else { case };
                let case = if half { case.in_half(element) } else { case };
                let placement = if one_allocation { Placement::OneAllocation } else { Placement::Separate };
                let case =
                    Case { placement, seed: Some(seed), ..case.with_inputs(inputs).planned_for(planning) };
                match options {
                    Some(options) => case.with_options(options),
                    None => case,
                }
            },
        )
}
