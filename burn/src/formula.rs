//! The layer in burn's own operations: for devices without the kernels, for reading, and for tests.

use burn::tensor::activation::{sigmoid, softmax};
use burn::tensor::{Bool, Distribution, Tensor};
use hydralora::{Block, Config, DropoutOf, Layout, Router, Sharing, Weighting};

/// The matrices of a layer, cut from its packed parameters.
struct Matrices {
    /// A's rows, and the input router's, as columns: `d_in` x rows.
    shrink: Tensor<2>,
    /// Rows that are A's.
    a_rows: usize,
    /// Columns of the experts' B, one after the other: (experts * rank) x `d_out`.
    expand: Tensor<2>,
    /// The latent router and the router's bias: experts x columns.
    gate: Option<Tensor<2>>,
}

impl Matrices {
    fn of(parameters: &Tensor<1>, config: &Config, layout: &Layout) -> Self {
        let cut = |block: Block| -> Tensor<2> {
            let packed = parameters.clone().narrow(0, block.offset(), block.end() - block.offset());
            packed.reshape([block.rows(), block.stride()]).narrow(1, 0, block.columns())
        };
        Self {
            shrink: cut(layout.shrink()).transpose(),
            a_rows: config.a_rows() as usize,
            expand: cut(layout.expand()),
            gate: layout.gate().map(cut),
        }
    }

    fn a(&self) -> Tensor<2> {
        self.shrink.clone().narrow(1, 0, self.a_rows)
    }
}

/// The adapter's output for each row of x. `gates` are given weights or logits, with a row for each token.
pub fn forward(
    x: Tensor<2>,
    parameters: &Tensor<1>,
    gates: Option<Tensor<2>>,
    mask: Option<Tensor<1>>,
    config: &Config,
    layout: &Layout,
) -> Tensor<2> {
    let matrices = Matrices::of(parameters, config, layout);
    // Nothing of a masked token's x may count, not even a NaN; h is zero then, and so is y.
    let x = match mask {
        Some(mask) => x.mask_fill(mask.equal_elem(0.0).unsqueeze_dim::<2>(1), 0.0),
        None => x,
    };
    let [tokens, _] = x.dims();
    let [rank, experts] = [config.rank, config.experts].map(|n| n as usize);
    let drops = |of| config.dropout.filter(|dropout| dropout.of == of);
    let h = match drops(DropoutOf::Input) {
        Some(dropout) => dropped(x.clone(), dropout.probability).matmul(matrices.a()),
        None => x.clone().matmul(matrices.a()),
    };
    let gates = weights(&x, Some(&h), gates, &matrices, config);
    let h: Tensor<3> = match config.a {
        Sharing::Shared => h.unsqueeze_dim::<3>(1).expand([tokens, experts, rank]),
        Sharing::Separate => h.reshape([tokens, experts, rank]),
    };
    let h = match drops(DropoutOf::Latent) {
        Some(dropout) => dropped(h, dropout.probability),
        None => h,
    };
    let weighted = match gates {
        Some(gates) => h * gates.unsqueeze_dim(2),
        None => h,
    };
    weighted.reshape([tokens, experts * rank]).matmul(matrices.expand) * config.scaling
}

/// The experts' weights for each row of x.
pub fn gates(x: &Tensor<2>, parameters: &Tensor<1>, config: &Config, layout: &Layout) -> Tensor<2> {
    let matrices = Matrices::of(parameters, config, layout);
    let [tokens, _] = x.dims();
    let one = || Tensor::<2>::ones([tokens, config.experts as usize], &x.device()).cast(x.dtype());
    weights(x, None, None, &matrices, config).unwrap_or_else(one)
}

/// The experts' weights; none if there is one expert with weight 1. A latent router reads `h`, with what has been dropped of x,
/// or A x.
fn weights(
    x: &Tensor<2>,
    h: Option<&Tensor<2>>,
    given: Option<Tensor<2>>,
    matrices: &Matrices,
    config: &Config,
) -> Option<Tensor<2>> {
    let rank = config.rank as usize;
    let latent = |gate: &Tensor<2>| {
        let h = h.cloned().unwrap_or_else(|| x.clone().matmul(matrices.a()));
        h.matmul(gate.clone().narrow(1, 0, rank).transpose())
    };
    let [_, rows] = matrices.shrink.dims();
    let logits = match (config.router, &matrices.gate) {
        (Router::GivenWeights, _) => return given,
        (Router::GivenLogits, _) => given?,
        (Router::Input, _) if rows == matrices.a_rows => return None,
        (Router::Input, _) => {
            x.clone().matmul(matrices.shrink.clone().narrow(1, matrices.a_rows, rows - matrices.a_rows))
        }
        (Router::Latent, Some(gate)) => latent(gate),
        (Router::Latent, None) => return None,
    };
    let logits = match &matrices.gate {
        Some(gate) if config.router_bias => {
            let [_, columns] = gate.dims();
            logits + gate.clone().narrow(1, columns - 1, 1).transpose()
        }
        _ => logits,
    };
    Some(weigh(logits / config.temperature, config.weighting))
}

fn weigh(logits: Tensor<2>, weighting: Weighting) -> Tensor<2> {
    match weighting {
        Weighting::Softmax => softmax(logits, 1),
        Weighting::TopK { k, renormalise } => {
            let weights = softmax(logits, 1);
            let others = chosen(&weights, k).bool_not();
            let weights = weights.mask_fill(others, 0.0);
            if renormalise { weights.clone() / weights.sum_dim(1) } else { weights }
        }
        Weighting::Sigmoid => sigmoid(logits),
        Weighting::NormalisedSigmoid => {
            let weights = sigmoid(logits);
            weights.clone() / (weights.sum_dim(1) + 1e-20)
        }
    }
}

/// The `k` largest of each row; of equal ones, those before the others.
fn chosen(weights: &Tensor<2>, k: u32) -> Tensor<2, Bool> {
    let [tokens, experts] = weights.dims();
    let weights = weights.clone().detach();
    let all = [tokens, experts, experts];
    let own: Tensor<3> = weights.clone().unsqueeze_dim::<3>(2).expand(all);
    let other: Tensor<3> = weights.unsqueeze_dim::<3>(1).expand(all);
    // True where the other comes before.
    let before = Tensor::<2, Bool>::tril_mask([experts, experts], -1, &own.device()).bool_not();
    let before = before.unsqueeze_dim::<3>(0).expand(all);
    let larger = other.clone().greater(own.clone()).bool_or(other.equal(own).bool_and(before));
    let rank: Tensor<2> = larger.float().sum_dim(2).squeeze_dim(2);
    rank.lower_elem(k as f32)
}

/// burn's dropout: other elements than the kernels drop, with the same probability.
fn dropped<const D: usize>(x: Tensor<D>, probability: f32) -> Tensor<D> {
    let keep = f64::from(1.0 - probability);
    let kept = x.random_like(Distribution::Bernoulli(keep));
    x * kept / keep
}
